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
    /// How often any of it has changed.
    changes: u64,
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
        self.change(|inner| inner.stopping = true);
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
        inner.changes += 1;
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
        self.change(|inner| inner.snapshot_wanted = true);
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
        self.change(|inner| (inner.answered, inner.answer) = (ticket, seq));
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        self.change(|inner| change(&mut inner.status));
    }

    pub(crate) fn captured_all(&self) {
        self.change(|inner| inner.captured_all = true);
    }

    pub(crate) fn has_captured_all(&self) -> bool {
        self.lock().captured_all
    }

    /// Something that no patience mends.
    pub(crate) fn fail(&self, why: String) {
        self.change(|inner| {
            inner.fatal.get_or_insert(why);
        });
    }

    pub(crate) fn fatal(&self) -> Option<String> {
        self.lock().fatal.clone()
    }

    pub(crate) fn end(&self) {
        self.change(|inner| (inner.ended, inner.captured_all) = (true, true));
    }

    /// Waits for a change, or for the time to pass.
    pub(crate) fn wait(&self, at_most: Duration) {
        let inner = self.lock();
        drop(self.0.changed.wait_timeout(inner, at_most));
    }

    /// How often anything has changed.
    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Waits for a change since there were `seen`, or for the time to pass.
    pub(crate) fn wait_since(&self, seen: u64, at_most: Duration) {
        let inner = self.lock();
        if inner.changes == seen {
            drop(self.0.changed.wait_timeout(inner, at_most));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        change(&mut inner);
        inner.changes += 1;
        drop(inner);
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
