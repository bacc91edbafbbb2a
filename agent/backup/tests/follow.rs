//! A follower beside a live database, and what can be restored of it.

mod bed;

use bed::{Bed, PATIENCE, dump, insert};
use flipside_backup::{
    chain::Position,
    follow::{Control, FollowError, run},
    restore::{Target, check_chain},
    store::{Fake, Fault},
};

#[test]
fn one_pass_stores_everything_and_the_next_only_what_changed() {
    let bed = Bed::new();
    let app = bed.seeded(500);
    let first = bed.once();
    bed.same(Target::Latest);
    let objects = bed.objects().len();
    assert_eq!(bed.once(), first);
    assert_eq!(bed.objects().len(), objects, "an unchanged database makes no object");
    insert(&app, 3);
    let second = bed.once();
    assert!(second.seq > first.seq && second.chain == first.chain);
    bed.same(Target::Latest);
    let old = bed.restore(Target::Position(first), "old.db").unwrap();
    assert_eq!(old.position, first);
    assert_eq!(dump(&bed.path("old.db")).len() + 3, dump(&bed.db()).len());
}

#[test]
fn commits_follow_within_the_rpo_and_every_position_comes_back() {
    let bed = Bed::new();
    let app = bed.seeded(100);
    let following = bed.follow();
    let mut dumps = Vec::new();
    for round in 0..8 {
        insert(&app, 20);
        app.execute("UPDATE t SET n=-1 WHERE id % 7 = ?1", [round % 7]).unwrap();
        dumps.push((following.backup(), dump(&bed.db())));
    }
    for (position, content) in &dumps {
        let name = format!("at-{}.db", position.seq);
        bed.restore(Target::Position(*position), &name).unwrap();
        assert_eq!(&dump(&bed.path(&name)), content, "at {position}");
    }
    assert_eq!(following.control.status().gaps, 1, "only the first comparison");
    let last = following.stop().unwrap();
    assert_eq!(last, Some(dumps.last().unwrap().0));
    bed.same(Target::Latest);
}

#[test]
fn a_time_is_the_last_state_before_it() {
    let bed = Bed::new();
    let app = bed.seeded(10);
    let following = bed.follow();
    let mut seen = Vec::new();
    for _ in 0..6 {
        insert(&app, 1);
        following.backup();
        seen.push((following.control.status().captured_ms, dump(&bed.db())));
        let now = flipside_backup::clock::now_ms();
        while flipside_backup::clock::now_ms() < now + 3 {
            std::hint::spin_loop();
        }
    }
    for (time, content) in seen {
        let restored = bed.restore(Target::Time(time), &format!("{time}.db")).unwrap();
        assert_eq!((restored.time_ms, dump(&bed.path(&format!("{time}.db")))), (time, content));
    }
    assert!(bed.restore(Target::Time(1), "never.db").is_err());
    assert!(!bed.path("never.db").exists());
}

#[test]
fn the_log_stays_short_and_restarts_without_a_gap() {
    let bed = Bed::new();
    let app = bed.seeded(10);
    app.execute_batch("PRAGMA wal_autocheckpoint=100000").unwrap();
    let following = bed.follow();
    following.backup();
    for _ in 0..40 {
        insert(&app, 1500);
        following.backup();
    }
    let log = std::fs::metadata(bed.path("app.db-wal")).unwrap().len();
    assert!(log < 12 << 20, "the log is {log} bytes of {}", std::fs::metadata(bed.db()).unwrap().len());
    assert_eq!(following.control.status().gaps, 1);
    bed.same(Target::Latest);
}

