//! `publish` from outside: ready wheels, what is refused, and one real project built with uv and an index.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::{
    fs::File,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
};

use common::{flipside, object, stderr, stdout, write};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zip::{ZipWriter, write::SimpleFileOptions};

/// A wheel of `name` that holds `files` and its metadata.
fn wheel(dir: &Path, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    let path = dir.join(format!("{name}-1.0-py3-none-any.whl"));
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    let metadata =
        format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Python: >=3.9\n\nText: no\n");
    let own = (format!("{name}-1.0.dist-info/METADATA"), metadata.into_bytes());
    for (path, content) in
        files.iter().map(|(path, content)| (path.to_string(), content.to_vec())).chain([own])
    {
        zip.start_file(path, SimpleFileOptions::default()).unwrap();
        zip.write_all(&content).unwrap();
    }
    zip.finish().unwrap();
    path
}

const WSGI: &[u8] =
    b"os.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"blog.settings\")\napplication = get()\n";

fn publish(dir: &Path, arguments: &[&str]) -> Output {
    let (wheels, store) = (dir.join("in").display().to_string(), dir.join("store").display().to_string());
    let fixed = ["publish", "--wheels", &wheels, "--store", &store, "--json"];
    flipside(&[&fixed, arguments].concat()).output().unwrap()
}

