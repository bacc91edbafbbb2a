//! Patience with a store that fails for a moment.
//!
//! Each attempt has a deadline; between attempts lies a random wait of up to twice the last one's bound
//! (full jitter, so that a fleet does not knock in step). After the last attempt the caller has the error:
//! the follower's spool is what outlasts a long outage, not this.

use std::{
    collections::HashSet,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Entry, ErrorKind, Store, StoreError};

/// How patient to be.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Attempts in all, at least one.
    pub attempts: u32,
    /// The bound of the first wait; each later one's is twice as long.
    pub first_wait: Duration,
    /// The longest bound.
    pub longest_wait: Duration,
    /// How long an attempt may take, and one second more for each of these many bytes of a put.
    pub deadline: Duration,
    /// The slowest link that counts as one, in bytes a second.
    pub slowest: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(10),
            deadline: Duration::from_secs(30),
            slowest: 128 << 10,
        }
    }
}

/// A store that tries again.
pub struct Retrying {
    inner: Arc<dyn Store>,
    patience: Patience,
    /// Names that a put_new may have taken: its answer never came.
    unsure: Mutex<HashSet<String>>,
}

/// Whether the object that has the name `key` is the one that a put of `bytes` with an unknown outcome was
/// to write. Who may only put cannot look: then it is taken for ours. Ask only after such an outcome, also
/// one of an earlier process that left the object in its spool.
pub async fn holds(store: &dyn Store, key: &str, bytes: &Bytes) -> Result<bool, StoreError> {
    match store.get(key).await {
        Ok(there) => Ok(there == bytes),
        Err(error) if error.kind() == ErrorKind::Fatal => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Retrying {
    /// `inner`, asked with `patience`.
    pub fn new(inner: Arc<dyn Store>, patience: Patience) -> Self {
        Self { inner, patience, unsure: Mutex::default() }
    }

    async fn pause(&self, failed: u32) {
        let bound = self.patience.first_wait.saturating_mul(1 << (failed - 1).min(20));
        tokio::time::sleep(bound.min(self.patience.longest_wait).mul_f64(rand::random())).await;
    }

    /// One attempt, ended by its deadline.
    async fn attempt<T>(
        &self,
        call: (&'static str, &str, usize),
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (operation, key, size) = call;
        let sending = Duration::from_secs(size as u64 / self.patience.slowest.max(1));
        let late = |_| StoreError::new(ErrorKind::Retryable, operation, key, "no answer within the deadline");
        tokio::time::timeout(self.patience.deadline + sending, work).await.unwrap_or_else(|e| Err(late(e)))
    }

    async fn repeat<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        call: (&'static str, &str, usize),
        mut work: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        let mut failed = 0;
        loop {
            match self.attempt(call, work()).await {
                Err(error) if error.kind() == ErrorKind::Retryable => {
                    failed += 1;
                    if failed >= self.patience.attempts {
                        return Err(error);
                    }
                    tracing::debug!(%error, failed, "StoreAttemptFailed");
                    self.pause(failed).await;
                }
                done => return done,
            }
        }
    }

    fn unsure(&self) -> MutexGuard<'_, HashSet<String>> {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One attempt at a put_new. Until it has an answer, the name may be taken by it.
    async fn put_new_once(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let asked_before = !self.unsure().insert(key.to_owned());
        match self.inner.put_new(key, bytes.clone()).await {
            Err(error) if error.kind() == ErrorKind::Exists && asked_before => {
                if holds(&*self.inner, key, &bytes).await? {
                    return Ok(());
                }
                Err(error)
            }
            done => done,
        }
    }
}

#[async_trait]
impl Store for Retrying {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let size = bytes.len();
        let done = self.repeat(("put_new", key, size), || self.put_new_once(key, bytes.clone())).await;
        if !done.as_ref().is_err_and(|e| e.kind() == ErrorKind::Retryable) {
            self.unsure().remove(key);
        }
        done
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.repeat(("put", key, bytes.len()), || self.inner.put(key, bytes.clone())).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.repeat(("get", key, super::MAX_OBJECT as usize), || self.inner.get(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.repeat(("list", prefix, super::MAX_OBJECT as usize), || self.inner.list(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.repeat(("delete", key, 0), || self.inner.delete(key)).await
    }
}
