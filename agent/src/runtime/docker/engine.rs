//! The Docker engine, through its socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};
use flipside_api::{Code, Failure};
use tokio::time::{Instant, sleep};

use crate::host::chain;

/// How long the engine may take over a request: starting a container on a busy disk.
const PATIENCE_SECONDS: u64 = 60;

/// How long it may take to say its version, which is how it is found to be there.
const GREETING: Duration = Duration::from_secs(10);

/// How often one that restarts is looked for.
const TICK: Duration = Duration::from_millis(200);

/// What the engine did not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// There is none, or it does not answer.
    #[error("no Docker engine answers at {}", socket.display())]
    Absent {
        /// Where it was looked for.
        socket: PathBuf,
        /// Why not.
        #[source]
        source: Error,
    },
    /// It said no.
    #[error("the Docker engine did not {what}")]
    Refused {
        /// What it was to do.
        what: &'static str,
        /// Why not.
        #[source]
        source: Error,
    },
}

impl EngineError {
    /// The failure, with what to do.
    pub(crate) fn failure(&self) -> Failure {
        let failure = Failure::new(Code::Host, chain(self));
        match self {
            Self::Absent { .. } => failure.hint(
                "start the engine (systemctl start docker; apt-get install docker.io where there is none), name \
                 its socket as docker_socket in agent.toml, or say runtime: process in the app's pillar; requests \
                 wait, and what should run is started as soon as it is back",
            ),
            Self::Refused { .. } => failure,
        }
    }
}

/// Says what the engine was to do when it refused.
pub(super) fn refused(what: &'static str) -> impl Fn(Error) -> EngineError {
    move |source| EngineError::Refused { what, source }
}

/// The engine at `socket`, in the newest version that it and we speak.
pub(super) async fn connect(socket: &Path) -> Result<Docker, EngineError> {
    let absent = |source| EngineError::Absent { socket: socket.to_owned(), source };
    let path = socket.display().to_string();
    let docker = Docker::connect_with_unix(&path, PATIENCE_SECONDS, API_DEFAULT_VERSION).map_err(absent)?;
    match tokio::time::timeout(GREETING, docker.negotiate_version()).await {
        Ok(met) => met.map_err(absent),
        Err(_) => Err(absent(Error::RequestTimeoutError)),
    }
}

/// The same, waiting `within` for an engine that is just being restarted.
pub(super) async fn await_engine(socket: &Path, within: Duration) -> Result<Docker, EngineError> {
    let deadline = Instant::now() + within;
    loop {
        match connect(socket).await {
            Err(EngineError::Absent { .. }) if Instant::now() < deadline => sleep(TICK).await,
            met => return met,
        }
    }
}
