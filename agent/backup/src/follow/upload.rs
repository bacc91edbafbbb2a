//! From the spool to the store, in order, with patience.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use serde_json::json;
use tokio::runtime::Handle as Runtime;

use super::{FollowError, control::Control};
use crate::{
    clock,
    crypt::Signed,
    fault,
    state::{Outbox, Outgoing, Safe},
    store::{ErrorKind, Store, StoreError},
};

const HEAD_EVERY_MS: u64 = 60_000;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The store as a follower's threads use it.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) runtime: Runtime,
    pub(crate) control: Control,
    /// A store that will not work without somebody's help, or takes nothing for so long, ends the follower.
    pub(crate) patience: Option<Duration>,
}

impl Remote {
    /// Puts an object that nobody else may have put. Retries until the follower is stopping and `keep_on`
    /// says no; then `false`.
    pub(crate) fn put_new(
        &self,
        key: &str,
        bytes: &Bytes,
        keep_on: &dyn Fn() -> bool,
    ) -> Result<bool, FollowError> {
        let (began, mut unsure) = (Instant::now(), false);
        let mut pause = Duration::from_millis(100);
        loop {
            let error = match self.runtime.block_on(self.store.put_new(key, bytes.clone())) {
                Ok(()) => {
                    fault::point("put");
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Exists => {
                    return self.ours(key, bytes, unsure).map(|()| true);
                }
                Err(error) => error,
            };
            unsure = true;
            let late = self.patience.is_some_and(|most| began.elapsed() >= most);
            self.complain(&error, late)?;
            if !keep_on() {
                return Ok(false);
            }
            let jitter = rand::random_range(0.5..1.5);
            self.sleep(pause.mul_f64(jitter), keep_on);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether the object that has our name is the one that we meant to put.
    fn ours(&self, key: &str, bytes: &Bytes, unsure: bool) -> Result<(), FollowError> {
        match self.runtime.block_on(self.store.get(key)) {
            Ok(there) if there == *bytes => Ok(()),
            Ok(_) => Err(FollowError::Fenced { key: key.to_owned() }),
            // Put-only credentials: an earlier try of ours may have succeeded unheard.
            Err(_) if unsure => Ok(()),
            Err(_) => Err(FollowError::Fenced { key: key.to_owned() }),
        }
    }

    fn complain(&self, error: &StoreError, late: bool) -> Result<(), FollowError> {
        let text = with_causes(error);
        tracing::warn!(error = %text, "UploadFailed");
        if late || self.patience.is_some() && error.kind() == ErrorKind::Fatal {
            return Err(FollowError::Store { what: text, hint: error.advice() });
        }
        self.control.update(|status| status.error = text);
        Ok(())
    }

    fn sleep(&self, time: Duration, keep_on: &dyn Fn() -> bool) {
        let deadline = Instant::now() + time;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            if !keep_on() {
                return;
            }
            self.control.wait(left.min(Duration::from_millis(200)));
        }
    }
}

/// An error and what is beneath it, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Uploads until the follower has captured its last and all is put, or `drain` has passed since.
pub(crate) struct Uploader {
    pub(crate) remote: Remote,
    pub(crate) outbox: Outbox,
    pub(crate) host: SigningKey,
    pub(crate) drain: Duration,
    pub(crate) head_ms: u64,
}

impl Uploader {
    /// The uploader's thread.
    pub(crate) fn run(mut self) {
        while let Err(error) = self.work() {
            let text = with_causes(&error);
            // A disk without room, say: that passes. What another follower wrote does not.
            if self.remote.patience.is_some() || !matches!(error, FollowError::State(_)) {
                return self.remote.control.fail(text);
            }
            tracing::warn!(error = %text, "SpoolFailed");
            self.remote.control.update(|status| status.error = text);
            if self.remote.control.has_captured_all() {
                return;
            }
            self.remote.sleep(Duration::from_secs(1), &|| !self.remote.control.has_captured_all());
        }
    }

    fn work(&mut self) -> Result<(), FollowError> {
        let mut last_call = None;
        loop {
            let control = self.remote.control.clone();
            if !control.has_captured_all() {
                self.head(HEAD_EVERY_MS)?;
            }
            let seen = control.changes();
            if control.has_captured_all() && last_call.is_none() {
                last_call = Some(Instant::now() + self.drain);
            }
            let late = last_call.is_some_and(|call| Instant::now() > call);
            match self.outbox.next().map_err(FollowError::State)? {
                _ if late => return Ok(()),
                Some((id, out)) => self.upload(id, &out)?,
                None if last_call.is_some() => {
                    self.head(0)?;
                    return Ok(());
                }
                None => control.wait_since(seen, Duration::from_millis(500)),
            }
        }
    }

    fn upload(&mut self, id: i64, out: &Outgoing) -> Result<(), FollowError> {
        let bytes = Bytes::from(self.outbox.read(out).map_err(FollowError::State)?);
        let control = self.remote.control.clone();
        let put = self.remote.put_new(&out.key, &bytes, &|| !control.has_captured_all())?;
        if !put {
            // The follower is ending; what is left stays in the spool. `work` sees how late it is.
            control.wait(Duration::from_millis(200));
            return Ok(());
        }
        self.outbox.done(id, out).map_err(FollowError::State)?;
        fault::point("done");
        control.update(|status| {
            status.spool_bytes = status.spool_bytes.saturating_sub(out.bytes);
            status.error.clear();
            if out.seq > 0 {
                (status.safe, status.safe_ms) = (out.seq, out.time_ms);
            }
        });
        Ok(())
    }

    /// Renews the head if it is so old.
    fn head(&mut self, older_than: u64) -> Result<(), FollowError> {
        let now = clock::now_ms();
        if now.saturating_sub(self.head_ms) < older_than {
            return Ok(());
        }
        let Some((record, safe)) = self.outbox.standing().map_err(FollowError::State)? else { return Ok(()) };
        if safe == Safe::default() {
            return Ok(());
        }
        let last: Vec<_> = (0..4)
            .filter(|level| record.last[*level] > 0 && record.last[*level] <= safe.seq)
            .map(|level| json!({"level": level, "to": record.last[level], "hash": record.prev[level]}))
            .collect();
        let body = json!({
            "v": 1, "kind": "head", "chain": record.chain, "time_ms": now, "safe": safe.seq, "last": last,
        });
        let signed = Signed::new(&self.host, body.to_string());
        let bytes = serde_json::to_vec(&signed).map_err(|_| FollowError::Internal("the head"))?;
        let key = format!("{}/head", record.chain);
        match self.remote.runtime.block_on(self.remote.store.put(&key, bytes.into())) {
            Ok(()) => self.head_ms = now,
            // The next round tries again; a head that stays away is seen by its age.
            Err(error) => self.remote.complain(&error, false)?,
        }
        Ok(())
    }
}
