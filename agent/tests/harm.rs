//! What hits a deploy from outside: a hook or the builder killed, the clock put back, a second operator.

#![cfg(feature = "faults")]
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    reason = "each test file uses its own part of it"
)]
mod common;

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use common::{Agent, Bed, OK, SICK, deploy, package, picture, rollback, spec};
use flipside_agent::sys::clock;
use flipside_api::{Code, Command, Deploy, History, Outcome, Release, Rollback, State, Who};
use serde_json::{Value, json};

const APP: &str = "
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'hello']
";
const HOUR: i64 = 3_600_000;

async fn deploys(agent: &Agent, more: &Value, version: &str) -> Outcome {
    let package = package(&agent.folder, version, APP);
    agent.end(Command::Deploy(Box::new(deploy(spec(more), &package)))).await
}

fn python(code: &str) -> Value {
    json!([["python3", "-c", code]])
}

async fn history(agent: &Agent) -> Vec<Value> {
    let asked = History { app: "blog".parse().unwrap(), limit: 9 };
    agent.end(Command::History(asked)).await.data.unwrap().as_array().unwrap().clone()
}

/// A program in place of uv that has the real one killed while it installs.
fn mortal_uv(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("uv");
    let real = common::uv().display().to_string();
    let text = format!("#!/bin/sh\n[ \"$1\" = pip ] && kill -9 $$\nexec {real} \"$@\"\n");
    common::put(&path, text.as_bytes());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_killed_hook_or_builder_is_said_and_undone() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    assert_eq!(deploys(&agent, &json!({}), "1.0").await.state, State::Deployed);
    let before = picture(&agent);
    for list in ["prepare", "check", "static", "migrate", "after"] {
        let killed = python("import os; os.kill(os.getpid(), 9)");
        let outcome = deploys(&agent, &json!({ "hooks": { list: killed } }), "2.0").await;
        assert_eq!(outcome.state, State::RolledBack, "{list}");
        let error = outcome.error.unwrap();
        assert!(error.message.contains(list) && error.message.contains("by signal 9"), "{error:?}");
        assert_eq!(picture(&agent), before, "{list}");
    }
    let uv = mortal_uv(&agent.folder);
    let mortal = bed.again_with(&agent, &format!("uv = \"{}\"\n", uv.display()));
    let outcome = deploys(&mortal, &json!({}), "2.0").await;
    assert_eq!((outcome.state, outcome.error.unwrap().code), (State::RolledBack, Code::Build));
    assert_eq!(picture(&mortal), before);
}

#[tokio::test]
async fn a_clock_that_is_put_changes_neither_deadlines_nor_the_order_of_things() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let hooks = json!({ "hooks": { "migrate": python("import sqlite3; sqlite3.connect('db.sqlite3').execute('create table if not exists t (x)')") } });
    let mut wanted = Vec::new();
    for (version, hours) in [("1.0", 0), ("2.0", 5), ("3.0", -7), ("4.0", -3)] {
        clock::put(hours * HOUR);
        let outcome = deploys(&agent, &hooks, version).await;
        assert_eq!(outcome.state, State::Deployed, "{:?}", outcome.error);
        wanted.push(json!(outcome.release));
    }
    wanted.reverse();
    let entries = history(&agent).await;
    let releases: Vec<&Value> = entries.iter().map(|entry| &entry["release"]).collect();
    assert_eq!(releases, wanted.iter().collect::<Vec<_>>());
    assert!(entries.iter().all(|entry| entry["ms"].as_u64().unwrap() < 600_000), "{entries:?}");
    // Its mark is the newest, whatever it is called.
    let asked = Rollback { with_data: true, allow: vec!["data".into()], ..rollback() };
    let back = agent.end(Command::Rollback(asked)).await;
    assert_eq!((back.state, json!(back.release)), (State::Deployed, wanted[1].clone()), "{:?}", back.error);

    // It jumps in the middle of a deadline.
    let sick = Bed::new(SICK).await;
    let agent = sick.agent();
    let jumps = async {
        for hours in [9, -9, 0].into_iter().cycle() {
            clock::put(hours * HOUR);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (begun, patient) = (std::time::Instant::now(), json!({ "health": { "timeout": 3 } }));
    tokio::select! {
        () = jumps => {}
        outcome = deploys(&agent, &patient, "1.0") => {
            let steps = outcome.steps;
            let health = steps.iter().find(|step| step.name == "health").unwrap();
            assert!((2000..60_000).contains(&health.ms), "{health:?}");
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(120));
}

#[tokio::test]
async fn of_two_operators_the_second_is_told_who_is_first_or_waits() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let gate = agent.folder.join("gate");
    let waits = format!(
        "import os, time\nwhile not os.path.exists({:?}): time.sleep(0.02)",
        gate.display().to_string()
    );
    let slow = spec(&json!({ "hooks": { "check": python(&waits) } }));
    let one = package(&agent.folder, "1.0", APP);
    let two = package(&agent.folder, "2.0", APP);
    let who = |user: &str| Who { via: "salt".into(), user: user.into(), ..Who::default() };
    let command = |wait| Deploy { wait, ..deploy(spec(&json!({})), &two) };
    let first = agent.ask(who("ann"), Command::Deploy(Box::new(deploy(slow, &one))));
    let others = async {
        while std::fs::read_dir(agent.paths().releases()).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (_, refused) = agent.ask(who("bob"), Command::Deploy(Box::new(command(0)))).await;
        assert_eq!((refused.state, refused.result), (State::Busy, false));
        let error = refused.error.unwrap();
        assert_eq!(error.code, Code::Busy);
        assert!(error.message.contains("deploy of ann by salt, since 20"), "{}", error.message);
        let reload = Release { app: "blog".parse().unwrap(), wait: 0 };
        assert_eq!(agent.ask(who("bob"), Command::Reload(reload)).await.1.state, State::Busy);
        let waiting = agent.ask(who("bob"), Command::Deploy(Box::new(command(120))));
        let opens = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            common::put(&gate, b"");
        };
        tokio::join!(waiting, opens).0.1
    };
    let ((_, first), second) = tokio::join!(first, others);
    assert_eq!(first.state, State::Deployed, "{:?}", first.error);
    assert_eq!((second.state, second.previous), (State::Deployed, Some(one.release)), "{:?}", second.error);
}

