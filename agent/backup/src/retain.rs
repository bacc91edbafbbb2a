//! What may go from a chain, and its going.
//!
//! Pruning is mark and sweep. The policy names the moments that must stay reachable; for each of them the
//! cheapest route through the chain (a snapshot, then segments that join) is marked, and what no route needs
//! may go. So a segment goes only when a higher one or a newer snapshot leads to every moment that is kept,
//! and any part of the removals, in any order, harms nothing.
//!
//! Ages are counted from the newest object, not from the clock alone: a clock that jumps ahead empties
//! nothing, and a database that has been idle for a year keeps its last day.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{Timestamp, tz::TimeZone};

use crate::{
    chain::{Catalog, ChainId, Header, Name, Object, SNAPSHOT},
    store::{Store, StoreError},
};

const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;
/// Removals under way at one time.
const AT_ONCE: usize = 8;

/// How much of the past stays reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Hours in which every position stays.
    pub all_hours: u32,
    /// Days in which the last position of each hour stays.
    pub hourly_days: u32,
    /// Days in which the last position of each day (UTC) stays.
    pub daily_days: u32,
    /// Days in which the last position of each month (UTC) stays.
    pub monthly_days: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { all_hours: 24, hourly_days: 7, daily_days: 30, monthly_days: 366 }
    }
}

/// What stays and what goes. Nothing has happened yet.
#[derive(Debug, Clone)]
pub struct PrunePlan {
    /// The chain.
    pub chain: ChainId,
    /// What a kept moment needs, or what is too young.
    pub keep: Vec<Object>,
    /// Of those, what leads past something that goes: read and checked before anything goes.
    pub cover: Vec<Object>,
    /// What goes, oldest first.
    pub remove: Vec<Object>,
    /// Parts that go too: their writer died before part 0, and the chain went on without them.
    pub remove_parts: Vec<String>,
    /// What leads nowhere, because something before it is missing, and is not old enough to go unasked.
    pub stranded: Vec<Object>,
}

/// Why nothing was removed, or not all.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The newest state cannot be restored from what is there.
    #[error(
        "no snapshot and segments in the store lead to the newest position, {chain}:{seq}; nothing is removed"
    )]
    Broken {
        /// The chain.
        chain: ChainId,
        /// The position.
        seq: u64,
    },
    /// Since the plan was made something that it keeps has gone.
    #[error("{0} is gone since the plan was made; nothing is removed: make a new plan")]
    Changed(String),
    /// What should lead past the removed objects is not what its name says.
    #[error("{0} is not the object that its name says; nothing is removed: see `flipside backup check`")]
    Unsound(String),
    /// The store failed.
    #[error("the store failed; what was not removed yet stays, and another prune goes on from there")]
    Store(#[source] StoreError),
}

/// The plan for one chain at the time `now_ms`. Pure: nothing is read or removed.
///
/// # Errors
/// [`PruneError::Broken`] when something is wrong with the chain already.
pub fn plan(catalog: &Catalog, now_ms: i64, policy: &Policy) -> Result<PrunePlan, PruneError> {
    let objects = &catalog.objects;
    let mut plan = PrunePlan {
        chain: catalog.chain,
        keep: Vec::new(),
        cover: Vec::new(),
        remove: Vec::new(),
        remove_parts: Vec::new(),
        stranded: Vec::new(),
    };
    let Some(seq) = catalog.last() else { return Ok(plan) };
    let routes = Routes::through(objects);
    if !routes.reach(seq) {
        return Err(PruneError::Broken { chain: catalog.chain, seq });
    }
    let last = objects.iter().filter_map(|o| o.modified_ms).max().unwrap_or(now_ms);
    let now_ms = now_ms.min(last);

    let mut needed = HashSet::new();
    routes.mark(seq, &mut needed);
    for position in moments(objects, &routes, now_ms, policy) {
        routes.mark(position, &mut needed);
    }
    let fresh = now_ms - i64::from(policy.all_hours) * HOUR;
    let longest = policy.hourly_days.max(policy.daily_days).max(policy.monthly_days);
    let oldest = now_ms - i64::from(longest) * DAY;
    for (index, object) in objects.iter().enumerate() {
        let written = object.modified_ms.unwrap_or(now_ms);
        let list = if needed.contains(&index) || written >= fresh {
            &mut plan.keep
        } else if !routes.reach(object.name.to) && written >= oldest {
            &mut plan.stranded
        } else {
            &mut plan.remove
        };
        list.push(object.clone());
    }
    plan.remove.sort_by_key(|o| (o.modified_ms, o.name.to, o.name.level));
    plan.remove_parts = dead_parts(catalog, fresh);
    plan.cover = cover(&plan.keep, &plan.remove);
    Ok(plan)
}

