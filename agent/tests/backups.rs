//! Backups as the agent makes them: real databases, real children as another user, a real store; only uWSGI is
//! played.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    reason = "each test file uses its own part of it"
)]
mod common;
#[path = "../backup/tests/moto/mod.rs"]
mod moto;

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Agent, FakeRuntime, put, spec};
use flipside_agent::app::record::{App, Begin};
use flipside_api::{Backup, Code, Command, History, Outcome, ReleaseId, Restore, State, Who};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// A folder with an app that was deployed, and its database.
struct Bed {
    folder: tempfile::TempDir,
    runtime: Arc<FakeRuntime>,
    identity: String,
    recipient: String,
    repo: String,
}

/// An agent whose followers run, on threads of its own: what is killed with them does nothing any more.
struct Live {
    agent: Arc<Agent>,
    stop: CancellationToken,
    run: JoinHandle<()>,
    threads: Runtime,
}

impl Bed {
    async fn new() -> Self {
        use age::secrecy::ExposeSecret;
        let folder = tempfile::Builder::new().prefix("backups-").tempdir_in("/var/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let identity = age::x25519::Identity::generate();
        let mut bed = Self {
            folder,
            runtime: Arc::default(),
            recipient: identity.to_public().to_string(),
            repo: String::new(),
            identity: identity.to_string().expose_secret().to_owned(),
        };
        bed.repo = bed.store().display().to_string();
        bed.deployed(&bed.agent("")).await;
        bed
    }

    fn agent(&self, more: &str) -> Agent {
        let more =
            format!("[backup]\nrepo = \"{}\"\nrecipients = [\"{}\"]\n{more}", self.repo, self.recipient);
        Agent::configured(self.folder.path(), Arc::clone(&self.runtime), "http://127.0.0.1:1", &more)
    }

    /// In a folder that only we may enter.
    fn store(&self) -> PathBuf {
        self.folder.path().join("closed/store")
    }

    /// The app, as a deploy leaves it.
    async fn deployed(&self, agent: &Agent) {
        let (paths, release) = (agent.paths(), ReleaseId::of("1.0", b"x").unwrap());
        for folder in [paths.data(), self.store()] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::set_permissions(self.store().parent().unwrap(), std::fs::Permissions::from_mode(0o700))
            .unwrap();
        std::os::unix::fs::symlink(format!("releases/{release}"), paths.current()).unwrap();
        let app = App { spec: spec(&json!({})), env: Vec::new(), release: release.clone(), stopped: false };
        let begin = Begin {
            id: "1".into(),
            app: app.spec.app.clone(),
            verb: "deploy".into(),
            release: Some(release.clone()),
            previous: None,
            who: Who::default(),
            at: 1,
            work: None,
            env: None,
        };
        agent.host.records.begin(begin).await.unwrap();
        let outcome = Outcome::good(State::Deployed, "");
        agent.host.records.end("1", &outcome, 2, Some(app)).await.unwrap();
        let mut running = self.runtime.0.lock().unwrap();
        (running.listening, running.serves) = (true, Some(release));
        drop(running);
        self.write("CREATE TABLE t (x)");
        self.own(&self.database());
        self.own(&paths.data());
    }

    /// What the app's user has, where we can make it so.
    fn own(&self, path: &Path) {
        if let Some(uid) = app_uid() {
            std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
        }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("apps/blog/data/db.sqlite3")
    }

    fn write(&self, sql: &str) {
        let db = Connection::open(self.database()).unwrap();
        db.busy_timeout(Duration::from_secs(10)).unwrap();
        db.execute_batch(&format!("PRAGMA journal_mode=WAL; {sql}")).unwrap();
    }

    fn rows(&self) -> Vec<String> {
        let db = Connection::open(self.database()).unwrap();
        let mut query = db.prepare("SELECT x FROM t ORDER BY rowid").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn delete(&self) {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", self.database().display()));
        }
    }

    fn live(&self, more: &str) -> Live {
        let (agent, stop) = (Arc::new(self.agent(more)), CancellationToken::new());
        let (stored, until) = (agent.stored.clone().unwrap(), stop.clone());
        let threads = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let run = threads.spawn(async move { stored.run(until).await });
        Live { agent, stop, run, threads }
    }
}

/// The id of the system user `daemon`, the app's in these tests, where we can become it.
fn app_uid() -> Option<u32> {
    nix::unistd::geteuid().is_root().then_some(1)
}

impl Live {
    async fn ask(&self, command: Command) -> Outcome {
        let agent = Arc::clone(&self.agent);
        self.threads.spawn(async move { agent.end(command).await }).await.unwrap()
    }

