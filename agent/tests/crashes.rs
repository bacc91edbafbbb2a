//! The agent dies in the middle of a deploy, at each step of it, and another one starts on what it left.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    reason = "each test file uses its own part of it"
)]
mod common;

use std::sync::Arc;

use common::{Bed, OK, deploy, dies_at, names, package, picture, spec};
use flipside_agent::deploy::{Ask, Private};
use flipside_api::{AppSpec, Command, History, Package, State, Who};
use serde_json::json;

const MODULE: &str = "
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'hello']
";

fn ask(spec: &AppSpec, package: &Package) -> Ask {
    let env = [("A".to_owned(), "2".to_owned())].into();
    let private = Private { env, ..Private::default() };
    Ask { private, ..common::ask(deploy(spec.clone(), package)) }
}

async fn walk(switch: &str) {
    let bed = Bed::new(OK).await;
    let mut agent = bed.agent();
    let hook = |code: &str| json!([["python3", "-c", code]]);
    let old = spec(&json!({ "switch": switch }));
    let new = spec(&json!({ "switch": switch, "hooks": {
        "static": hook(""), "migrate": hook(""), "after": hook("") } }));
    let one = package(&agent.folder, "1.0", MODULE);
    let two = package(&agent.folder, "2.0", MODULE);
    let first = agent.end(Command::Deploy(Box::new(deploy(old.clone(), &one)))).await;
    assert_eq!(first.state, State::Deployed, "{:?}", first.error);
    let before = picture(&agent);
    let planned = flipside_api::Deploy { test: true, ..deploy(new.clone(), &two) };
    let steps = names(&agent.end(Command::Deploy(Box::new(planned))).await);
    assert!(steps.contains("migrate") && steps.contains(if switch == "held" { "hold" } else { "switch" }));
    let (mut finished, mut unwound) = (0, 0);
    for step in steps.split(' ') {
        for event in ["started", "done"] {
            dies_at(&agent, ask(&new, &two), step, event).await;
            agent = bed.again(&agent);
            agent.router.resume().await.unwrap();
            agent.router.drain().await;
            agent = bed.again(&agent);
            let history =
                agent.end(Command::History(History { app: "blog".parse().unwrap(), limit: 1 })).await;
            let entry = history.data.unwrap()[0].clone();
            // What was held is finished from where its workers may have written to what the undo would put back.
            let written = switch == "held" && ["switch", "health"].contains(&step);
            let proven =
                ["after", "retire"].contains(&step) || (step, event) == ("health", "done") || written;
            // The next step is begun before this one's end is heard.
            let begins = switch == "held" && (step, event) == ("migrate", "done");
            if proven || (begins && entry["state"] == "deployed") {
                assert_eq!(entry["state"], "deployed", "{step} {event}: {entry}");
                assert_eq!(agent.runtime.0.lock().unwrap().serves.as_ref(), Some(&two.release));
                // Back to where it was, for the next one.
                let back = agent.end(Command::Deploy(Box::new(deploy(old.clone(), &one)))).await;
                assert_eq!(back.state, State::Deployed, "{:?}", back.error);
                std::fs::remove_dir_all(agent.paths().release(&two.release)).unwrap();
                finished += 1;
            } else {
                assert_eq!(entry["state"], "rolled_back", "{step} {event}: {entry}");
                assert_eq!(picture(&agent), before, "{step} {event}");
                unwound += 1;
            }
            assert!(agent.host.records.unfinished().await.unwrap().is_empty());
        }
    }
    assert!(finished > 3 && unwound > 10, "{finished} finished, {unwound} unwound");
}

#[tokio::test]
async fn a_hot_deploy_is_finished_or_unwound_wherever_it_was_cut() {
    walk("auto").await;
}

#[tokio::test]
async fn a_held_deploy_is_finished_or_unwound_wherever_it_was_cut() {
    walk("held").await;
}

#[tokio::test]
async fn who_asks_again_gets_the_outcome_of_the_dead() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let one = package(&agent.folder, "1.0", MODULE);
    dies_at(&agent, ask(&spec(&json!({})), &one), "switch", "started").await;
    let next = bed.again(&agent);
    next.router.resume().await.unwrap();
    let who = Who { via: "salt".into(), user: "ann".into(), id: Some("jid7".into()), ..Who::default() };
    let again = Command::Deploy(Box::new(deploy(spec(&json!({})), &one)));
    let (_, outcome) = next.ask(who, again).await;
    assert_eq!(outcome.state, State::RolledBack);
    assert!(outcome.error.unwrap().message.contains("in the step switch"));
    assert_eq!((next.current(), Arc::strong_count(&next.host) > 0), (None, true));
}
