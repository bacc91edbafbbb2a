//! Where a backup's objects live: five verbs, and nothing of any vendor.
//!
//! Objects are written once under a name of their own and never changed; only a chain's head is
//! overwritten. `put_new` refuses a name that is taken, which is what shuts out a second writer. Backing
//! up needs no verb but the two puts, so a host can hold credentials that neither read nor delete.
//!
//! Every implementation passes the same contract suite (`tests/contract`).

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

mod error;
mod fake;
mod folder;
mod key;
mod retry;
mod s3;
mod s3_address;
mod s3_error;
mod throttle;

pub use error::{ErrorKind, StoreError};
pub use fake::{Fake, Fault};
pub use folder::Folder;
pub use key::{check_key, check_prefix};
pub use retry::{Patience, Retrying, holds};
pub use s3::S3;
pub use throttle::Throttled;

/// The largest object that is read or written. Segments and parts of media are at most 16 MiB and a
/// little; what is larger is none of ours, and is not taken into memory.
pub const MAX_OBJECT: u64 = 64 << 20;

/// One object, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, `/` between the parts.
    pub key: String,
    /// Its bytes.
    pub size: u64,
    /// When it was written by the store's clock, in milliseconds since 1970, if the store tells.
    pub modified_ms: Option<i64>,
}

/// A place for objects.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes an object that must not exist: [`ErrorKind::Exists`] if it does. When it returns, the object
    /// is durable.
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError>;

    /// Writes an object, whole or not at all, over whatever has the name.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError>;

    /// The object's bytes, or [`ErrorKind::NotFound`].
    async fn get(&self, key: &str) -> Result<Bytes, StoreError>;

    /// All objects whose key begins with `prefix` (any prefix, also half a name), in the order of their
    /// keys. An empty list if there are none.
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError>;

    /// Removes an object; one that is not there is removed already.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;
}

/// Opens the store that `url` names: the path of a folder (it is made at the first put), or
/// `s3://bucket/prefix?region=…&endpoint=…`, with patience. Nothing is asked of it yet.
pub fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    if url.is_empty() {
        return Err(StoreError::bad_url(url, "it is empty"));
    }
    if url.starts_with("s3://") {
        return Ok(Arc::new(Retrying::new(Arc::new(S3::new(url)?), Patience::default())));
    }
    if let Some((scheme, _)) = url.split_once("://") {
        return Err(StoreError::bad_url(url, format!("there is no store of the kind {scheme:?}")));
    }
    Ok(Arc::new(Folder::new(Path::new(url))))
}
