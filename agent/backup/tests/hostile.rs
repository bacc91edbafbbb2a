//! A store that somebody else can write to, keys that do not fit, and a host that has no room.
#![expect(
    clippy::unwrap_used,
    reason = "a test that may panic, in functions that clippy does not take for tests"
)]

mod bed;

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bed::{Bed, dump, insert, rand_name};
use bytes::Bytes;
use flipside_backup::{
    chain::{ChainId, Name},
    crypt::HostKey,
    restore::{ReadError, RestoreError, Target, check_chain},
    store::{Entry, ErrorKind, Store, StoreError},
};

/// A chain of a snapshot and a few segments.
fn small() -> (Bed, ChainId, Vec<String>) {
    let bed = Bed::new();
    let app = bed.open();
    app.execute_batch(
        "PRAGMA page_size=512; PRAGMA journal_mode=wal; CREATE TABLE t(id INTEGER PRIMARY KEY, x, n)",
    )
    .unwrap();
    let mut chain = bed.once().chain;
    for n in 0..3 {
        app.execute("INSERT INTO t(x, n) VALUES('hello', ?1)", [n]).unwrap();
        chain = bed.once().chain;
    }
    (bed, chain, dump_of(&app))
}

fn dump_of(app: &rusqlite::Connection) -> Vec<String> {
    dump(app.path().unwrap().as_ref())
}

#[expect(clippy::disallowed_methods, reason = "a test spoils a file")]
fn spoil(path: impl AsRef<std::path::Path>, bytes: impl AsRef<[u8]>) {
    fs::write(path, bytes).unwrap();
}

fn file(bed: &Bed, key: &str) -> PathBuf {
    bed.path("repo").join(key)
}

