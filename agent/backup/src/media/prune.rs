//! What may go from a set, and its going.
//!
//! Mark and sweep over the lists: those that the policy keeps are read, which takes an identity, and every blob
//! that one of them names stays. A blob that no list names is perhaps one that a run is about to name, so it goes
//! only when it has been there for longer than any run takes. The two newest lists stay whatever the policy says:
//! a run that is under way builds upon the last list that its host knows, and that may be the one before the last.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Id, Kind, ListEntry, MediaError, Reader, prefix};
use crate::{
    retain::{DAY, Policy, chosen},
    store::{Entry, Store},
};

/// How long a blob that no list names may be part of a run that has not ended.
const LONGEST_RUN: i64 = 7 * DAY;
/// Lists that always stay.
const NEWEST: usize = 2;
const AT_ONCE: usize = 8;

/// What stays and what goes. Nothing has happened yet.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The lists that stay.
    pub keep: Vec<ListEntry>,
    /// The lists that go, oldest first.
    pub remove: Vec<ListEntry>,
    /// Blobs that stay.
    pub blobs: usize,
    /// Blobs of which nothing is left to name them.
    pub remove_blobs: usize,
    /// All objects that go, in order: a list's part 0 before its others, and all lists before any blob.
    pub keys: Vec<String>,
    /// Their bytes.
    pub freed: u64,
}

impl Reader<'_> {
    /// The plan at the time `now_ms`; reads the lists that stay, and removes nothing.
    ///
    /// # Errors
    /// When the store cannot list, or a list that stays cannot be read: then nobody knows what it needs.
    pub async fn plan_prune(&self, now_ms: i64, policy: &Policy) -> Result<Plan, MediaError> {
        // The blobs first: one that a new list names is there before that list is.
        let blobs = self.store.list(&prefix(self.set, Kind::Blob)).await?;
        let mut parts = self.store.list(&prefix(self.set, Kind::List)).await?;
        let lists = Self::lists(self.store, self.set).await?;
        let time = |list: &ListEntry| i64::try_from(list.time_ms).unwrap_or(i64::MAX);
        // Ages count from the newest list: a clock that jumps ahead empties nothing.
        let now_ms = lists.last().map_or(now_ms, |last| now_ms.min(time(last)));
        let points = lists.iter().zip(0u64..).map(|(list, number)| (time(list), (0, number)));
        let stays = chosen(points, now_ms, policy);
        let newest = lists.len().saturating_sub(NEWEST) as u64;
        let mut plan = Plan::default();
        for (list, number) in lists.into_iter().zip(0u64..) {
            let side =
                if number >= newest || stays.contains(&number) { &mut plan.keep } else { &mut plan.remove };
            side.push(list);
        }
        let mut named = BTreeSet::new();
        for list in &plan.keep {
            let files = self.list(&list.id).await?.files;
            named.extend(files.iter().filter_map(|file| Id::parse(&file.blob)));
        }
        let going: BTreeSet<Id> = plan.remove.iter().filter_map(|list| Id::parse(&list.id)).collect();
        parts.retain(|part| id_of(part).is_some_and(|id| going.contains(&id)));
        let mut by_blob: BTreeMap<Id, Vec<Entry>> = BTreeMap::new();
        for entry in blobs {
            if let Some(id) = id_of(&entry) {
                by_blob.entry(id).or_default().push(entry);
            }
        }
        let old = |parts: &[Entry]| {
            parts.iter().all(|part| part.modified_ms.is_some_and(|at| at < now_ms - LONGEST_RUN))
        };
        let unnamed = |(id, parts): &(&Id, &Vec<Entry>)| !named.contains(id) && old(parts);
        let gone: Vec<&Vec<Entry>> = by_blob.iter().filter(unnamed).map(|(_, parts)| parts).collect();
        plan.remove_blobs = gone.len();
        plan.blobs = by_blob.len() - gone.len();
        for entry in parts.iter().chain(gone.into_iter().flatten()) {
            plan.freed += entry.size;
            plan.keys.push(entry.key.clone());
        }
        Ok(plan)
    }
}

impl Plan {
    /// Does what it says. An interrupted one harms nothing: another goes on from there.
    ///
    /// # Errors
    /// When the store fails, or a list that stays is gone since the plan was made: then nothing is removed.
    pub async fn apply(&self, store: &dyn Store, reader: &Reader<'_>) -> Result<(), MediaError> {
        let there = Reader::lists(store, reader.set).await?;
        if let Some(gone) = self.keep.iter().find(|list| !there.contains(list)) {
            return Err(MediaError::NoList(format!("the list {} is gone since the plan was made", gone.id)));
        }
        let is_list = |key: &&String| key.starts_with(&prefix(reader.set, Kind::List));
        for key in self.keys.iter().filter(is_list) {
            store.delete(key).await?;
        }
        let blobs = self.keys.iter().filter(|key| !is_list(key)).map(|key| store.delete(key));
        Ok(stream::iter(blobs).buffer_unordered(AT_ONCE).try_collect::<()>().await?)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "keep    {:>7} lists, {:>7} contents", self.keep.len(), self.blobs)?;
        write!(f, "remove  {:>7} lists, {:>7} contents", self.remove.len(), self.remove_blobs)?;
        write!(f, " {:>14} bytes", self.freed)
    }
}

/// Of which list or blob an object is a part.
fn id_of(entry: &Entry) -> Option<Id> {
    let name = entry.key.rsplit('/').next()?;
    Id::parse(name.split_once('.').map_or(name, |(id, _)| id))
}