#[test]
fn what_was_read_goes_into_the_file_of_an_app_that_never_checkpoints() {
    let bed = Bed::new();
    let app = bed.seeded(10);
    app.execute_batch("PRAGMA wal_autocheckpoint=0; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let following = bed.follow();
    following.backup();
    // Too few frames for a restart of the log.
    for _ in 0..600 {
        app.execute("UPDATE t SET n = n + 1 WHERE id = 1", []).unwrap();
    }
    following.backup();
    let copied = || {
        let index = std::fs::read(bed.path("app.db-shm")).unwrap();
        u32::from_ne_bytes(index[96..100].try_into().unwrap())
    };
    let until = std::time::Instant::now() + PATIENCE;
    while copied() == 0 {
        assert!(std::time::Instant::now() < until, "no frame went into the file");
        std::thread::yield_now();
    }
}

#[test]
fn an_apps_own_checkpoints_vacuum_and_reopening_lose_nothing() {
    let bed = Bed::new();
    let mut app = bed.seeded(800);
    let following = bed.follow();
    for (n, sql) in [
        "PRAGMA wal_checkpoint(PASSIVE)",
        "DELETE FROM t WHERE id % 3 = 0; VACUUM",
        "PRAGMA busy_timeout=1; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA busy_timeout=20000",
        "CREATE TABLE u(a PRIMARY KEY, b); INSERT INTO u SELECT hex(randomblob(9)), n FROM t",
        "BEGIN; DELETE FROM u; ROLLBACK",
        "PRAGMA busy_timeout=1; PRAGMA wal_checkpoint(RESTART); PRAGMA busy_timeout=20000",
        "DROP TABLE u; VACUUM",
    ]
    .iter()
    .enumerate()
    {
        app.execute_batch(sql).unwrap();
        following.backup();
        bed.same(Target::Latest);
        if n % 2 == 0 {
            drop(app);
            app = bed.open();
        }
        insert(&app, 30);
    }
    following.backup();
    bed.same(Target::Latest);
}

#[test]
fn a_database_without_a_log_is_followed_by_comparison() {
    let bed = Bed::new();
    let app = bed.open();
    app.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB, n INT)").unwrap();
    insert(&app, 300);
    let following = bed.follow();
    for _ in 0..5 {
        insert(&app, 50);
        following.backup();
        bed.same(Target::Latest);
    }
    app.execute_batch("PRAGMA page_size=8192; VACUUM").unwrap();
    following.backup();
    bed.same(Target::Latest);
    app.execute_batch("PRAGMA journal_mode=wal").unwrap();
    insert(&app, 50);
    following.backup();
    bed.same(Target::Latest);
}

#[test]
fn a_replaced_deleted_and_new_database_goes_on_in_the_same_chain() {
    let bed = Bed::new();
    let app = bed.seeded(400);
    let following = bed.follow();
    let first = following.backup();
    let before = dump(&bed.db());
    drop(app);
    {
        let other = rusqlite::Connection::open(bed.path("other.db")).unwrap();
        other.execute_batch("PRAGMA journal_mode=wal; CREATE TABLE z(a); INSERT INTO z VALUES(1)").unwrap();
    }
    for left in ["app.db-wal", "app.db-shm"] {
        let _ = std::fs::remove_file(bed.path(left));
    }
    std::fs::rename(bed.path("other.db"), bed.db()).unwrap();
    let gaps = following.control.status().gaps;
    following.until("the other database is seen", |status| status.gaps > gaps);
    let second = following.backup();
    assert_eq!(second.chain, first.chain);
    bed.same(Target::Latest);

    for left in ["app.db", "app.db-wal", "app.db-shm"] {
        let _ = std::fs::remove_file(bed.path(left));
    }
    following.until("it is missed", |status| !status.error.is_empty());
    let app = bed.seeded(5);
    following.until("the new database is seen", |status| status.error.is_empty());
    insert(&app, 1);
    following.backup();
    bed.same(Target::Latest);
    bed.restore(Target::Position(first), "first.db").unwrap();
    assert_eq!(dump(&bed.path("first.db")), before);

    // The last look of a follower is at what is there then.
    app.execute("VACUUM INTO ?1", [bed.path("other.db").to_str()]).unwrap();
    drop(app);
    insert(&rusqlite::Connection::open(bed.path("other.db")).unwrap(), 7);
    for left in ["app.db-wal", "app.db-shm"] {
        let _ = std::fs::remove_file(bed.path(left));
    }
    std::fs::rename(bed.path("other.db"), bed.db()).unwrap();
    following.stop().unwrap();
    bed.same(Target::Latest);
}

#[test]
fn a_follower_that_was_away_goes_on_by_comparison() {
    let bed = Bed::new();
    let app = bed.seeded(2000);
    // One that is stopped at once names no position unless it can be restored.
    if let Some(position) = bed.follow().stop().unwrap() {
        bed.restore(Target::Position(position), "stopped.db").unwrap();
    }
    let mut positions = vec![bed.once()];
    let chain = positions[0].chain;
    for round in 0..4 {
        insert(&app, 20);
        if round % 2 == 0 {
            app.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        }
        positions.push(bed.once());
        bed.same(Target::Latest);
    }
    assert!(positions.iter().all(|position| position.chain == chain));
    let snapshots = bed.objects().iter().filter(|(key, _)| key.contains("/L3/")).count();
    assert_eq!(snapshots, 1, "a gap is no reason for another snapshot");
}

