//! Whatever is killed comes back, or is found again.

use std::time::{Duration, Instant};

use flipside_agent::{
    runtime::{Observed, Runtime},
    sys::proc,
};
use nix::sys::signal::Signal;

use crate::{
    client::{Load, ask, get},
    fixture::Fixture,
};

async fn until(fixture: &Fixture, condition: impl Fn(&Observed) -> bool) -> Observed {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let observed = fixture.runtime.observe(&fixture.spec.paths).await.unwrap();
        if condition(&observed) {
            return observed;
        }
        assert!(Instant::now() < deadline, "not within twenty seconds: {observed:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_holder_is_succeeded_without_losing_a_request() {
    let Some(fixture) = Fixture::new() else { return };
    let (runtime, spec) = (&fixture.runtime, &fixture.spec);
    let one = fixture.release("1.0");
    fixture.flip(&one, "red");
    runtime.start(spec, &one).await.unwrap();
    let load = Load::on(fixture.socket(), 20);
    load.more(20).await;
    let old = runtime.observe(&spec.paths).await.unwrap();
    proc::signal(fixture.holder(), Signal::SIGKILL);
    let orphaned = until(&fixture, |observed| !observed.listening).await;
    assert_eq!(orphaned.workers.len(), 2, "the workers serve on");
    load.more(20).await;

    runtime.start(spec, &one).await.unwrap();
    let new = runtime.observe(&spec.paths).await.unwrap();
    assert!(new.listening && new.workers.len() == 2);
    assert!(old.workers.iter().all(|worker| proc::process(worker.pid).is_none_or(|process| process.ended)));
    load.more(20).await;
    load.lost_nothing().await;
}

#[tokio::test]
async fn a_killed_holder_does_not_keep_an_app_from_being_stopped_or_held() {
    let Some(fixture) = Fixture::new() else { return };
    let (runtime, spec) = (&fixture.runtime, &fixture.spec);
    let one = fixture.release("1.0");
    fixture.flip(&one, "red");
    runtime.start(spec, &one).await.unwrap();
    proc::signal(fixture.holder(), Signal::SIGKILL);
    until(&fixture, |observed| !observed.listening).await;
    runtime.hold(&spec.paths).await.unwrap();
    let held = runtime.observe(&spec.paths).await.unwrap();
    assert!(held.listening && held.workers.is_empty());
    runtime.start(spec, &one).await.unwrap();
    proc::signal(fixture.holder(), Signal::SIGKILL);
    until(&fixture, |observed| !observed.listening).await;
    runtime.stop(&spec.paths).await.unwrap();
    assert_eq!(runtime.observe(&spec.paths).await.unwrap(), Observed::default());
}

#[tokio::test]
async fn a_worker_that_dies_is_started_again() {
    let Some(fixture) = Fixture::new() else { return };
    let one = fixture.release("1.0");
    fixture.flip(&one, "red");
    fixture.runtime.start(&fixture.spec, &one).await.unwrap();
    assert_eq!(get(&fixture.socket(), "/die").await.unwrap(), "");
    until(&fixture, |seen| seen.workers.len() == 2 && seen.workers.iter().any(|w| w.respawns > 1)).await;
    assert!(ask(&fixture.socket()).await.starts_with(one.as_str()));
}

#[tokio::test]
async fn a_killed_master_is_started_again_by_the_holder() {
    let Some(fixture) = Fixture::new() else { return };
    let one = fixture.release("1.0");
    fixture.flip(&one, "red");
    fixture.runtime.start(&fixture.spec, &one).await.unwrap();
    let before = fixture.runtime.observe(&fixture.spec.paths).await.unwrap();
    let master = proc::process(before.workers[0].pid).unwrap().parent;
    proc::signal(master, Signal::SIGKILL);
    // The listener is the holder's: this one waits.
    assert!(ask(&fixture.socket()).await.starts_with(one.as_str()));
    until(&fixture, |seen| seen.workers.len() == 2 && seen.workers.iter().all(|w| w.accepting)).await;
}
