//! One request to the agent over its UNIX socket: progress as it comes, then the outcome.
//!
//! Losing the connection cancels nothing in the agent (but `run`, whose command it ends), so every
//! failure here says how to learn what became of it.

use std::{
    io::{ErrorKind, IoSlice},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
    time::Duration,
};

use flipside_api::{
    Code, Command, Failure, Outcome, Progress, Reply, Request, Who,
    codec::{self, CodecError},
};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::{
    io::Interest,
    net::UnixStream,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::failures::Result;

const CONNECT: Duration = Duration::from_secs(5);
/// For verbs that only read: a live agent answers these from memory.
const ANSWER: Duration = Duration::from_secs(30);

/// Asks, shows each progress to `on_progress`, and gives the outcome.
pub(crate) fn ask(socket: &Path, command: Command, on_progress: &mut dyn FnMut(Progress)) -> Result<Outcome> {
    ask_with(socket, command, Vec::new(), on_progress)
}

/// The same with descriptors for the program that is asked for; the agent asks for them when it is ready.
pub(crate) fn ask_with(
    socket: &Path,
    command: Command,
    descriptors: Vec<OwnedFd>,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Host, format!("cannot start the client: {error}")))?;
    runtime.block_on(async {
        tokio::select! {
            outcome = converse(socket, &command, descriptors, on_progress) => outcome,
            () = told_to_end() => Err(interrupted(&command)),
        }
    })
}

/// Ctrl-C, or whatever else ends a program: what is to be put back is put back.
async fn told_to_end() {
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Passes the descriptors on, and lets go of ours.
async fn pass(stream: &UnixStream, descriptors: Vec<OwnedFd>) -> std::io::Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let sent = stream.async_io(Interest::WRITABLE, || {
        let rights = [ControlMessage::ScmRights(&numbers)];
        let sent =
            sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::MSG_NOSIGNAL, None);
        sent.map_err(std::io::Error::from)
    });
    sent.await.map(drop)
}

async fn converse(
    socket: &Path,
    command: &Command,
    mut descriptors: Vec<OwnedFd>,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<Outcome> {
    let mut stream = timeout(CONNECT, UnixStream::connect(socket))
        .await
        .map_err(|_| silent(socket, CONNECT))?
        .map_err(|error| unreachable_agent(socket, &error))?;
    let request = Request::new(who(), command.clone());
    timeout(CONNECT, codec::send(&mut stream, &request))
        .await
        .map_err(|_| silent(socket, CONNECT))?
        .map_err(|error| broken(command, &error))?;
    let patience = patience(command);
    loop {
        let reply = match patience {
            Some(limit) => {
                timeout(limit, codec::receive(&mut stream)).await.map_err(|_| silent(socket, limit))?
            }
            None => codec::receive(&mut stream).await,
        };
        match reply.map_err(|error| broken(command, &error))? {
            Some(Reply::Progress(progress)) if progress.event == "streams" => {
                let passed = pass(&stream, std::mem::take(&mut descriptors)).await;
                passed.map_err(|error| broken(command, &CodecError::Io(error)))?;
            }
            Some(Reply::Progress(progress)) => on_progress(progress),
            Some(Reply::Outcome(outcome)) => return Ok(*outcome),
            None => return Err(gone(command)),
        }
    }
}

/// Who asks: the user behind sudo where there is one.
fn who() -> Who {
    let user = std::env::var("SUDO_USER")
        .ok()
        .filter(|user| !user.is_empty())
        .or_else(|| nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name));
    Who { via: "cli".to_owned(), user: user.unwrap_or_default(), ..Who::default() }
}

/// How long the agent may be silent; `None` for verbs that wait for hooks, locks, stores or new lines.
fn patience(command: &Command) -> Option<Duration> {
    match command {
        Command::Ping
        | Command::Version
        | Command::Releases(_)
        | Command::History(_)
        | Command::EnvNames(_)
        | Command::Status { .. } => Some(ANSWER),
        _ => None,
    }
}

fn unreachable_agent(socket: &Path, error: &std::io::Error) -> Failure {
    let socket = socket.display();
    match error.kind() {
        ErrorKind::NotFound => {
            Failure::new(Code::NoAgent, format!("no agent: there is no socket at {socket}")).hint(
                "start flipside-agent on this host, or name its socket with --socket or FLIPSIDE_SOCKET",
            )
        }
        ErrorKind::ConnectionRefused => {
            Failure::new(Code::NoAgent, format!("no agent: nobody listens at {socket}"))
                .hint("the agent has ended; start it: systemctl start flipside-agent")
        }
        ErrorKind::PermissionDenied => {
            Failure::new(Code::NoAgent, format!("no leave to use the agent's socket {socket}"))
                .hint("use sudo, or join the group that the agent's `socket_group` names")
        }
        _ => Failure::new(Code::NoAgent, format!("no agent at {socket}: {error}")),
    }
}

fn silent(socket: &Path, limit: Duration) -> Failure {
    let message = format!("the agent at {} did not answer within {} s", socket.display(), limit.as_secs());
    Failure::new(Code::NoAgent, message).hint("see the agent's log: journalctl -u flipside-agent")
}

/// What to do when the end of a command was not seen.
fn afterwards(command: &Command) -> String {
    match (command, command.app()) {
        (Command::Run(_), _) => "the agent ends the command".to_owned(),
        (_, Some(app)) => format!("how it ends is in: flipside history {app}"),
        (_, None) => "ask again".to_owned(),
    }
}

fn gone(command: &Command) -> Failure {
    let message = format!("the agent went away before the end of {}", command.verb());
    Failure::new(Code::NoAgent, message)
        .hint(format!("once it is back it finishes or undoes what was begun; {}", afterwards(command)))
}

fn broken(command: &Command, error: &CodecError) -> Failure {
    match error {
        CodecError::TooLarge(_) => Failure::new(Code::Usage, format!("the request is too large: {error}")),
        CodecError::Malformed(_) => Failure::new(Code::Version, format!("the agent's answer: {error}"))
            .hint("agent and command line may differ in version: see flipside version"),
        CodecError::Truncated | CodecError::Io(_) => gone(command),
    }
}

fn interrupted(command: &Command) -> Failure {
    let hint = match command {
        Command::Run(_) => afterwards(command),
        _ => format!("the agent goes on; {}", afterwards(command)),
    };
    Failure::new(Code::Interrupted, "interrupted").hint(hint)
}
