//! The verbs against an agent: what it hears, what the user sees, and how the command exits.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use common::{Agent, fed, flipside, object, stderr, stdout, write};
use flipside_api::{Code, Command, Failure, Outcome, Progress, Reply, State, StepReport};
use serde_json::json;

const RELEASE: &str = "1.0-0123456789ab";
const BEFORE: &str = "0.9-ba9876543210";

fn ends(outcome: Outcome) -> Vec<Reply> {
    vec![Reply::Outcome(Box::new(outcome))]
}

fn deployed() -> Outcome {
    Outcome {
        release: Some(RELEASE.parse().unwrap()),
        previous: Some(BEFORE.parse().unwrap()),
        ms: 1234,
        ..Outcome::good(State::Deployed, "")
    }
}

fn progress(step: &str, event: &str, message: &str, ms: u64) -> Reply {
    Reply::Progress(Progress { step: step.into(), event: event.into(), message: message.into(), ms })
}

/// A store with one release of blog, whose manifest gives it its id.
fn store(dir: &std::path::Path) -> String {
    let manifest = "{\"v\":1}";
    let release = flipside_api::ReleaseId::of("1.0", manifest.as_bytes()).unwrap();
    write(&dir.join(format!("blog/{release}/manifest.json")), manifest);
    write(&dir.join("blog/tags.json"), &json!({"v": 1, "tags": {"latest": release}}).to_string());
    release.to_string()
}

#[test]
fn without_an_agent_it_says_so_and_exits_with_4() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock").display().to_string();
    let output = flipside(&["--socket", &socket, "ping"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("no agent") && stderr(&output).contains("hint:"), "{output:?}");
    let output = flipside(&["--socket", &socket, "status", "--json"]).output().unwrap();
    assert_eq!((output.status.code(), &object(&output)["error"]["code"]), (Some(4), &json!("no_agent")));
    assert_eq!(object(&output)["v"], 1);
    // A socket that nobody listens at is no agent either.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert_eq!(flipside(&["--socket", &socket, "ping"]).output().unwrap().status.code(), Some(4));
}

