//! `flipside-agent contain`: starts a container for the holder that it is a child of, hands it the app's listener
//! and log, and ends.
//!
//! The engine can pass no descriptor on. So the container's first process connects to a socket of ours and gets
//! them there: descriptor 3, which the holder started us with, and the log, which our errors go to. It gets them
//! only after the holder was told which process it is, so that none runs that nobody knows of.

use std::{
    collections::HashMap,
    io::{self, IoSlice, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    process::ExitCode,
    time::Duration,
};

use bollard::{
    Docker,
    container::LogOutput,
    errors::Error,
    query_parameters::{
        AttachContainerOptions, CreateContainerOptions, InspectContainerOptions, ListContainersOptions,
        RemoveContainerOptions, StartContainerOptions,
    },
};
use flipside_api::Failure;
use futures_util::{Stream, StreamExt};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::{
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

use super::{
    engine::{await_engine, refused},
    image,
    job::{Job, RUN_LABEL},
};
use crate::{
    runtime::holder::{life::Word, listener},
    sys::{clock, exec::LISTENER, proc},
};

/// An engine that is being restarted is waited for so long; then the holder tries again.
const RESTART: Duration = Duration::from_secs(60);

/// How long the first process may take to ask for the listener.
const ENTER: Duration = Duration::from_secs(30);

/// How long a container that has ended may still be heard.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A container that was made so long ago and never started is somebody's who was killed.
const ABANDONED_MS: i64 = 300_000;

const STANDARD_ERROR: RawFd = 2;

/// Starts the container that `job` describes in JSON. Must be called before any other thread is started.
pub fn main(job: &str) -> ExitCode {
    match work(job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!(why, "ContainerNotStarted");
            let _ = say(&Word::Failed(why));
            ExitCode::FAILURE
        }
    }
}

fn work(job: &str) -> Result<(), String> {
    let job: Job = serde_json::from_str(job).map_err(|error| format!("the order makes no sense: {error}"))?;
    if std::env::var("LISTEN_PID").ok() != Some(std::process::id().to_string()) {
        return Err("only a holder can have containers started: there is no listener to hand over".to_owned());
    }
    // SAFETY: the holder started us with the listener as number 3, and it is taken over once.
    let listener = unsafe { OwnedFd::from_raw_fd(LISTENER) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(start(&job, &listener))
}

fn say(word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    io::stdout().write_all(&line)
}

async fn start(job: &Job, listener: &OwnedFd) -> Result<(), String> {
    let door = Door::open(job).map_err(|error| format!("cannot open the container's door: {error}"))?;
    let told = |failure: Failure| failure.message;
    let docker = await_engine(&job.socket, RESTART).await.map_err(|error| told(error.failure()))?;
    remove_abandoned(&docker, job).await;
    let name = create(&docker, job).await.map_err(told)?;
    let entered = enter(&docker, &name, &door, listener).await;
    if entered.is_err() {
        let force = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
        let _ = docker.remove_container(&name, Some(force)).await;
    }
    entered
}

/// The socket on which the container asks for the listener; it goes with us.
struct Door {
    path: std::path::PathBuf,
    listener: UnixListener,
}

impl Door {
    fn open(job: &Job) -> Result<Self, Box<dyn std::error::Error>> {
        let path = job.door();
        let root = nix::unistd::geteuid().is_root();
        let fd = listener::bound(&path, 0o600, root.then_some(job.owner), 4)?;
        let listener = std::os::unix::net::UnixListener::from(fd);
        listener.set_nonblocking(true)?;
        Ok(Self { path, listener: UnixListener::from_std(listener)? })
    }

    /// The first connection of the process `pid`; others of the app's user wait in vain.
    async fn admit(&self, pid: u32) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            if stream.peer_cred()?.pid() == i32::try_from(pid).ok() {
                return Ok(stream);
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes the container; its image is made again where somebody removed it.
async fn create(docker: &Docker, job: &Job) -> Result<String, Failure> {
    let name = job.name();
    let options = || CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
    let made = match docker.create_container(Some(options()), job.body(&job.image)).await {
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => {
            let image = image::ensure(docker, &job.recipe).await?;
            docker.create_container(Some(options()), job.body(&image.name)).await
        }
        made => made,
    };
    made.map_err(refused("make the app's container"))?;
    Ok(name)
}

/// Starts the container and lets it have the listener.
async fn enter(docker: &Docker, name: &str, door: &Door, listener: &OwnedFd) -> Result<(), String> {
    let told = |what| move |error| refused(what)(error).failure().message;
    // Before it runs: of a container that ends at once the engine keeps nothing.
    let options = AttachContainerOptions {
        stream: true,
        stdout: true,
        stderr: true,
        ..AttachContainerOptions::default()
    };
    let attached = docker.attach_container(name, Some(options)).await;
    let mut output = attached.map_err(told("attach to the app's container"))?.output;
    docker
        .start_container(name, None::<StartContainerOptions>)
        .await
        .map_err(told("start the app's container"))?;
    let (pid, started, stream) = match admit(docker, name, door).await {
        Ok(admitted) => admitted,
        Err(why) => return Err(format!("{why}: {}", last_words(&mut output).await)),
    };
    // A holder that is gone hears nothing, and then nothing may run.
    say(&Word::Runs { pid, started }).map_err(|error| format!("the holder is gone: {error}"))?;
    hand_over(&stream, &[listener.as_raw_fd(), STANDARD_ERROR])
        .map_err(|error| format!("cannot hand the listener over: {error}"))
}

/// Waits until the container's first process asks: its number, when it started, and where it asks.
async fn admit(docker: &Docker, name: &str, door: &Door) -> Result<(u32, u64, UnixStream), String> {
    const ENDED: &str = "the container ended at once";
    let state = match docker.inspect_container(name, None::<InspectContainerOptions>).await {
        // One that has ended is removed.
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Err(ENDED.to_owned()),
        shown => shown.map_err(|error| refused("show the app's container")(error).failure().message)?.state,
    };
    let pid = state.and_then(|state| u32::try_from(state.pid?).ok()).filter(|pid| *pid > 0);
    let (pid, process) = pid.and_then(|pid| Some((pid, proc::process(pid)?))).ok_or(ENDED)?;
    let ended = async {
        while proc::runs(pid, process.started) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        admitted = timeout(ENTER, door.admit(pid)) => {
            let stream = admitted.map_err(|_| "the container does not ask for its listener")?;
            Ok((pid, process.started, stream.map_err(|error| format!("the container's door failed: {error}"))?))
        }
        () = ended => Err(ENDED.to_owned()),
    }
}

fn hand_over(stream: &UnixStream, descriptors: &[RawFd]) -> nix::Result<()> {
    let data = [IoSlice::new(b"!")];
    sendmsg::<()>(
        stream.as_raw_fd(),
        &data,
        &[ControlMessage::ScmRights(descriptors)],
        MsgFlags::empty(),
        None,
    )
    .map(drop)
}

/// The last that the container said.
async fn last_words(output: &mut (impl Stream<Item = Result<LogOutput, Error>> + Unpin)) -> String {
    let mut said = String::new();
    while let Ok(Some(Ok(line))) = timeout(LAST_WORDS, output.next()).await {
        said.push_str(&line.to_string());
    }
    said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it said nothing").to_owned()
}

/// Removes what starters that were killed have made and not started.
async fn remove_abandoned(docker: &Docker, job: &Job) {
    let filters = HashMap::from([
        ("label".to_owned(), vec![format!("{RUN_LABEL}={}", job.run.display())]),
        ("status".to_owned(), vec!["created".to_owned(), "exited".to_owned(), "dead".to_owned()]),
    ]);
    let options =
        ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
    let abandoned = clock::now_ms() - ABANDONED_MS;
    for container in docker.list_containers(Some(options)).await.unwrap_or_default() {
        if container.created.is_some_and(|created| created * 1000 < abandoned) {
            let _ = docker
                .remove_container(&container.id.unwrap_or_default(), None::<RemoveContainerOptions>)
                .await;
        }
    }
}