fn json_in(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn ready_wheels_become_a_release() {
    let dir = tempfile::tempdir().unwrap();
    let saml = ("blog/tests/data/saml.key", &b"-----BEGIN PRIVATE KEY-----"[..]);
    wheel(&dir.path().join("in"), "blog", &[("blog/wsgi.py", WSGI), ("blog/settings.py", b""), saml]);
    wheel(
        &dir.path().join("in"),
        "some_lib",
        &[("some_lib.py", b""), ("test/test.key", b"-----BEGIN PRIVATE KEY-----")],
    );
    let hooks = dir.path().join("hooks.json");
    write(&hooks, "{\"migrate\": [[\"blog\", \"migrate\"]]}");
    let hooks = hooks.display().to_string();
    let output = publish(
        dir.path(),
        &["--name", "blog", "--version", "2.1", "--tag", "v2", "--tag", "latest", "--hooks", &hooks],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = object(&output);
    assert_eq!((&said["new"], &said["wheels"], &said["app"]), (&json!(true), &json!(2), &json!("blog")));
    let release = said["release"].as_str().unwrap();
    let store = dir.path().join("store/blog");
    let folder = store.join(release);
    let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
    assert_eq!(flipside_api::ReleaseId::of("2.1", &manifest).unwrap().as_str(), release);
    let manifest = json_in(folder.join("manifest.json"));
    assert_eq!(
        (&manifest["wsgi"], &manifest["settings"]),
        (&json!("blog.wsgi:application"), &json!("blog.settings"))
    );
    assert_eq!((&manifest["requires_python"], &manifest["version"]), (&json!(">=3.9"), &json!("2.1")));
    assert_eq!(manifest["hooks"], json!({"migrate": [{"command": ["blog", "migrate"], "timeout": 600}]}));
    for file in manifest["files"].as_array().unwrap() {
        let path = folder.join("wheels").join(file["name"].as_str().unwrap());
        let bytes = std::fs::read(&path).unwrap();
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((&file["sha256"], &file["size"]), (&json!(digest), &json!(bytes.len())));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(json_in(store.join("tags.json")), json!({"v": 1, "tags": {"latest": release, "v2": release}}));
}

#[test]
fn the_same_again_is_unchanged_and_mends_what_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    let name = wheel(&dir.path().join("in"), "blog", &[("blog/wsgi.py", WSGI)]);
    let first = object(&publish(dir.path(), &["--name", "blog"]));
    let placed = dir
        .path()
        .join("store/blog")
        .join(first["release"].as_str().unwrap())
        .join("wheels")
        .join(name.file_name().unwrap());
    let sound = std::fs::read(&placed).unwrap();
    write(&placed, "cut short");
    write(&dir.path().join("store/blog/.new-killed/manifest.json"), "half");
    let again = object(&publish(dir.path(), &["--name", "blog", "--tag", "v1"]));
    assert_eq!((&again["release"], &again["new"]), (&first["release"], &json!(false)));
    assert_eq!(std::fs::read(&placed).unwrap(), sound);
    let tags = json_in(dir.path().join("store/blog/tags.json"));
    assert_eq!(tags["tags"], json!({"latest": first["release"], "v1": first["release"]}));
    let strays: Vec<_> = std::fs::read_dir(dir.path().join("store/blog"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".new"))
        .collect();
    assert!(strays.is_empty(), "{strays:?}");
}

#[test]
fn two_publishers_lose_no_tag() {
    let dir = tempfile::tempdir().unwrap();
    wheel(&dir.path().join("in"), "blog", &[("blog/wsgi.py", WSGI)]);
    let dir = dir.path();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|n| {
                scope.spawn(move || {
                    publish(dir, &["--name", "blog", "--version", &format!("{n}"), "--tag", &format!("t{n}")])
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap().status.code(), Some(0));
        }
    });
    let tags = json_in(dir.join("store/blog/tags.json"));
    assert_eq!(tags["tags"].as_object().unwrap().len(), 6, "{tags}");
}

#[test]
fn secrets_in_the_apps_wheel_are_refused_by_name() {
    for (path, content) in [
        ("blog/.env", &b"K=1"[..]),
        ("blog/db.sqlite3", b""),
        ("blog/tests/.env", b"K=1"),
        ("blog/data/odd", b"SQLite format 3\0"),
        ("blog/key.pem", b"-----BEGIN EC PRIVATE KEY-----\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        wheel(&dir.path().join("in"), "blog", &[("blog/wsgi.py", WSGI), (path, content)]);
        let output = publish(dir.path(), &["--name", "blog"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let message = object(&output)["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(path), "{message}");
        assert!(!dir.path().join("store").exists());
        let output = publish(dir.path(), &["--name", "blog", "--allow-file", path]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    // A dependency's too, where it is never meant.
    let dir = tempfile::tempdir().unwrap();
    wheel(&dir.path().join("in"), "blog", &[("blog/wsgi.py", WSGI)]);
    wheel(&dir.path().join("in"), "lib", &[("lib/.env", b"K=1")]);
    assert_eq!(publish(dir.path(), &["--name", "blog"]).status.code(), Some(3));
}

#[test]
fn what_makes_no_release_is_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    assert!(stderr_of(&publish(dir.path(), &["--name", "blog"])).contains("no wheel in"));
    write(&dir.path().join("in/blog-1.0-py3-none-any.whl"), "no zip");
    assert!(stderr_of(&publish(dir.path(), &["--name", "blog"])).contains("no sound wheel"));
    wheel(&dir.path().join("in"), "blog", &[("a/wsgi.py", WSGI), ("b/wsgi.py", WSGI)]);
    assert!(stderr_of(&publish(dir.path(), &["--name", "blog"])).contains("a.wsgi, b.wsgi"));
    wheel(&dir.path().join("in"), "blog", &[("a/asgi.py", WSGI)]);
    assert!(stderr_of(&publish(dir.path(), &["--name", "blog"])).contains("a.asgi is an entry for ASGI"));
    for wrong in
        [&["--name", "B"][..], &["--name", "blog", "--wsgi", "x"], &["--name", "blog", "--tag", "a/b"], &[]]
    {
        assert_eq!(publish(dir.path(), wrong).status.code(), Some(2), "{wrong:?}");
    }
    let output = flipside(&["publish", "in", "--store", "s"]).current_dir(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("manage.py"), "{output:?}");
}

fn stderr_of(output: &Output) -> String {
    object(output)["error"]["message"].as_str().unwrap().to_owned()
}

/// The uv that FLIPSIDE_UV names (`make test` does), or the one on PATH.
fn uv() -> Option<PathBuf> {
    let named = std::env::var_os("FLIPSIDE_UV").map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    named
        .or_else(|| std::env::split_paths(&paths).map(|folder| folder.join("uv")).find(|file| file.is_file()))
}

/// Needs uv and an index, as publishing does.
#[test]
fn an_untouched_django_project_is_published_twice_alike() {
    let Some(uv) = uv() else {
        println!("skipped: there is no uv in PATH, and FLIPSIDE_UV does not name it");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("mysite");
    let settings = "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')\n";
    write(&project.join("manage.py"), settings);
    write(&project.join("mysite/__init__.py"), "");
    write(&project.join("mysite/settings.py"), "DEBUG = True\n");
    write(&project.join("mysite/wsgi.py"), &format!("{settings}application = get_wsgi_application()\n"));
    write(&project.join("templates/home.html"), "hello");
    write(&project.join("requirements.txt"), "django<5.3  # an older one\n");
    write(&project.join(".env"), "KEY=canary\n");
    write(&project.join("db.sqlite3"), "SQLite format 3\0");
    let store = dir.path().join("store").display().to_string();
    let publish = || {
        let mut command = flipside(&["publish", "mysite", "--store", &store, "--name", "site"]);
        command.env("FLIPSIDE_UV", &uv).current_dir(dir.path()).output().unwrap()
    };
    let first = publish();
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    assert!(
        stderr(&first).contains("left out .env") && stderr(&first).contains("left out db.sqlite3"),
        "{first:?}"
    );
    let second = publish();
    assert!(stdout(&second).contains("unchanged, published before"), "{second:?}");
    let tags = json_in(dir.path().join("store/site/tags.json"));
    let folder = dir.path().join("store/site").join(tags["tags"]["latest"].as_str().unwrap());
    let manifest = json_in(folder.join("manifest.json"));
    assert_eq!(
        (&manifest["wsgi"], &manifest["settings"]),
        (&json!("mysite.wsgi:application"), &json!("mysite.settings"))
    );
    let names: Vec<&str> =
        manifest["files"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("django-5.2")), "{names:?}");
    assert!(names.contains(&"site_project-0.0.0-py3-none-any.whl"), "{names:?}");
}