#[test]
fn a_start_goes_on_where_the_last_follower_stood_or_else_compares() {
    let bed = Bed::new();
    let app = bed.seeded(400);
    app.execute_batch("PRAGMA wal_autocheckpoint=0; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    insert(&app, 5);
    bed.follow().backup();
    // What is done while nobody follows, and whether the next start has to compare.
    let copied = |bed: &Bed| {
        std::fs::copy(bed.db(), bed.path("copy.db")).unwrap();
        std::fs::rename(bed.path("copy.db"), bed.db()).unwrap();
    };
    let away: [(&str, &dyn Fn(), u64); 6] = [
        ("nothing", &|| (), 0),
        ("more commits", &|| insert(&app, 20), 0),
        (
            "commits that went into the file",
            &|| app.execute_batch("UPDATE t SET n=-1; PRAGMA wal_checkpoint(PASSIVE)").unwrap(),
            0,
        ),
        (
            "a restarted log",
            &|| {
                app.execute_batch("PRAGMA wal_checkpoint(RESTART)").unwrap();
                insert(&app, 400);
            },
            1,
        ),
        (
            "another log",
            &|| {
                app.execute_batch("PRAGMA journal_mode=delete; PRAGMA journal_mode=wal; UPDATE t SET n=5")
                    .unwrap()
            },
            1,
        ),
        ("another file", &|| copied(&bed), 1),
    ];
    for (what, act, gaps) in away {
        act();
        let following = bed.follow();
        following.backup();
        bed.same(Target::Latest);
        let status = following.control.status();
        // A file that is a copy has the same pages: it was compared, and nothing was found.
        let compared = status.gaps + u64::from(what == "another file");
        assert_eq!(compared, gaps, "{what}: {status:?}");
        following.stop().unwrap();
    }
}

#[test]
fn a_file_that_was_changed_past_sqlite_is_found_out_after_a_start_that_compared_nothing() {
    use std::os::unix::fs::FileExt;
    let bed = Bed::new();
    let app = bed.seeded(400);
    app.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    insert(&app, 1);
    bed.follow().backup();
    // A page that the log does not hold: the end of the third, where a row's noise is.
    let file = std::fs::File::options().write(true).open(bed.db()).unwrap();
    file.write_all_at(b"changed", 3 * 4096 - 50).unwrap();
    let following = bed.follow();
    following.until("it is found out", |status| status.gaps == 1);
    following.backup();
    bed.same(Target::Latest);
}

#[test]
fn any_page_size_is_followed() {
    for size in [512, 1024, 8192, 65536] {
        let bed = Bed::new();
        let app = bed.sized(size, 300);
        let following = bed.follow();
        following.backup();
        app.execute_batch("UPDATE t SET n=1 WHERE id%9=0; DELETE FROM t WHERE id%4=1; VACUUM").unwrap();
        following.backup();
        following.stop().unwrap();
        bed.same(Target::Latest);
    }
}

#[test]
fn an_app_that_keeps_everybody_out_is_named_and_waited_for() {
    let bed = Bed::new();
    let app = bed.seeded(20);
    app.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(app);
    let app = bed.open();
    app.execute_batch("PRAGMA locking_mode=exclusive; UPDATE t SET n=3").unwrap();
    let following = bed.follow();
    following.until("it is said", |status| status.error.contains("locked"));
    drop(app);
    following.backup();
    assert_eq!(following.control.status().error, "");
    following.stop().unwrap();
    bed.same(Target::Latest);
}

#[test]
fn one_pass_gives_up_on_a_store_that_takes_nothing() {
    let bed = Bed::new();
    let _app = bed.seeded(5);
    let fake = Fake::new();
    fake.fail_always("put_new", Some(Fault::Unavailable));
    let mut config = bed.config();
    (config.store, config.once) = (std::sync::Arc::new(fake), true);
    config.patience = std::time::Duration::from_millis(300);
    let error = run(&config, &Control::new()).unwrap_err().to_string();
    assert!(error.contains("500"), "{error}");
}

/// A small disk of its own, gone with the test.
struct Disk(std::path::PathBuf);

impl Disk {
    fn new(at: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).ok()?;
        let mounted = command("mount").args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"]).arg(&at).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = command("umount").arg("-l").arg(&self.0).status();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own disk, from an argument list")]
