//! What the agent remembers of apps and deployments, as plain values.

use flipside_api::{AppName, AppSpec, Outcome, ReleaseId, Who};

use super::deployment::Event;

/// An app as it was last deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Its spec, without the environment.
    pub spec: AppSpec,
    /// Its environment and its configuration files as the pillar gave them, sealed.
    pub env: Vec<u8>,
    /// The release that is current.
    pub release: ReleaseId,
    /// Whether it was stopped on purpose, so that the agent does not start it.
    pub stopped: bool,
}

/// Something that begins.
#[derive(Debug, Clone)]
pub struct Begin {
    /// Its id.
    pub id: String,
    /// The app.
    pub app: AppName,
    /// The verb.
    pub verb: String,
    /// The release that it is to make current, or that is current.
    pub release: Option<ReleaseId>,
    /// The release that was current before.
    pub previous: Option<ReleaseId>,
    /// Who asked.
    pub who: Who,
    /// When, in milliseconds.
    pub at: i64,
    /// What a restarted agent needs to finish or undo it, as JSON; absent where there is nothing to undo.
    pub work: Option<String>,
    /// The environment and the configuration files that it brings, sealed.
    pub env: Option<Vec<u8>>,
}

/// Something that was begun and has not ended.
#[derive(Debug, Clone)]
pub struct Unfinished {
    /// Its beginning.
    pub begin: Begin,
    /// Its journal.
    pub events: Vec<Event>,
    /// What the step that failed said, if one did.
    pub failure: Option<String>,
}

/// One entry of history.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The deployment's id.
    pub id: String,
    /// The verb.
    pub verb: String,
    /// The release.
    pub release: Option<String>,
    /// Who asked.
    pub who: Who,
    /// When it began, in milliseconds.
    pub at: i64,
    /// When it ended.
    pub ended: Option<i64>,
    /// How.
    pub outcome: Option<Outcome>,
}
