//! The local API over a real socket.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    reason = "each test file uses its own part of it"
)]
mod common;

use std::sync::Arc;

use flipside_agent::inlets::api::Inlet;
use flipside_api::{Code, Command, Outcome, Reply, Request, State, Who, codec};
use tokio::{io::AsyncWriteExt, net::UnixStream, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// An agent without apps, serving in a folder of its own until it is dropped.
struct Agent {
    folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let agent = common::Agent::start(folder.path(), Arc::default(), "http://127.0.0.1:9");
        let inlet = Inlet::bind(&agent.host.config.socket, None).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(inlet.serve(agent.router, CancellationToken::new()));
        Self { folder, _tasks: tasks }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("sock")).await.unwrap()
    }

    async fn ask(&self, request: &Request) -> Outcome {
        let mut stream = self.connect().await;
        codec::send(&mut stream, request).await.unwrap();
        outcome(&mut stream).await
    }
}

async fn outcome(stream: &mut UnixStream) -> Outcome {
    loop {
        match codec::receive::<Reply>(stream).await.unwrap().expect("an outcome before the end") {
            Reply::Progress(_) => {}
            Reply::Outcome(outcome) => return *outcome,
        }
    }
}

fn ping() -> Request {
    Request::new(Who::default(), Command::Ping)
}

#[tokio::test]
async fn a_ping_is_answered_again_and_again() {
    let agent = Agent::start();
    let mut stream = agent.connect().await;
    for _ in 0..3 {
        codec::send(&mut stream, &ping()).await.unwrap();
        let outcome = outcome(&mut stream).await;
        assert!(outcome.result);
        assert_eq!(outcome.data.unwrap()["id"], "web1");
    }
}

#[tokio::test]
async fn the_socket_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let agent = Agent::start();
    let mode = agent.folder.path().join("sock").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[tokio::test]
async fn another_version_is_refused_as_such() {
    let agent = Agent::start();
    for v in [0, 99] {
        let outcome = agent.ask(&Request { v, ..ping() }).await;
        assert_eq!((outcome.state, outcome.error.unwrap().code), (State::Refused, Code::Version));
    }
}

#[tokio::test]
async fn nonsense_and_giants_get_a_clear_answer() {
    let agent = Agent::start();
    let giant = [0xff, 0xff, 0xff, 0xff].to_vec();
    let nonsense = [0, 0, 0, 2, 0xc1, 0xc1].to_vec();
    let unknown = [&[0, 0, 0, 1][..], &[0x80]].concat();
    for frame in [giant, nonsense, unknown] {
        let mut stream = agent.connect().await;
        stream.write_all(&frame).await.unwrap();
        let outcome = outcome(&mut stream).await;
        assert_eq!((outcome.state, outcome.error.unwrap().code), (State::Refused, Code::Usage));
        assert!(codec::receive::<Reply>(&mut stream).await.unwrap().is_none(), "the peer is let go");
    }
}

#[tokio::test]
async fn a_truncated_frame_harms_nobody() {
    let agent = Agent::start();
    for _ in 0..20 {
        agent.connect().await.write_all(&[0, 0, 1, 0, 0x81]).await.unwrap();
    }
    assert!(agent.ask(&ping()).await.result);
}

#[tokio::test]
async fn an_app_that_is_not_there_is_said_so() {
    let agent = Agent::start();
    let status = Command::Status { app: Some("blog".parse().unwrap()) };
    let outcome = agent.ask(&Request::new(Who::default(), status)).await;
    let error = outcome.error.unwrap();
    assert_eq!(error.code, Code::NotFound);
    assert!(error.hint.contains("flipside.deploy blog"));
    assert!(agent.ask(&Request::new(Who::default(), Command::Status { app: None })).await.result);
}

#[tokio::test]
async fn what_is_no_socket_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    std::fs::create_dir(&path).unwrap();
    assert!(Inlet::bind(&path, None).is_err());
    assert!(path.is_dir());
}
