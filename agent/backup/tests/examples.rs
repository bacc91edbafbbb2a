//! Backups that were made once, and stay readable for ever.
//!
//! `FLIPSIDE_MAKE_EXAMPLE=NAME` makes another with today's code, in `tests/backup_examples/NAME`; those that
//! are there are never changed. Begin at two minutes to the full hour with `FLIPSIDE_EXAMPLE_LEVELS=1`, and the
//! example holds objects of all levels. An independent reader restores the same ones (`tests/backup_reader.py`).

#![expect(
    clippy::unwrap_used,
    reason = "a test that may panic, in functions that clippy does not take for tests"
)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use flipside_backup::{
    chain::{Catalog, ChainId, Position},
    crypt::{HostKey, Identities, Recipients},
    follow::{Config, Control, run},
    media::{Reader, Writer},
    restore::{Source, Target, restore},
    state::signing_key,
    store::{self, Store},
};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

mod bed;

/// What an example's `expected.json` says.
#[derive(Serialize, Deserialize)]
struct Expected {
    host: String,
    name: String,
    /// Position to the BLAKE3 of the database there.
    positions: BTreeMap<String, String>,
    set: String,
    /// List to path to the BLAKE3 of the file.
    media: BTreeMap<String, BTreeMap<String, String>>,
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/backup_examples").canonicalize().unwrap()
}

fn identity() -> (String, Identities) {
    let text = fs::read_to_string(examples().join("identity.txt")).unwrap();
    let recipient = text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
    (recipient, Identities::parse("identity.txt", &text).unwrap())
}

fn hash(path: &Path) -> String {
    blake3::hash(&fs::read(path).unwrap()).to_hex().to_string()
}

#[test]
fn every_example_restores_to_what_was_written_down_when_it_was_made() {
    if let Ok(name) = std::env::var("FLIPSIDE_MAKE_EXAMPLE") {
        Maker::new(&name).make();
    }
    let mut read = 0;
    for entry in fs::read_dir(examples()).unwrap() {
        let example = entry.unwrap().path();
        if example.is_dir() {
            check(&example);
            read += 1;
        }
    }
    assert!(read > 0);
}

