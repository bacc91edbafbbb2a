//! The folder store: the contract, and what only a file system can do to it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use bytes::Bytes;
use flipside_backup::store::{self, ErrorKind, Folder, Store as _};

mod contract;

#[tokio::test]
async fn holds_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let store = store::open(dir.path().join("not/yet").to_str().unwrap()).unwrap();
    assert!(store.list("").await.unwrap().is_empty(), "a store that nobody wrote to is empty");
    contract::run(&*store).await;
}

#[test]
fn an_address_of_an_unknown_kind_is_refused_with_what_to_give() {
    for url in ["", "ftp://host/x"] {
        let error = store::open(url).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Fatal);
        assert!(error.advice().contains("s3://"), "{error}");
    }
}

#[tokio::test]
async fn only_its_owner_may_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repo");
    Folder::new(&root).put_new("chain/L0/1", Bytes::from_static(b"x")).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&root.join("chain/L0")), 0o700);
    assert_eq!(mode(&root.join("chain/L0/1")), 0o600);
}

/// A crash leaves a hidden file: it is never an object, and the next process sweeps it away, but not the
/// one that another process is writing at this moment.
#[tokio::test]
async fn leftovers_of_a_crash_are_ignored_and_swept() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("c")).unwrap();
    let torn = dir.path().join("c/.tmp-00000000deadbeef");
    let live = dir.path().join("c/.tmp-00000000cafecafe");
    fs::File::create(&torn).unwrap();
    let writing = fs::File::create(&live).unwrap();
    rustix::fs::flock(&writing, rustix::fs::FlockOperation::LockExclusive).unwrap();

    let store = Folder::new(dir.path());
    assert!(store.list("").await.unwrap().is_empty());
    store.put_new("c/1", Bytes::from_static(b"x")).await.unwrap();
    assert!(!torn.exists() && live.exists());
    let keys: Vec<String> = store.list("c").await.unwrap().into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["c/1"]);
}

#[tokio::test]
async fn a_link_or_a_pipe_in_the_folder_is_no_object() {
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("real")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("dir")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let store = Folder::new(dir.path());
    let keys: Vec<String> = store.list("").await.unwrap().into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["real"]);
    for key in ["link", "pipe"] {
        assert_eq!(store.get(key).await.unwrap_err().kind(), ErrorKind::Fatal, "{key}");
    }
}

#[tokio::test]
async fn an_object_too_large_is_refused_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let store = Folder::new(dir.path());
    let file = fs::File::create(dir.path().join("huge")).unwrap();
    file.set_len(store::MAX_OBJECT + 1).unwrap();
    assert_eq!(store.get("huge").await.unwrap_err().kind(), ErrorKind::Fatal);
    let large = vec![0; usize::try_from(store::MAX_OBJECT).unwrap() + 1];
    let error = store.put("large", large.into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(!dir.path().join("large").exists());
}

/// The folder goes away and comes back (a share that was mounted late): the same store goes on.
#[tokio::test]
async fn a_folder_that_was_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repo");
    let store = Folder::new(&root);
    store.put_new("a/1", Bytes::from_static(b"x")).await.unwrap();
    fs::remove_dir_all(&root).unwrap();
    store.put_new("a/2", Bytes::from_static(b"y")).await.unwrap();
    assert_eq!(store.get("a/2").await.unwrap(), "y");
}
