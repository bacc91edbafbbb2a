//! What a store holds, and handing its keys on.

use std::sync::Arc;

use serde::Serialize;

use super::{ReadError, RestoreError, Routes, Source, find::named_chains, reader::Reader};
use crate::{
    chain::{Catalog, ChainId, SNAPSHOT, chains},
    crypt::{HostKey, Identities, Recipients},
    store::Store,
};

/// What a chain can restore.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// The chain.
    pub chain: String,
    /// The database's name, where an identity opened it.
    pub name: Option<String>,
    /// Its objects.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Its snapshots and its newest state; whatever lies between can be restored too, as far as it is kept.
    pub points: Vec<Point>,
}

/// A state that can be restored.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Point {
    /// Its number in the chain.
    pub seq: u64,
    /// When it was read, in milliseconds since 1970.
    pub time_ms: u64,
    /// Whether it is a snapshot's.
    pub snapshot: bool,
}

/// Lists a store's chains.
///
/// # Errors
/// When the store fails or an object is not what it must be.
pub async fn list(
    store: &Arc<dyn Store>,
    identities: Option<&Arc<Identities>>,
    only: Option<ChainId>,
    host: Option<HostKey>,
) -> Result<Vec<Listed>, RestoreError> {
    let failed = |error| RestoreError::Read(ReadError::Store(error));
    let all = match only {
        Some(chain) => vec![chain],
        None => chains(&**store).await.map_err(failed)?,
    };
    let mut listed = Vec::new();
    for chain in all {
        let catalog = Catalog::load(&**store, chain).await.map_err(failed)?;
        let keys = identities.cloned().unwrap_or_else(|| Arc::new(Identities::none()));
        let reader = Reader::new(store.clone(), chain, keys, host);
        // Somebody else's chain in the same store has no name for us.
        let name = if identities.is_some() { reader.name(&catalog).await.ok() } else { None };
        let points = points(&reader, &catalog).await.map_err(RestoreError::Read)?;
        let bytes = catalog.objects.iter().map(|object| object.bytes).sum();
        listed.push(Listed { chain: chain.to_string(), name, objects: catalog.objects.len(), bytes, points });
    }
    Ok(listed)
}

async fn points(reader: &Reader, catalog: &Catalog) -> Result<Vec<Point>, ReadError> {
    let routes = Routes::new(catalog);
    let mut points = Vec::new();
    for object in catalog.level(SNAPSHOT) {
        let time_ms = reader.header(object.name).await?.time_ms;
        points.push(Point { seq: object.name.to, time_ms, snapshot: true });
    }
    if let Some(object) = routes.last_until(u64::MAX).and_then(|seq| routes.last_object(seq))
        && object.name.level != SNAPSHOT
    {
        let time_ms = reader.header(object.name).await?.time_ms;
        points.push(Point { seq: object.name.to, time_ms, snapshot: false });
    }
    Ok(points)
}

/// Encrypts the keys of all epochs that `source` opens to other recipients. The data stays as it is. Says
/// how many epochs.
///
/// # Errors
/// When the store fails; what was rewrapped stays so.
pub async fn rewrap(source: &Source, recipients: &Recipients) -> Result<usize, RestoreError> {
    let failed = |error| RestoreError::Read(ReadError::Store(error));
    let mut count = 0;
    for (reader, catalog, _) in named_chains(source, source.chain).await? {
        for number in &catalog.epochs {
            let key = format!("{}/epoch/{number:08x}.age", catalog.chain);
            let file = reader.rewrapped(*number, recipients).await.map_err(RestoreError::Read)?;
            source.store.put(&key, file.into()).await.map_err(failed)?;
            count += 1;
        }
    }
    Ok(count)
}
