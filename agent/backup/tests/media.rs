//! Media: what comes back is what was there, nothing is stored twice, and nobody leads us out of the folder.

#![expect(
    clippy::unwrap_used,
    reason = "a test that may panic, in functions that clippy does not take for tests"
)]

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use age::secrecy::ExposeSecret as _;
use ed25519_dalek::SigningKey;
use flipside_backup::{
    chain::ChainId,
    crypt::{HostKey, Identities, Recipients},
    media::{List, MediaError, Reader, Report, Writer},
    retain::Policy,
    store::{Fake, Fault, Folder, Store as _},
};

struct World {
    _dir: tempfile::TempDir,
    top: PathBuf,
    state: PathBuf,
    out: PathBuf,
    fake: Fake,
    set: ChainId,
    host: SigningKey,
    recipients: Recipients,
    identities: Identities,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("media");
        fs::create_dir(&top).unwrap();
        let identity = age::x25519::Identity::generate();
        Self {
            state: dir.path().join("media.json"),
            out: dir.path().join("out"),
            _dir: dir,
            top,
            fake: Fake::new(),
            set: ChainId([3; 16]),
            host: SigningKey::from_bytes(&rand::random()),
            recipients: Recipients::parse(&[identity.to_public().to_string()]).unwrap(),
            identities: Identities::parse("x", identity.to_string().expose_secret()).unwrap(),
        }
    }

    fn put(&self, path: impl AsRef<OsStr>, content: &[u8]) {
        let path = self.top.join(path.as_ref());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(content).unwrap();
    }

    async fn run(&self) -> Result<Report, MediaError> {
        let writer = Writer {
            store: &self.fake,
            set: self.set,
            name: "blog media".into(),
            recipients: &self.recipients,
            host: &self.host,
            state: self.state.clone(),
        };
        writer.run(&self.top).await
    }

    fn reader(&self) -> Reader<'_> {
        let host = HostKey(self.host.verifying_key().to_bytes());
        Reader::new(&self.fake, self.set, &self.identities, Some(host))
    }

    async fn last(&self) -> Result<List, MediaError> {
        let lists = Reader::lists(&self.fake, self.set).await?;
        self.reader().list(&lists.last().unwrap().id).await
    }

    /// Restores the last list and compares with the folder.
    async fn proves(&self) {
        let list = self.last().await.unwrap();
        self.reader().restore(&list, &[], &self.out).await.unwrap();
        assert_eq!(tree(&self.out), tree(&self.top));
        fs::remove_dir_all(&self.out).unwrap();
    }

    fn blobs(&self) -> usize {
        self.fake.objects().keys().filter(|key| key.contains("/blob/")).count()
    }
}

/// Everything in a folder: kind, mode, time and content.
fn tree(top: &Path) -> BTreeMap<OsString, (char, u32, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![top.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(top).unwrap().as_os_str().to_owned();
            let time = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
            if meta.is_dir() {
                found.insert(name, ('d', meta.mode() & 0o777, 0, vec![]));
                pending.push(path);
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                found.insert(name, ('l', 0, 0, target.as_os_str().as_bytes().to_vec()));
            } else {
                found.insert(name, ('f', meta.mode() & 0o777, time, fs::read(&path).unwrap()));
            }
        }
    }
    found
}

