//! Which chain and which position a request means.

use std::sync::Arc;

use super::{ReadError, RestoreError, Routes, Source, Target, reader::Reader};
use crate::chain::{Catalog, ChainId, chains};

/// A chain, and a position in it.
pub(super) struct Found {
    pub(super) reader: Arc<Reader>,
    pub(super) catalog: Catalog,
    pub(super) name: String,
    pub(super) seq: u64,
    pub(super) time_ms: u64,
}

/// Finds the chain and the position in it.
pub(super) async fn find(source: &Source, target: Target) -> Result<Found, RestoreError> {
    let only = match target {
        Target::Position(position) => Some(position.chain),
        _ => source.chain,
    };
    let found = named_chains(source, only).await?;
    let mut best: Option<Found> = None;
    for (reader, catalog, name) in found {
        let Some((seq, time_ms)) = position_in(&reader, &catalog, target).await? else { continue };
        if best.as_ref().is_none_or(|best| best.time_ms < time_ms) {
            best = Some(Found { reader, catalog, name, seq, time_ms });
        }
    }
    best.ok_or_else(|| {
        RestoreError::Nothing(
            "nothing that can be restored was backed up by then: no snapshot is complete".into(),
        )
    })
}

/// The chains that are meant, each with its listing and name.
pub(super) async fn named_chains(
    source: &Source,
    only: Option<ChainId>,
) -> Result<Vec<(Arc<Reader>, Catalog, String)>, RestoreError> {
    let store = |error| RestoreError::Read(ReadError::Store(error));
    let all = match only {
        Some(chain) => vec![chain],
        None => chains(&*source.store).await.map_err(store)?,
    };
    let (mut found, mut first_error) = (Vec::new(), None);
    for chain in all {
        let catalog = Catalog::load(&*source.store, chain).await.map_err(store)?;
        let identities = source.identities.clone();
        let reader = Arc::new(Reader::new(source.store.clone(), chain, identities, source.host));
        match reader.name(&catalog).await {
            Ok(name) if source.name.as_ref().is_none_or(|wanted| is_called(&name, wanted)) => {
                found.push((reader, catalog, name));
            }
            Ok(_) => {}
            // Somebody else's chain in the same store, perhaps.
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match (found.first(), first_error) {
        (None, Some(error)) => return Err(RestoreError::Read(error)),
        (None, None) => return Err(RestoreError::Nothing("the store holds no such backup".into())),
        _ => {}
    }
    let mut names: Vec<&str> = found.iter().map(|(_, _, name)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > 1 {
        let names = names.join(", ");
        return Err(RestoreError::Nothing(format!(
            "the store holds several databases; name one of: {names}"
        )));
    }
    Ok(found)
}

/// Whether `wanted` means the database `name`: it is it, or its last part.
pub fn is_called(name: &str, wanted: &str) -> bool {
    name == wanted || name.rsplit_once('/').is_some_and(|(_, last)| last == wanted)
}

/// The position that is meant, and its time.
async fn position_in(
    reader: &Reader,
    catalog: &Catalog,
    target: Target,
) -> Result<Option<(u64, u64)>, RestoreError> {
    let routes = Routes::new(catalog);
    if routes.last_until(u64::MAX).is_none() && !matches!(target, Target::Position(_)) {
        // Its first snapshot never came to its end; an earlier chain of the same database may do.
        return Ok(None);
    }
    let seq = match target {
        Target::Latest => routes.nodes().last().copied(),
        Target::Position(position) => Some(position.seq),
        Target::Time(time) => last_at(reader, catalog, &routes, time).await?,
    };
    let Some(seq) = seq else { return Ok(None) };
    let Some(object) = routes.last_object(seq) else {
        let nearest = routes.last_until(seq);
        return Err(RestoreError::Unreachable { chain: catalog.chain, seq, nearest });
    };
    let header = reader.header(object.name).await.map_err(RestoreError::Read)?;
    Ok(Some((seq, header.time_ms)))
}

/// The last position that was read at or before `time`. Times never fall along a chain, so it is found by
/// halving.
async fn last_at(
    reader: &Reader,
    catalog: &Catalog,
    routes: &Routes<'_>,
    time: u64,
) -> Result<Option<u64>, RestoreError> {
    let nodes = routes.nodes();
    let (mut low, mut high) = (0, nodes.len());
    while low < high {
        let middle = (low + high) / 2;
        let at = catalog.objects.iter().filter(|object| object.name.to == nodes[middle]);
        // The smallest that leads there: a segment rather than a snapshot.
        let Some(object) = at.min_by_key(|object| object.bytes) else { break };
        let header = reader.header(object.name).await.map_err(RestoreError::Read)?;
        if header.time_ms <= time { low = middle + 1 } else { high = middle }
    }
    Ok(low.checked_sub(1).map(|last| nodes[last]))
}
