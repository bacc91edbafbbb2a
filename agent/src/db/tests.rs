//! The database against a real file.

use flipside_api::{AppName, AppSpec, Outcome, ReleaseId, State, Who};

use super::*;
use crate::app::{
    deployment::{Event, Step},
    record::{App, Begin},
};

fn blog() -> AppName {
    "blog".parse().unwrap()
}

fn release(version: &str) -> ReleaseId {
    ReleaseId::of(version, b"{}").unwrap()
}

fn app() -> App {
    let spec: AppSpec = serde_json::from_value(serde_json::json!({
        "app": "blog", "template": "t", "domains": ["b.org"], "public_url": "https://b.org" }))
    .unwrap();
    App { spec, env: b"sealed".to_vec(), release: release("1"), stopped: false }
}

fn begin(id: &str) -> Begin {
    Begin {
        id: id.into(),
        app: blog(),
        verb: "deploy".into(),
        release: Some(release("2")),
        previous: Some(release("1")),
        who: Who { via: "salt".into(), user: "ann".into(), id: Some("jid1".into()), uid: Some(7) },
        at: 1,
        work: Some("{}".into()),
        env: Some(b"sealed".to_vec()),
    }
}

fn open() -> (tempfile::TempDir, Db) {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(&folder.path().join("agent.db")).unwrap();
    (folder, db)
}

#[tokio::test]
async fn an_app_is_remembered_and_forgotten() {
    let (folder, db) = open();
    assert_eq!(db.app(&blog()).await.unwrap(), None);
    db.begin(begin("d1")).await.unwrap();
    db.end("d1", &Outcome::good(State::Deployed, ""), 2, Some(app())).await.unwrap();
    db.set_stopped(&blog(), true).await.unwrap();
    drop(db);
    let db = Db::open(&folder.path().join("agent.db")).unwrap();
    assert_eq!(db.apps().await.unwrap(), [App { stopped: true, ..app() }]);
    db.forget_app(&blog()).await.unwrap();
    assert_eq!(db.apps().await.unwrap(), []);
}

#[tokio::test]
async fn what_is_kept_is_made_once() {
    let (_folder, db) = open();
    assert_eq!(db.kept(&blog(), "key").await.unwrap(), None);
    assert_eq!(db.keep(&blog(), "key", vec![1]).await.unwrap(), [1]);
    assert_eq!(db.keep(&blog(), "key", vec![2]).await.unwrap(), [1]);
}

#[tokio::test]
async fn a_deployment_is_found_again_until_it_has_ended() {
    let (folder, db) = open();
    db.begin(begin("d1")).await.unwrap();
    db.record("d1", Event::Started(Step::Fetch), 2, String::new()).await.unwrap();
    db.record("d1", Event::Done(Step::Fetch), 3, "copied".into()).await.unwrap();
    drop(db);
    let db = Db::open(&folder.path().join("agent.db")).unwrap();
    let found = db.unfinished().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].events, [Event::Started(Step::Fetch), Event::Done(Step::Fetch)]);
    assert_eq!(found[0].begin.who.id.as_deref(), Some("jid1"));
    assert_eq!(found[0].begin.env.as_deref(), Some(&b"sealed"[..]));

    let outcome = Outcome::good(State::Deployed, "done");
    db.end("d1", &outcome, 9, Some(app())).await.unwrap();
    assert!(db.unfinished().await.unwrap().is_empty());
    assert_eq!(db.answered("jid1", "deploy", &blog()).await.unwrap(), Some(outcome.clone()));
    assert_eq!(db.answered("jid1", "reload", &blog()).await.unwrap(), None);
    assert_eq!(db.app(&blog()).await.unwrap(), Some(app()));
    let history = db.history(&blog(), 5).await.unwrap();
    assert_eq!((history[0].ended, history[0].outcome.as_ref()), (Some(9), Some(&outcome)));
}

#[tokio::test]
async fn an_answer_is_kept() {
    let (_folder, db) = open();
    let outcome = Outcome::good(State::Ok, "reloaded");
    db.answer(("jid9", "reload", &blog()), &outcome, 1).await.unwrap();
    assert_eq!(db.answered("jid9", "reload", &blog()).await.unwrap(), Some(outcome));
}