/// Does what `plan` says and calls `removed` after each object.
///
/// # Errors
/// [`PruneError::Changed`] and [`PruneError::Unsound`] before anything is removed; [`PruneError::Store`] at any
/// time.
pub async fn apply(store: &dyn Store, plan: &PrunePlan, removed: impl Fn(&Object)) -> Result<(), PruneError> {
    let now = Catalog::load(store, plan.chain).await.map_err(PruneError::Store)?;
    let there: BTreeMap<Name, u64> = now.objects.iter().map(|o| (o.name, o.bytes)).collect();
    if let Some(gone) = plan.keep.iter().find(|o| there.get(&o.name) != Some(&o.bytes)) {
        return Err(PruneError::Changed(gone.name.key(plan.chain)));
    }
    let checks = plan.cover.iter().map(|object| check(store, plan.chain, object));
    stream::iter(checks).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let removals = plan.remove.iter().map(|object| async {
        // Part 0 first: without it the object is gone, and what a crash leaves of it leads nobody astray.
        for key in &object.keys {
            store.delete(key).await?;
        }
        removed(object);
        Ok(())
    });
    let all = stream::iter(removals).buffer_unordered(AT_ONCE).try_collect::<()>();
    all.await.map_err(PruneError::Store)?;
    for key in &plan.remove_parts {
        store.delete(key).await.map_err(PruneError::Store)?;
    }
    Ok(())
}

/// The kept objects that lead past removed ones: of each higher level the one whose range holds a removed
/// one's, and the next snapshot.
fn cover(keep: &[Object], remove: &[Object]) -> Vec<Object> {
    let mut levels: BTreeMap<u8, BTreeMap<u64, &Object>> = BTreeMap::new();
    for object in keep {
        levels.entry(object.name.level).or_default().insert(object.name.to, object);
    }
    let mut found = BTreeMap::new();
    for gone in remove {
        for (_, ends) in levels.range(gone.name.level + 1..) {
            let next = ends.range(gone.name.to..).next().map(|(_, object)| *object);
            // A snapshot's `from` is 0, so it holds every range.
            if let Some(object) = next.filter(|object| object.name.from <= gone.name.from) {
                found.insert(object.name, object);
            }
        }
    }
    found.into_values().cloned().collect()
}

/// Reads part 0, which vouches for the others, and compares its head with its name.
async fn check(store: &dyn Store, chain: ChainId, object: &Object) -> Result<(), PruneError> {
    let key = object.name.key(chain);
    let bytes = store.get(&key).await.map_err(PruneError::Store)?;
    let sound = Header::parse(&bytes).is_some_and(|header| {
        (header.chain, header.name, header.parts as usize) == (chain, object.name, object.keys.len())
    });
    if sound { Ok(()) } else { Err(PruneError::Unsound(key)) }
}

/// Parts without a part 0 that no writer will complete: the same level went on to a later position, long ago.
fn dead_parts(catalog: &Catalog, fresh: i64) -> Vec<String> {
    let old = |object: &&Object| object.modified_ms.is_some_and(|time| time < fresh);
    let mut reached = [0; SNAPSHOT as usize + 1];
    for object in catalog.objects.iter().filter(old) {
        let place = &mut reached[usize::from(object.name.level)];
        *place = object.name.to.max(*place);
    }
    let dead = |key: &&String| {
        Name::parse(catalog.chain, key).is_some_and(|name| name.to < reached[usize::from(name.level)])
    };
    catalog.orphans.iter().filter(dead).cloned().collect()
}

impl PrunePlan {
    /// The bytes that the removals free.
    pub fn freed(&self) -> u64 {
        self.remove.iter().map(|o| o.bytes).sum()
    }
}

