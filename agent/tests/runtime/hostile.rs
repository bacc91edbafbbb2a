//! What the app's user puts in place of uWSGI's files neither hangs the agent nor misleads it.

use std::{
    fs,
    io::Write,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use flipside_agent::runtime::Runtime;

use crate::{client::ask, fixture::Fixture};

fn stats(fixture: &Fixture) -> PathBuf {
    let notes = fixture.spec.paths.run().join("w");
    let mut found = fs::read_dir(notes).unwrap().map(|entry| entry.unwrap().path());
    found.find(|path| path.extension().is_some_and(|extension| extension == "stats")).unwrap()
}

/// A server that never ends and claims all is well.
fn liar(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || while stream.write_all(&[b' '; 4096]).is_ok() {});
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_replaced_by_something_else_hang_nobody_and_fool_nobody() {
    let Some(mut fixture) = Fixture::new() else { return };
    fixture.spec.start_timeout = 2;
    let (runtime, spec) = (&fixture.runtime, &fixture.spec);
    let (one, two) = (fixture.release("1.0"), fixture.release("2.0"));
    fixture.flip(&one, "red");
    runtime.start(spec, &one).await.unwrap();
    let path = stats(&fixture);
    let genuine = path.with_extension("genuine");
    fs::rename(&path, &genuine).unwrap();
    for hostile in ["link", "fifo", "liar", "nothing"] {
        let _ = fs::remove_file(&path);
        match hostile {
            "link" => symlink(&genuine, &path).unwrap(),
            "fifo" => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            "liar" => liar(&path),
            _ => {}
        }
        let begun = Instant::now();
        let observed = runtime.observe(&spec.paths).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "{hostile}");
        assert!(observed.workers.len() == 2 && observed.workers.iter().all(|worker| !worker.accepting));
    }
    fixture.flip(&two, "blue");
    let begun = Instant::now();
    runtime.reload(spec, &two).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(30));
    ask(&fixture.socket()).await;

    // A fresh instance has files of its own.
    runtime.replace(spec, &two).await.unwrap();
    assert!(ask(&fixture.socket()).await.starts_with(two.as_str()));
}

#[tokio::test]
async fn notes_that_lie_make_a_switch_fail_and_nothing_worse() {
    let Some(mut fixture) = Fixture::new() else { return };
    fixture.spec.start_timeout = 3;
    let (runtime, spec) = (&fixture.runtime, &fixture.spec);
    let liar = "import os, threading, time
def lie():
    folder = [e for e in os.listdir('../../../run/blog/w')]
    while True:
        note = '../../../run/blog/w/%d' % os.getpid()
        try:
            os.unlink(note)
            os.symlink('/etc/passwd', note)
        except OSError:
            pass
threading.Thread(target=lie, daemon=True).start()
def application(environ, start_response):
    start_response('200 OK', [])
    return [b'x']";
    let liar = fixture.release_of("1.0", liar);
    fixture.flip(&liar, "red");
    let failure = runtime.start(spec, &liar).await.unwrap_err();
    assert!(failure.message.contains("no release that they tell"), "{failure:?}");
    assert!(!fixture.socket().exists());
}
