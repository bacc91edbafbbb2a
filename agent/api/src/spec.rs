//! What an app should be on this host: the resolved form of its pillar and its template.
//!
//! Whoever asks for a deploy resolves it (the Salt module: template defaults, then pillar); the agent
//! only checks and obeys. Templates are data: what a template brings travels in here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::AppName;

/// A spec that no deploy can follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {problem}")]
pub struct SpecError {
    /// The option, as pillar spells it.
    pub option: String,
    /// What is wrong with it.
    pub problem: String,
}

/// One app as this host should run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppSpec {
    /// The app's name.
    pub app: AppName,
    /// The template that the rest derives from, such as `python-django-sqlite`.
    pub template: String,
    /// What runs the app.
    #[serde(default)]
    pub runtime: RuntimeKind,
    /// The system user of the app; absent where everything runs under one uid.
    #[serde(default)]
    pub user: Option<String>,
    /// The most memory in bytes that the app may use, where the runtime can enforce it.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Domains that nginx serves the app under; the first is its public name. Never empty.
    pub domains: Vec<String>,
    /// The URL that users see, without a trailing slash: `https://blog.example.org`.
    pub public_url: String,
    /// Entry as `module:attribute`; absent: what the release's manifest says.
    #[serde(default)]
    pub wsgi: Option<String>,
    /// Django's settings module; absent: what the release's manifest says.
    #[serde(default)]
    pub settings: Option<String>,
    /// Worker processes.
    #[serde(default = "two")]
    pub workers: u16,
    /// Threads in each worker; at least 2 (with one, graceful restarts lose requests).
    #[serde(default = "two")]
    pub threads: u16,
    /// Seconds after which a request is given up; 0 is never.
    #[serde(default = "sixty")]
    pub request_timeout: u32,
    /// Seconds that a worker may take to import the app.
    #[serde(default = "sixty")]
    pub start_timeout: u32,
    /// SQLite files in the data folder: names or globs.
    #[serde(default)]
    pub databases: Vec<String>,
    /// Where static files are served, if nginx does.
    #[serde(default)]
    pub static_files: Option<Location>,
    /// Where uploads are served, if nginx does.
    #[serde(default)]
    pub media: Option<Location>,
    /// What counts as healthy.
    #[serde(default)]
    pub health: Health,
    /// How a new release takes over.
    #[serde(default)]
    pub switch: Switch,
    /// Seconds that requests wait at a held switch before the maintenance page answers instead.
    #[serde(default = "twenty")]
    pub maintenance_after: u32,
    /// Commands around a deploy; a release's manifest may replace any of the lists.
    #[serde(default)]
    pub hooks: Hooks,
    /// Named commands that run beside the web workers.
    #[serde(default)]
    pub background: BTreeMap<String, Background>,
    /// Named commands that run at times.
    #[serde(default)]
    pub schedule: BTreeMap<String, Schedule>,
    /// Python modules that the template lays beside the app's (file name without folder, to its text).
    #[serde(default)]
    pub overlay: BTreeMap<String, String>,
    /// The settings module of the overlay that wraps the app's own; absent: the app's own is used as it is.
    #[serde(default)]
    pub overlay_settings: Option<String>,
    /// Whether answers carry `X-Flipside-Release`.
    #[serde(default)]
    pub release_header: bool,
    /// The app's environment, plain or age-armoured, `${NAME}` not yet replaced.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The app's configuration files (name to text), plain or age-armoured; it finds them in `FILES_DIR`.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Follow the databases with encrypted backups, where the agent has a store.
    #[serde(default = "yes")]
    pub backup: bool,
    /// A hash of the options that the host's vhost was made from.
    #[serde(default)]
    pub vhost: Option<String>,
}

fn two() -> u16 {
    2
}
fn sixty() -> u32 {
    60
}
fn twenty() -> u32 {
    20
}
fn yes() -> bool {
    true
}

/// What runs an app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// uWSGI as processes of the host.
    #[default]
    Process,
    /// uWSGI in a container.
    Docker,
}

/// How a new release takes over from the old one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Hot when only code or environment changed, else cold.
    #[default]
    Auto,
    /// Worker by worker.
    Hot,
    /// A second instance beside the first, on the same listener.
    Cold,
    /// Stop gently, migrate, start: requests wait in the listener meanwhile.
    Held,
}

/// A URL prefix that nginx serves from a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// The prefix, with a slash at both ends.
    pub url: String,
    /// The folder; `${STATIC_ROOT}`, `${MEDIA_DIR}` and `${DATA_DIR}` are replaced.
    pub root: String,
    /// When set: the folder inside this installed package that is copied to `root` at a deploy.
    #[serde(default)]
    pub package: Option<String>,
}

/// What counts as healthy when asked through nginx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// The path to ask for.
    pub path: String,
    /// The status that is expected; absent: anything below 500.
    pub status: Option<u16>,
    /// A text that the body must hold.
    pub contains: Option<String>,
    /// Seconds until the check gives up.
    pub timeout: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self { path: "/".to_owned(), status: None, contains: None, timeout: 30 }
    }
}

/// A command as an argument list, and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "HookForm")]
pub struct Hook {
    /// Program and arguments; the program is looked up in the release's venv first.
    pub command: Vec<String>,
    /// Seconds.
    pub timeout: u32,
}

/// A hook as people write it: the bare list, or a map with its timeout.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum HookForm {
    List(Vec<String>),
    Map {
        command: Vec<String>,
        #[serde(default = "ten_minutes")]
        timeout: u32,
    },
}

fn ten_minutes() -> u32 {
    600
}

impl From<HookForm> for Hook {
    fn from(form: HookForm) -> Self {
        match form {
            HookForm::List(command) => Self { command, timeout: ten_minutes() },
            HookForm::Map { command, timeout } => Self { command, timeout },
        }
    }
}

/// Commands around a deploy, in the order in which they run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// May write into the release, which is read-only afterwards.
    pub prepare: Option<Vec<Hook>>,
    /// Refuses a release before anything is changed.
    pub check: Option<Vec<Hook>>,
    /// Collects static files.
    pub r#static: Option<Vec<Hook>>,
    /// Changes the databases.
    pub migrate: Option<Vec<Hook>>,
    /// On the app's first deploy only.
    pub once: Option<Vec<Hook>>,
    /// After the switch.
    pub after: Option<Vec<Hook>>,
}

impl Hooks {
    /// These lists, each replaced by the one of `other` where that has one.
    #[must_use]
    pub fn overridden_by(self, other: Self) -> Self {
        Self {
            prepare: other.prepare.or(self.prepare),
            check: other.check.or(self.check),
            r#static: other.r#static.or(self.r#static),
            migrate: other.migrate.or(self.migrate),
            once: other.once.or(self.once),
            after: other.after.or(self.after),
        }
    }

    pub(crate) fn lists(&self) -> [(&'static str, &Option<Vec<Hook>>); 6] {
        [
            ("prepare", &self.prepare),
            ("check", &self.check),
            ("static", &self.r#static),
            ("migrate", &self.migrate),
            ("once", &self.once),
            ("after", &self.after),
        ]
    }
}

/// A command that runs beside the web workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Background {
    /// Program and arguments.
    pub command: Vec<String>,
    /// How many run at once.
    #[serde(default = "one")]
    pub count: u16,
}

fn one() -> u16 {
    1
}

/// A command that runs at times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Five fields of cron, in the host's time zone.
    pub cron: String,
}
