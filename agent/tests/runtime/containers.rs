//! What only containers have: their wall, their engine, and the way in and out of them.

use std::{
    fs,
    time::{Duration, Instant},
};

use flipside_agent::{
    runtime::{Account, Runtime},
    sys::{atomic_write, proc, users},
};
use flipside_api::RuntimeKind;
use nix::sys::signal::Signal;

use crate::{
    client::{Load, ask, get},
    fixture::{Fixture, containers},
    kills::until,
};

/// An app that says how it is walled in.
const WALLED: &str = r#"
import os
def tried(path):
    try:
        with open(path, "w") as file:
            file.write("x")
        return "yes"
    except OSError as error:
        return error.strerror
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    places = ["/tmp/x", "x", "/x", "/usr/x", os.path.join(os.environ["FLIPSIDE_HOME"], "x")]
    status = open("/proc/self/status").read()
    return ["\n".join([*map(tried, places), status]).encode()]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_walled_in() {
    let Some(mut fixture) = Fixture::on(RuntimeKind::Docker) else { return };
    if users::am_root() {
        fixture.spec.account = Some(Account { name: String::new(), uid: 54_321, gid: 54_322 });
        std::os::unix::fs::chown(fixture.spec.paths.data(), Some(54_321), Some(54_322)).unwrap();
    }
    fixture.spec.memory = Some(256 << 20);
    let code = WALLED.replace("os.environ[\"FLIPSIDE_HOME\"]", &format!("{:?}", fixture.spec.paths.home()));
    let one = fixture.release_of("1.0", &code);
    fixture.flip(&one, "red");
    fixture.runtime.start(&fixture.spec, &one).await.unwrap();
    let answer = ask_lines(&fixture).await;
    assert_eq!(answer[..2], ["yes", "yes"], "its folders");
    for refused in &answer[2..5] {
        assert!(["Read-only file system", "Permission denied"].contains(&refused.as_str()), "{answer:?}");
    }
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(answer.iter().any(|said| said == line), "{line}: {answer:?}");
    }
    let observed = fixture.runtime.observe(&fixture.spec.paths).await.unwrap();
    let master = proc::process(observed.workers[0].pid).unwrap().parent;
    // What `docker inspect` shows as well: nothing of the app's environment.
    let environ = fs::read_to_string(format!("/proc/{master}/environ")).unwrap();
    assert!(environ.contains("FLIPSIDE_NOTES=") && !environ.contains("COLOUR"), "{environ:?}");
    fixture.runtime.stop(&fixture.spec.paths).await.unwrap();
    let left: Vec<_> =
        fs::read_dir(fixture.spec.paths.run()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "w" || name == "holder.lock"), "{left:?}");
    assert_eq!(fs::read_dir(fixture.spec.paths.run().join("w")).unwrap().count(), 0);
}

async fn ask_lines(fixture: &Fixture) -> Vec<String> {
    let answer = get(&fixture.socket(), "/").await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn into_a_container_and_out_again_no_request_is_lost() {
    let Some(fixture) = Fixture::on(RuntimeKind::Docker) else { return };
    let (one, spec) = (fixture.release("1.0"), &fixture.spec);
    fixture.flip(&one, "red");
    let docker = fixture.runtime.clone();
    let mut process = docker.clone();
    process.containers = None;
    assert_ne!(docker.options(spec), process.options(spec));
    process.start(spec, &one).await.unwrap();
    let load = Load::on(fixture.socket(), 30);
    load.more(50).await;
    for runtime in [&docker, &process] {
        runtime.replace(spec, &one).await.unwrap();
        load.more(30).await;
        let observed = runtime.observe(&spec.paths).await.unwrap();
        assert_eq!((observed.workers.len(), observed.options), (2, Some(runtime.options(spec))));
        let contained = observed.workers.iter().all(|worker| proc::own_number(worker.pid) != worker.pid);
        assert_eq!(contained, runtime.kind() == RuntimeKind::Docker);
    }
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_nothing_is_touched_and_what_runs_runs_on() {
    let Some(mut fixture) = Fixture::on(RuntimeKind::Docker) else { return };
    let (one, two) = (fixture.release("1.0"), fixture.release("2.0"));
    fixture.flip(&one, "red");
    fixture.runtime.start(&fixture.spec, &one).await.unwrap();
    let load = Load::on(fixture.socket(), 20);
    fixture.runtime.containers = containers("/nonexistent/docker.sock");
    let begun = Instant::now();
    for failure in [
        fixture.runtime.ready(&fixture.spec).await.unwrap_err(),
        fixture.runtime.replace(&fixture.spec, &one).await.unwrap_err(),
    ] {
        assert!(failure.message.contains("/nonexistent/docker.sock"), "{failure:?}");
        assert!(failure.hint.contains("docker.io"), "{failure:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    // A chain reload needs no engine.
    fixture.flip(&two, "blue");
    fixture.runtime.reload(&fixture.spec, &two).await.unwrap();
    assert!(ask(&fixture.socket()).await.starts_with(two.as_str()));
    load.lost_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_and_holder_killed_together_leave_a_container_that_is_succeeded() {
    let Some(fixture) = Fixture::on(RuntimeKind::Docker) else { return };
    let (one, spec) = (fixture.release("1.0"), &fixture.spec);
    fixture.flip(&one, "red");
    // Killed while it starts one: no container may be left that nobody knows of.
    let starting = fixture.runtime.start(spec, &one);
    assert!(tokio::time::timeout(Duration::from_millis(700), starting).await.is_err());
    proc::signal(fixture.holder(), Signal::SIGKILL);
    fixture.runtime.start(spec, &one).await.unwrap();
    let first = until(&fixture, |observed| observed.workers.len() == 2).await;
    let load = Load::on(fixture.socket(), 20);
    load.more(20).await;
    assert!(first.workers.iter().all(|worker| worker.release == Some(one.clone())));
    fixture.runtime.stop(&spec.paths).await.unwrap();
    assert!(fixture.runtime.observe(&spec.paths).await.unwrap().workers.is_empty());
    drop(load);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ends_at_once_says_why() {
    let Some(fixture) = Fixture::on(RuntimeKind::Docker) else { return };
    let one = fixture.release("1.0");
    fixture.flip(&one, "red");
    let enter = &fixture.runtime.assets.enter;
    atomic_write::write(enter, b"raise SystemExit('no way in')", 0o644, None).unwrap();
    let failure = fixture.runtime.start(&fixture.spec, &one).await.unwrap_err();
    assert!(failure.message.contains("ended at once: no way in"), "{failure:?}");
    assert!(!fixture.socket().exists());
}
