//! What runs beside the web workers, under a real holder.

use std::{
    fs,
    time::{Duration, Instant},
};

use flipside_agent::{
    runtime::{
        Runtime,
        crew::{self, Runs},
        holder::protocol::{Crew, CrewState, RunState, TimedState},
    },
    sys::{atomic_write, clock, exec, proc},
};
use flipside_api::{AppSpec, ReleaseId};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::fixture::Fixture;

/// Says who it is, has a child that is deaf to TERM, and works until it is told to end.
const WORKER: &str = "import os, signal, sys, time\n\
    child = os.fork()\n\
    if not child: signal.signal(15, signal.SIG_IGN)\n\
    else: print(os.environ['FLIPSIDE_RELEASE'], os.environ['COLOUR'], os.getcwd(), child, flush=True)\n\
    time.sleep(3600)\n";

fn crew(fixture: &Fixture, release: &ReleaseId, options: &serde_json::Value) -> Crew {
    let mut spec =
        json!({"app": "blog", "template": "t", "domains": ["b.org"], "public_url": "https://b.org"});
    spec.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let spec: AppSpec = serde_json::from_value(spec).unwrap();
    crew::wanted(&spec, release, &fixture.spec.paths, None)
}

fn python(code: &str) -> serde_json::Value {
    json!(["/usr/bin/python3", "-c", code])
}