#[test]
fn an_agent_that_dies_in_the_middle_is_no_success() {
    let agent = Agent::new(vec![vec![progress("fetch", "done", "", 3)]]);
    let output = agent.flipside(&["reload", "blog"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        stderr(&output).contains("went away") && stderr(&output).contains("flipside history blog"),
        "{output:?}"
    );
}

#[test]
fn an_interrupted_command_says_that_the_agent_goes_on() {
    use nix::sys::signal::{Signal, kill};
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let child = flipside(&["--socket", &socket.display().to_string(), "restart", "blog"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    // Once its request is here it waits for the answer.
    std::io::Read::read_exact(&mut stream, &mut [0; 64]).unwrap();
    kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("the agent goes on; how it ends is in: flipside history blog"));
}

#[test]
fn a_deploy_shows_its_steps_and_how_to_undo_it() {
    let dir = tempfile::tempdir().unwrap();
    let release = store(dir.path());
    let mut answer = vec![
        progress("fetch", "started", "", 0),
        progress("fetch", "done", "5 files", 120),
        progress("venv", "done", "", 3200),
    ];
    answer.extend(ends(deployed()));
    let agent = Agent::new(vec![answer]);
    let store = dir.path().display().to_string();
    let output = agent
        .flipside(&["deploy", "blog", "--store", &store, "--wait", "60", "--allow", "destructive"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "  ✓ fetch         120 ms  5 files");
    assert_eq!(lines[1], "  ✓ venv           3.2 s");
    assert_eq!(lines[2], format!("deployed: blog {RELEASE} (before: {BEFORE}) in 1.2 s"));
    assert_eq!(lines[3], format!("undo: flipside rollback blog {BEFORE}"));
    let heard = agent.heard();
    let Command::Redeploy(redeploy) = &heard[0].command else { panic!("{heard:?}") };
    assert_eq!((redeploy.package.release.as_str(), redeploy.wait), (release.as_str(), 60));
    assert_eq!(redeploy.package.dir, dir.path().join("blog").join(&release).display().to_string());
    assert_eq!((redeploy.allow.as_slice(), redeploy.test), (["destructive".to_owned()].as_slice(), false));
    assert_eq!(heard[0].who.via, "cli");
}

#[test]
fn a_spec_from_a_file_is_sent_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    let store = dir.path().display().to_string();
    let spec = dir.path().join("blog.json");
    let mut content =
        json!({"app": "blog", "template": "t", "domains": ["b.org"], "public_url": "https://b.org"});
    write(&spec, &content.to_string());
    let spec_path = spec.display().to_string();
    let arguments = ["deploy", "blog", "--store", &store, "--spec", &spec_path, "--dry-run", "--json"];
    let agent = Agent::new(vec![ends(Outcome::good(State::Planned, ""))]);
    let output = agent.flipside(&arguments).output().unwrap();
    assert_eq!((output.status.code(), &object(&output)["state"]), (Some(0), &json!("planned")), "{output:?}");
    let heard = agent.heard();
    let Command::Deploy(deploy) = &heard[0].command else { panic!("{heard:?}") };
    assert!(deploy.test && deploy.spec.domains == ["b.org"]);

    content["threads"] = json!(1);
    write(&spec, &content.to_string());
    let output = flipside(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(object(&output)["error"]["message"].as_str().unwrap().contains("options.threads"), "{output:?}");
}

#[test]
fn a_store_that_lies_or_lacks_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let release = store(dir.path());
    let store = dir.path().display().to_string();
    let run = |arguments: &[&str]| {
        flipside(&[&["--store", &store, "deploy"], arguments].concat()).output().unwrap()
    };
    let output = run(&["blog", "--tag", "v7"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no tag v7") && stderr(&output).contains("latest"), "{output:?}");
    assert!(stderr(&run(&["shop"])).contains("holds nothing of shop"));
    assert!(stderr(&run(&["blog", "--release", RELEASE])).contains("no release"));
    for bad in
        [["../x", "--tag", "latest"], ["blog", "--tag", "../x"], ["blog", "--release", "../x-0123456789ab"]]
    {
        assert_eq!(run(&bad).status.code(), Some(2), "{bad:?}");
    }
    write(&dir.path().join(format!("blog/{release}/manifest.json")), "{\"v\":1 }");
    assert!(stderr(&run(&["blog"])).contains("not the manifest"), "{:?}", run(&["blog"]));
    let output = flipside(&["deploy", "blog"]).current_dir(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("FLIPSIDE_STORE"), "{output:?}");
}

#[test]
fn a_failure_is_explained_on_stderr() {
    let failure = Failure::new(Code::Preflight, "blog.wsgi does not import")
        .hint("see the traceback")
        .log(vec!["ImportError: no\x1b[2J".into()]);
    let outcome = Outcome { ms: 10, ..Outcome::bad(State::RolledBack, failure) };
    let agent = Agent::new(vec![ends(outcome)]);
    let output = agent.flipside(&["restart", "blog"]).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    let text = stderr(&output);
    for part in
        ["  | ImportError: no\u{fffd}[2J", "error: blog.wsgi does not import", "hint: see the", "rolled back"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn the_exit_code_tells_gate_busy_and_usage() {
    for (state, code, exit) in
        [(State::Refused, Code::Gate, 3), (State::Busy, Code::Busy, 5), (State::Refused, Code::Usage, 2)]
    {
        let agent = Agent::new(vec![ends(Outcome::bad(state, Failure::new(code, "no")))]);
        let output = agent.flipside(&["--json", "stop", "blog"]).output().unwrap();
        assert_eq!((output.status.code(), &object(&output)["result"]), (Some(exit), &json!(false)));
    }
    for wrong in
        [&["nonsense"][..], &["deploy", "Blog", "--store", "/x"], &["stop", "a b"], &["run", "blog"], &[]]
    {
        assert_eq!(flipside(wrong).output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_plan_prints_its_steps_one_a_line() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    let store = dir.path().display().to_string();
    let step = |name: &str| StepReport { name: name.into(), ok: true, ms: 0, message: String::new() };
    let planned = Outcome { steps: vec![step("fetch"), step("switch")], ..Outcome::good(State::Planned, "") };
    let agent = Agent::new(vec![ends(planned.clone()), ends(planned)]);
    let output = agent.flipside(&["--store", &store, "plan", "blog", "--steps"]).output().unwrap();
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("fetch\nswitch\n", Some(0)));
    let output =
        agent.flipside(&["--store", &store, "plan", "blog", "--detailed-exitcode"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let heard = agent.heard();
    assert!(heard.iter().all(|request| request.command.verb() == "plan"), "{heard:?}");
}

#[test]
fn a_rollback_takes_its_words_in_both_forms() {
    let agent = Agent::new(vec![ends(deployed()), ends(deployed()), ends(deployed())]);
    for arguments in
        [&["rollback", "blog"][..], &["rollback", "blog", BEFORE], &["-a", "blog", "rollback", BEFORE]]
    {
        let output = agent.flipside(arguments).output().unwrap();
        assert!(stdout(&output).contains(&format!("undo: flipside rollback blog {BEFORE}")), "{output:?}");
    }
    let releases: Vec<Option<String>> = agent
        .heard()
        .into_iter()
        .map(|request| match request.command {
            Command::Rollback(rollback) => rollback.release.map(String::from),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(releases, [None, Some(BEFORE.to_owned()), Some(BEFORE.to_owned())]);
}

#[test]
fn logs_are_lines_or_json_lines() {
    let answer = || {
        let mut answer = vec![progress("", "output", "one", 0), progress("", "output", "two", 0)];
        answer.extend(ends(Outcome::good(State::Ok, "")));
        answer
    };
    let agent = Agent::new(vec![answer(), answer()]);
    let output =
        agent.flipside(&["logs", "blog", "-n", "2", "--since", "10m", "--grep", "o"]).output().unwrap();
    assert_eq!(stdout(&output), "one\ntwo\n");
    let output = agent.flipside(&["logs", "blog", "-f", "--json"]).output().unwrap();
    assert_eq!(stdout(&output), "{\"line\":\"one\",\"v\":1}\n{\"line\":\"two\",\"v\":1}\n");
    let heard = agent.heard();
    let Command::Logs(logs) = &heard[0].command else { panic!("{heard:?}") };
    assert!(logs.since.as_deref().is_some_and(|since| since.ends_with('Z')), "{logs:?}");
    assert_eq!((logs.grep.as_deref(), logs.lines, logs.follow), (Some("o"), 2, false));
}

#[test]
fn names_of_the_environment_come_without_values() {
    let names = Outcome::answer(json!({"names": ["A", "SECRET_KEY"]}));
    let agent = Agent::new(vec![ends(names), ends(Outcome::good(State::Ok, ""))]);
    let output = agent.flipside(&["env", "get", "blog"]).output().unwrap();
    assert_eq!(stdout(&output), "A=***\nSECRET_KEY=***\n");
    let output = fed(agent.flipside(&["env", "apply", "blog", "--file", "-"]), b"{\"A\": \"s3cret-canary\"}");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!stdout(&output).contains("canary") && !stderr(&output).contains("canary"));
    let heard = agent.heard();
    let Command::Env { env: Some(env), .. } = &heard[1].command else { panic!("{heard:?}") };
    assert_eq!(env["A"], "s3cret-canary");
}

#[test]
fn maintenance_takes_its_words_in_any_order() {
    let agent = Agent::new((0..3).map(|_| ends(Outcome::good(State::Ok, ""))).collect());
    for arguments in [
        &["maintenance", "on", "blog"][..],
        &["maintenance", "blog", "off"],
        &["-a", "blog", "maintenance", "on"],
    ] {
        assert_eq!(agent.flipside(arguments).output().unwrap().status.code(), Some(0));
    }
    assert_eq!(flipside(&["maintenance", "blog", "perhaps"]).output().unwrap().status.code(), Some(2));
    let states: Vec<bool> = agent
        .heard()
        .iter()
        .map(|request| match &request.command {
            Command::Maintenance { app, on } if app.as_str() == "blog" => *on,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(states, [true, false, true]);
}

#[test]
fn status_is_a_screen_and_tells_the_recipient_and_the_lock() {
    let status = || {
        let app = json!({"state": "running", "release": RELEASE, "busy": "deploy of ann"});
        ends(Outcome::answer(json!({"host": {"id": "web1", "recipient": "age1x"}, "apps": {"blog": app}})))
    };
    let agent = Agent::new(vec![status(), status(), status()]);
    let text = stdout(&agent.flipside(&["status"]).output().unwrap());
    assert!(text.starts_with("web1\n  ! blog: held: deploy of ann\nAPP "), "{text}");
    assert_eq!(stdout(&agent.flipside(&["secret", "recipient"]).output().unwrap()), "age1x\n");
    let output = agent.flipside(&["lock", "status", "blog"]).output().unwrap();
    assert_eq!(stdout(&output), "blog is held: deploy of ann\n");
}

#[test]
fn an_app_may_be_named_by_the_project() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| flipside(arguments).current_dir(dir.path()).output().unwrap();
    assert_eq!(run(&["reload"]).status.code(), Some(2));
    let output = run(&["app", "bootstrap", "blog", "--store", "packages"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let agent = Agent::new(vec![ends(Outcome::good(State::Ok, ""))]);
    let output = agent.flipside(&["reload"]).current_dir(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(agent.heard()[0].command.app().unwrap().as_str(), "blog");
    // Once more is no change; another name is refused and changes nothing.
    assert_eq!(run(&["app", "bootstrap", "blog", "--store", "packages"]).status.code(), Some(0));
    assert_eq!(run(&["app", "bootstrap", "shop"]).status.code(), Some(2));
    assert!(std::fs::read_to_string(dir.path().join(".flipside-app")).unwrap().contains("name = \"blog\""));
}
