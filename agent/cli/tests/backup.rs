//! `flipside backup` from outside: a database goes into a folder and comes back, and nothing else is needed.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Output,
};

use age::secrecy::ExposeSecret;
use common::{flipside, object, stderr, stdout};

/// The smallest database: one page, an empty schema. `mark` is its user version.
fn database(path: &Path, mark: u8) {
    let mut page = vec![0; 512];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..24].copy_from_slice(&[2, 0, 1, 1, 0, 64, 32, 32]);
    // The change counter, the size in pages, schema format, encoding, and the counter again.
    (page[27], page[31], page[47], page[59], page[63], page[95]) = (mark, 1, 4, 1, mark, mark);
    page[96..100].copy_from_slice(&3_040_001u32.to_be_bytes());
    (page[100], page[105]) = (13, 2);
    let new = path.with_extension("new");
    fs::File::create(&new).unwrap().write_all(&page).unwrap();
    fs::rename(new, path).unwrap();
}

struct Place {
    dir: tempfile::TempDir,
    recipient: String,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = age::x25519::Identity::generate();
        let mut key = fs::File::create(dir.path().join("key.txt")).unwrap();
        writeln!(key, "# a test's\n{}", identity.to_string().expose_secret()).unwrap();
        Self { dir, recipient: identity.to_public().to_string() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = flipside(&["backup"]);
        command.args(arguments).current_dir(self.dir.path());
        command.env("FLIPSIDE_BACKUP_STATE", self.path("state")).env("FLIPSIDE_BACKUP_REPO", "repo");
        command.env_remove("FLIPSIDE_BACKUP_IDENTITY").output().unwrap()
    }

    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        stdout(&output).trim().to_owned()
    }
}

#[test]
fn a_database_goes_there_and_comes_back() {
    let place = Place::new();
    database(&place.path("app.db"), 1);
    let init = place.good(&["init", "--recipient", &place.recipient]);
    let host = init.strip_prefix("host key: ").unwrap().to_owned();
    let first = place.good(&["run", "app.db"]);
    database(&place.path("app.db"), 2);
    let second = place.good(&["run", "app.db"]);
    assert_ne!(first, second);
    assert_eq!(place.good(&["position", "app.db"]), second);

    let read = ["--identity", "key.txt", "--host-key", &host];
    place.good(&[&["restore", "-o", "new.db"][..], &read].concat());
    place.good(&[&["restore", "-o", "old.db", "--position", &first][..], &read].concat());
    let bytes = |name: &str| fs::read(place.path(name)).unwrap();
    assert_eq!(bytes("new.db"), bytes("app.db"));
    assert_eq!(bytes("old.db")[63], 1);
    let listed = object(&place.run(&[&["list", "--json", "app.db"][..], &read].concat()));
    assert_eq!(listed["chains"][0]["points"][1]["seq"], 2, "{listed}");
    let checked = object(&place.run(&[&["check", "--json"][..], &read].concat()));
    assert_eq!(checked["chains"][0]["restored"], true, "{checked}");
    assert!(place.good(&["check"]).contains("whole as far as can be seen"));
    assert!(place.run(&["prune"]).status.success());
    place.good(&[&["restore", "-o", "again.db"][..], &read].concat());
}

#[test]
fn new_recipients_read_what_was_stored_before() {
    let (place, other) = (Place::new(), Place::new());
    database(&place.path("app.db"), 1);
    place.good(&["run", "--recipient", &place.recipient, "app.db"]);
    let key = other.path("key.txt");
    let key = key.to_str().unwrap();
    let restore = ["restore", "-o", "new.db", "--identity", key];
    assert_eq!(place.run(&restore).status.code(), Some(1));
    place.good(&["rewrap", "--identity", "key.txt", "--recipient", &other.recipient]);
    place.good(&restore);
    assert_eq!(place.run(&["restore", "-o", "x.db", "--identity", "key.txt"]).status.code(), Some(1));
}

#[test]
fn what_cannot_be_is_said_with_what_to_do() {
    let place = Place::new();
    database(&place.path("app.db"), 1);
    for (arguments, code, words) in [
        (vec!["run", "app.db"], 2, "--recipient"),
        (vec!["run", "--recipient", "age1x", "app.db"], 2, "no recipient"),
        (vec!["run", "--recipient", &place.recipient, "none.db"], 1, "no database"),
        (vec!["run", "--recipient", &place.recipient, "--repo", "ftp://x/y", "app.db"], 2, "s3://"),
        (vec!["position", "app.db"], 1, "nothing yet"),
        (vec!["restore", "-o", "x.db"], 2, "--identity"),
        (vec!["restore", "-o", "x.db", "--identity", "key.txt"], 1, "no such backup"),
        (vec!["check"], 1, "no backup"),
    ] {
        let output = place.run(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    }
    place.good(&["run", "--recipient", &place.recipient, "app.db"]);
    let output = place.run(&["restore", "-o", "app.db", "--identity", "key.txt"]);
    assert!(stderr(&output).contains("it exists"), "{output:?}");
    for (flag, value, words) in [
        ("--position", "9", "cannot be reached"),
        ("--position", "x", "no position"),
        ("--timestamp", "yesterday", "no time"),
        ("--timestamp", "1999-01-01T00:00:00Z", "no snapshot"),
        ("--host-key", &"0".repeat(64), "signed by"),
    ] {
        let output = place.run(&["restore", "-o", "x.db", "--identity", "key.txt", flag, value]);
        assert!(!output.status.success() && !place.path("x.db").exists());
        assert!(stderr(&output).contains(words), "{flag} {value}: {}", stderr(&output));
    }
}
