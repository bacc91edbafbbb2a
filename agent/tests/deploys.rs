//! Whole deploys with real files, real wheels, real uv and real hooks; only uWSGI and nginx are played.

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

use common::{Bed, OK, SICK, WRONG, deploy, names, package, picture, put, rollback, spec};
use flipside_api::{AppName, Code, Command, Outcome, Release, Rollback, Run, State, Who};
use serde_json::json;

const GOOD: &str = "
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'hello']
";

fn python(code: &str) -> serde_json::Value {
    json!([["python3", "-c", code]])
}

/// Each hook leaves a line in the data folder with the release that it saw.
fn hooks() -> serde_json::Value {
    let note = |name: &str| {
        python(&format!(
            "import os; open('hooks', 'a').write('{name} ' + os.environ['FLIPSIDE_RELEASE'].split('-')[0] + '\\n')"
        ))
    };
    json!({ "check": note("check"), "static": note("static"), "migrate": note("migrate"), "once": note("once"),
        "after": note("after") })
}

#[track_caller]
fn is(outcome: &Outcome, state: State) {
    assert_eq!(outcome.state, state, "{:#?}", outcome.error);
}

fn blog() -> AppName {
    "blog".parse().unwrap()
}

#[tokio::test]
async fn a_release_is_deployed_upgraded_and_rolled_back() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let spec = spec(&json!({ "hooks": hooks(), "env": { "DB": "${DATA_DIR}/x", "EMPTY": "" },
        "overlay": { "extra.py": "x = 1\n" } }));
    let one = package(&agent.folder, "1.0", GOOD);
    let two = package(&agent.folder, "2.0", GOOD);

    let first = agent.end(Command::Deploy(Box::new(deploy(spec.clone(), &one)))).await;
    is(&first, State::Deployed);
    assert_eq!(
        names(&first),
        "fetch env venv mark preflight schema static migrate once switch health after retire"
    );
    assert_eq!(agent.calls(), ["start"]);
    assert_eq!(agent.current().unwrap(), Path::new("releases").join(one.release.as_str()));
    let env = std::fs::read_to_string(agent.paths().env_file()).unwrap();
    assert!(env.contains(&format!("DB='{}/x'", agent.paths().data().display())), "{env}");
    assert!(env.contains("EMPTY=''\n") && env.contains("SECRET_KEY='"), "{env}");

    let same = agent.end(Command::Deploy(Box::new(deploy(spec.clone(), &one)))).await;
    is(&same, State::Unchanged);
    assert!(agent.calls().is_empty());

    let mut newer = spec.clone();
    newer.env.insert("EMPTY".into(), "no more".into());
    let upgrade = agent.end(Command::Deploy(Box::new(deploy(newer, &two)))).await;
    is(&upgrade, State::Deployed);
    assert_eq!(upgrade.previous.as_ref(), Some(&one.release));
    assert_eq!(agent.calls(), ["reload"]);
    assert!(!names(&upgrade).contains("once"));

    let back = agent.end(Command::Rollback(rollback())).await;
    is(&back, State::Deployed);
    assert_eq!(back.release.as_ref(), Some(&one.release));
    assert!(!names(&back).contains("migrate"));

    let hooks = std::fs::read_to_string(agent.paths().data().join("hooks")).unwrap();
    assert!(
        hooks.starts_with("check 1.0\nstatic 1.0\nmigrate 1.0\nonce 1.0\nafter 1.0\ncheck 2.0\n"),
        "{hooks}"
    );
    let environment = || std::fs::read_to_string(agent.paths().env_file()).unwrap();
    assert!(environment().contains("EMPTY='no more'\n"), "the environment of now");
    let forth = Rollback { release: Some(two.release.clone()), ..rollback() };
    is(&agent.end(Command::Rollback(forth)).await, State::Deployed);
    let own = Rollback { release: Some(one.release.clone()), with_env: true, ..rollback() };
    is(&agent.end(Command::Rollback(own)).await, State::Deployed);
    assert!(environment().contains("EMPTY=''\n"), "the environment of then");
    let secret = |text: &str| text.lines().find(|line| line.starts_with("SECRET_KEY=")).unwrap().to_owned();
    let now = std::fs::read_to_string(agent.paths().env_file()).unwrap();
    assert_eq!(secret(&env), secret(&now), "the key is made once");
}

