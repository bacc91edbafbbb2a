//! What can be asked of the agent.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AppName, AppSpec, ReleaseId};

/// One question to the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// The contract's version that the asker speaks ([`crate::VERSION`]).
    pub v: u32,
    /// Who asks, for the history and for `busy`.
    #[serde(default)]
    pub who: Who,
    /// What is asked.
    pub command: Command,
}

impl Request {
    /// A request of this build's version.
    pub fn new(who: Who, command: Command) -> Self {
        Self { v: crate::VERSION, who, command }
    }
}

/// Who asks. All of it is for the record; authority comes from the socket's peer credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Who {
    /// The way in: `cli`, `salt`, `event`.
    pub via: String,
    /// Salt's user, or the user name on the host.
    pub user: String,
    /// Salt's job id, or an event's request id. The same id, verb and app joins a running command, and
    /// gets the recorded outcome of one that has ended.
    pub id: Option<String>,
    /// The user id of whoever connected, as the kernel says: the agent sets it, whatever the request holds.
    pub uid: Option<u32>,
}

/// The verbs, each with what it needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Command {
    /// Is the agent there?
    Ping,
    /// Versions of the agent and of the contract.
    Version,
    /// Make a release current; with `test` only say what would be done.
    Deploy(Box<Deploy>),
    /// Deploy with the spec and the environment that this host has stored: for those who may not read them.
    Redeploy(Redeploy),
    /// Make an earlier release current again.
    Rollback(Rollback),
    /// The releases of an app that are on this host, newest first. Data: a list of
    /// `{release, current, at, who, mark_bytes}`; the last is what the databases take as they were before the
    /// release was replaced, where a rollback with data can put them back.
    Releases(Release),
    /// What was done to an app, by whom, and how it ended. Data: a list of
    /// `{id, verb, release, state, at, who, ms, message}`, newest first.
    History(History),
    /// Restart the workers one by one.
    Reload(Release),
    /// Start a fresh instance and retire the old one.
    Restart(Release),
    /// Stop the app.
    Stop(Release),
    /// Start the app.
    Start(Release),
    /// Write the env file and the configuration files: from what is given, for the rest again from what is
    /// stored; reload if anything changed.
    Env {
        /// The app.
        app: AppName,
        /// The new environment, values plain or armoured.
        #[serde(default)]
        env: Option<BTreeMap<String, String>>,
        /// The new configuration files, texts plain or armoured.
        #[serde(default)]
        files: Option<BTreeMap<String, String>>,
        /// Seconds to wait for the app's lock.
        #[serde(default)]
        wait: u64,
    },
    /// The names of the variables in an app's environment, never their values. Data: `{names: […]}`.
    EnvNames(Release),
    /// The state of one app, or of all and of the agent. Data: `{host: {…}, apps: {NAME: {…}}}`.
    Status {
        /// Absent: all.
        #[serde(default)]
        app: Option<AppName>,
    },
    /// Lines of the app's log, each as a progress `output`.
    Logs(Logs),
    /// Run a command in the app's release and environment. Its lines come as progress `output` with the
    /// step `stdout` or `stderr`. Data: `{code: N}`, the exit code (128 and the signal's number for a signal).
    /// Without an id it ends when whoever asked leaves; with one it may be asked for again, and goes on.
    Run(Run),
    /// Show the maintenance page instead of the app, or no longer.
    Maintenance {
        /// The app.
        app: AppName,
        /// Whether the page shows.
        on: bool,
    },
    /// Take the newest state of the databases to the store and say its position.
    Backup(Backup),
    /// What the store can restore.
    Backups(Backup),
    /// Put the databases back to an earlier state.
    Restore(Restore),
    /// Prove what can be proven of the stored backups.
    BackupCheck(Backup),
    /// Stop the app and forget it; its data folder and its backups stay.
    Remove(Release),
    /// A sample of the app's own, for every sink.
    Metric(Metric),
}

impl Command {
    /// The verb as users spell it.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Version => "version",
            Self::Deploy(deploy) if deploy.test => "plan",
            Self::Deploy(_) => "deploy",
            Self::Redeploy(redeploy) if redeploy.test => "plan",
            Self::Redeploy(_) => "deploy",
            Self::Rollback(_) => "rollback",
            Self::Releases(_) => "releases",
            Self::History(_) => "history",
            Self::Reload(_) => "reload",
            Self::Restart(_) => "restart",
            Self::Stop(_) => "stop",
            Self::Start(_) => "start",
            Self::Env { .. } => "env",
            Self::EnvNames(_) => "env_names",
            Self::Status { .. } => "status",
            Self::Logs(_) => "logs",
            Self::Run(_) => "run",
            Self::Maintenance { .. } => "maintenance",
            Self::Backup(_) => "backup",
            Self::Backups(_) => "backups",
            Self::Restore(_) => "restore",
            Self::BackupCheck(_) => "backup_check",
            Self::Remove(_) => "remove",
            Self::Metric(_) => "metric",
        }
    }

    /// The app that it is about, where it is about one.
    pub fn app(&self) -> Option<&AppName> {
        match self {
            Self::Ping | Self::Version => None,
            Self::Status { app } => app.as_ref(),
            Self::Deploy(deploy) => Some(&deploy.spec.app),
            Self::Redeploy(redeploy) => Some(&redeploy.app),
            Self::Rollback(rollback) => Some(&rollback.app),
            Self::Releases(of)
            | Self::Reload(of)
            | Self::Restart(of)
            | Self::Stop(of)
            | Self::Start(of)
            | Self::EnvNames(of)
            | Self::Remove(of) => Some(&of.app),
            Self::History(history) => Some(&history.app),
            Self::Env { app, .. } | Self::Maintenance { app, .. } => Some(app),
            Self::Logs(logs) => Some(&logs.app),
            Self::Run(run) => Some(&run.app),
            Self::Backup(backup) | Self::Backups(backup) | Self::BackupCheck(backup) => Some(&backup.app),
            Self::Restore(restore) => Some(&restore.app),
            Self::Metric(metric) => Some(&metric.app),
        }
    }
}