async fn until(fixture: &Fixture, condition: impl Fn(&CrewState) -> bool) -> CrewState {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let state = fixture.runtime.crew(&fixture.spec.paths).await.unwrap();
        if condition(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "not within a minute: {state:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The workers' processes, and the deaf children that they told of.
fn processes(fixture: &Fixture, state: &CrewState) -> Vec<u32> {
    let log = fixture.log();
    let told = log.lines().filter(|line| line.contains("[queue."));
    let children = told.filter_map(|line| line.rsplit(' ').next()?.parse().ok());
    state.background.iter().filter_map(|post| post.pid).chain(children).collect()
}

fn runs(pid: u32) -> bool {
    proc::process(pid).is_some_and(|process| !process.ended)
}

/// Waits until they have ended: a kill takes its time.
async fn gone(pids: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while pids.iter().any(|pid| runs(*pid)) {
        assert!(Instant::now() < deadline, "of {pids:?} some still run");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn background_workers_run_restart_and_end_as_a_crew() {
    let Some(fixture) = Fixture::new() else { return };
    let (runtime, paths) = (&fixture.runtime, &fixture.spec.paths);
    let (one, two) = (fixture.release("1.0"), fixture.release("2.0"));
    fixture.flip(&one, "red");
    runtime.hold(paths).await.unwrap();
    let queue = json!({"queue": {"command": python(WORKER), "count": 2}});
    let flawed = json!({"command": python("print('oh no'); raise SystemExit(3)")});
    let mut background = queue.clone();
    background["flawed"] = flawed;
    let first = crew(&fixture, &one, &json!({ "background": background }));
    runtime.employ(paths, first.clone()).await.unwrap();
    runtime.employ(paths, first).await.expect("the same again is no error");

    let up = |state: &CrewState| {
        let queue = state.background.iter().filter(|post| post.name == "queue");
        queue.filter(|post| post.pid.is_some()).count() == 2
    };
    let said = |count: usize| fixture.log().matches(&format!("{one} red")).count() >= count;
    let state = until(&fixture, |state| up(state) && said(2) && state.background[0].restarts > 1).await;
    assert_eq!(state.background[0].ended.as_deref(), Some("ended with code 3"));
    let line = format!("[queue.2] {one} red {} ", paths.data().display());
    assert!(
        fixture.log().contains(&line) && fixture.log().contains("[flawed.1] oh no\n"),
        "{}",
        fixture.log()
    );

    proc::signal(state.background[1].pid.unwrap(), Signal::SIGKILL);
    let state = until(&fixture, |state| state.background[1].restarts == 1 && up(state) && said(3)).await;
    assert_eq!(state.background[1].ended.as_deref(), Some("was ended by signal 9"));
    let old = processes(&fixture, &state);
    assert!(old.len() >= 5, "{old:?}");

    fixture.flip(&two, "blue");
    let second = crew(&fixture, &two, &json!({ "background": queue }));
    let refused = runtime.employ(paths, second.clone()).await.unwrap_err();
    assert!(refused.message.contains("dismiss them first"), "{}", refused.message);
    runtime.dismiss(paths, Runs::GoOn).await.unwrap();
    gone(&old).await;
    runtime.employ(paths, second).await.unwrap();
    let state =
        until(&fixture, |state| up(state) && fixture.log().matches(&format!("{two} blue")).count() == 2);
    let state = state.await;
    assert!(state.background.iter().all(|post| post.release == two.as_str()));

    // A holder that is killed leaves them behind; its successor ends them before others may begin.
    let left: Vec<u32> = processes(&fixture, &state).into_iter().filter(|pid| runs(*pid)).collect();
    assert_eq!(left.len(), 4);
    proc::signal(fixture.holder(), Signal::SIGKILL);
    tokio::time::timeout(Duration::from_secs(60), async {
        while runtime.observe(paths).await.unwrap().listening {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    runtime.hold(paths).await.unwrap();
    until(&fixture, |state| state.background.is_empty() && state.tag.is_none()).await;
    gone(&left).await;
    runtime.stop(paths).await.unwrap();
}

#[tokio::test]
async fn a_schedule_runs_when_it_is_due_and_never_twice_at_once() {
    let Some(fixture) = Fixture::new() else { return };
    let (runtime, paths) = (&fixture.runtime, &fixture.spec.paths);
    let one = fixture.release("1.0");
    fixture.flip(&one, "red");
    // As a killed holder leaves it: all were seen to two minutes ago, and a run of one goes on.
    let patient = "import os, signal, time\nsignal.signal(15, lambda *_: 0)\nprint('up', flush=True)\n\
        while not os.path.exists('go'): time.sleep(0.01)\n";
    let program = exec::Program {
        argv: ["/usr/bin/python3", "-c", patient].map(str::to_owned).to_vec(),
        env: std::collections::BTreeMap::new(),
        cwd: paths.data(),
        account: None,
        stdin: None,
        timeout: Duration::MAX,
        tail: 0,
    };
    let left = exec::follow(&program).unwrap();
    let pid = left.pid().unwrap();
    let (up, waits) = tokio::sync::oneshot::channel();
    let mut reaper = tokio::task::JoinSet::new();
    reaper.spawn(async move {
        let (_until, mut heard) = tokio::sync::watch::channel(None);
        let mut up = Some(up);
        left.to_its_end(&mut heard, &mut |_| {
            if let Some(up) = up.take() {
                let _ = up.send(());
            }
        })
        .await
    });
    waits.await.unwrap();
    let started = proc::process(pid).unwrap().started;
    let seen = clock::now_ms() - 120_000;
    let known =
        |name: &str, running| TimedState { name: name.into(), seen, running, ..TimedState::default() };
    let run = RunState { pid: Some(pid), started, since: seen, release: one.to_string() };
    let schedule = vec![known("busy", Some(run)), known("brief", None), known("long", None)];
    let state = CrewState { schedule, ..CrewState::default() };
    fs::create_dir_all(paths.run()).unwrap();
    let text = serde_json::to_vec(&state).unwrap();
    atomic_write::write(&paths.run().join("crew.json"), &text, 0o600, None).unwrap();

    runtime.hold(paths).await.unwrap();
    let every_minute = |code: &str| json!({"command": python(code), "cron": "* * * * *"});
    let options = json!({"schedule": {
        "busy": every_minute("print('twice')"),
        "brief": every_minute("import os; print('hello', os.environ['COLOUR']); raise SystemExit(5)"),
        "long": every_minute("import time; print('begun', flush=True); time.sleep(3600)"),
        "later": {"command": python(""), "cron": "0 0 29 2 *"},
    }});
    runtime.employ(paths, crew(&fixture, &one, &options)).await.unwrap();
    let of = |state: &CrewState, name: &str| {
        state.schedule.iter().find(|timed| timed.name == name).cloned().unwrap()
    };
    let state =
        until(&fixture, |state| of(state, "busy").skipped == 1 && of(state, "brief").last.is_some()).await;
    assert_eq!(of(&state, "busy").running.unwrap().pid, Some(pid));
    let last = of(&state, "brief").last.unwrap();
    assert_eq!((last.code, last.problem.as_deref()), (Some(5), Some("ended with code 5")));
    assert!(last.release == one.as_str() && last.at >= seen + 120_000);
    assert!(fixture.log().contains("[brief] hello red\n"), "{}", fixture.log());
    assert!(of(&state, "brief").next.unwrap() > seen + 120_000);
    assert!(of(&state, "later").running.is_none() && of(&state, "later").last.is_none());

    atomic_write::write(&paths.data().join("go"), b"", 0o644, None).unwrap();
    let state = until(&fixture, |state| of(state, "busy").running.is_none()).await;
    assert!(of(&state, "busy").last.unwrap().problem.unwrap().contains("holder was killed"));

    // A crew that is dismissed lets its runs go on, unless told otherwise; nothing new begins meanwhile.
    until(&fixture, |_| fixture.log().contains("[long] begun")).await;
    runtime.dismiss(paths, Runs::GoOn).await.unwrap();
    let state = runtime.crew(paths).await.unwrap();
    let long = of(&state, "long").running.unwrap().pid.unwrap();
    assert!(runs(long) && state.schedule.iter().all(|timed| timed.next.is_none()));
    runtime.dismiss(paths, Runs::End).await.unwrap();
    gone(&[long]).await;
    let last = of(&runtime.crew(paths).await.unwrap(), "long").last.unwrap();
    assert_eq!(last.problem.as_deref(), Some("was ended by signal 15"));
    runtime.stop(paths).await.unwrap();
}
