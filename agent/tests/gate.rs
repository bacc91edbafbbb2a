//! The gate of destructive migrations: what Django says of them is played here, and real in tests/test_migrations.py.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    reason = "each test file uses its own part of it"
)]
mod common;

use std::path::Path;

use common::{Agent, Bed, OK, deploy, dies_at, names, package, picture, put, rollback, spec};
use flipside_api::{AppSpec, Code, Command, Deploy, Outcome, Package, Rollback, State};
use serde_json::{Value, json};

/// A release that cannot live with the schema of before, and one that cannot live with that of after.
fn app(needs: &str) -> String {
    format!(
        "import sqlite3
def application(environ, start_response):
    sqlite3.connect('db.sqlite3').execute('select {needs} from post')
    start_response('200 OK', [])
    return [b'hello']
"
    )
}

/// The migrations of both releases, by hand. What is left of the page while they run stands in `page`.
const MIGRATE: &str = "import os, sqlite3, time
db = sqlite3.connect('db.sqlite3')
if os.environ['FLIPSIDE_RELEASE'].startswith('1'):
    db.execute('create table post (title)')
    db.execute(\"insert into post values ('kept')\")
else:
    db.execute('alter table post rename title to headline')
    db.execute(\"insert into post values ('migrated')\")
db.commit()
page = os.environ['PAGE']
until = time.monotonic() + float(os.environ['HOLD'])
while time.monotonic() < until and not os.path.exists(page):
    time.sleep(0.02)
open('page', 'w').write(str(os.path.exists(page)))
if 'BROKEN' in os.environ:
    raise SystemExit('it does not work')
";

/// Says what the file beside the databases says, and nothing where there is none.
const SAYS: &str = "import json, os
def look(named=()):
    if not os.path.exists('says.json'):
        return None
    told = json.load(open('says.json'))
    told['named'] = [one for one in told['described'] if (one['app'], one['name']) in named]
    return told
";

/// The one that waits, as something that it does not need to be: "destructive", "breaking" or "harmless".
fn migration(effect: &str) -> Value {
    json!({ "database": "default", "app": "blog", "name": "0002_headline", "operations": [
        { "kind": "RenameField", "subject": "Post.title -> headline",
          "destructive": effect == "destructive", "breaking": effect == "breaking" } ] })
}

struct Shop {
    _bed: Bed,
    agent: Agent,
    two: Package,
}

fn spec_of(agent: &Agent, hold: &str) -> AppSpec {
    let page = agent.paths().maintenance();
    spec(&json!({ "hooks": { "migrate": [["python3", "-c", MIGRATE]] }, "maintenance_after": 0,
        "env": { "PAGE": page, "HOLD": hold } }))
}

impl Shop {
    async fn new() -> Self {
        let bed = Bed::new(OK).await;
        let agent = bed.agent();
        put(&agent.host.assets.schema, SAYS.as_bytes());
        let one = package(&agent.folder, "1.0", &app("title"));
        let first = Deploy { allow: vec![], ..deploy(spec_of(&agent, "0"), &one) };
        let first = agent.end(Command::Deploy(Box::new(first))).await;
        assert_eq!(first.state, State::Deployed, "{:?}", first.error);
        let two = package(&agent.folder, "2.0", &app("headline"));
        agent.calls();
        Self { _bed: bed, agent, two }
    }

    fn says(&self, effect: &str) {
        let told = json!({ "databases": [{ "alias": "default", "empty": false }], "pending": [migration(effect)],
            "unknown": [], "described": [] });
        put(&self.agent.paths().data().join("says.json"), told.to_string().as_bytes());
    }

    fn asked(&self, allow: &[&str], hold: &str) -> Deploy {
        let allow = allow.iter().map(|risk| (*risk).to_owned()).collect();
        Deploy { allow, ..deploy(spec_of(&self.agent, hold), &self.two) }
    }

    async fn deploys(&self, allow: &[&str]) -> Outcome {
        self.agent.end(Command::Deploy(Box::new(self.asked(allow, "0")))).await
    }

    fn titles(&self) -> Vec<String> {
        titles(&self.agent.paths().data().join("db.sqlite3"))
    }
}

/// The name of the column, and what it holds.
fn titles(path: &Path) -> Vec<String> {
    let db = rusqlite::Connection::open(path).unwrap();
    let mut query = db.prepare("SELECT * FROM post").unwrap();
    let mut all = vec![query.column_name(0).unwrap().to_owned()];
    all.extend(query.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap));
    all
}

#[tokio::test]
async fn a_destructive_migration_is_refused_before_anything_is_touched() {
    let shop = Shop::new().await;
    shop.says("destructive");
    let before = picture(&shop.agent);
    let refused = shop.deploys(&[]).await;
    let error = refused.error.clone().unwrap();
    assert_eq!((refused.state, error.code), (State::Refused, Code::Gate), "{error:?}");
    assert!(error.message.contains("blog.0002_headline: RenameField Post.title -> headline"), "{error:?}");
    for command in [
        format!("salt 'web1' flipside.deploy blog release={} allow=destructive", shop.two.release),
        format!("flipside deploy blog --release {} --allow destructive", shop.two.release),
    ] {
        assert!(error.hint.contains(&command), "{error:?}");
    }
    assert_eq!((picture(&shop.agent), shop.titles()), (before, vec!["title".into(), "kept".into()]));
    assert!(shop.agent.calls().is_empty());
    assert!(std::fs::read_dir(shop.agent.paths().marks()).unwrap().count() <= 1, "its mark is gone with it");
    let typo = shop.deploys(&["destructiv"]).await.error.unwrap();
    assert_eq!((typo.code, typo.hint.contains("destructive and data")), (Code::Usage, true));
}

#[tokio::test]
async fn allowed_it_is_held_and_the_rest_is_hot() {
    let shop = Shop::new().await;
    shop.says("destructive");
    let done = shop.agent.end(Command::Deploy(Box::new(shop.asked(&["destructive"], "20")))).await;
    assert_eq!(done.state, State::Deployed, "{:?}", done.error);
    assert!(names(&done).contains("preflight schema hold migrate switch"), "{}", names(&done));
    assert!(done.comment.contains("(held)"), "{}", done.comment);
    assert_eq!(shop.agent.calls(), ["hold", "start"]);
    assert_eq!(shop.titles(), ["headline", "kept", "migrated"]);
    let page = std::fs::read_to_string(shop.agent.paths().data().join("page")).unwrap();
    assert_eq!((page.as_str(), shop.agent.paths().maintenance().exists()), ("True", false));

    let hot = Shop::new().await;
    hot.says("harmless");
    let done = hot.deploys(&["destructive"]).await;
    assert_eq!(done.state, State::Deployed, "{:?}", done.error);
    assert_eq!(hot.agent.calls(), ["reload"]);
    assert!(!names(&done).contains("hold"), "{}", names(&done));
}

#[tokio::test]
async fn what_the_old_code_cannot_write_with_is_held_and_needs_no_leave() {
    let shop = Shop::new().await;
    shop.says("breaking");
    let done = shop.deploys(&[]).await;
    assert_eq!(
        (done.state, shop.agent.calls().join(" ").as_str()),
        (State::Deployed, "hold start"),
        "{done:?}"
    );
    let gate = done.steps.iter().find(|step| step.name == "schema").unwrap();
    assert!(names(&done).contains("preflight schema hold migrate switch"), "{}", names(&done));
    assert!(gate.message.contains("the old code cannot write with: blog.0002_headline"), "{gate:?}");
}

#[tokio::test]
async fn what_was_written_between_the_mark_and_the_hold_is_not_lost_by_a_failure() {
    let shop = Shop::new().await;
    shop.says("destructive");
    let mut asked = shop.asked(&["destructive"], "0");
    let late = "import sqlite3; db = sqlite3.connect('db.sqlite3'); \
                db.execute(\"insert into post values ('late')\"); db.commit()";
    let hooks = json!({ "check": [["python3", "-c", late]], "migrate": [["python3", "-c", MIGRATE]] });
    asked.spec.hooks = serde_json::from_value(hooks).unwrap();
    asked.spec.env.insert("BROKEN".into(), "1".into());
    let failed = shop.agent.end(Command::Deploy(Box::new(asked))).await;
    assert_eq!(failed.state, State::RolledBack, "{failed:?}");
    assert!(failed.error.unwrap().log.concat().contains("it does not work"));
    assert_eq!(shop.titles(), ["title", "kept", "late"]);
}

#[tokio::test]
async fn wherever_it_is_cut_the_databases_and_the_old_release_are_back() {
    let shop = Shop::new().await;
    shop.says("destructive");
    let (before, mut agent) = (picture(&shop.agent), shop._bed.again(&shop.agent));
    for (step, event) in [
        ("schema", "started"),
        ("schema", "done"),
        ("hold", "started"),
        ("hold", "done"),
        // Once the switch has begun the new workers may have written, and it is finished instead.
        ("migrate", "started"),
    ] {
        put(&agent.host.assets.schema, SAYS.as_bytes());
        let ask = common::ask(shop.asked(&["destructive"], "0"));
        dies_at(&agent, ask, step, event).await;
        agent = shop._bed.again(&agent);
        agent.router.resume().await.unwrap();
        agent.router.drain().await;
        assert_eq!(picture(&agent), before, "{step} {event}");
        assert_eq!(shop.titles(), ["title", "kept"], "{step} {event}");
        assert!(!agent.paths().maintenance().exists(), "{step} {event}");
        agent = shop._bed.again(&agent);
    }
}

#[tokio::test]
async fn a_plan_and_a_rollback_say_what_the_schema_implies() {
    let shop = Shop::new().await;
    shop.says("destructive");
    let plan = |test| Command::Deploy(Box::new(Deploy { test, ..shop.asked(&["destructive"], "0") }));
    // Nothing is installed for it, and nothing is left of what it looked at.
    let folders = || {
        let entries = std::fs::read_dir(shop.agent.paths().releases()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    let before = folders();
    let planned = shop.agent.end(plan(true)).await.data.unwrap();
    assert_eq!(planned["migrations"]["unknown_why"], "", "{planned}");
    assert_eq!(planned["migrations"]["pending"], json!([migration("destructive")]));
    assert_eq!((planned["kind"].as_str(), folders()), (Some("held"), before));
    assert_eq!(shop.agent.end(plan(false)).await.state, State::Deployed);

    let told = json!({ "databases": [], "pending": [], "described": [migration("destructive")],
        "unknown": [{ "database": "default", "app": "blog", "name": "0002_headline" }] });
    put(&shop.agent.paths().data().join("says.json"), told.to_string().as_bytes());
    let planned = shop.agent.end(Command::Rollback(Rollback { test: true, ..rollback() })).await;
    let data = planned.data.unwrap();
    assert_eq!(data["migrations"]["unknown"], json!([migration("destructive")]));
    assert!(
        planned.comment.contains("does not know: blog.0002_headline: RenameField"),
        "{}",
        planned.comment
    );
    shop.agent.calls();
    // The old code fails with the new schema, which is found out before it serves anybody.
    let refused = shop.agent.end(Command::Rollback(rollback())).await;
    assert_eq!(refused.state, State::RolledBack, "{refused:?}");
    assert!(shop.agent.calls().is_empty());
    let back = Rollback { with_data: true, allow: vec!["data".into()], ..rollback() };
    let back = shop.agent.end(Command::Rollback(back)).await;
    assert_eq!(back.state, State::Deployed, "{:?}", back.error);
    assert_eq!(shop.titles(), ["title", "kept"]);
}