fn command(program: &str) -> std::process::Command {
    std::process::Command::new(program)
}

#[test]
fn a_full_disk_beneath_the_spool_or_the_store_is_said_and_waited_for() {
    for place in ["state", "repo"] {
        let bed = Bed::new();
        let Some(disk) = Disk::new(bed.path(place)) else {
            println!("SKIP: only root mounts");
            return;
        };
        let app = bed.seeded(50);
        let following = bed.follow();
        following.backup();
        let ballast = disk.0.join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        let chunk = [1; 4096];
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
        insert(&app, 300);
        following.until("it is said", |status| status.error.contains("No space left"));
        insert(&app, 30);
        drop(file);
        std::fs::remove_file(&ballast).unwrap();
        following.backup();
        following.stop().unwrap();
        bed.same(Target::Latest);
    }
}

#[test]
fn the_levels_meet_and_stand_in_for_what_is_thinned() {
    let bed = Bed::new();
    let app = bed.seeded(300);
    let mut config = bed.config();
    config.rpo = std::time::Duration::from_millis(20);
    config.windows = [std::time::Duration::from_millis(300), std::time::Duration::from_millis(1200)];
    let following = bed::Following::new(config);
    let first = following.backup();
    let level = |n: u8| bed.objects().iter().filter(|(key, _)| key.contains(&format!("/L{n}/"))).count();
    let deadline = std::time::Instant::now() + PATIENCE;
    while level(1) < 3 || level(2) < 2 {
        assert!(std::time::Instant::now() < deadline, "{:?}", bed.objects());
        app.execute("UPDATE t SET n=n+1 WHERE id%50=1", []).unwrap();
        following.backup();
    }
    following.stop().unwrap();
    // Some ten pages of noise change in a few bytes each, in every window.
    for (key, size) in bed.objects().iter().filter(|(key, _)| key.contains("/L1/") || key.contains("/L2/")) {
        assert!(*size < 4000, "{key}: {size}");
    }
    let identities = bed.source().identities;
    let check = || {
        let chain = first.chain;
        check_chain(&bed.store(), chain, (Some(&identities), None), bed.dir.path(), &mut |_| {}).unwrap()
    };
    let report = check();
    assert!(report.restored && report.findings.is_empty(), "{report:?}");
    let last = |prefix: &str| {
        let to = |key: &str| u64::from_str_radix(key.rsplit_once('-').unwrap().1, 16).unwrap();
        bed.objects().iter().filter(|(key, _)| key.contains(prefix)).map(|(key, _)| to(key)).max().unwrap()
    };
    let merged = last("/L2/");
    let exact = Target::Position(Position { chain: first.chain, seq: merged });
    bed.restore(exact, "by-segments.db").unwrap();
    for (key, _) in bed.objects().iter().filter(|(key, _)| key.contains("/L0/") || key.contains("/L1/")) {
        let to = u64::from_str_radix(key.rsplit_once('-').unwrap().1, 16).unwrap();
        if to <= merged {
            std::fs::remove_file(bed.path("repo").join(key)).unwrap();
        }
    }
    let restored = bed.restore(exact, "by-levels.db").unwrap();
    assert!(restored.objects <= 1 + level(2) as u64, "{restored:?}");
    assert_eq!(dump(&bed.path("by-levels.db")), dump(&bed.path("by-segments.db")));
    bed.same(Target::Latest);
    assert!(check().findings.is_empty());
}

#[test]
fn a_second_follower_is_refused() {
    let bed = Bed::new();
    let app = bed.seeded(50);
    let following = bed.follow();
    following.backup();
    let second = bed.follow().stop();
    assert!(matches!(second, Err(FollowError::State(_))), "{second:?}");
    // One with a copy of the state, as on a cloned machine.
    drop(following);
    let copied = bed.path("copied");
    std::fs::create_dir_all(copied.join("spool")).unwrap();
    for name in ["state.db", "signing.key"] {
        std::fs::copy(bed.path("state").join(name), copied.join(name)).unwrap();
    }
    insert(&app, 1);
    bed.once();
    insert(&app, 1);
    let mut config = bed.config();
    (config.state_dir, config.signing_key) = (copied.clone(), copied.join("signing.key"));
    let clone = bed::Following::new(config);
    assert!(clone.control.backup_now(PATIENCE).is_err());
    assert!(clone.stop().unwrap_err().to_string().contains("another follower"));
    bed.once();
    bed.same(Target::Latest);
}
