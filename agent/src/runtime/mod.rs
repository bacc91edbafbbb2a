//! What runs an app: one trait, and one adapter for each kind of runtime.
//!
//! A runtime knows nothing of deploys. It is told what an instance should be and brings it about without
//! losing a request: the listener is held by a process of its own for as long as the app is up.

pub mod assets;
pub mod crew;
pub mod docker;
pub mod holder;
pub mod process;
pub mod uwsgi;

use async_trait::async_trait;
use flipside_api::{Failure, ReleaseId, RuntimeKind};
use serde::{Deserialize, Serialize};

use self::{
    crew::Runs,
    holder::protocol::{Crew, CrewState},
};
use crate::app::paths::AppPaths;

/// A system user that processes run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

/// What an instance of an app should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Where the app lies.
    pub paths: AppPaths,
    /// The user that it runs as; `None`: the agent's own.
    pub account: Option<Account>,
    /// Worker processes.
    pub workers: u16,
    /// Threads in each.
    pub threads: u16,
    /// Seconds after which a request is given up; 0 is never.
    pub request_timeout: u32,
    /// Seconds that one worker may take to import the app.
    pub start_timeout: u32,
    /// The most memory in bytes, where it can be enforced.
    pub memory: Option<u64>,
    /// The interpreter that the releases' venvs are made of, such as `/usr/bin/python3`.
    pub python: String,
    /// Whether answers carry `X-Flipside-Release`.
    pub release_header: bool,
}

/// One worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its number within the instance, from 1.
    pub id: u32,
    /// Its process.
    pub pid: u32,
    /// Whether it takes requests.
    pub accepting: bool,
    /// Whether it is in a request now.
    pub busy: bool,
    /// The release that it has loaded, once it has.
    pub release: Option<ReleaseId>,
    /// Resident bytes.
    pub rss: u64,
    /// Requests since it started.
    pub requests: u64,
    /// How often this worker was started.
    pub respawns: u64,
}

/// What runs of an app now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether the listener is held, so that requests wait and none is refused.
    pub listening: bool,
    /// The workers of all instances.
    pub workers: Vec<Worker>,
    /// A hash of the options that the running instance was started with; a change needs a cold switch.
    pub options: Option<String>,
    /// Why there is no worker where there should be some, for people.
    pub problem: Option<String>,
}

/// Brings instances about. Every method is idempotent, has a deadline of its own, and leaves the app as it was
/// when it fails, but for `stop`.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Which kind it is.
    fn kind(&self) -> RuntimeKind;

    /// Whether [`InstanceSpec::memory`] is enforced.
    fn limits_memory(&self) -> bool {
        false
    }

    /// A hash of what an instance of `spec` is started with, to compare with [`Observed::options`].
    fn options(&self, spec: &InstanceSpec) -> String;

    /// Makes sure that an instance of `spec` could be started now, before anything is touched; says what was
    /// installed or made for that, or nothing.
    async fn ready(&self, spec: &InstanceSpec) -> Result<String, Failure>;

    /// What runs now. Nothing running is no error.
    async fn observe(&self, paths: &AppPaths) -> Result<Observed, Failure>;

    /// Starts the app on `release`, which is current, where it does not run; waits until every worker serves it.
    async fn start(&self, spec: &InstanceSpec, release: &ReleaseId) -> Result<(), Failure>;

    /// Hot: restarts worker after worker; waits until every worker is new and serves `release`, which is current.
    /// On an error some workers may serve either; the caller puts `current` back and reloads again.
    async fn reload(&self, spec: &InstanceSpec, release: &ReleaseId) -> Result<(), Failure>;

    /// Cold: starts an instance beside the running one, waits until it serves `release`, retires the old one.
    async fn replace(&self, spec: &InstanceSpec, release: &ReleaseId) -> Result<(), Failure>;

    /// Ends the workers gently and keeps the listener: requests wait until [`Runtime::start`].
    async fn hold(&self, paths: &AppPaths) -> Result<(), Failure>;

    /// Ends the app: workers gently, then the listener.
    async fn stop(&self, paths: &AppPaths) -> Result<(), Failure>;

    /// What runs beside the web workers. Like the two below it asks the app's holder, wherever that runs.
    async fn crew(&self, paths: &AppPaths) -> Result<CrewState, Failure> {
        crew::state(paths).await
    }

    /// Begins what runs beside the web workers. Whatever ran before must have been dismissed.
    async fn employ(&self, paths: &AppPaths, crew: Crew) -> Result<(), Failure> {
        crew::employ(paths, crew).await
    }

    /// Ends it gently, and waits until it has ended.
    async fn dismiss(&self, paths: &AppPaths, runs: Runs) -> Result<(), Failure> {
        crew::dismiss(paths, runs).await
    }
}
