//! Whatever is killed comes back, or is found again.

use std::time::{Duration, Instant};

use flipside_agent::{
    runtime::{Observed, Runtime},
    sys::{atomic_write, proc},
};
use flipside_api::RuntimeKind;
use nix::sys::signal::Signal;

use crate::{
    client::{Load, ask, get},
    fixture::Fixture,
};

on_every_runtime! {
    a_killed_holder_is_succeeded_without_losing_a_request,
    a_killed_holder_does_not_keep_an_app_from_being_stopped_or_held,
    a_killed_master_is_started_again_by_the_holder,
    an_instance_that_cannot_be_started_is_told_at_once,
    a_deploy_that_was_cut_short_leaves_nothing_for_long,
}

pub(crate) async fn until(fixture: &Fixture, condition: impl Fn(&Observed) -> bool) -> Observed {
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

async fn a_killed_holder_is_succeeded_without_losing_a_request(kind: RuntimeKind) {
    let Some(fixture) = Fixture::on(kind) else { return };
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

async fn a_killed_holder_does_not_keep_an_app_from_being_stopped_or_held(kind: RuntimeKind) {
    let Some(fixture) = Fixture::on(kind) else { return };
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

async fn a_killed_master_is_started_again_by_the_holder(kind: RuntimeKind) {
    let Some(fixture) = Fixture::on(kind) else { return };
    let one = fixture.release("1.0");
    fixture.flip(&one, "red");
    fixture.runtime.start(&fixture.spec, &one).await.unwrap();
    let before = fixture.runtime.observe(&fixture.spec.paths).await.unwrap();
    let master = proc::process(before.workers[0].pid).unwrap().parent;
    proc::signal(master, Signal::SIGKILL);
    // What a dying worker has accepted is lost with it.
    until(&fixture, |seen| {
        seen.workers.iter().all(|worker| !before.workers.iter().any(|old| old.pid == worker.pid))
    })
    .await;
    // The listener is the holder's: this one waits.
    assert!(ask(&fixture.socket()).await.starts_with(one.as_str()));
    until(&fixture, |seen| seen.workers.len() == 2 && seen.workers.iter().all(|w| w.accepting)).await;
}

#[tokio::test]
async fn a_worker_that_starts_between_the_two_renames_of_a_switch_gets_a_pair() {
    let Some(fixture) = Fixture::new() else { return };
    let (paths, one) = (&fixture.spec.paths, fixture.release("1.0"));
    fixture.flip(&one, "red");
    fixture.runtime.start(&fixture.spec, &one).await.unwrap();
    // `env` is the next release's already, `current` is not.
    std::fs::copy(paths.env_file(), paths.home().join("env.previous")).unwrap();
    let next = "FLIPSIDE_RELEASE='2.0-44136fa355b3'\nFLIPSIDE_WSGI='other:application'\nCOLOUR='blue'\n";
    atomic_write::write(&paths.env_file(), next.as_bytes(), 0o644, None).unwrap();
    for _ in 0..2 {
        get(&fixture.socket(), "/die").await.unwrap();
    }
    let seen = until(&fixture, |seen| {
        let up = seen.workers.len() == 2 && seen.workers.iter().all(|worker| worker.accepting);
        up && seen.workers.iter().any(|worker| worker.respawns > 1)
    })
    .await;
    assert!(seen.workers.iter().all(|worker| worker.release == Some(one.clone())));
    assert!(ask(&fixture.socket()).await.ends_with("red"));
}

async fn an_instance_that_cannot_be_started_is_told_at_once(kind: RuntimeKind) {
    let Some(fixture) = Fixture::on(kind) else { return };
    let one = fixture.release("1.0");
    fixture.flip(&one, "red");
    std::fs::remove_dir(fixture.spec.paths.data()).unwrap();
    let begun = Instant::now();
    let failure = fixture.runtime.start(&fixture.spec, &one).await.unwrap_err();
    assert!(failure.message.contains("cannot be started"), "{failure:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

async fn a_deploy_that_was_cut_short_leaves_nothing_for_long(kind: RuntimeKind) {
    let Some(mut fixture) = Fixture::on(kind) else { return };
    let (one, hangs) = (fixture.release("1.0"), fixture.release_of("2.0", "import time; time.sleep(600)"));
    fixture.flip(&one, "red");
    fixture.runtime.start(&fixture.spec, &one).await.unwrap();
    fixture.flip(&hangs, "blue");
    // The agent is gone in the middle of a replacement.
    fixture.spec.workers = 3;
    let replacing = fixture.runtime.replace(&fixture.spec, &hangs);
    assert!(tokio::time::timeout(Duration::from_secs(2), replacing).await.is_err());
    let between = fixture.runtime.observe(&fixture.spec.paths).await.unwrap();
    assert_eq!(between.workers.len(), 5);
    // Its successor puts things back.
    fixture.flip(&one, "red");
    fixture.spec.workers = 2;
    let begun = Instant::now();
    fixture.runtime.start(&fixture.spec, &one).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert_eq!(fixture.runtime.observe(&fixture.spec.paths).await.unwrap().workers.len(), 2);
}
