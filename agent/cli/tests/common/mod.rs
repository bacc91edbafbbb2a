//! The binary from outside, and an agent of the test's own on a temporary socket.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use flipside_api::{Reply, Request, codec};
use tempfile::TempDir;

/// The command with its environment in our hands.
#[expect(clippy::disallowed_methods, reason = "a black-box test starts the program")]
pub(crate) fn flipside(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flipside"));
    for name in ["FLIPSIDE_SOCKET", "FLIPSIDE_STORE", "FLIPSIDE_UV", "FLIPSIDE_PYTHON", "SUDO_USER"] {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it with `input` on its stdin.
pub(crate) fn fed(mut command: Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The one JSON object that was printed.
pub(crate) fn object(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

pub(crate) fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::File::create(path).unwrap().write_all(content.as_bytes()).unwrap();
}

/// An agent that answers each request as it was told to.
pub(crate) struct Agent {
    folder: TempDir,
    heard: Arc<Mutex<Vec<Request>>>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Answers `answers.len()` requests, each with its list; an empty list hangs up on the asker.
    pub(crate) fn new(answers: Vec<Vec<Reply>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(&path) }).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&heard);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                for answer in answers {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let Some(request) = codec::receive::<Request>(&mut stream).await.unwrap() else { return };
                    record.lock().unwrap().push(request);
                    for reply in answer {
                        codec::send(&mut stream, &reply).await.unwrap();
                    }
                }
            });
        });
        Self { folder, heard, thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// The command against this agent.
    pub(crate) fn flipside(&self, arguments: &[&str]) -> Command {
        let mut command = flipside(arguments);
        command.env("FLIPSIDE_SOCKET", self.socket());
        command
    }

    /// What it was asked, once it has answered all that it was to answer.
    pub(crate) fn heard(mut self) -> Vec<Request> {
        self.thread.take().unwrap().join().unwrap();
        self.heard.lock().unwrap().clone()
    }
}
