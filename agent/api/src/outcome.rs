//! What the agent answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ReleaseId;

/// A frame from the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Something happened on the way.
    Progress(Progress),
    /// The end.
    Outcome(Box<Outcome>),
}

/// Something that happened on the way to the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// The step that this is about; empty for lines of output.
    pub step: String,
    /// `started`, `done`, `failed`, `undone`, `output`, or `streams`: send the descriptors now.
    pub event: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// Milliseconds that the step took, once it has ended.
    #[serde(default)]
    pub ms: u64,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// The contract's version.
    pub v: u32,
    /// Whether what was asked is so.
    pub result: bool,
    /// The state in a word.
    pub state: State,
    /// The release that is current now.
    #[serde(default)]
    pub release: Option<ReleaseId>,
    /// The release that was current before.
    #[serde(default)]
    pub previous: Option<ReleaseId>,
    /// The deployment's id, where there was one.
    #[serde(default)]
    pub id: Option<String>,
    /// Milliseconds in all.
    pub ms: u64,
    /// The steps, in order.
    #[serde(default)]
    pub steps: Vec<StepReport>,
    /// A sentence for people.
    #[serde(default)]
    pub comment: String,
    /// Why not, when `result` is false.
    #[serde(default)]
    pub error: Option<Failure>,
    /// What was asked for, by verbs that ask: a map or a list.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    pub data: Option<serde_json::Value>,
}

impl Outcome {
    /// A good end in `state`.
    pub fn good(state: State, comment: impl Into<String>) -> Self {
        Self {
            v: crate::VERSION,
            result: true,
            state,
            release: None,
            previous: None,
            id: None,
            ms: 0,
            steps: Vec::new(),
            comment: comment.into(),
            error: None,
            data: None,
        }
    }

    /// An answer to a question.
    pub fn answer(data: serde_json::Value) -> Self {
        Self { data: Some(data), ..Self::good(State::Ok, "") }
    }

    /// A bad end in `state`.
    pub fn bad(state: State, error: Failure) -> Self {
        Self { result: false, error: Some(error), ..Self::good(state, "") }
    }
}

/// The state in which a command left things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is done, or answered.
    Ok,
    /// The release is current.
    Deployed,
    /// All was so already.
    Unchanged,
    /// Only planned.
    Planned,
    /// It failed, and could not be put back: a person must look.
    Failed,
    /// It failed, and all is as before.
    RolledBack,
    /// Another command holds the app.
    Busy,
    /// Not begun: what was asked cannot or must not be done.
    Refused,
}

/// A step of a deploy, as it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepReport {
    /// The step's name.
    pub name: String,
    /// Whether it succeeded.
    pub ok: bool,
    /// Milliseconds.
    pub ms: u64,
    /// What it did, or would do.
    #[serde(default)]
    pub message: String,
}

/// What went wrong, for whom it matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// The class, for scripts.
    pub code: Code,
    /// What was wrong, and where.
    pub message: String,
    /// What to do.
    #[serde(default)]
    pub hint: String,
    /// The last lines of what failed: a traceback, a hook's output, the app's log.
    #[serde(default)]
    pub log: Vec<String>,
}

impl Failure {
    /// A failure with nothing more to say.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new(), log: Vec::new() }
    }

    /// The same, with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same, with lines of a log.
    #[must_use]
    pub fn log(mut self, log: Vec<String>) -> Self {
        self.log = log;
        self
    }
}

/// Classes of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The asker speaks a version that this agent does not.
    Version,
    /// The request makes no sense.
    Usage,
    /// The spec breaks a rule.
    Spec,
    /// There is no such app, release or database.
    NotFound,
    /// Another command holds the app.
    Busy,
    /// A gate is shut; the hint says how to open it.
    Gate,
    /// A file is not what its manifest says.
    Package,
    /// The environment for the release could not be built.
    Build,
    /// The release does not start.
    Preflight,
    /// A hook failed.
    Hook,
    /// The new release did not take over.
    Switch,
    /// It took over, and is not healthy.
    Health,
    /// Backup or restore.
    Backup,
    /// The agent was stopped meanwhile.
    Interrupted,
    /// The host: disk, permissions, a missing program.
    Host,
    /// The agent is not there.
    NoAgent,
}