#[tokio::test]
async fn a_stale_vhost_keeps_a_deploy_out_and_no_way_back() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let record = agent.paths().home().join("vhost");
    std::fs::create_dir_all(agent.paths().home()).unwrap();
    put(&record, b"1234");
    let spec = spec(&json!({ "vhost": "1234" }));
    let [one, two] = ["1.0", "2.0"].map(|version| package(&agent.folder, version, GOOD));
    for package in [&one, &two] {
        is(&agent.end(Command::Deploy(Box::new(deploy(spec.clone(), package)))).await, State::Deployed);
    }
    put(&record, b"5678");
    let refused = agent.end(Command::Deploy(Box::new(deploy(spec, &one)))).await;
    assert_eq!((refused.state, refused.error.unwrap().code), (State::Refused, Code::Gate));
    let back = agent.end(Command::Rollback(rollback())).await;
    is(&back, State::Deployed);
    let env = Some([("A".to_owned(), "b".to_owned())].into());
    let env = agent.end(Command::Env { app: blog(), env, files: None, wait: 0 }).await;
    is(&env, State::Deployed);
    for said in [back, env] {
        assert!(said.comment.contains("was made from other options than these: apply it"), "{said:?}");
    }
}

#[tokio::test]
async fn a_plan_changes_nothing() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let one = package(&agent.folder, "1.0", GOOD);
    let plan = flipside_api::Deploy { test: true, ..deploy(spec(&json!({})), &one) };
    let outcome = agent.end(Command::Deploy(Box::new(plan))).await;
    is(&outcome, State::Planned);
    assert_eq!(names(&outcome), "fetch env venv preflight switch health retire");
    assert!(!agent.paths().home().exists());
    assert!(agent.calls().is_empty());
}

#[tokio::test]
async fn what_fails_leaves_all_as_it_was() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let good = spec(&json!({}));
    let one = package(&agent.folder, "1.0", GOOD);
    is(&agent.end(Command::Deploy(Box::new(deploy(good.clone(), &one)))).await, State::Deployed);
    agent.calls();
    let before = picture(&agent);
    let fails = |list: &str| json!({ "hooks": { list: python("raise SystemExit('not today')") } });
    let two = package(&agent.folder, "2.0", GOOD);
    for (list, code) in [
        ("prepare", Code::Hook),
        ("check", Code::Hook),
        ("static", Code::Hook),
        ("migrate", Code::Hook),
        ("after", Code::Hook),
    ] {
        let outcome = agent.end(Command::Deploy(Box::new(deploy(spec(&fails(list)), &two)))).await;
        is(&outcome, State::RolledBack);
        assert_eq!(outcome.comment.contains("what was migrated stays"), list == "migrate", "{outcome:?}");
        let error = outcome.error.unwrap();
        assert_eq!(error.code, code);
        assert!(error.log.iter().any(|line| line.contains("not today")), "{list}: {error:?}");
        assert_eq!(picture(&agent), before, "{list}");
    }
    let broken = package(&agent.folder, "3.0", "import nothing_of_this_name\n");
    let outcome = agent.end(Command::Deploy(Box::new(deploy(good.clone(), &broken)))).await;
    is(&outcome, State::RolledBack);
    let error = outcome.error.unwrap();
    assert_eq!(error.code, Code::Preflight);
    assert!(error.log.iter().any(|line| line.contains("blog/__init__.py\", line 1")), "{error:?}");
    assert_eq!(picture(&agent), before);

    agent.runtime.0.lock().unwrap().fail = Some("reload");
    let outcome = agent.end(Command::Deploy(Box::new(deploy(good, &two)))).await;
    is(&outcome, State::RolledBack);
    assert_eq!(picture(&agent), before);
}

#[tokio::test]
async fn an_answer_that_is_wrong_each_time_is_final_long_before_the_check_gives_up() {
    let bed = Bed::new(WRONG).await;
    let agent = bed.agent();
    let one = package(&agent.folder, "1.0", GOOD);
    let patient = spec(&json!({ "health": { "timeout": 600 } }));
    let ended = agent.end(Command::Deploy(Box::new(deploy(patient, &one))));
    let outcome = tokio::time::timeout(std::time::Duration::from_secs(120), ended).await.unwrap();
    is(&outcome, State::RolledBack);
    let health = outcome.steps.iter().find(|step| step.name == "health").unwrap();
    assert!(health.ms >= 3000, "an app may need a moment: {health:?}");
    assert!(outcome.error.unwrap().message.contains("answered 500"));
}