/// The agent's record takes nothing more of a deployment once `step` was begun, as on a full disk.
fn fill_up(agent: &Agent, step: &str) {
    let db = rusqlite::Connection::open(agent.folder.join("agent.db")).unwrap();
    db.execute_batch(&format!(
        "CREATE TRIGGER full_steps BEFORE INSERT ON steps
            WHEN EXISTS (SELECT 1 FROM steps WHERE deployment = NEW.deployment AND step = '{step}')
            BEGIN SELECT RAISE(ABORT, 'disk is full'); END;
         CREATE TRIGGER full_end BEFORE UPDATE ON deployments BEGIN SELECT RAISE(ABORT, 'disk is full'); END;"
    ))
    .unwrap();
}

fn make_room(agent: &Agent) {
    let db = rusqlite::Connection::open(agent.folder.join("agent.db")).unwrap();
    db.execute_batch("DROP TRIGGER full_steps; DROP TRIGGER full_end;").unwrap();
}

#[tokio::test]
async fn what_cannot_be_put_on_record_is_undone_and_settled_before_anything_else() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let reload = || Command::Reload(Release { app: "blog".parse().unwrap(), wait: 60 });
    assert_eq!(deploys(&agent, &json!({}), "1.0").await.state, State::Deployed);
    let before = picture(&agent);

    fill_up(&agent, "preflight");
    let outcome = deploys(&agent, &json!({}), "2.0").await;
    assert_eq!(outcome.state, State::RolledBack);
    let error = outcome.error.unwrap();
    assert!(error.message.contains("disk is full") && error.hint.contains("state_dir"), "{error:?}");
    assert_eq!(picture(&agent), before);
    let refused = agent.end(reload()).await;
    assert_eq!(refused.state, State::Refused);
    assert!(refused.error.unwrap().message.contains("cannot be put on record"));
    make_room(&agent);
    assert_eq!(agent.end(reload()).await.state, State::Ok);
    assert_eq!(history(&agent).await[1]["state"], "rolled_back");

    // Past the health check nothing is undone for it.
    fill_up(&agent, "retire");
    let outcome = deploys(&agent, &json!({}), "2.0").await;
    assert_eq!(outcome.state, State::Deployed, "{:?}", outcome.error);
    make_room(&agent);
    let next = bed.again(&agent);
    next.router.resume().await.unwrap();
    assert_eq!(next.end(reload()).await.release, outcome.release);
    assert_eq!(history(&next).await[1]["state"], "deployed");
    assert!(next.host.records.unfinished().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_written_after_a_held_switch_that_fails_is_kept() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let write = |n: u32, code: u32| {
        python(&format!(
            "import sqlite3; d = sqlite3.connect('db.sqlite3'); d.execute('create table if not exists t (x)'); \
             d.execute('insert into t values ({n})'); d.commit(); raise SystemExit({code})"
        ))
    };
    let sum = |path: &Path| -> u32 {
        let db = rusqlite::Connection::open(path).unwrap();
        db.query_row("select sum(x) from t", [], |row| row.get(0)).unwrap()
    };
    let held = |hooks: Value| json!({ "switch": "held", "hooks": hooks });
    let first = deploys(&agent, &held(json!({ "migrate": write(1, 0) })), "1.0").await;
    assert_eq!(first.state, State::Deployed, "{:?}", first.error);
    // What the last hook writes stands for a request that was answered.
    let hooks = json!({ "migrate": write(10, 0), "after": write(100, 3) });
    let outcome = deploys(&agent, &held(hooks), "2.0").await;
    assert_eq!(outcome.state, State::RolledBack, "{:?}", outcome.error);
    let id = outcome.id.unwrap();
    assert!(outcome.comment.contains(&format!("*.replaced-{id}")), "{}", outcome.comment);
    let data = agent.paths().data();
    assert_eq!(sum(&data.join("db.sqlite3")), 1);
    assert_eq!(sum(&data.join(format!("db.sqlite3.replaced-{id}"))), 111);
}
