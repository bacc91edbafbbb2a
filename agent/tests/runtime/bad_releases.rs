//! Releases that do not start: the old workers go on, and putting `current` back heals.

use flipside_agent::runtime::Runtime;
use flipside_api::{Code, RuntimeKind};

use crate::{
    client::{Load, ask},
    fixture::Fixture,
};

on_every_runtime! {
    a_bad_replacement_is_ended_and_the_old_instance_never_notices,
}

async fn a_bad_release_harms_nobody(code: &str, said: &str) {
    let Some(fixture) = started().await else { return };
    let load = Load::on(fixture.socket(), 10);
    load.more(20).await;
    fails(&fixture, code, said).await;
    load.more(20).await;
    heals(&fixture).await;
    load.lost_nothing().await;
}

async fn started() -> Option<Fixture> {
    let mut fixture = Fixture::new()?;
    fixture.spec.start_timeout = 4;
    let good = fixture.release("1.0");
    fixture.flip(&good, "red");
    fixture.runtime.start(&fixture.spec, &good).await.unwrap();
    Some(fixture)
}

async fn fails(fixture: &Fixture, code: &str, said: &str) {
    let bad = fixture.release_of("2.0", code);
    fixture.flip(&bad, "blue");
    let failure = fixture.runtime.reload(&fixture.spec, &bad).await.unwrap_err();
    assert_eq!(failure.code, Code::Switch);
    assert!(failure.log.iter().any(|line| line.contains(said)), "{failure:?}");
}

/// As an unwinding deploy does.
async fn heals(fixture: &Fixture) {
    let (runtime, spec, good) = (&fixture.runtime, &fixture.spec, fixture.release("1.0"));
    fixture.flip(&good, "green");
    runtime.reload(spec, &good).await.unwrap();
    let observed = runtime.observe(&spec.paths).await.unwrap();
    assert_eq!(observed.workers.len(), 2);
    assert!(observed.workers.iter().all(|worker| worker.release == Some(good.clone()) && worker.accepting));
    for _ in 0..10 {
        assert!(ask(&fixture.socket()).await.ends_with("green"), "every worker has the newest environment");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_error() {
    a_bad_release_harms_nobody("import no_such_module", "No module named 'no_such_module'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit() {
    a_bad_release_harms_nobody("print('leaving'); import os; os._exit(0)", "leaving").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_soon_after_the_start() {
    let code = "import os, threading, time
print('doomed')
threading.Thread(target=lambda: (time.sleep(0.3), os._exit(5)), daemon=True).start()
def application(environ, start_response):
    time.sleep(600)";
    let Some(fixture) = started().await else { return };
    // Without a load: such a worker takes requests before it dies.
    fails(&fixture, code, "doomed").await;
    heals(&fixture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang() {
    a_bad_release_harms_nobody("print('hanging'); import time; time.sleep(600)", "hanging").await;
}

async fn a_bad_replacement_is_ended_and_the_old_instance_never_notices(kind: RuntimeKind) {
    let Some(mut fixture) = Fixture::on(kind) else { return };
    fixture.spec.start_timeout = 2;
    let (runtime, spec) = (&fixture.runtime, &fixture.spec);
    let good = fixture.release("1.0");
    fixture.flip(&good, "red");
    runtime.start(spec, &good).await.unwrap();
    let before = runtime.observe(&spec.paths).await.unwrap();
    let load = Load::on(fixture.socket(), 10);
    for code in ["print('one'); raise SystemExit(1)", "print('two'); import time; time.sleep(600)"] {
        let bad = fixture.release_of("2.0", code);
        fixture.flip(&bad, "blue");
        let failure = runtime.replace(spec, &bad).await.unwrap_err();
        assert_eq!(failure.code, Code::Switch);
        let after = runtime.observe(&spec.paths).await.unwrap();
        let pids = |seen: &flipside_agent::runtime::Observed| {
            seen.workers.iter().map(|worker| worker.pid).collect::<Vec<_>>()
        };
        assert_eq!(pids(&after), pids(&before));
    }
    load.lost_nothing().await;
}

#[tokio::test]
async fn a_first_start_that_fails_leaves_nothing() {
    let Some(mut fixture) = Fixture::new() else { return };
    fixture.spec.start_timeout = 2;
    let bad = fixture.release_of("1.0", "raise RuntimeError('no database')");
    fixture.flip(&bad, "red");
    let failure = fixture.runtime.start(&fixture.spec, &bad).await.unwrap_err();
    assert!(failure.log.iter().any(|line| line.contains("no database")), "{failure:?}");
    let observed = fixture.runtime.observe(&fixture.spec.paths).await.unwrap();
    assert_eq!(observed, flipside_agent::runtime::Observed::default());
    assert!(!fixture.socket().exists());
}
