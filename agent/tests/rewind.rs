//! Rollbacks that put the databases back too.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    reason = "each test file uses its own part of it"
)]
mod common;

use std::path::{Path, PathBuf};

use common::{Agent, Bed, OK, deploy, names, package, picture, rollback, spec};
use flipside_api::{Backup, Code, Command, Outcome, Restore, Rollback, State};
use serde_json::json;

const APP: &str = "
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'hello']
";

/// A row more with each release, and a table of its own.
const MIGRATE: &str = "import os, sqlite3
db = sqlite3.connect('db.sqlite3')
db.execute('create table if not exists t (x)')
db.execute('insert into t values (1)')
db.execute('create table v' + os.environ['FLIPSIDE_RELEASE'][0] + ' (x)')
db.commit()
";

fn rows(path: &Path) -> u32 {
    let db = rusqlite::Connection::open(path).unwrap();
    db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

fn kept(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains(".replaced-")).collect()
}

async fn back(agent: &Agent, with_data: bool, test: bool) -> Outcome {
    let allow = if with_data && !test { vec!["data".to_owned()] } else { Vec::new() };
    agent.end(Command::Rollback(Rollback { with_data, test, allow, ..rollback() })).await
}

#[tokio::test]
async fn a_rollback_with_data_says_what_is_lost_and_keeps_it() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let spec = spec(&json!({ "hooks": { "migrate": [["python3", "-c", MIGRATE]] } }));
    let one = package(&agent.folder, "1.0", APP);
    for package in [&one, &package(&agent.folder, "2.0", APP)] {
        let outcome = agent.end(Command::Deploy(Box::new(deploy(spec.clone(), package)))).await;
        assert_eq!(outcome.state, State::Deployed, "{:?}", outcome.error);
    }
    let (data, before) = (agent.paths().data(), picture(&agent));
    let database = data.join("db.sqlite3");
    assert_eq!(rows(&database), 2);
    agent.calls();

    let plan = back(&agent, true, true).await;
    assert_eq!(
        (plan.state, names(&plan).as_str()),
        (State::Planned, "env preflight hold data switch health retire")
    );
    assert!(
        plan.comment.contains("are lost, at least 1 rows: db.sqlite3: t: 1 rows are new"),
        "{}",
        plan.comment
    );
    let refused = agent.end(Command::Rollback(Rollback { with_data: true, ..rollback() })).await;
    assert_eq!(refused.state, State::Refused);
    let error = refused.error.unwrap();
    assert_eq!(error.code, Code::Gate);
    assert!(
        error.message.contains("at least 1 rows") && error.hint.contains("--with-data --yes"),
        "{error:?}"
    );
    assert_eq!((picture(&agent), rows(&database)), (before.clone(), 2));

    agent.runtime.0.lock().unwrap().fail = Some("start");
    let failed = back(&agent, true, false).await;
    assert_eq!(failed.state, State::RolledBack, "{:?}", failed.error);
    assert_eq!((picture(&agent), rows(&database), kept(&data)), (before, 2, vec![]));
    agent.calls();

    let done = back(&agent, true, false).await;
    assert_eq!(
        (done.state, done.release.as_ref()),
        (State::Deployed, Some(&one.release)),
        "{:?}",
        done.error
    );
    assert_eq!(agent.calls(), ["hold", "start"]);
    assert_eq!((rows(&database), kept(&data).len(), rows(&kept(&data)[0])), (1, 1, 2));
}

#[tokio::test]
async fn without_a_mark_it_is_refused_and_code_alone_says_what_the_schema_is() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let spec = spec(&json!({ "hooks": { "migrate": [["python3", "-c", MIGRATE]] } }));
    for version in ["1.0", "2.0"] {
        let package = package(&agent.folder, version, APP);
        let outcome = agent.end(Command::Deploy(Box::new(deploy(spec.clone(), &package)))).await;
        assert_eq!(outcome.state, State::Deployed, "{:?}", outcome.error);
    }
    let marks = agent.paths().marks();
    std::fs::rename(&marks, agent.folder.join("away")).unwrap();
    let error = back(&agent, true, false).await.error.unwrap();
    assert_eq!(error.code, Code::Gate);
    assert!(error.message.contains("has left no mark"), "{}", error.message);

    std::fs::rename(agent.folder.join("away"), &marks).unwrap();
    let code = back(&agent, false, false).await;
    assert_eq!(code.state, State::Deployed, "{:?}", code.error);
    assert!(code.comment.contains("code only: the schema of the databases has changed"), "{}", code.comment);
    assert_eq!(rows(&agent.paths().data().join("db.sqlite3")), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_on_after_a_rollback_with_data_and_knows_what_was_replaced() {
    use age::secrecy::ExposeSecret;
    let bed = Bed::new(OK).await;
    let identity = age::x25519::Identity::generate();
    let store = bed.folder.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let (repo, recipient) = (store.display(), identity.to_public());
    let agent = bed.configured(&format!("[backup]\nrepo = \"{repo}\"\nrecipients = [\"{recipient}\"]\n"));
    let stop = tokio_util::sync::CancellationToken::new();
    let (stored, until) = (agent.stored.clone().unwrap(), stop.clone());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { stored.run(until).await });
    let spec = spec(&json!({ "hooks": { "migrate": [["python3", "-c", MIGRATE]] } }));
    for version in ["1.0", "2.0"] {
        let package = package(&agent.folder, version, APP);
        let outcome = agent.end(Command::Deploy(Box::new(deploy(spec.clone(), &package)))).await;
        assert_eq!(outcome.state, State::Deployed, "{:?}", outcome.error);
    }
    let app = || Backup { app: "blog".parse().unwrap() };
    let database = agent.paths().data().join("db.sqlite3");
    let backup = async || {
        let outcome = agent.end(Command::Backup(app())).await;
        assert!(outcome.result, "{outcome:?}");
        jiff::Timestamp::now().to_string()
    };
    let before = backup().await;
    let done = back(&agent, true, false).await;
    assert_eq!(done.state, State::Deployed, "{:?}", done.error);
    rusqlite::Connection::open(&database).unwrap().execute_batch("INSERT INTO t VALUES (2), (3)").unwrap();
    let after = backup().await;
    let listed = agent.end(Command::Backups(app())).await.data.unwrap();
    let positions = listed.as_array().unwrap().iter().map(|row| row["position"].as_str().unwrap());
    let mut chains: Vec<&str> = positions.map(|position| position.split(':').next().unwrap()).collect();
    chains.dedup();
    assert_eq!(chains.len(), 1, "the chain goes on: {listed}");
    let identity = identity.to_string().expose_secret().to_owned();
    for (time, count) in [(before, 2), (after, 3)] {
        let restore = Restore {
            app: "blog".parse().unwrap(),
            timestamp: Some(time),
            database: None,
            identity: Some(identity.clone()),
            wait: 0,
        };
        let outcome = agent.end(Command::Restore(restore)).await;
        assert!(outcome.result, "{outcome:?}");
        assert_eq!(rows(&database), count);
    }
    stop.cancel();
    while tasks.join_next().await.is_some() {}
}
