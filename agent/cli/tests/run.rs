//! Commands that run as if they ran here: the test is the agent, and the program that it would start.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod common;

use std::{
    fs::File,
    io::{IoSliceMut, Read, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    process::Stdio,
    thread::JoinHandle,
};

use common::{fed, flipside, object, stderr, stdout};
use flipside_api::{Code, Command, Failure, Outcome, Progress, Reply, Request, Run, State, codec};
use nix::{
    cmsg_space,
    pty::openpty,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
        termios::{LocalFlags, tcgetattr},
    },
};
use serde_json::json;
use tokio::{io::Interest, net::UnixListener};

/// An agent that gets one request with descriptors, has `program` use them, and tells of the exit code that it gives.
struct Agent {
    folder: tempfile::TempDir,
    thread: JoinHandle<Run>,
}

impl Agent {
    fn new(program: impl FnOnce(Vec<File>) -> i64 + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let path = folder.path().join("agent.sock");
        let listener = runtime.block_on(async { UnixListener::bind(path) }).unwrap();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let asked = codec::receive::<Request>(&mut stream).await.unwrap().unwrap();
                let ready =
                    Progress { step: String::new(), event: "streams".into(), message: String::new(), ms: 0 };
                codec::send(&mut stream, &Reply::Progress(ready)).await.unwrap();
                let descriptors = stream
                    .async_io(Interest::READABLE, || Ok(descriptors(stream.as_raw_fd())?))
                    .await
                    .unwrap();
                let code = program(descriptors);
                let data = Some(json!({ "code": code }));
                let failure = Failure::new(Code::Hook, "x: it ended");
                let outcome = Outcome { data, ..Outcome::bad(State::Failed, failure) };
                codec::send(&mut stream, &Reply::Outcome(Box::new(outcome))).await.unwrap();
                let Command::Run(run) = asked.command else { panic!("{asked:?}") };
                run
            })
        });
        Self { folder, thread }
    }

    fn flipside(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = flipside(arguments);
        command.env("FLIPSIDE_SOCKET", self.folder.path().join("agent.sock")).env("TERM", "vt52");
        command
    }

    fn heard(self) -> serde_json::Value {
        json!(self.thread.join().unwrap())
    }
}

fn descriptors(socket: RawFd) -> nix::Result<Vec<File>> {
    let (mut byte, mut space) = ([0], cmsg_space!([RawFd; 3]));
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::empty())?;
    let Some(ControlMessageOwned::ScmRights(numbers)) = message.cmsgs()?.next() else {
        return Ok(Vec::new());
    };
    // SAFETY: the kernel has just made them for us.
    Ok(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }.into()).collect())
}

/// Reads all of its input, and says a word on each of its outputs.
fn speaks(code: i64, heard: std::sync::mpsc::Sender<Vec<u8>>) -> impl FnOnce(Vec<File>) -> i64 + Send {
    move |descriptors| {
        let [mut input, mut output, mut errors] = <[File; 3]>::try_from(descriptors).unwrap();
        let mut all = Vec::new();
        input.read_to_end(&mut all).unwrap();
        heard.send(all).unwrap();
        output.write_all(b"to\0out, no line").unwrap();
        errors.write_all(b"to err\n").unwrap();
        code
    }
}

#[test]
fn input_output_errors_and_the_code_pass_as_they_are() {
    let (told, heard) = std::sync::mpsc::channel();
    let agent = Agent::new(speaks(7, told.clone()));
    let output = fed(agent.flipside(&["run", "blog", "--", "sh", "-x", "--help"]), &[b'x'; 300_000]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((stdout(&output).as_str(), stderr(&output).as_str()), ("to\0out, no line", "to err\n"));
    assert_eq!(heard.recv().unwrap(), [b'x'; 300_000]);
    let run = agent.heard();
    assert_eq!((&run["command"], &run["streams"]), (&json!(["sh", "-x", "--help"]), &json!("three")));

    let agent = Agent::new(speaks(0, told));
    let output = agent.flipside(&["--json", "run", "-n", "blog", "--", "true"]).output().unwrap();
    let object = object(&output);
    assert_eq!((&object["code"], &object["v"], output.status.code()), (&json!(0), &json!(1), Some(0)));
    assert_eq!((&object["stdout"], &object["stderr"]), (&json!(["to\0out, no line"]), &json!(["to err"])));
    assert!(heard.recv().unwrap().is_empty());
    agent.heard();
}

#[test]
fn manage_shell_and_dbshell_are_commands_too() {
    for (arguments, command) in [
        (&["manage", "blog", "check", "--deploy"][..], json!(["django-admin", "check", "--deploy"])),
        (&["-a", "blog", "manage", "check"], json!(["django-admin", "check"])),
        (&["shell", "blog"], json!(["django-admin", "shell"])),
    ] {
        let agent = Agent::new(|_| 0);
        assert_eq!(agent.flipside(arguments).output().unwrap().status.code(), Some(0), "{arguments:?}");
        assert_eq!(agent.heard()["command"], command);
    }
    for (arguments, mode) in
        [(&["dbshell", "blog", "x.db"][..], "ro"), (&["dbshell", "blog", "x.db", "--write"], "rw")]
    {
        let agent = Agent::new(|_| 0);
        agent.flipside(arguments).output().unwrap();
        let command = agent.heard()["command"].clone();
        assert_eq!(
            (&command[0], &command[3], &command[4]),
            (&json!("python3"), &json!(mode), &json!("x.db"))
        );
    }
}

#[test]
fn on_a_terminal_the_command_has_one_of_its_own_and_ours_is_put_back() {
    let agent = Agent::new(|descriptors| {
        let [mut terminal] = <[File; 1]>::try_from(descriptors).unwrap();
        assert!(nix::unistd::isatty(&terminal).unwrap());
        terminal.write_all(b"name? ").unwrap();
        let mut typed = [0; 64];
        let n = terminal.read(&mut typed).unwrap();
        assert_eq!(&typed[..n], b"ann\n", "a line, as a terminal gives it");
        5
    });
    let ours = openpty(None, None).unwrap();
    let slave = || Stdio::from(ours.slave.try_clone().unwrap());
    let before = tcgetattr(&ours.slave).unwrap();
    let mut command = agent.flipside(&["run", "blog", "--", "ask"]);
    let mut child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
    let mut user = File::from(ours.master.try_clone().unwrap());
    let mut seen = Vec::new();
    while !seen.ends_with(b"name? ") {
        let mut byte = [0; 1];
        user.read_exact(&mut byte).unwrap();
        seen.extend(byte);
    }
    assert!(!tcgetattr(&ours.slave).unwrap().local_flags.contains(LocalFlags::ICANON), "every key passes");
    user.write_all(b"ann\r").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(tcgetattr(&ours.slave).unwrap().local_flags, before.local_flags);
    assert_eq!(agent.heard()["streams"], json!({"terminal": {"term": "vt52"}}));
}