#[tokio::test]
async fn a_manifest_that_releases_share_is_back_after_a_deploy_that_fails() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let collects = |fails: bool| {
        let write = "import os, pathlib; root = pathlib.Path(os.environ['STATIC_ROOT']); \
                     (root / 'staticfiles.json').write_text(os.environ['FLIPSIDE_RELEASE'][0])";
        let after = if fails { "raise SystemExit(3)" } else { "" };
        spec(&json!({ "hooks": { "static": python(write), "after": python(after) } }))
    };
    let manifest = agent.paths().static_root().join("staticfiles.json");
    for (version, fails, names) in [("1.0", false, "1"), ("2.0", true, "1"), ("3.0", false, "3")] {
        let package = package(&agent.folder, version, GOOD);
        let outcome = agent.end(Command::Deploy(Box::new(deploy(collects(fails), &package)))).await;
        is(&outcome, if fails { State::RolledBack } else { State::Deployed });
        assert_eq!(std::fs::read_to_string(&manifest).unwrap(), names, "{version}");
    }
}

#[tokio::test]
async fn a_first_deploy_that_fails_leaves_nothing() {
    let bed = Bed::new(SICK).await;
    let agent = bed.agent();
    let one = package(&agent.folder, "1.0", GOOD);
    let outcome = agent.end(Command::Deploy(Box::new(deploy(spec(&json!({})), &one)))).await;
    is(&outcome, State::RolledBack);
    let error = outcome.error.unwrap();
    assert_eq!(error.code, Code::Health);
    assert!(error.message.contains("answered 502"), "{error:?}");
    assert_eq!(agent.calls(), ["start", "stop"]);
    assert_eq!(agent.current(), None);
    assert!(!agent.paths().env_file().exists());
    let status = agent.end(Command::Status { app: None }).await;
    assert_eq!(status.data.unwrap()["apps"], json!({}));
}

#[tokio::test]
async fn a_held_deploy_that_fails_puts_the_data_back() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let write = |n: u32| {
        python(&format!(
            "import sqlite3; d = sqlite3.connect('db.sqlite3'); d.execute('create table if not exists t (x)'); \
             d.execute('insert into t values ({n})'); d.commit(); raise SystemExit({})",
            if n == 1 { 0 } else { 3 }
        ))
    };
    let one = package(&agent.folder, "1.0", GOOD);
    let held = |n| spec(&json!({ "switch": "held", "hooks": { "migrate": write(n) } }));
    is(&agent.end(Command::Deploy(Box::new(deploy(held(1), &one)))).await, State::Deployed);
    let two = package(&agent.folder, "2.0", GOOD);
    agent.calls();
    let outcome = agent.end(Command::Deploy(Box::new(deploy(held(2), &two)))).await;
    is(&outcome, State::RolledBack);
    assert_eq!(agent.calls(), ["hold", "start"]);
    assert_eq!(outcome.comment, "all is as it was before");
    let db = rusqlite::Connection::open(agent.paths().data().join("db.sqlite3")).unwrap();
    let sum: u32 = db.query_row("select sum(x) from t", [], |row| row.get(0)).unwrap();
    assert_eq!(sum, 1, "what the failed migration wrote is gone");
}

#[tokio::test]
async fn a_package_that_is_not_as_published_is_refused() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let one = package(&agent.folder, "1.0", GOOD);
    let wheels = Path::new(&one.dir).join("wheels");
    let wheel = std::fs::read_dir(&wheels).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&wheel).unwrap();
    bytes[40] ^= 1;
    put(&wheel, &bytes);
    let outcome = agent.end(Command::Deploy(Box::new(deploy(spec(&json!({})), &one)))).await;
    is(&outcome, State::RolledBack);
    assert_eq!(outcome.error.unwrap().code, Code::Package);
    std::fs::remove_file(&wheel).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &wheel).unwrap();
    let outcome = agent.end(Command::Deploy(Box::new(deploy(spec(&json!({})), &one)))).await;
    assert_eq!(outcome.error.unwrap().code, Code::Package);
    put(&Path::new(&one.dir).join("manifest.json"), b"{}");
    let outcome = agent.end(Command::Deploy(Box::new(deploy(spec(&json!({})), &one)))).await;
    is(&outcome, State::Refused);
}