#[tokio::test]
async fn everything_comes_back_and_nothing_is_stored_twice() {
    let world = World::new();
    let big: Vec<u8> = (0..9 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    world.put("photos/2027/a.jpg", b"picture");
    world.put("photos/copy of a.jpg", b"picture");
    world.put("big.bin", &big);
    world.put("empty", b"");
    world.put(OsStr::from_bytes(b"odd \xff\n%41 name"), b"odd");
    fs::create_dir_all(world.top.join("hollow/within")).unwrap();
    symlink("photos/2027", world.top.join("newest")).unwrap();
    symlink("/etc/passwd", world.top.join("outside")).unwrap();
    fs::set_permissions(world.top.join("empty"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(world.top.join("hollow"), fs::Permissions::from_mode(0o555)).unwrap();
    nix::unistd::mkfifo(&world.top.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();

    let report = world.run().await.unwrap();
    assert_eq!((report.files, report.stored), (5, 4), "{report:?}");
    assert_eq!((report.skipped, world.blobs()), (vec!["pipe".to_owned()], 1 + 3 + 1));
    fs::remove_file(world.top.join("pipe")).unwrap();
    world.proves().await;

    let calls = world.fake.calls().len();
    let again = world.run().await.unwrap();
    assert_eq!((again.list, again.stored, again.files), (None, 0, 5));
    assert!(world.fake.calls()[calls..].iter().all(|(verb, _)| *verb == "list"), "an idle run only looks");

    fs::rename(world.top.join("big.bin"), world.top.join("photos/moved.bin")).unwrap();
    world.put("new", b"new");
    fs::remove_file(world.top.join("photos/2027/a.jpg")).unwrap();
    let third = world.run().await.unwrap();
    assert_eq!((third.stored, third.stored_bytes < 1000), (1, true), "a moved file is known: {third:?}");
    world.proves().await;
    let lists = Reader::lists(&world.fake, world.set).await.unwrap();
    assert_eq!(lists.len(), 2);
    let first = world.reader().list(&lists[0].id).await.unwrap();
    world.reader().restore(&first, &["big.bin".into(), "photos/2027/".into()], &world.out).await.unwrap();
    let names: Vec<_> = tree(&world.out).into_keys().collect();
    assert_eq!(names, ["big.bin", "photos", "photos/2027", "photos/2027/a.jpg"]);
}

#[tokio::test]
async fn the_store_sees_neither_names_nor_contents() {
    let world = World::new();
    world.put("secret-name", &b"secret content ".repeat(100));
    world.run().await.unwrap();
    for (key, bytes) in world.fake.objects() {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!key.contains("secret") && !text.contains("secret"), "{key}");
    }
}

#[tokio::test]
async fn a_byte_changed_anywhere_or_an_object_gone_is_refused_and_leaves_nothing() {
    let world = World::new();
    world.put("a/b", b"some content");
    world.run().await.unwrap();
    for (key, bytes) in world.fake.objects() {
        let mut wrong: Vec<Option<Vec<u8>>> =
            vec![None, Some(vec![]), Some(bytes[..bytes.len() - 1].to_vec())];
        wrong.extend((0..bytes.len()).step_by(23).map(|at| {
            let mut broken = bytes.to_vec();
            broken[at] ^= 1;
            Some(broken)
        }));
        for object in wrong {
            world.fake.tamper(&key, object.clone().map(Into::into));
            let restored = match world.last_or_none().await {
                Some(Ok(list)) => world.reader().restore(&list, &[], &world.out).await.map(drop),
                Some(Err(error)) => Err(error),
                None => Ok(()),
            };
            assert!(!world.out.exists() || restored.is_ok(), "{key}");
            if key.contains("/blob/") || key.contains("/list/") && object.is_some() {
                restored.unwrap_err();
            }
            let _ = fs::remove_dir_all(&world.out);
        }
        world.fake.tamper(&key, Some(bytes));
    }
    world.proves().await;
}

impl World {
    async fn last_or_none(&self) -> Option<Result<List, MediaError>> {
        let lists = Reader::lists(&self.fake, self.set).await.unwrap();
        Some(self.reader().list(&lists.last()?.id).await)
    }
}

#[tokio::test]
async fn another_host_and_another_reader_are_refused() {
    let world = World::new();
    world.put("a", b"x");
    world.run().await.unwrap();
    let id = Reader::lists(&world.fake, world.set).await.unwrap()[0].id.clone();
    let stranger = Reader::new(&world.fake, world.set, &world.identities, Some(HostKey([1; 32])));
    assert!(matches!(stranger.list(&id).await, Err(MediaError::Refused { .. })));
    let eve = age::x25519::Identity::generate();
    let eve = Identities::parse("x", eve.to_string().expose_secret()).unwrap();
    let eve = Reader::new(&world.fake, world.set, &eve, None);
    assert!(matches!(eve.list(&id).await, Err(MediaError::Crypt { .. })));
}

#[tokio::test]
async fn a_run_that_the_store_ended_is_taken_up_by_the_next() {
    let world = World::new();
    for n in 0..5u8 {
        world.put(format!("f{n}"), &[n; 100]);
    }
    for allowed in 0..8 {
        let before = world.fake.calls().len();
        world.fake.fail_always("put_new", None);
        let ok = std::iter::repeat_n(Fault::Slow(std::time::Duration::ZERO), allowed);
        world.fake.fail("put_new", ok);
        world.fake.fail_always("put_new", Some(Fault::Unavailable));
        let failed = world.run().await;
        assert!(matches!(failed, Err(MediaError::Store(_))), "{allowed}: {failed:?}");
        assert!(Reader::lists(&world.fake, world.set).await.unwrap().is_empty());
        assert!(world.fake.calls().len() > before);
    }
    world.fake.fail_always("put_new", None);
    world.run().await.unwrap();
    world.proves().await;
}

#[tokio::test]
async fn what_the_store_lost_and_what_the_host_forgot_is_stored_again() {
    let world = World::new();
    world.put("a", b"one");
    world.put("b", b"two");
    world.run().await.unwrap();
    let blob = world.fake.objects().keys().find(|key| key.contains("/blob/")).unwrap().clone();
    world.fake.tamper(&blob, None);
    assert_eq!(world.run().await.unwrap().stored, 1);
    world.proves().await;
    let list = world.fake.objects().keys().rfind(|key| key.contains("/list/")).unwrap().clone();
    world.fake.tamper(&list, None);
    assert!(world.run().await.unwrap().list.is_some(), "an unchanged folder whose list is gone");
    world.proves().await;
    File::create(&world.state).unwrap().write_all(b"{torn").unwrap();
    assert_eq!(world.run().await.unwrap().stored, 2);
    world.proves().await;
    // Credentials that may only put: it works, believing its own list.
    world.fake.fail_always("list", Some(Fault::Denied));
    world.fake.fail_always("get", Some(Fault::Denied));
    world.put("c", b"three");
    assert_eq!(world.run().await.unwrap().stored, 1);
}

#[tokio::test]
async fn a_restore_never_writes_over_what_is_there() {
    let world = World::new();
    world.put("a", b"x");
    world.run().await.unwrap();
    let list = world.last().await.unwrap();
    fs::create_dir(&world.out).unwrap();
    world.reader().restore(&list, &[], &world.out).await.unwrap();
    let error = world.reader().restore(&list, &[], &world.out).await.unwrap_err();
    assert!(matches!(error, MediaError::Local { .. }), "{error}");
    assert!(matches!(
        world.reader().restore(&list, &["none".into()], &world.top.join("x")).await,
        Err(MediaError::NoList(_))
    ));
    let leftovers = fs::read_dir(world.out.parent().unwrap()).unwrap();
    assert!(
        leftovers.into_iter().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with(".flipside"))
    );
}

/// The folder is the app's: a list is made while it changes, and it puts a link where a folder was.
#[tokio::test]
async fn a_link_that_takes_a_folders_place_leads_nowhere() {
    let world = World::new();
    let outside = tempfile::tempdir().unwrap();
    File::create(outside.path().join("passwd")).unwrap().write_all(b"root").unwrap();
    world.put("d/passwd", b"mine");
    world.run().await.unwrap();
    fs::remove_dir_all(world.top.join("d")).unwrap();
    symlink(outside.path(), world.top.join("d")).unwrap();
    let report = world.run().await.unwrap();
    assert_eq!((report.files, report.stored), (0, 0));
    world.proves().await;

    // A list that was made to climb or to write through its own link, even if the host signed it.
    let mut list = world.last().await.unwrap();
    list.links[0].path = "d".into();
    let file = flipside_backup::media::File {
        path: "d/passwd".into(),
        mode: 0o644,
        hash: blake3::hash(b"").to_hex().to_string(),
        ..flipside_backup::media::File::default()
    };
    for path in ["d/passwd", "../passwd", "/tmp/passwd", "d/../../x"] {
        list.files = vec![flipside_backup::media::File { path: path.into(), ..file.clone() }];
        world.reader().restore(&list, &[], &world.out).await.unwrap_err();
        assert!(!world.out.exists());
    }
    assert_eq!(fs::read(outside.path().join("passwd")).unwrap(), b"root");
}

#[test]
fn a_set_is_begun_once() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a/b");
    let set = flipside_backup::media::set_in(&state).unwrap();
    assert_eq!(flipside_backup::media::set_in(&state).unwrap(), set);
    File::create(state.join("set")).unwrap().write_all(b"nonsense").unwrap();
    assert!(matches!(flipside_backup::media::set_in(&state), Err(MediaError::Refused { .. })));
}

#[tokio::test]
async fn a_prune_takes_old_lists_and_what_only_they_name() {
    let world = World::new();
    let folder = world.out.with_file_name("repo");
    let store = Folder::new(&folder);
    let run = async || {
        let writer = Writer {
            store: &store,
            set: world.set,
            name: "media".into(),
            recipients: &world.recipients,
            host: &world.host,
            state: world.state.clone(),
        };
        writer.run(&world.top).await.unwrap().list.unwrap()
    };
    let mut lists = Vec::new();
    for (gone, new) in [(None, "a"), (None, "b"), (Some("a"), "c"), (Some("b"), "d")] {
        if let Some(gone) = gone {
            fs::remove_file(world.top.join(gone)).unwrap();
        }
        world.put(new, new.as_bytes());
        lists.push(run().await);
    }
    let blobs = async || store.list(&format!("media/{}/blob/", world.set)).await.unwrap();
    let reader = Reader::new(&store, world.set, &world.identities, None);
    let none = Policy { all_hours: 0, hourly_days: 0, daily_days: 0, monthly_days: 0 };
    let now = i64::try_from(flipside_backup::clock::now_ms()).unwrap();
    let plan = async |policy: &Policy| reader.plan_prune(now, policy).await.unwrap();
    assert_eq!(plan(&Policy::default()).await.keys, Vec::<String>::new());
    // A content that no list names yet may belong to a run that has not ended: only when it is old does it go.
    assert_eq!((plan(&none).await.remove.len(), plan(&none).await.remove_blobs), (2, 0));
    for entry in &blobs().await {
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        File::options().write(true).open(folder.join(&entry.key)).unwrap().set_modified(old).unwrap();
    }
    store.put_new(&format!("media/{}/blob/{}", world.set, "0".repeat(32)), "young".into()).await.unwrap();
    let made = plan(&none).await;
    assert_eq!((made.keep.len(), made.remove.len(), made.blobs, made.remove_blobs), (2, 2, 4, 1));
    // Cut short after its first removal; another goes on from there.
    store.delete(&made.keys[0]).await.unwrap();
    plan(&none).await.apply(&store, &reader).await.unwrap();
    assert_eq!((plan(&none).await.keys.len(), blobs().await.len()), (0, 4));
    assert!(made.apply(&store, &reader).await.is_ok(), "what is gone may be removed again");
    for (list, names) in [(&lists[2], ["b", "c"]), (&lists[3], ["c", "d"])] {
        let list = reader.list(list).await.unwrap();
        let into = world.out.join(names.concat());
        fs::create_dir_all(&world.out).unwrap();
        reader.restore(&list, &[], &into).await.unwrap();
        for name in names {
            assert_eq!(fs::read(into.join(name)).unwrap(), name.as_bytes());
        }
    }
    assert!(reader.list(&lists[0]).await.is_err());
    // A kept list that cannot be read: nobody knows what it needs.
    let stranger = World::new().identities;
    assert!(Reader::new(&store, world.set, &stranger, None).plan_prune(now, &none).await.is_err());
    let later = plan(&none).await;
    fs::remove_file(folder.join(format!("media/{}/list/{}", world.set, lists[3]))).unwrap();
    assert!(later.apply(&store, &reader).await.is_err(), "a kept list is gone since the plan");
}
