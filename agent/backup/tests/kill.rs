//! A follower that is ended by SIGKILL at every step, beside an app that goes on writing.
#![expect(
    clippy::unwrap_used,
    reason = "a test that may panic, in functions that clippy does not take for tests"
)]

mod bed;

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use bed::{Bed, insert};
use flipside_backup::{
    follow::{Config, Control, run},
    restore::Target,
    store,
};

const STEPS: [&str; 7] = ["spooled", "committed", "accept", "put", "done", "snapshot", "lock-zero"];

/// Not a test by itself: what the others start as a process of its own.
#[test]
fn child() {
    let Ok(dir) = std::env::var("FLIPSIDE_TEST_CHILD") else { return };
    let dir = std::path::PathBuf::from(dir);
    let recipients = vec![std::env::var("FLIPSIDE_TEST_RECIPIENT").unwrap()];
    let store = store::open(dir.join("repo").to_str().unwrap()).unwrap();
    let mut config = Config::new(&dir.join("app.db"), store, recipients, &dir.join("state"));
    config.rpo = Duration::from_millis(20);
    run(&config, &Control::new()).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "a test starts itself, from an argument list")]
fn start(bed: &Bed, fault: &str) -> Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("FLIPSIDE_TEST_CHILD", bed.path("").to_str().unwrap().trim_end_matches('/'))
        .env("FLIPSIDE_TEST_RECIPIENT", bed.identity.to_public().to_string())
        .env("FLIPSIDE_BACKUP_FAULT", fault)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Writes until the child is dead; kills it if it does not die by itself.
fn write_until_dead(bed: &Bed, child: &mut Child, app: &rusqlite::Connection, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        insert(app, 4);
        app.execute("UPDATE t SET n=n+1 WHERE id%11=0", []).unwrap();
        let _ = bed;
    }
}

/// The next follower: one that may go on where the dead one stood, or one that compares all pages.
fn go_on(bed: &Bed, resuming: bool) {
    if resuming {
        let following = bed.follow();
        following.backup();
        following.stop().unwrap();
    } else {
        bed.once();
    }
}

#[test]
fn killed_between_any_two_steps_it_goes_on_right() {
    let bed = Bed::new();
    let mut app = bed.seeded(100);
    let mut died = 0;
    for (i, step) in STEPS.iter().enumerate() {
        for n in [1, 2] {
            let mut child = start(&bed, &format!("{step}:{n}"));
            died += usize::from(write_until_dead(&bed, &mut child, &app, Duration::from_millis(1500)));
            match (i + n) % 3 {
                0 => app.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap(),
                1 => app.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap(),
                _ => {
                    drop(app);
                    app = bed.open();
                }
            }
            insert(&app, 3);
        }
        go_on(&bed, i % 2 == 0);
        bed.same(Target::Latest);
    }
    // Each step is reached at least once; some, a second time within the patience, only on a quiet machine.
    assert!(died >= STEPS.len() - 1, "{died} died by themselves");
    let chains: std::collections::BTreeSet<_> =
        bed.objects().iter().map(|(key, _)| key[..32].to_owned()).collect();
    assert_eq!(chains.len(), 1, "one chain through it all");
}

#[test]
fn the_same_log_generation_goes_on_after_a_kill() {
    let bed = Bed::new();
    let app = bed.seeded(500);
    app.execute_batch("PRAGMA wal_autocheckpoint=0").unwrap();
    bed.once();
    for round in 0..3 {
        let mut child = start(&bed, "none:1");
        write_until_dead(&bed, &mut child, &app, Duration::from_millis(400));
        // Frames that nobody captured go into the file, while the log keeps its salts.
        insert(&app, 10 + round);
        app.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        insert(&app, 1);
        go_on(&bed, round % 2 == 0);
        bed.same(Target::Latest);
    }
}

/// Random work and random kills; for as many seconds as `FLIPSIDE_BACKUP_SOAK` says.
#[test]
fn soak() {
    let seconds = std::env::var("FLIPSIDE_BACKUP_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let bed = Bed::new();
    let mut app = bed.seeded(300);
    while Instant::now() < deadline {
        let step = STEPS[rand::random_range(0..STEPS.len())];
        let mut child = start(&bed, &format!("{step}:{}", rand::random_range(1..9)));
        let until = Instant::now() + Duration::from_millis(rand::random_range(50..1500));
        while Instant::now() < until {
            match rand::random_range(0..40) {
                0 => drop(std::mem::replace(&mut app, bed.open())),
                1 => app.execute_batch("DELETE FROM t WHERE id%5=1").unwrap(),
                2 => drop(app.execute_batch("VACUUM")),
                3 => drop(app.execute_batch("PRAGMA busy_timeout=1; PRAGMA wal_checkpoint(TRUNCATE)")),
                4 => drop(app.execute_batch("BEGIN; DELETE FROM t; ROLLBACK")),
                5 => drop(app.execute_batch("PRAGMA wal_checkpoint(PASSIVE)")),
                n => insert(&app, n / 4 + 1),
            }
            app.execute_batch("PRAGMA busy_timeout=20000").unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if rand::random_bool(0.5) {
            insert(&app, 20);
        }
        go_on(&bed, rand::random());
        bed.same(Target::Latest);
    }
}