#[tokio::test]
async fn the_same_id_is_the_same_deploy() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let one = package(&agent.folder, "1.0", GOOD);
    let who = || Who { via: "salt".into(), user: "ann".into(), id: Some("jid1".into()), ..Who::default() };
    let command = || Command::Deploy(Box::new(deploy(spec(&json!({})), &one)));
    let ((_, a), (_, b)) = tokio::join!(agent.ask(who(), command()), agent.ask(who(), command()));
    assert_eq!((a.id.clone(), a.state), (b.id, State::Deployed));
    let (_, later) = bed.again(&agent).ask(who(), command()).await;
    assert_eq!((later.id, later.state), (a.id, State::Deployed));
    let history = agent.end(Command::History(flipside_api::History { app: blog(), limit: 9 })).await;
    assert_eq!(history.data.unwrap().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn another_environment_reloads_and_the_same_does_not() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let one = package(&agent.folder, "1.0", GOOD);
    let first = spec(&json!({ "env": { "A": "1" } }));
    is(&agent.end(Command::Deploy(Box::new(deploy(first, &one)))).await, State::Deployed);
    agent.calls();
    let env = |value: Option<&str>| Command::Env {
        app: blog(),
        env: value.map(|value| [("A".to_owned(), value.to_owned())].into()),
        files: None,
        wait: 0,
    };
    is(&agent.end(env(Some("2"))).await, State::Deployed);
    assert_eq!(agent.calls(), ["reload"]);
    is(&agent.end(env(None)).await, State::Unchanged);
    let unknown = agent.end(env(Some("${NOPE}"))).await;
    is(&unknown, State::Refused);
    assert!(unknown.error.unwrap().message.contains("env.A"));
    let run = Run {
        app: blog(),
        command: vec![
            "python3".into(),
            "-c".into(),
            "import os; print(os.environ['A']); raise SystemExit(7)".into(),
        ],
        stdin: None,
        timeout: 20,
        streams: None,
    };
    let (said, outcome) = agent.ask(Who::default(), Command::Run(run)).await;
    assert_eq!(said, ["stdout output 2"]);
    assert_eq!(outcome.data.unwrap()["code"], 7);
}

#[tokio::test]
async fn configuration_files_are_decrypted_on_the_host() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let one = package(&agent.folder, "1.0", GOOD);
    let recipient: age::x25519::Recipient = agent.host.keyring.recipient().parse().unwrap();
    let armoured = |text: &str| age::encrypt_and_armor(&recipient, text.as_bytes()).unwrap();
    let env = json!({ "CONFIG": "${FILES_DIR}/a.toml" });
    let first = spec(&json!({ "env": env, "files": { "a.toml": armoured("x = 1\n"), "b": "plain" } }));
    is(&agent.end(Command::Deploy(Box::new(deploy(first, &one)))).await, State::Deployed);
    let files = agent.paths().files();
    let reads = async |expected: &[&str]| {
        let script = "import os, sys; [print(open(os.environ['FILES_DIR'] + '/' + name).read().strip()) \
                      for name in sorted(os.listdir(os.environ['FILES_DIR']))]";
        let command = ["python3", "-c", script].map(str::to_owned).to_vec();
        let run = Run { app: blog(), command, stdin: None, timeout: 20, streams: None };
        let (said, _) = agent.ask(Who::default(), Command::Run(run)).await;
        let expected: Vec<String> = expected.iter().map(|line| format!("stdout output {line}")).collect();
        assert_eq!(said, expected);
    };
    reads(&["x = 1", "plain"]).await;
    agent.calls();
    let given = |text: Option<String>| Command::Env {
        app: blog(),
        env: None,
        files: text.map(|text| [("a.toml".to_owned(), text)].into()),
        wait: 0,
    };
    is(&agent.end(given(None)).await, State::Unchanged);
    is(&agent.end(given(Some(armoured("x = 2\n")))).await, State::Deployed);
    assert_eq!(agent.calls(), ["reload"]);
    reads(&["x = 2"]).await;
    let theirs = age::x25519::Identity::generate().to_public();
    let refused = agent.end(given(Some(age::encrypt_and_armor(&theirs, b"x").unwrap()))).await;
    is(&refused, State::Refused);
    assert!(refused.error.unwrap().message.contains("files.a.toml: is not encrypted to this host"));
    let two = package(&agent.folder, "2.0", GOOD);
    is(&agent.end(Command::Deploy(Box::new(deploy(spec(&json!({})), &two)))).await, State::Deployed);
    // Those of before stay until the next deploy, as the environment of before does.
    let left = std::fs::read_dir(&files).unwrap().count();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn a_stopped_app_stays_stopped_and_others_are_started() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let one = package(&agent.folder, "1.0", GOOD);
    is(&agent.end(Command::Deploy(Box::new(deploy(spec(&json!({})), &one)))).await, State::Deployed);
    let asked = || Release { app: blog(), wait: 0 };
    is(&agent.end(Command::Reload(asked())).await, State::Ok);
    is(&agent.end(Command::Stop(asked())).await, State::Ok);
    is(&agent.end(Command::Reload(asked())).await, State::Failed);
    agent.calls();
    let next = bed.again(&agent);
    next.router.resume().await.unwrap();
    next.router.drain().await;
    assert!(next.calls().is_empty(), "it was stopped on purpose");
    let next = bed.again(&agent);
    is(&next.end(Command::Start(asked())).await, State::Ok);
    next.runtime.0.lock().unwrap().listening = false;
    next.calls();
    next.router.resume().await.unwrap();
    next.router.drain().await;
    assert_eq!(next.calls(), ["start"]);
}

