use std::time::Instant;

use super::*;

fn program(argv: &[&str]) -> Program {
    Program {
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        env: BTreeMap::from([("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]),
        cwd: PathBuf::from("/"),
        account: None,
        stdin: None,
        timeout: Duration::from_secs(20),
        tail: 1000,
    }
}

async fn ended(program: Program) -> Ended {
    run(program, &mut |_| {}).await.unwrap()
}

fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn it_sees_exactly_its_environment_and_no_descriptor_of_ours() {
    let leaked = std::fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let env = ended(program(&["env"])).await;
    assert_eq!(env.lines(9), ["PATH=/usr/local/bin:/usr/bin:/bin"]);
    let fds = ended(program(&["ls", "/proc/self/fd"])).await;
    assert_eq!(fds.lines(9), ["0", "1", "2", "3"], "3 is the folder that ls reads");
}

#[tokio::test]
async fn codes_signals_and_lines_are_told() {
    let mut heard = Vec::new();
    let script = "import sys; print('one'); sys.stdout.flush(); print('two', file=sys.stderr); sys.exit(3)";
    let mut hear = |line: &str| heard.push(line.to_owned());
    let ended = run(program(&["python3", "-c", script]), &mut hear).await.unwrap();
    assert_eq!((ended.code, ended.ok()), (Some(3), false));
    assert_eq!(heard, ["one", "two"]);
    assert_eq!(ended.lines(1), ["two"]);
    let killed = self::ended(program(&["python3", "-c", "import os; os.kill(os.getpid(), 9)"])).await;
    assert_eq!(killed.signal, Some(9));
}

#[tokio::test]
async fn input_is_fed_and_need_not_be_read() {
    let mut cat = program(&["cat"]);
    cat.stdin = Some(vec![b'x'; 300_000]);
    let cat = ended(cat).await;
    assert_eq!((cat.ok(), cat.tail.len()), (true, 1000));
    let mut deaf = program(&["true"]);
    deaf.stdin = Some(vec![b'x'; 300_000]);
    assert!(ended(deaf).await.ok());
}

#[tokio::test]
async fn an_endless_line_is_cut() {
    let mut longest = 0;
    let script = "import sys; sys.stdout.write('y' * 1000000)";
    run(program(&["python3", "-c", script]), &mut |line| longest = longest.max(line.len())).await.unwrap();
    assert_eq!(longest, LONGEST_LINE);
}

/// Starts a process of its own, prints both pids, and waits.
const PARENT: &str = "import os, subprocess, time
child = subprocess.Popen(['sleep', '60'])
print(os.getpid(), child.pid, flush=True)
time.sleep(60)";

#[tokio::test]
async fn a_timeout_ends_the_whole_group() {
    let mut slow = program(&["python3", "-c", PARENT]);
    slow.timeout = Duration::from_millis(700);
    let begun = Instant::now();
    let ended = ended(slow).await;
    assert!(ended.timed_out && !ended.ok() && begun.elapsed() < Duration::from_secs(10));
    let pids = String::from_utf8(ended.tail).unwrap();
    until(|| pids.split_whitespace().all(|pid| !alive(pid))).await;
    assert_eq!(pids.split_whitespace().count(), 2);
}

#[tokio::test]
async fn a_caller_that_goes_takes_the_group_along() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut on_line = move |line: &str| tell.send(line.to_owned()).unwrap();
    let pids = {
        let running = run(program(&["python3", "-c", PARENT]), &mut on_line);
        tokio::pin!(running);
        tokio::select! { _ = &mut running => panic!("it ended"), pids = told.recv() => pids.unwrap() }
    };
    until(|| pids.split_whitespace().all(|pid| !alive(pid))).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_does_not_hold_us() {
    let script = "import subprocess; subprocess.Popen(['sleep', '60']); print('done')";
    let begun = Instant::now();
    let ended = ended(program(&["python3", "-c", script])).await;
    assert!(ended.ok() && begun.elapsed() < Duration::from_secs(10));
    assert_eq!(ended.lines(1), ["done"]);
}

#[tokio::test]
async fn it_becomes_another_user_for_good() {
    if !crate::sys::users::am_root() {
        println!("skipped: only root becomes other users");
        return;
    }
    let mut id =
        program(&["python3", "-c", "import os; print(os.getresuid(), os.getresgid(), os.getgroups())"]);
    id.account = Some(crate::sys::users::account("nobody").unwrap());
    let account = id.account.clone().unwrap();
    let (u, g) = (account.uid, account.gid);
    assert_eq!(ended(id).await.lines(1), [format!("({u}, {u}, {u}) ({g}, {g}, {g}) [{g}]")]);
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let error = run(program(&["no-such-program"]), &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("no-such-program"), "{error}");
    assert!(matches!(run(program(&[]), &mut |_| {}).await, Err(ExecError::Argv(_))));
    assert!(matches!(run(program(&["a\0b"]), &mut |_| {}).await, Err(ExecError::Argv(_))));
    let absent = run(program(&["/nowhere/x"]), &mut |_| {}).await;
    assert!(matches!(absent, Err(ExecError::Start { .. })));
}

#[test]
fn what_is_detached_outlives_the_thread_that_started_it() {
    // The kernel's signal at a parent's death comes at the death of its thread already.
    let log = tempfile::tempfile().unwrap();
    let pid = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { detach(&program(&["/bin/sleep", "30"]), &log).unwrap() })
    })
    .join()
    .unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(alive(&pid.to_string()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
}

async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within ten seconds");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
