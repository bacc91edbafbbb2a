//! Start, reload, replace, hold and stop.

use std::{collections::HashSet, time::Duration};

use flipside_agent::{
    runtime::{
        Runtime,
        assets::{Tree, Verdict},
    },
    sys::{
        exec::{self, Program},
        users,
    },
};

use flipside_api::RuntimeKind;

use crate::{
    client::{Load, ask, get},
    fixture::Fixture,
};

on_every_runtime! {
    a_started_app_serves_and_is_seen,
    a_reload_changes_code_and_environment_and_loses_nothing,
    a_replacement_loses_nothing_and_takes_new_options,
    requests_wait_while_an_app_is_held,
    a_restarted_agent_finds_its_apps_again,
}

fn pids(observed: &flipside_agent::runtime::Observed) -> HashSet<u32> {
    observed.workers.iter().map(|worker| worker.pid).collect()
}

async fn a_started_app_serves_and_is_seen(kind: RuntimeKind) {
    let Some(fixture) = Fixture::on(kind) else { return };
    let (runtime, spec) = (&fixture.runtime, &fixture.spec);
    assert_eq!(runtime.observe(&spec.paths).await.unwrap(), flipside_agent::runtime::Observed::default());
    let one = fixture.release("1.0");
    fixture.flip(&one, "red 'n' blue");
    runtime.start(spec, &one).await.unwrap();
    let answer = get(&fixture.socket(), "/").await.unwrap();
    assert!(answer.contains(&format!("X-Flipside-Release: {one}\r\n")), "{answer}");
    let observed = runtime.observe(&spec.paths).await.unwrap();
    assert!(observed.listening && observed.workers.len() == 2);
    assert_eq!(observed.options, Some(runtime.options(spec)));
    assert!(
        observed.workers.iter().all(|w| w.release == Some(one.clone()) && w.accepting && w.rss > 1 << 20)
    );
    // Again: nothing changes.
    runtime.start(spec, &one).await.unwrap();
    assert_eq!(pids(&runtime.observe(&spec.paths).await.unwrap()), pids(&observed));
    runtime.stop(&spec.paths).await.unwrap();
    assert!(!fixture.socket().exists());
    runtime.stop(&spec.paths).await.unwrap();
    assert_eq!(runtime.observe(&spec.paths).await.unwrap(), flipside_agent::runtime::Observed::default());
}

async fn a_reload_changes_code_and_environment_and_loses_nothing(kind: RuntimeKind) {
    let Some(fixture) = Fixture::on(kind) else { return };
    let (runtime, spec) = (&fixture.runtime, &fixture.spec);
    let (one, two) = (fixture.release("1.0"), fixture.release("2.0"));
    fixture.flip(&one, "red");
    runtime.start(spec, &one).await.unwrap();
    let before = pids(&runtime.observe(&spec.paths).await.unwrap());
    let load = Load::on(fixture.socket(), 30);
    load.more(50).await;
    fixture.flip(&two, "blue");
    runtime.reload(spec, &two).await.unwrap();
    let body = ask(&fixture.socket()).await;
    assert!(body.starts_with(two.as_str()) && body.ends_with("blue"), "{body}");
    let after = runtime.observe(&spec.paths).await.unwrap();
    assert!(pids(&after).is_disjoint(&before) && after.workers.len() == 2);
    // The same release with another environment.
    fixture.flip(&two, "green");
    runtime.reload(spec, &two).await.unwrap();
    assert!(ask(&fixture.socket()).await.ends_with("green"));
    load.lost_nothing().await;
}

async fn a_replacement_loses_nothing_and_takes_new_options(kind: RuntimeKind) {
    let Some(mut fixture) = Fixture::on(kind) else { return };
    let (one, two) = (fixture.release("1.0"), fixture.release("2.0"));
    fixture.flip(&one, "red");
    fixture.runtime.start(&fixture.spec, &one).await.unwrap();
    let load = Load::on(fixture.socket(), 30);
    load.more(50).await;
    let before = fixture.runtime.options(&fixture.spec);
    fixture.spec.workers = 3;
    assert_ne!(fixture.runtime.options(&fixture.spec), before);
    fixture.flip(&two, "blue");
    fixture.runtime.replace(&fixture.spec, &two).await.unwrap();
    load.more(50).await;
    let observed = fixture.runtime.observe(&fixture.spec.paths).await.unwrap();
    assert_eq!(observed.workers.len(), 3);
    assert!(observed.workers.iter().all(|worker| worker.release == Some(two.clone())));
    assert_eq!(observed.options, Some(fixture.runtime.options(&fixture.spec)));
    load.lost_nothing().await;
}