fn check(example: &Path) {
    let expected: Expected =
        serde_json::from_slice(&fs::read(example.join("expected.json")).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = store::open(example.join("repo").to_str().unwrap()).unwrap();
    let host: HostKey = expected.host.parse().unwrap();
    let identities = Arc::new(identity().1);
    for (position, digest) in &expected.positions {
        let position: Position = position.parse().unwrap();
        let source = Source {
            store: Arc::clone(&store),
            identities: Arc::clone(&identities),
            name: Some(expected.name.clone()),
            chain: None,
            host: Some(host),
        };
        let to = dir.path().join(format!("{}.db", position.seq));
        let restored = restore(&source, Target::Position(position), &to, &mut |_| {}).unwrap();
        assert_eq!((restored.position, &hash(&to)), (position, digest), "{}", example.display());
    }
    let set: ChainId = expected.set.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (id, files) in &expected.media {
        let out = dir.path().join(id);
        runtime.block_on(async {
            let reader = Reader::new(&*store, set, &identities, Some(host));
            let list = reader.list(id).await.unwrap();
            reader.restore(&list, &[], &out).await.unwrap();
        });
        let restored = files.keys().map(|path| (path.clone(), hash(&out.join(path)))).collect();
        assert_eq!(files, &restored);
    }
}

/// Makes one example.
struct Maker {
    work: tempfile::TempDir,
    example: PathBuf,
    expected: Expected,
}

impl Maker {
    fn new(name: &str) -> Self {
        let example = examples().join(name);
        fs::create_dir(&example).expect("an example that is there is never changed");
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        let expected = Expected {
            host: String::new(),
            name: "blog".into(),
            positions: BTreeMap::new(),
            set: String::new(),
            media: BTreeMap::new(),
        };
        Self { work, example, expected }
    }

    fn db(&self) -> PathBuf {
        self.work.path().canonicalize().unwrap().join("blog.db")
    }

    fn store(&self) -> Arc<dyn Store> {
        store::open(self.example.join("repo").to_str().unwrap()).unwrap()
    }

    fn config(&self) -> Config {
        let other = age::x25519::Identity::generate().to_public().to_string();
        let state = self.work.path().join("state");
        let mut config = Config::new(&self.db(), self.store(), vec![other, identity().0], &state);
        config.name = self.expected.name.clone();
        config.rpo = Duration::from_millis(20);
        config
    }

    /// What is committed now is stored, and written down.
    fn note(&mut self, following: &bed::Following) {
        let position = following.backup();
        let image = self.work.path().join("image.db");
        let source = Source {
            store: self.store(),
            identities: identity().1.into(),
            name: None,
            chain: None,
            host: None,
        };
        let _ = fs::remove_file(&image);
        restore(&source, Target::Position(position), &image, &mut |_| {}).unwrap();
        // What is written down is what the app sees, not only what a restore gives.
        assert_eq!(bed::dump(&image), bed::dump(&self.db()));
        self.expected.positions.insert(position.to_string(), hash(&image));
    }

    fn make(mut self) {
        let app = Connection::open(self.db()).unwrap();
        app.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB, n INT)")
            .unwrap();
        bed::insert(&app, 60);
        let following = bed::Following::new(self.config());
        self.note(&following);
        for statement in [
            "UPDATE t SET n = n + 1 WHERE id % 7 = 0",
            "INSERT INTO t(x) VALUES(zeroblob(20000))",
            "PRAGMA wal_checkpoint(passive)",
            "DELETE FROM t WHERE id % 3 = 0",
            "VACUUM",
            "CREATE INDEX i ON t(n)",
            "UPDATE t SET x = randomblob(90) WHERE id < 20",
        ] {
            app.execute_batch(statement).unwrap();
            self.note(&following);
        }
        self.levels(&app, &following);
        following.stop().unwrap();
        // A gap: nobody follows, the log is restarted, and the database grows past one part of a snapshot.
        app.execute_batch(
            "UPDATE t SET n = -n; PRAGMA wal_checkpoint(truncate); DELETE FROM t WHERE n < -50",
        )
        .unwrap();
        let following = bed::Following::new(self.config());
        self.note(&following);
        app.execute_batch("CREATE TABLE large AS SELECT zeroblob(17500000) AS x").unwrap();
        self.note(&following);
        let before = following.control.status().snapshot_ms;
        following.control.snapshot_now();
        following.until("a snapshot", |status| status.snapshot_ms > before);
        app.execute_batch("DROP TABLE large; VACUUM").unwrap();
        self.note(&following);
        following.stop().unwrap();
        // Another page size.
        app.execute_batch(
            "PRAGMA journal_mode=delete; PRAGMA page_size=1024; VACUUM; PRAGMA journal_mode=wal",
        )
        .unwrap();
        let mut config = self.config();
        config.once = true;
        run(&config, &Control::new()).unwrap();
        let following = bed::Following::new(self.config());
        self.note(&following);
        app.execute_batch("UPDATE t SET n = 7 WHERE id % 5 = 0").unwrap();
        self.note(&following);
        following.stop().unwrap();
        self.media();
        let text = serde_json::to_string_pretty(&self.expected).unwrap() + "\n";
        File::create(self.example.join("expected.json")).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Commits until the hour is full and both upper levels have an object.
    fn levels(&mut self, app: &Connection, following: &bed::Following) {
        if std::env::var_os("FLIPSIDE_EXAMPLE_LEVELS").is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let chain: ChainId = following.control.status().chain.parse().unwrap();
        loop {
            app.execute_batch("UPDATE t SET n = n + 1 WHERE id % 11 = 0").unwrap();
            self.note(following);
            let catalog = runtime.block_on(Catalog::load(&*self.store(), chain)).unwrap();
            if catalog.level(1).count() > 0 && catalog.level(2).count() > 0 {
                return;
            }
            std::thread::sleep(Duration::from_secs(6));
        }
    }

    fn media(&mut self) {
        let top = self.work.path().join("media");
        let write = |path: &str, content: &[u8]| {
            let path = top.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().write_all(content).unwrap();
        };
        write("photos/a.txt", b"a picture, as it were\n");
        write("photos/copy of a.txt", b"a picture, as it were\n");
        write("100%/empty", b"");
        write("large.bin", &vec![7; (4 << 20) + 5]);
        std::os::unix::fs::symlink("photos/a.txt", top.join("newest")).unwrap();
        let host = signing_key(&self.work.path().join("state/signing.key")).unwrap();
        let set = ChainId::random();
        self.expected.set = set.to_string();
        self.expected.host = HostKey(host.verifying_key().to_bytes()).to_string();
        let recipients = Recipients::parse(&[identity().0]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for round in 0..2 {
            let store = self.store();
            let writer = Writer {
                store: &*store,
                set,
                name: "blog media".into(),
                recipients: &recipients,
                host: &host,
                state: self.work.path().join("list.json"),
            };
            let report = runtime.block_on(writer.run(&top)).unwrap();
            let mut files = ["photos/a.txt", "photos/copy of a.txt", "100%/empty", "large.bin"];
            if round == 1 {
                files[3] = "new.txt";
            }
            let files = files.iter().map(|path| ((*path).to_owned(), hash(&top.join(path)))).collect();
            self.expected.media.insert(report.list.unwrap(), files);
            fs::rename(top.join("large.bin"), top.join("photos/large.bin")).unwrap_or_default();
            write("new.txt", b"new");
        }
    }
}
