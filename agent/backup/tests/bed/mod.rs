//! A database, a store and a follower to try things on.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that may panic, in functions that clippy does not take for tests"
)]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use age::secrecy::ExposeSecret;
use flipside_backup::{
    chain::Position,
    crypt::Identities,
    follow::{Config, Control, FollowError, run},
    restore::{RestoreError, Restored, Source, Target, restore},
    store,
};
use rusqlite::Connection;

pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Bed {
    pub dir: tempfile::TempDir,
    pub identity: age::x25519::Identity,
}

impl Bed {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), identity: age::x25519::Identity::generate() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        // No part of a database's path may be a link, and /tmp may be one.
        self.dir.path().canonicalize().unwrap().join(name)
    }

    pub fn db(&self) -> PathBuf {
        self.path("app.db")
    }

    pub fn open(&self) -> Connection {
        let connection = Connection::open(self.db()).unwrap();
        connection.execute_batch("PRAGMA busy_timeout=20000; PRAGMA synchronous=off").unwrap();
        connection
    }

    /// A database with a log and a table of some rows.
    pub fn seeded(&self, rows: u32) -> Connection {
        self.sized(4096, rows)
    }

    /// The same, with pages of this size.
    pub fn sized(&self, page: u32, rows: u32) -> Connection {
        let connection = self.open();
        connection
            .execute_batch(&format!(
                "PRAGMA page_size={page}; PRAGMA journal_mode=wal; CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB, n INT)"
            ))
            .unwrap();
        insert(&connection, rows);
        connection
    }

    pub fn store(&self) -> Arc<dyn store::Store> {
        store::open(self.path("repo").to_str().unwrap()).unwrap()
    }

    pub fn config(&self) -> Config {
        let recipients = vec![self.identity.to_public().to_string()];
        let mut config = Config::new(&self.db(), self.store(), recipients, &self.path("state"));
        config.rpo = Duration::from_millis(40);
        config
    }

    pub fn follow(&self) -> Following {
        Following::new(self.config())
    }

    pub fn once(&self) -> Position {
        let mut config = self.config();
        config.once = true;
        run(&config, &Control::new()).unwrap().unwrap()
    }

    pub fn source(&self) -> Source {
        let secret = self.identity.to_string();
        let identities = Identities::parse("the test's", secret.expose_secret()).unwrap();
        Source { store: self.store(), identities: identities.into(), name: None, chain: None, host: None }
    }

    pub fn restore(&self, target: Target, to: &str) -> Result<Restored, RestoreError> {
        restore(&self.source(), target, &self.path(to), &mut |_| {})
    }

    /// Restores and compares with the live database, by content.
    pub fn same(&self, target: Target) {
        let name = format!("restored-{}.db", rand_name());
        let restored = self.restore(target, &name).unwrap();
        assert_eq!(dump(&self.path(&name)), dump(&self.db()), "at {}", restored.position);
        let check = Connection::open(self.path(&name)).unwrap();
        let verdict: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
    }

    /// Every object's key and bytes.
    pub fn objects(&self) -> Vec<(String, u64)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let entries = runtime.block_on(self.store().list("")).unwrap();
        entries.into_iter().map(|entry| (entry.key, entry.size)).collect()
    }
}

pub fn rand_name() -> u64 {
    rand::random()
}

pub fn insert(connection: &Connection, rows: u32) {
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    for n in 0..rows {
        connection.execute("INSERT INTO t(x, n) VALUES(randomblob(200), ?1)", [n]).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
}

/// All content, as text: every table's rows in order of their keys.
pub fn dump(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA busy_timeout=20000; BEGIN").unwrap();
    let mut lines = Vec::new();
    let mut tables = connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").unwrap();
    let tables: Vec<(String, Option<String>)> =
        tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    for (name, sql) in &tables {
        lines.push(format!("{name}: {sql:?}"));
        if !sql.as_deref().unwrap_or_default().starts_with("CREATE TABLE") {
            continue;
        }
        let mut rows = connection.prepare(&format!("SELECT * FROM \"{name}\" ORDER BY 1")).unwrap();
        let columns = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<rusqlite::types::Value> = (0..columns).map(|i| row.get(i).unwrap()).collect();
            lines.push(format!("{values:?}"));
        }
    }
    lines
}

pub struct Following {
    pub control: Control,
    thread: Option<JoinHandle<Result<Option<Position>, FollowError>>>,
}

impl Following {
    pub fn new(config: Config) -> Self {
        let control = Control::new();
        let inner = control.clone();
        Self { control, thread: Some(std::thread::spawn(move || run(&config, &inner))) }
    }

    /// Everything committed until now is stored.
    pub fn backup(&self) -> Position {
        self.control.backup_now(PATIENCE).unwrap()
    }

    pub fn stop(mut self) -> Result<Option<Position>, FollowError> {
        self.control.stop();
        self.thread.take().unwrap().join().unwrap()
    }

    /// Waits until the follower is in a state; the state is looked at again and again.
    pub fn until(&self, what: &str, so: impl Fn(&flipside_backup::follow::Status) -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !so(&self.control.status()) {
            assert!(std::time::Instant::now() < deadline, "never: {what}: {:?}", self.control.status());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.control.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