/// A deploy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Deploy {
    /// What the app should be.
    pub spec: AppSpec,
    /// The package to run.
    pub package: Package,
    /// Only plan.
    #[serde(default)]
    pub test: bool,
    /// Switch cold even where hot would do.
    #[serde(default)]
    pub cold: bool,
    /// Seconds to wait for the app's lock.
    #[serde(default)]
    pub wait: u64,
    /// Risks that the operator accepts by name; `destructive` allows migrations that lose data.
    #[serde(default)]
    pub allow: Vec<String>,
}

/// A deploy of an app that this host has deployed before, as its stored spec says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Redeploy {
    /// The app.
    pub app: AppName,
    /// The package to run.
    pub package: Package,
    /// Only plan.
    #[serde(default)]
    pub test: bool,
    /// Switch cold even where hot would do.
    #[serde(default)]
    pub cold: bool,
    /// Seconds to wait for the app's lock.
    #[serde(default)]
    pub wait: u64,
    /// Risks that the operator accepts by name, as for a deploy.
    #[serde(default)]
    pub allow: Vec<String>,
}

/// A package whose files lie on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Package {
    /// The release.
    pub release: ReleaseId,
    /// The folder that holds `manifest.json` and `wheels/`; may lack what the agent already has installed.
    pub dir: String,
}

/// An app, and how long to wait for its lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    /// The app.
    pub app: AppName,
    /// Seconds to wait for the app's lock.
    #[serde(default)]
    pub wait: u64,
}

/// A rollback: code only, with today's environment, unless asked otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rollback {
    /// The app.
    pub app: AppName,
    /// The release to go to; absent: the one before.
    #[serde(default)]
    pub release: Option<ReleaseId>,
    /// Seconds to wait for the app's lock.
    #[serde(default)]
    pub wait: u64,
    /// Also put the databases back to the mark that the deploy set.
    #[serde(default)]
    pub with_data: bool,
    /// Take the environment that the release was last deployed with, and not today's.
    #[serde(default)]
    pub with_env: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub test: bool,
    /// Risks that the operator accepts by name; `data` allows the loss of what was written since the mark.
    #[serde(default)]
    pub allow: Vec<String>,
}

/// The history of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// The app.
    pub app: AppName,
    /// At most so many entries, newest first.
    #[serde(default = "twenty")]
    pub limit: u32,
}

fn twenty() -> u32 {
    20
}

/// Lines of an app's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Logs {
    /// The app.
    pub app: AppName,
    /// The newest so many.
    #[serde(default = "twenty")]
    pub lines: u32,
    /// Only those that hold this text.
    #[serde(default)]
    pub grep: Option<String>,
    /// Only those written at or after this time (RFC 3339).
    #[serde(default)]
    pub since: Option<String>,
    /// Go on with new lines as progress until the asker leaves.
    #[serde(default)]
    pub follow: bool,
}

/// A command in an app's release and environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// The app.
    pub app: AppName,
    /// Program and arguments.
    pub command: Vec<String>,
    /// What the command reads.
    #[serde(default, with = "serde_bytes_option")]
    #[schemars(with = "Option<Vec<u8>>")]
    pub stdin: Option<Vec<u8>>,
    /// Seconds until it is ended; 0 is never.
    #[serde(default)]
    pub timeout: u32,
    /// How it reads and writes; absent: it reads `stdin`, and its lines come as progress.
    #[serde(default)]
    pub streams: Option<Streams>,
}

/// A program's input and output as descriptors of the asker's. They are sent with `SCM_RIGHTS`, in one message of
/// one byte, once the agent has answered with the progress `streams`. Nothing of it comes as progress then, and
/// the program ends when the asker leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Streams {
    /// Three descriptors: input, output, errors.
    Three,
    /// One descriptor: a terminal, which becomes the one that controls the program.
    Terminal {
        /// What `TERM` says of it.
        term: String,
    },
}

/// Bytes as msgpack's bin, and absent as nil.
mod serde_bytes_option {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_bytes(bytes),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
            Text(String),
            None,
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Bytes(bytes) => Some(bytes),
            Form::Text(text) => Some(text.into_bytes()),
            Form::None => None,
        })
    }
}

/// The backups of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backup {
    /// The app.
    pub app: AppName,
}

/// A restore of an app's databases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restore {
    /// The app.
    pub app: AppName,
    /// The instant (RFC 3339); absent: the newest state.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// One database of the app; absent: all.
    #[serde(default)]
    pub database: Option<String>,
    /// The age identity (`AGE-SECRET-KEY-…`) to decrypt with; absent: the host's, where its owner opted in.
    #[serde(default)]
    pub identity: Option<String>,
    /// Seconds to wait for the app's lock.
    #[serde(default)]
    pub wait: u64,
}

/// One measurement by an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// The app.
    pub app: AppName,
    /// The name, like an app's.
    pub name: String,
    /// The value; finite.
    pub value: f64,
    /// CloudWatch's unit.
    #[serde(default)]
    pub unit: Option<String>,
}