impl fmt::Display for PrunePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (word, objects) in [("keep", &self.keep), ("strand", &self.stranded), ("remove", &self.remove)] {
            let mut levels: BTreeMap<u8, (usize, u64)> = BTreeMap::new();
            for object in objects {
                let sum = levels.entry(object.name.level).or_default();
                *sum = (sum.0 + 1, sum.1 + object.bytes);
            }
            for (level, (count, bytes)) in levels {
                let name =
                    if level == SNAPSHOT { "snapshots".to_owned() } else { format!("L{level} segments") };
                writeln!(f, "{word:<7} {count:>7} {name:<12} {bytes:>14} bytes")?;
            }
        }
        Ok(())
    }
}

/// For each position that can be restored, the last step of the cheapest way there.
struct Routes<'a> {
    objects: &'a [Object],
    /// Position to (objects on the way, the last of them).
    best: HashMap<u64, (u32, usize)>,
}

impl<'a> Routes<'a> {
    fn through(objects: &'a [Object]) -> Self {
        let mut order: Vec<usize> = (0..objects.len()).collect();
        // By their ends, so that every way to an object's start is known before the object's turn.
        order.sort_by_key(|&i| (objects[i].name.to, std::cmp::Reverse(objects[i].name.level)));
        let mut best: HashMap<u64, (u32, usize)> = HashMap::new();
        for index in order {
            let name = objects[index].name;
            let before = if name.level == SNAPSHOT { Some(0) } else { best.get(&name.from).map(|(n, _)| *n) };
            let Some(length) = before.map(|n| n + 1) else { continue };
            let known = best.entry(name.to).or_insert((length, index));
            if length < known.0 {
                *known = (length, index);
            }
        }
        Self { objects, best }
    }

    fn reach(&self, position: u64) -> bool {
        self.best.contains_key(&position)
    }

    /// Adds the objects of the way to `position`.
    fn mark(&self, position: u64, needed: &mut HashSet<usize>) {
        let mut at = position;
        while let Some(&(_, index)) = self.best.get(&at) {
            // The way on from here is marked already if this is.
            if !needed.insert(index) || self.objects[index].name.level == SNAPSHOT {
                return;
            }
            at = self.objects[index].name.from;
        }
    }
}

/// The positions that the policy keeps.
fn moments(objects: &[Object], routes: &Routes<'_>, now_ms: i64, policy: &Policy) -> HashSet<u64> {
    let reached = objects.iter().filter(|object| routes.reach(object.name.to));
    // A higher level's end costs fewer objects to reach than the last second of the hour.
    let point = |object: &Object| (object.modified_ms.unwrap_or(now_ms), (object.name.level, object.name.to));
    chosen(reached.map(point), now_ms, policy)
}

/// Of points, each a time and a rank, the numbers of those that the policy keeps: all of the first hours, then
/// the one of the highest rank an hour, a day, a month. The second part of a rank is the point's number.
pub(crate) fn chosen(
    points: impl Iterator<Item = (i64, (u8, u64))>,
    now_ms: i64,
    policy: &Policy,
) -> HashSet<u64> {
    let mut all = HashSet::new();
    let mut best: HashMap<(u8, i64), (u8, u64)> = HashMap::new();
    for (time, rank) in points {
        let age = now_ms.saturating_sub(time);
        if age <= i64::from(policy.all_hours) * HOUR {
            all.insert(rank.1);
        }
        for (kind, days, bucket) in [
            (0, policy.hourly_days, time.div_euclid(HOUR)),
            (1, policy.daily_days, time.div_euclid(DAY)),
            (2, policy.monthly_days, month_of(time)),
        ] {
            if age <= i64::from(days) * DAY {
                let place = best.entry((kind, bucket)).or_insert(rank);
                *place = (*place).max(rank);
            }
        }
    }
    all.extend(best.into_values().map(|(_, number)| number));
    all
}

fn month_of(time_ms: i64) -> i64 {
    let date = Timestamp::from_millisecond(time_ms).unwrap_or_default().to_zoned(TimeZone::UTC);
    i64::from(date.year()) * 12 + i64::from(date.month())
}
