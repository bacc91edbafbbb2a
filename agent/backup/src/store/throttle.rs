//! A cap on the bandwidth that backups take.
//!
//! Each object pays for its bytes in time, in turn: a put waits until what was sent before it has been paid
//! for at the cap's rate, and so does a get, by the size of what came. The mean holds; one object (at most
//! 16 MiB) goes at the speed of the line.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{sync::Mutex, time::Instant};

use super::{Entry, Store, StoreError};

/// A store with a cap.
pub struct Throttled {
    inner: Arc<dyn Store>,
    bytes_per_second: u64,
    /// When all that was sent is paid for.
    paid: Mutex<Instant>,
}

impl Throttled {
    /// `inner`, with at most `bytes_per_second` (at least one) of objects' bytes either way.
    pub fn new(inner: Arc<dyn Store>, bytes_per_second: u64) -> Self {
        Self { inner, bytes_per_second: bytes_per_second.max(1), paid: Mutex::new(Instant::now()) }
    }

    /// Waits for the bytes before, then books these. Whoever waits holds the lock, so the order is fair and
    /// nothing piles up.
    async fn book(&self, bytes: usize) {
        let mut paid = self.paid.lock().await;
        tokio::time::sleep_until(*paid).await;
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        *paid = Instant::now() + cost;
    }
}

#[async_trait]
impl Store for Throttled {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.book(bytes.len()).await;
        self.inner.put_new(key, bytes).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.book(bytes.len()).await;
        self.inner.put(key, bytes).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let bytes = self.inner.get(key).await?;
        self.book(bytes.len()).await;
        Ok(bytes)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }
}