#[tokio::test]
async fn an_app_whose_holder_was_killed_is_brought_back() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let one = package(&agent.folder, "1.0", GOOD);
    is(&agent.end(Command::Deploy(Box::new(deploy(spec(&json!({})), &one)))).await, State::Deployed);
    agent.calls();
    agent.runtime.0.lock().unwrap().listening = false;
    let back = async {
        while !agent.runtime.0.lock().unwrap().listening {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = agent.router.keep() => panic!("it is kept for as long as the agent runs"),
        back = tokio::time::timeout(std::time::Duration::from_secs(20), back) => back.unwrap(),
    }
    assert_eq!(agent.calls(), ["start"]);
}

#[tokio::test]
async fn a_removed_app_leaves_its_data() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let one = package(&agent.folder, "1.0", GOOD);
    is(&agent.end(Command::Deploy(Box::new(deploy(spec(&json!({})), &one)))).await, State::Deployed);
    put(&agent.paths().data().join("kept"), b"x");
    let asked = || Command::Remove(Release { app: blog(), wait: 0 });
    is(&agent.end(asked()).await, State::Ok);
    assert!(agent.paths().data().join("kept").exists());
    assert!(!agent.paths().releases().exists() && agent.current().is_none());
    is(&agent.end(asked()).await, State::Unchanged);
}

#[tokio::test]
async fn static_files_are_copied_out_of_the_package_and_secrets_stay_here() {
    let bed = Bed::new(OK).await;
    let agent = bed.agent();
    let one = package(&agent.folder, "1.0", GOOD);
    let location = json!({ "url": "/static/", "root": "${STATIC_ROOT}", "package": "blog/static" });
    let good = spec(&json!({ "static_files": location }));
    is(&agent.end(Command::Deploy(Box::new(deploy(good, &one)))).await, State::Deployed);
    assert_eq!(std::fs::read_to_string(agent.paths().static_root().join("a.css")).unwrap(), "1.0");
    let two = package(&agent.folder, "2.0", GOOD);
    let chatty = spec(&json!({ "env": { "API_TOKEN": "canary-5d1f" },
        "hooks": { "check": python("import os; raise SystemExit('no: ' + os.environ['API_TOKEN'])") } }));
    let (said, outcome) = agent.ask(Who::default(), Command::Deploy(Box::new(deploy(chatty, &two)))).await;
    is(&outcome, State::RolledBack);
    let shown = format!("{said:?} {outcome:?}");
    assert!(shown.contains("no: ***") && !shown.contains("canary-5d1f"), "{shown}");
}