#[tokio::test]
async fn history_is_newest_first_and_bounded() {
    let (_folder, db) = open();
    for id in ["d1", "d2", "d3"] {
        db.begin(begin(id)).await.unwrap();
        db.end(id, &Outcome::good(State::Deployed, ""), 2, None).await.unwrap();
    }
    let ids: Vec<String> = db.history(&blog(), 2).await.unwrap().into_iter().map(|entry| entry.id).collect();
    assert_eq!(ids, ["d3", "d2"]);
    for n in 0..120 {
        let run = Begin { verb: "run".into(), ..begin(&format!("r{n}")) };
        db.begin(run).await.unwrap();
        db.end(&format!("r{n}"), &Outcome::good(State::Ok, ""), 2, None).await.unwrap();
    }
    let all = db.history(&blog(), 1000).await.unwrap();
    assert_eq!((all.len(), all[0].id.as_str(), all[102].id.as_str()), (103, "r119", "d1"));
}

#[test]
fn a_newer_file_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.db");
    drop(Db::open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let error = Db::open(&path).unwrap_err().to_string();
    assert!(error.contains("newer agent") && error.contains("99"), "{error}");
}

fn about(deployment: Option<&str>, request: Option<&str>) -> outbox::About {
    let text = |text: &str| text.to_owned();
    let (deployment, request) = (deployment.map(text), request.map(text));
    outbox::About { deployment, app: "blog".into(), verb: "deploy".into(), request }
}

#[tokio::test]
async fn an_end_without_an_answer_is_found_until_it_has_one() {
    let (_folder, db) = open();
    for id in ["d1", "d2", "d3"] {
        db.begin(begin(id)).await.unwrap();
    }
    db.end("d1", &Outcome::good(State::Deployed, "one"), 10, None).await.unwrap();
    db.end("d2", &Outcome::good(State::Deployed, "two"), 20, None).await.unwrap();
    let lost = async |since, until| {
        let found = db.unannounced(since, until).await.unwrap();
        found.into_iter().map(|lost| lost.outcome.comment).collect::<Vec<_>>()
    };
    assert_eq!(lost(0, 100).await, ["one", "two"]);
    assert_eq!(lost(15, 100).await, ["two"]);
    db.announce(about(Some("d2"), None), "t".into(), "{}".into(), 30).await.unwrap();
    assert_eq!(lost(0, 100).await, ["one"]);
    db.announce(about(None, Some("another")), "t".into(), "{}".into(), 30).await.unwrap();
    assert_eq!(lost(0, 100).await, ["one"]);
    db.announce(about(None, Some("jid1")), "t".into(), "{}".into(), 30).await.unwrap();
    assert!(lost(0, 100).await.is_empty());
}

#[tokio::test]
async fn answers_wait_in_order_and_the_oldest_go_first() {
    let (folder, db) = open();
    for n in 0..2003 {
        db.announce(about(None, None), format!("t/{n}"), "{\"a\":1}".into(), n).await.unwrap();
    }
    drop(db);
    let db = Db::open(&folder.path().join("agent.db")).unwrap();
    let tags = async |rows, bytes| {
        let waiting = db.waiting(rows, bytes).await.unwrap();
        waiting.into_iter().map(|waiting| waiting.tag).collect::<Vec<_>>()
    };
    assert_eq!(tags(2, 1000).await, ["t/3", "t/4"]);
    assert_eq!(tags(9, 15).await, ["t/3", "t/4"]);
    assert_eq!(tags(9, 0).await, ["t/3"]);
    let seq = db.waiting(2, 1000).await.unwrap()[1].seq;
    db.taken(seq).await.unwrap();
    assert_eq!(tags(1, 1000).await, ["t/5"]);
}

#[tokio::test]
async fn a_file_of_the_first_version_is_copied_and_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.db");
    let first = rusqlite::Connection::open(&path).unwrap();
    first.execute_batch(migrate::STEPS[0]).unwrap();
    first
        .execute_batch(
            "INSERT INTO deployments (id, app, verb, via, user, started, ended, outcome)
                VALUES ('d1', 'blog', 'deploy', '', '', 1, 2, '{}');
             PRAGMA user_version = 1",
        )
        .unwrap();
    drop(first);
    let db = Db::open(&path).unwrap();
    assert!(db.unannounced(0, 100).await.unwrap().is_empty());
    assert!(folder.path().join("agent.db.v1").exists());
}

#[test]
fn nobody_else_may_read_what_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.db");
    // As an earlier agent left it.
    let old = Connection::open(&path).unwrap();
    old.execute_batch(&format!("PRAGMA journal_mode=WAL; {} PRAGMA user_version = 1;", migrate::STEPS[0]))
        .unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let _db = Db::open(&path).unwrap();
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()).collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    for entry in &names {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
    assert!(names.len() >= 4, "agent.db, its copy, -shm and -wal: {names:?}");
}