    async fn backup(&self) -> Outcome {
        self.ask(Command::Backup(Backup { app: "blog".parse().unwrap() })).await
    }

    async fn restore(&self, timestamp: Option<String>, identity: Option<&str>) -> Outcome {
        let identity = identity.map(str::to_owned);
        let app = "blog".parse().unwrap();
        self.ask(Command::Restore(Restore { app, timestamp, database: None, identity, wait: 0 })).await
    }

    async fn status(&self) -> Value {
        let status = self.ask(Command::Status { app: None }).await.data.unwrap();
        status["apps"]["blog"]["backup"]["db.sqlite3"].clone()
    }

    async fn end(self) {
        self.stop.cancel();
        self.run.await.unwrap();
        self.threads.shutdown_background();
    }

    /// As kill -9: nobody says goodbye to the followers.
    fn killed(self) {
        self.threads.shutdown_background();
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_database_comes_back_as_it_was_at_any_time() {
    let bed = Bed::new().await;
    let live = bed.live("");
    bed.write("INSERT INTO t VALUES ('early')");
    let outcome = live.backup().await;
    assert!(outcome.result, "{outcome:?}");
    assert_eq!(outcome.data.unwrap()[0]["database"], "db.sqlite3");
    let early = now();
    bed.write("INSERT INTO t VALUES ('late')");
    assert!(live.backup().await.result);
    let late = now();

    let refused = live.restore(None, None).await;
    assert_eq!((refused.state, refused.error.unwrap().code), (State::Refused, Code::Gate));
    let stranger = age::x25519::Identity::generate();
    let stranger = age::secrecy::ExposeSecret::expose_secret(&stranger.to_string()).to_owned();
    assert_eq!(live.restore(None, Some(&stranger)).await.state, State::Refused);
    assert_eq!(live.agent.calls(), Vec::<String>::new(), "the app was touched by a restore that was refused");

    bed.delete();
    let outcome = live.restore(Some(early), Some(&bed.identity)).await;
    assert!(outcome.result, "{outcome:?}");
    assert_eq!(bed.rows(), ["early"]);
    assert_eq!(live.agent.calls(), ["hold", "start"]);
    if let Some(uid) = app_uid() {
        assert_eq!(std::fs::metadata(bed.database()).unwrap().uid(), uid);
    }

    let outcome = live.restore(Some(late), Some(&bed.identity)).await;
    assert!(outcome.result, "{outcome:?}");
    assert_eq!(bed.rows(), ["early", "late"]);
    let names = std::fs::read_dir(bed.database().parent().unwrap()).unwrap();
    let names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("db.sqlite3.replaced-")), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with(".restoring-")), "{names:?}");
    live.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_survives_its_agent_and_the_next_one_takes_over() {
    let bed = Bed::new().await;
    put(&bed.folder.path().join("key"), bed.identity.as_bytes());
    let more = format!("identity_file = \"{}/key\"", bed.folder.path().display());
    let live = bed.live(&more);
    assert!(live.backup().await.result);
    until("the rehearsal", async || live.status().await["verified_seconds"].is_number()).await;
    let before = objects(&bed.store());
    live.killed();
    bed.write("INSERT INTO t VALUES ('while nobody was there')");
    until("the commit in the store", async || objects(&bed.store()) > before).await;
    bed.delete();

    let live = bed.live(&more);
    let outcome = live.restore(None, None).await;
    assert!(outcome.result, "{outcome:?}");
    assert_eq!(bed.rows(), ["while nobody was there"]);
    until("the follower", async || live.status().await["runs"] == true).await;
    assert!(live.backup().await.result);
    let status = live.status().await;
    assert_eq!((&status["lag_seconds"], &status["error"]), (&json!(0), &Value::Null), "{status}");
    let app = Backup { app: "blog".parse().unwrap() };
    let listed = live.ask(Command::Backups(app.clone())).await.data.unwrap();
    assert_eq!(listed[0]["database"], "db.sqlite3");
    let checked = live.ask(Command::BackupCheck(app)).await;
    assert!(checked.result && checked.data.unwrap()[0]["restored"] == true);
    live.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_may_be_s3() {
    let Some((_moto, endpoint)) = moto::start().await else {
        println!("SKIP: FLIPSIDE_UV is not set, so there is no S3 server to install");
        return;
    };
    moto::make_bucket(&endpoint, "backups").await;
    let mut bed = Bed::new().await;
    bed.repo = format!("s3://backups/all?region=eu-central-1&endpoint={endpoint}");
    let credentials = bed.folder.path().join("credentials");
    put(
        &credentials,
        b"[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = s\naws_session_token = t==\n",
    );
    let more = format!("credentials_file = \"{}\"\nlimit = 50000\nrpo = 1", credentials.display());
    let live = bed.live(&more);
    bed.write("INSERT INTO t VALUES ('in the bucket')");
    let outcome = live.backup().await;
    assert!(outcome.result, "{outcome:?}");
    bed.delete();
    let outcome = live.restore(None, Some(&bed.identity)).await;
    assert!(outcome.result, "{outcome:?}");
    assert_eq!(bed.rows(), ["in the bucket"]);
    assert_eq!(objects(&bed.store()), 0);
    live.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_agent_was_killed_between_two_databases_is_finished() {
    let bed = Bed::new().await;
    bed.write("INSERT INTO t VALUES ('replaced')");
    // As the dead left it: one of two files in place, the app held, the restore on record.
    let (agent, data) = (bed.agent(""), bed.folder.path().join("apps/blog/data"));
    let aside = data.join(".restoring-T");
    std::fs::create_dir(&aside).unwrap();
    for (path, value) in [(aside.join("1"), "first"), (data.join("second.sqlite3"), "second")] {
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        Connection::open(&path).unwrap().execute("INSERT INTO t VALUES (?1)", [value]).unwrap();
        bed.own(&path);
    }
    put(
        &aside.join("swap.json"),
        json!({ "databases": ["second.sqlite3", "db.sqlite3"], "stamp": "T" }).to_string().as_bytes(),
    );
    bed.own(&aside);
    bed.runtime.0.lock().unwrap().serves = None;
    let who = Who { via: "salt".into(), user: "ann".into(), id: Some("jid9".into()), ..Who::default() };
    let begin = Begin {
        id: "2".into(),
        app: "blog".parse().unwrap(),
        verb: "restore".into(),
        release: None,
        previous: None,
        who,
        at: 3,
        work: None,
        env: None,
    };
    agent.host.records.begin(begin).await.unwrap();

    agent.router.resume().await.unwrap();
    agent.router.drain().await;
    assert_eq!(bed.rows(), ["first"]);
    assert_eq!(agent.calls(), ["hold", "start"]);
    assert!(data.join("db.sqlite3.replaced-T").exists() && !aside.exists());
    let history = History { app: "blog".parse().unwrap(), limit: 1 };
    let entry = agent.end(Command::History(history)).await.data.unwrap()[0].clone();
    assert_eq!((&entry["verb"], &entry["state"]), (&json!("restore"), &json!("ok")), "{entry}");
    assert!(agent.host.records.unfinished().await.unwrap().is_empty());
}

/// The segments in the store.
fn objects(folder: &Path) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        count +=
            if path.is_dir() { objects(&path) } else { usize::from(path.parent().unwrap().ends_with("L0")) };
    }
    count
}