async fn requests_wait_while_an_app_is_held(kind: RuntimeKind) {
    let Some(fixture) = Fixture::on(kind) else { return };
    let (runtime, spec) = (&fixture.runtime, &fixture.spec);
    let (one, two) = (fixture.release("1.0"), fixture.release("2.0"));
    fixture.flip(&one, "red");
    runtime.start(spec, &one).await.unwrap();
    let load = Load::on(fixture.socket(), 30);
    load.more(30).await;
    runtime.hold(&spec.paths).await.unwrap();
    let held = runtime.observe(&spec.paths).await.unwrap();
    assert!(held.listening && held.workers.is_empty());
    let socket = fixture.socket();
    let waiting = async {
        // Asked while nobody can answer.
        get(&socket, "/").await.unwrap()
    };
    let starting = async {
        fixture.flip(&two, "blue");
        runtime.start(spec, &two).await.unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, starting);
    assert!(answer.contains(two.as_str()), "{answer}");
    load.more(30).await;
    load.lost_nothing().await;
}

async fn a_restarted_agent_finds_its_apps_again(kind: RuntimeKind) {
    let Some(fixture) = Fixture::on(kind) else { return };
    let spec = &fixture.spec;
    let one = fixture.release("1.0");
    fixture.flip(&one, "red");
    fixture.runtime.start(spec, &one).await.unwrap();
    let before = fixture.runtime.observe(&spec.paths).await.unwrap();
    let again = fixture.runtime.clone();
    again.start(spec, &one).await.unwrap();
    assert_eq!(pids(&again.observe(&spec.paths).await.unwrap()), pids(&before));
}

#[tokio::test]
async fn as_root_an_app_runs_as_its_own_user() {
    if !users::am_root() {
        println!("skipped: only root becomes other users");
        return;
    }
    let account = users::account("nobody").unwrap();
    let Some(fixture) = Fixture::of(Some(account.clone())) else { return };
    let one = fixture.release("1.0");
    fixture.flip(&one, "red");
    fixture.runtime.start(&fixture.spec, &one).await.unwrap();
    assert!(ask(&fixture.socket()).await.starts_with(one.as_str()));
    let observed = fixture.runtime.observe(&fixture.spec.paths).await.unwrap();
    for worker in observed.workers {
        use std::os::unix::fs::MetadataExt;
        let process = std::fs::metadata(format!("/proc/{}", worker.pid)).unwrap();
        assert_eq!((process.uid(), process.gid()), (account.uid, account.gid));
    }
}

#[tokio::test]
async fn a_preflight_tells_good_from_bad() {
    let Some(fixture) = Fixture::new() else { return };
    let minute = Duration::from_secs(60);
    let program = |code: &str, timeout: Duration| {
        let release = fixture.release_of("1.0", code);
        let venv = fixture.spec.paths.release(&release).join("venv");
        Program {
            argv: fixture.runtime.assets.preflight_argv(
                Tree::Venv(&venv),
                "/x?y=1",
                "blog.example.org",
                true,
            ),
            env: [("FLIPSIDE_WSGI".to_owned(), "entry:application".to_owned())].into(),
            cwd: fixture.spec.paths.data(),
            account: None,
            stdin: None,
            timeout,
            tail: 16 << 10,
        }
    };
    let good = "def application(environ, start_response):
    assert environ['wsgi.url_scheme'] == 'https' and environ['QUERY_STRING'] == 'y=1'
    print('noise')
    start_response('301 Moved', [])
    return [environ['HTTP_HOST'].encode()]";
    let ended = exec::run(program(good, minute), &mut |_| {}).await.unwrap();
    assert_eq!(Verdict::of(&ended, minute).unwrap().status, Some(301));
    for (code, timeout, said) in [
        ("import no_such_module", minute, "no_such_module"),
        ("raise SystemExit(4)", minute, "SystemExit"),
        ("import os; os._exit(4)", minute, "code 4"),
        ("import os; os.kill(os.getpid(), 11)", minute, "signal 11"),
        ("import time; time.sleep(60)", Duration::from_millis(700), "did not start within"),
        ("application = 3", minute, "cannot be called"),
        ("def application(e, s):\n    s('500 Oops', [])\n    return []", minute, "500"),
        ("def application(e, s):\n    raise KeyError('lost')", minute, "lost"),
    ] {
        let ended = exec::run(program(code, timeout), &mut |_| {}).await.unwrap();
        let failure = Verdict::of(&ended, timeout).unwrap_err();
        assert!(failure.message.contains(said), "{code}: {failure:?}");
    }
}
