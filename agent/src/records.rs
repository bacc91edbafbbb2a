//! The seam to what the agent must not forget. `db` is the adapter behind it.

use async_trait::async_trait;
use flipside_api::{AppName, Code, Failure, Outcome, ReleaseId};

use crate::app::{
    deployment::Event,
    record::{App, Begin, Entry, Unfinished},
};

/// What is remembered could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(pub String);

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        Self::new(Code::Host, error.0).hint("see to the disk that holds the agent's state_dir")
    }
}

/// What the agent must not forget. Each call is durable when it returns.
#[async_trait]
pub trait Records: Send + Sync {
    /// The app of that name, as it was last deployed.
    async fn app(&self, name: &AppName) -> Result<Option<App>, RecordError>;
    /// All apps, by name.
    async fn apps(&self) -> Result<Vec<App>, RecordError>;
    /// Remembers whether the app is stopped on purpose.
    async fn set_stopped(&self, name: &AppName, stopped: bool) -> Result<(), RecordError>;
    /// Forgets the app; its history and what is kept for it stay.
    async fn forget_app(&self, name: &AppName) -> Result<(), RecordError>;
    /// What is kept for the app under `key`.
    async fn kept(&self, name: &AppName, key: &'static str) -> Result<Option<Vec<u8>>, RecordError>;
    /// Keeps `value` unless something is kept there already; returns what is kept.
    async fn keep(&self, name: &AppName, key: &'static str, value: Vec<u8>) -> Result<Vec<u8>, RecordError>;
    /// The environment, sealed, that a release was last deployed with, where it is kept still.
    async fn env_of(&self, name: &AppName, release: &ReleaseId) -> Result<Option<Vec<u8>>, RecordError>;
    /// Something begins.
    async fn begin(&self, begin: Begin) -> Result<(), RecordError>;
    /// What a restarted agent needs to finish or undo it is other than it was when it began.
    async fn revise(&self, id: &str, work: String) -> Result<(), RecordError>;
    /// An event of its journal.
    async fn record(&self, id: &str, event: Event, at: i64, message: String) -> Result<(), RecordError>;
    /// It ends: in one transaction with what the app is now, and the answer to whoever asks again.
    async fn end(&self, id: &str, outcome: &Outcome, at: i64, app: Option<App>) -> Result<(), RecordError>;
    /// What was begun and has not ended, oldest first.
    async fn unfinished(&self) -> Result<Vec<Unfinished>, RecordError>;
    /// The newest entries of an app's history, newest first.
    async fn history(&self, app: &AppName, limit: u32) -> Result<Vec<Entry>, RecordError>;
    /// The recorded answer to a request, if it was answered.
    async fn answered(&self, id: &str, verb: &str, app: &AppName) -> Result<Option<Outcome>, RecordError>;
    /// Records the answer to the request of that id, verb and app.
    async fn answer(
        &self,
        key: (&str, &str, &AppName),
        outcome: &Outcome,
        at: i64,
    ) -> Result<(), RecordError>;
}