/// What comes out is refused, or is right.
fn never_wrong(bed: &Bed, right: &[String], what: &str) -> bool {
    let name = format!("out-{}", rand_name());
    match bed.restore(Target::Latest, &name) {
        Ok(_) => {
            assert_eq!(dump(&bed.path(&name)), right, "{what}");
            fs::remove_file(bed.path(&name)).unwrap();
            true
        }
        Err(error) => {
            assert!(!bed.path(&name).exists(), "{what}");
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

#[test]
fn a_flipped_or_missing_byte_anywhere_is_refused() {
    let (bed, _, right) = small();
    let (mut refused, mut tried) = (0, 0);
    for (key, size) in bed.objects().into_iter().filter(|(key, _)| !key.ends_with("/head")) {
        let whole = fs::read(file(&bed, &key)).unwrap();
        // Every offset takes minutes on a busy machine; each run takes others.
        let every = if std::env::var_os("FLIPSIDE_BACKUP_SOAK").is_some() { 1 } else { 37 };
        let first = rand::random_range(0..every);
        for at in (first..usize::try_from(size).unwrap()).step_by(every) {
            tried += 1;
            let mut broken = whole.clone();
            broken[at] ^= 1 << (at % 8);
            spoil(file(&bed, &key), &broken);
            refused += usize::from(!never_wrong(&bed, &right, &format!("{key} at {at}")));
        }
        for length in [0, 119, 135, whole.len() - 1] {
            spoil(file(&bed, &key), &whole[..length.min(whole.len() - 1)]);
            assert!(!never_wrong(&bed, &right, &format!("{key} cut at {length}")));
        }
        spoil(file(&bed, &key), &whole);
    }
    // A few bytes mean nothing: the newest object is not needed for an older one, spaces in JSON, age's own.
    assert!(tried > 40 && refused * 10 > tried * 8, "{refused} of {tried}");
    assert!(never_wrong(&bed, &right, "mended"));
}

#[test]
fn a_missing_swapped_replayed_or_foreign_object_is_refused() {
    let (bed, chain, right) = small();
    let key = |level, from, to| Name { level, from, to, part: 0 }.key(chain);
    let objects = [key(3, 0, 1), key(0, 1, 2), key(0, 2, 3), key(0, 3, 4)];
    let whole: Vec<_> = objects.iter().map(|key| fs::read(file(&bed, key)).unwrap()).collect();
    for (i, missing) in objects.iter().enumerate() {
        fs::remove_file(file(&bed, missing)).unwrap();
        // Without the newest, what is left is an older state, and only the head knows better.
        if i + 1 < objects.len() {
            let error = bed.restore(Target::Latest, "missing.db").unwrap_err();
            let named = matches!(error, RestoreError::Unreachable { .. });
            assert!(named || i == 0 && matches!(error, RestoreError::Nothing(_)), "{error}");
        }
        let report = check_chain(&bed.store(), chain, (None, None), bed.dir.path(), &mut |_| {}).unwrap();
        assert!(!report.findings.is_empty(), "{missing}");
        spoil(file(&bed, missing), &whole[i]);
    }
    for (i, one) in objects.iter().enumerate() {
        for (j, other) in whole.iter().enumerate().filter(|(j, _)| *j != i) {
            spoil(file(&bed, one), other);
            assert!(!never_wrong(&bed, &right, &format!("{j} in the place of {i}")));
        }
        spoil(file(&bed, one), &whole[i]);
    }
    let report =
        check_chain(&bed.store(), chain, (Some(&bed.source().identities), None), bed.dir.path(), &mut |_| {});
    let report = report.unwrap();
    assert!(report.restored && report.findings.is_empty(), "{report:?}");
    assert!(never_wrong(&bed, &right, "mended"));
}

#[test]
fn another_identity_and_another_host_are_refused() {
    let (bed, chain, _) = small();
    let mut stranger = Bed::new();
    stranger.dir = bed.dir;
    let error = stranger.restore(Target::Latest, "x.db").unwrap_err();
    assert!(matches!(error, RestoreError::Read(ReadError::Locked { .. })), "{error}");
    assert!(!stranger.path("x.db").exists());
    let report = check_chain(
        &stranger.store(),
        chain,
        (None, Some(HostKey([7; 32]))),
        stranger.dir.path(),
        &mut |_| {},
    );
    assert!(!report.unwrap().findings.is_empty());
}

#[test]
fn a_stale_log_beside_the_output_is_not_taken_in() {
    let (bed, _, _) = small();
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let left = bed.path(&format!("out.db{suffix}"));
        spoil(&left, "x");
        let error = bed.restore(Target::Latest, "out.db").unwrap_err();
        assert!(matches!(error, RestoreError::Output { .. }), "{error}");
        assert_eq!(fs::read(&left).unwrap(), b"x");
        fs::remove_file(&left).unwrap();
    }
}

/// A store whose puts fail as told: before they are done, or after.
struct Flaky {
    inner: Arc<dyn Store>,
    mode: std::sync::Mutex<BTreeMap<&'static str, u32>>,
}

impl Flaky {
    fn fails(&self, how: &'static str) -> bool {
        let mut mode = self.mode.lock().unwrap();
        let left = mode.entry(how).or_default();
        *left = left.saturating_sub(1);
        *left > 0
    }

    fn set(&self, how: &'static str, times: u32) {
        self.mode.lock().unwrap().insert(how, times);
    }

    fn error(operation: &'static str, key: &str) -> StoreError {
        StoreError::new(ErrorKind::Retryable, operation, key, "told to fail")
    }
}

#[async_trait]
impl Store for Flaky {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        if self.fails("before") {
            return Err(Self::error("put_new", key));
        }
        self.inner.put_new(key, bytes).await?;
        if self.fails("after") { Err(Self::error("put_new", key)) } else { Ok(()) }
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        if self.fails("before") { Err(Self::error("put", key)) } else { self.inner.put(key, bytes).await }
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        // As with credentials that can only put.
        Err(StoreError::new(ErrorKind::Fatal, "get", key, "not permitted"))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        Err(StoreError::new(ErrorKind::Fatal, "list", prefix, "not permitted"))
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        Err(StoreError::new(ErrorKind::Fatal, "delete", key, "not permitted"))
    }
}

#[test]
fn puts_that_fail_or_succeed_unheard_lose_nothing_and_need_no_more_than_put() {
    let bed = Bed::new();
    let app = bed.seeded(100);
    let flaky = Arc::new(Flaky { inner: bed.store(), mode: std::sync::Mutex::default() });
    flaky.set("before", 3);
    flaky.set("after", 2);
    let mut config = bed.config();
    config.store = flaky.clone();
    let following = bed::Following::new(config);
    following.backup();
    bed.same(Target::Latest);
    for _ in 0..3 {
        insert(&app, 5);
        flaky.set("before", 2);
        flaky.set("after", 2);
        following.backup();
        bed.same(Target::Latest);
    }
}

#[test]
fn a_full_spool_waits_and_then_goes_on() {
    let bed = Bed::new();
    let app = bed.seeded(100);
    let flaky = Arc::new(Flaky { inner: bed.store(), mode: std::sync::Mutex::default() });
    let mut config = bed.config();
    config.store = flaky.clone();
    config.spool_limit = 100_000;
    let following = bed::Following::new(config);
    following.backup();
    flaky.set("before", u32::MAX);
    let mut spool = 0;
    for _ in 0..30 {
        insert(&app, 100);
        std::thread::sleep(Duration::from_millis(10));
        spool = spool.max(following.control.status().spool_bytes);
    }
    following.until("the spool is full", |status| status.spool_bytes >= 100_000);
    let before = following.control.status().captured;
    insert(&app, 10);
    assert!(spool < 300_000, "{spool}");
    flaky.set("before", 0);
    following.backup();
    assert!(following.control.status().captured > before);
    bed.same(Target::Latest);
}

/// A store that takes no snapshots.
struct WithoutSnapshots(Arc<dyn Store>);

#[async_trait]
impl Store for WithoutSnapshots {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        if key.contains("/L3/") {
            return Err(StoreError::new(ErrorKind::Retryable, "put_new", key, "no snapshots"));
        }
        self.0.put_new(key, bytes).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.0.put(key, bytes).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.0.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.0.list(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.0.delete(key).await
    }
}

#[test]
fn until_a_new_snapshot_is_there_the_old_state_is_the_latest() {
    let bed = Bed::new();
    let app = bed.seeded(300);
    let before = (bed.once(), dump(&bed.db()));
    app.execute_batch("PRAGMA journal_mode=delete; PRAGMA page_size=8192; VACUUM; PRAGMA journal_mode=wal")
        .unwrap();
    let mut config = bed.config();
    config.store = Arc::new(WithoutSnapshots(bed.store()));
    config.drain = Duration::from_millis(300);
    let following = bed::Following::new(config);
    following.until("the new page size", |status| status.captured > before.0.seq);
    insert(&app, 10);
    let seen = following.control.status().captured;
    following.until("a change after it", |status| status.captured > seen);
    following.until("a try", |status| status.error.contains("no snapshots"));
    assert_eq!(following.stop().unwrap(), None);
    let restored = bed.restore(Target::Latest, "old.db").unwrap();
    assert_eq!((restored.position, dump(&bed.path("old.db"))), before);
    bed.once();
    bed.same(Target::Latest);
}
