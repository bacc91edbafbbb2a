//! `backup media`, from outside: a folder, a store, an identity, and no agent.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::{fs, path::Path, process::Output};

use age::secrecy::ExposeSecret as _;
use common::{flipside, object, stderr, stdout, write};

struct Host {
    dir: tempfile::TempDir,
    recipient: String,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = age::x25519::Identity::generate();
        write(&dir.path().join("key.txt"), identity.to_string().expose_secret());
        write(&dir.path().join("media/photos/a.jpg"), "picture");
        Self { dir, recipient: identity.to_public().to_string() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn backup(&self, words: &[&str]) -> Output {
        let (repo, state) = (self.path("repo"), self.path("state"));
        let mut all = vec!["backup"];
        all.extend(words);
        all.extend(["--repo", &repo, "--state", &state]);
        flipside(&all).output().unwrap()
    }
}

#[test]
fn a_folder_goes_and_comes_back() {
    let host = Host::new();
    let media = host.path("media");
    let unknown = host.backup(&["media", "run", &media]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    assert!(stderr(&unknown).contains("--recipient"));

    let init = host.backup(&["init", "--recipient", &host.recipient, "--json"]);
    let host_key = object(&init)["host_key"].as_str().unwrap().to_owned();
    let first = object(&host.backup(&["media", "run", "--json", "--limit", "100000", &media]));
    assert_eq!((&first["result"], &first["files"], &first["stored"]), (&true.into(), &1.into(), &1.into()));
    write(&host.dir.path().join("media/b"), "second");
    let second = host.backup(&["media", "run", &media]);
    assert!(second.status.success() && stdout(&second).contains("2 files"), "{second:?}");
    let third = host.backup(&["media", "run", &media]);
    assert!(stdout(&third).contains("unchanged"), "{third:?}");

    let listed = object(&host.backup(&["media", "list", "--json"]));
    assert_eq!(listed["lists"].as_array().unwrap().len(), 2);
    assert!(stdout(&host.backup(&["media", "list"])).contains(first["list"].as_str().unwrap()));

    let key = host.path("key.txt");
    let restore = |words: &[&str]| {
        let mut all = vec!["media", "restore", "--identity", &key, "--host-key", &host_key];
        all.extend(words);
        host.backup(&all)
    };
    let out = host.path("out");
    let done = restore(&["-o", &out]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(fs::read_to_string(Path::new(&out).join("photos/a.jpg")).unwrap(), "picture");
    assert_eq!(fs::read_to_string(Path::new(&out).join("b")).unwrap(), "second");
    let again = restore(&["-o", &out]);
    assert_eq!(again.status.code(), Some(1), "what is there is never written over");

    let then = listed["lists"][0]["time"].as_str().unwrap();
    let old = restore(&["--timestamp", then, "-o", &host.path("old"), "--json"]);
    assert_eq!(object(&old)["files"], 1, "{old:?}");
    let before = restore(&["--timestamp", "2020-01-01T00:00:00Z", "-o", &host.path("none")]);
    assert!(before.status.code() == Some(1) && stderr(&before).contains("media list"), "{before:?}");
}

#[test]
fn an_address_that_is_none_is_a_usage_error() {
    let host = Host::new();
    let media = host.path("media");
    let words = ["backup", "media", "run", "--recipient", &host.recipient, &media, "--repo", "s3://x"];
    let done = flipside(&words).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(stderr(&done).contains("s3://BUCKET"), "{done:?}");
}

#[test]
fn without_credentials_it_ends_at_once_and_says_where_they_come_from() {
    let host = Host::new();
    let words = ["backup", "media", "list", "--repo", "s3://bucket?endpoint=http://127.0.0.1:9"];
    let mut command = flipside(&words);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONFIG_FILE"] {
        command.env_remove(name);
    }
    let nothing = host.path("none");
    command.env("HOME", &nothing).env("AWS_SHARED_CREDENTIALS_FILE", &nothing);
    let done = command.env("AWS_EC2_METADATA_DISABLED", "true").output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("AWS_ACCESS_KEY_ID"), "{done:?}");
}
