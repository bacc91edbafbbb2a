//! How others speak with a running follower: stop it, ask for a position, see how it is.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::chain::Position;

/// How a follower is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The chain, once known.
    pub chain: String,
    /// The last position that is durable on this host.
    pub captured: u64,
    /// When that state was read, in milliseconds since 1970.
    pub captured_ms: u64,
    /// The last position that the store has acknowledged.
    pub safe: u64,
    /// When that state was read.
    pub safe_ms: u64,
    /// Whether a snapshot leads to the chain's positions; nothing can be restored without one.
    pub snapshot: bool,
    /// When the last snapshot was read.
    pub snapshot_ms: u64,
    /// Since when commits wait to be captured; 0 if none does.
    pub dirty_ms: u64,
    /// Bytes of the write-ahead log that have been read.
    pub log_bytes: u64,
    /// Bytes that wait for their upload.
    pub spool_bytes: u64,
    /// How often pages had to be compared because the log did not continue.
    pub gaps: u64,
    /// What is wrong now; empty if nothing is.
    pub error: String,
}

/// A handle on a follower, to be shared.
#[derive(Clone, Default)]
pub struct Control(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    stopping: bool,
    /// Set when the follower has captured its last.
    captured_all: bool,
    wanted: u64,
    answered: u64,
    answer: u64,
    snapshot_wanted: bool,
    ended: bool,
    fatal: Option<String>,
    status: Status,
}

/// Why a backup on demand did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The follower is not there any more.
    #[error("the follower has ended: {0}")]
    Ended(String),
    /// The time is up.
    #[error("not stored in time{}", if .0.is_empty() { String::new() } else { format!(": {}", .0) })]
    Late(String),
}

impl Control {
    /// A handle for a follower that is about to start.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells the follower to capture a last time, upload what it can, and end.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.0.changed.notify_all();
    }

    /// How it is.
    pub fn status(&self) -> Status {
        self.lock().status.clone()
    }

    /// Everything that is committed by now, stored: waits for it and returns its position.
    ///
    /// # Errors
    /// When the time is up or the follower has ended.
    pub fn backup_now(&self, patience: Duration) -> Result<Position, AskError> {
        let deadline = Instant::now() + patience;
        let mut inner = self.lock();
        inner.wanted += 1;
        let ticket = inner.wanted;
        self.0.changed.notify_all();
        loop {
            let (answer, status) = (inner.answer, &inner.status);
            if inner.answered >= ticket && status.safe >= answer && status.snapshot {
                let chain = status.chain.parse().map_err(|_| AskError::Ended(String::new()))?;
                return Ok(Position { chain, seq: answer });
            }
            if inner.ended {
                return Err(AskError::Ended(inner.fatal.clone().unwrap_or_default()));
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Err(AskError::Late(inner.status.error.clone()));
            };
            let waited = self.0.changed.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Asks for a new full snapshot.
    pub fn snapshot_now(&self) {
        self.lock().snapshot_wanted = true;
        self.0.changed.notify_all();
    }

    pub(crate) fn take_snapshot_wanted(&self) -> bool {
        std::mem::take(&mut self.lock().snapshot_wanted)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// The newest request for a position that has no answer yet.
    pub(crate) fn wanted(&self) -> Option<u64> {
        let inner = self.lock();
        (inner.wanted > inner.answered).then_some(inner.wanted)
    }

    pub(crate) fn answer(&self, ticket: u64, seq: u64) {
        let mut inner = self.lock();
        (inner.answered, inner.answer) = (ticket, seq);
        drop(inner);
        self.0.changed.notify_all();
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock().status);
        self.0.changed.notify_all();
    }

    pub(crate) fn captured_all(&self) {
        self.lock().captured_all = true;
        self.0.changed.notify_all();
    }

    pub(crate) fn has_captured_all(&self) -> bool {
        self.lock().captured_all
    }

    /// Something that no patience mends.
    pub(crate) fn fail(&self, why: String) {
        self.lock().fatal.get_or_insert(why);
        self.0.changed.notify_all();
    }

    pub(crate) fn fatal(&self) -> Option<String> {
        self.lock().fatal.clone()
    }

    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        (inner.ended, inner.captured_all) = (true, true);
        drop(inner);
        self.0.changed.notify_all();
    }

    /// Waits for a change, or for the time to pass.
    pub(crate) fn wait(&self, at_most: Duration) {
        let inner = self.lock();
        drop(self.0.changed.wait_timeout(inner, at_most));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
