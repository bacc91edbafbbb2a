//! From a reading of the live database to a durable segment.
//!
//! The order is what makes a crash harmless at any point: objects into the spool, then one transaction that
//! records them with all that follows, and only then the old read mark goes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ed25519_dalek::SigningKey;

use super::{
    FollowError,
    live::{Live, Reading},
    pack::{Making, PackError, Sealer},
    stash::{Stash, Window},
};
use crate::{
    chain::Name,
    clock,
    crypt::{Epoch, EpochKey, Recipients, wrap_epoch},
    fault, hex,
    pages::{Hash, Page, page_hash},
    segment::{Images, Meta},
    state::{Outgoing, Record, State, StateError, spool_into},
};

/// Fewer segments than this are not worth an object of level 1.
const WORTH_MERGING: u64 = 8;
/// A gap that changed more than half of a database of more than so many pages is a snapshot's business.
const SMALL: usize = 4096;

/// The durable side of a follower: what is known, and how it is sealed.
pub(crate) struct Keeper {
    pub(crate) state: State,
    pub(crate) recipients: Recipients,
    pub(crate) host: SigningKey,
    pub(crate) name: String,
    sealer: Option<Sealer>,
    /// What levels 1 and 2 compare with.
    stashes: [Stash; 2],
    /// When each was last looked at: once in a window.
    merged_ms: [u64; 2],
}

impl Keeper {
    pub(crate) fn new(state: State, recipients: Recipients, host: SigningKey, name: String) -> Self {
        let merged_ms = [state.record.time_ms; 2];
        Self { state, recipients, host, name, sealer: None, stashes: Default::default(), merged_ms }
    }

    /// What seals now; begins an epoch if none has begun since the start.
    fn sealer(&mut self) -> Result<Sealer, FollowError> {
        match &self.sealer {
            Some(sealer) => Ok(sealer.clone()),
            None => self.new_epoch(),
        }
    }

    /// Begins a new epoch.
    pub(crate) fn new_epoch(&mut self) -> Result<Sealer, FollowError> {
        let mut record = self.state.record.clone();
        record.epoch += 1;
        let (chain, number) = (record.chain_id(), record.epoch);
        let epoch = Epoch { key: EpochKey::random(), name: self.name.clone() };
        let time_ms = clock::now_ms();
        let by = (&self.recipients, &self.host);
        let (file, sig) = wrap_epoch(&epoch, (chain, number), time_ms, by).map_err(FollowError::Crypt)?;
        let mut outgoing = Vec::new();
        for (suffix, bytes) in [("age", file), ("sig", sig)] {
            outgoing.push(Outgoing {
                key: format!("{chain}/epoch/{number:08x}.{suffix}"),
                file: spool_into(&self.state.spool_dir(), &bytes).map_err(FollowError::State)?,
                bytes: bytes.len() as u64,
                seq: 0,
                time_ms,
            });
        }
        self.commit(record, self.state.map.count(), &[], &outgoing)?;
        let sealer = Sealer { chain, epoch: number, key: Arc::new(epoch.key) };
        self.sealer = Some(sealer.clone());
        Ok(sealer)
    }

    /// Makes the next segment of a reading and records it. Returns whether there was anything.
    pub(crate) fn capture(&mut self, live: &Live, reading: &Reading) -> Result<bool, FollowError> {
        let before = &self.state.map;
        let record = &self.state.record;
        let grown = record.seq > 0 && reading.page_size == record.page_size;
        if grown && reading.changes.is_empty() && reading.page_count == before.count() {
            return Ok(false);
        }
        let changed = reading.changes.len();
        if !grown || (changed > SMALL && changed > before.count() as usize / 2 && reading.compared) {
            self.rebase(reading)?;
            return Ok(true);
        }
        self.segment(reading, &mut live.images(reading))?;
        Ok(true)
    }

    /// Records a position that only a snapshot will lead to.
    fn rebase(&mut self, reading: &Reading) -> Result<(), FollowError> {
        let mut record = self.next_record();
        record.page_size = reading.page_size;
        record.log = reading.log_end();
        record.rebased = record.seq;
        record.windows = [record.seq; 2];
        let state = self.state.map.state_after(reading.page_count, &reading.changes);
        record.bases = [hex::encode(&state.to_be_bytes()), hex::encode(&state.to_be_bytes())];
        let pages = self.numbered(&reading.changes, record.seq);
        self.stashes = Default::default();
        self.commit(record, reading.page_count, &pages, &[])
    }

    fn segment(&mut self, reading: &Reading, images: &mut dyn Images) -> Result<(), FollowError> {
        let sealer = self.sealer()?;
        let mut record = self.next_record();
        record.log = reading.log_end();
        let state = self.state.map.state_after(reading.page_count, &reading.changes);
        let making = Making {
            level: 0,
            from: self.state.record.seq,
            to: record.seq,
            time_ms: record.time_ms,
            prev: hash_of(&record.prev[0]),
            meta: Meta {
                full: false,
                page_size: reading.page_size,
                page_count: reading.page_count,
                base: self.state.map.state(),
                state,
            },
            changes: &reading.changes,
        };
        let map = &self.state.map;
        let base = |pgno| map.hash(pgno);
        let outgoing = self.spool(&making, &sealer, images, &base, &mut record)?;
        self.stash(&reading.changes, images);
        let pages = self.numbered(&reading.changes, record.seq);
        self.commit(record, reading.page_count, &pages, &outgoing)
    }

    /// Keeps the old images of pages that change for the first time in a window.
    fn stash(&mut self, changes: &[(u32, Hash)], images: &mut dyn Images) {
        let (map, windows) = (&self.state.map, self.state.record.windows);
        let mut old = vec![0; self.state.record.page_size as usize];
        for &(pgno, _) in changes {
            let Some(page) = map.get(pgno) else { continue };
            let first = |level: usize| page.changed <= windows[level] && self.stashes[level].lacks(pgno);
            let wanted = [first(0), first(1)];
            if wanted == [false; 2] {
                continue;
            }
            if !images.old_image(pgno, &mut old) || page_hash(pgno, &old) != page.hash {
                continue;
            }
            for (stash, _) in self.stashes.iter_mut().zip(wanted).filter(|(_, wanted)| *wanted) {
                // Without it the page goes whole.
                let _ = stash.keep(&self.state.dir, (pgno, page.hash), &old);
            }
        }
    }

    /// A segment without a change: the next position, where one is needed.
    pub(crate) fn bump(&mut self) -> Result<(), FollowError> {
        let reading = Reading::unchanged(self.state.record.page_size, self.state.map.count());
        self.segment(&reading, &mut Nothing)
    }

    /// Writes what is due of levels 1 and 2, up to the last position. `Ok(false)`: the pages have moved on;
    /// again after the next reading.
    pub(crate) fn merge(&mut self, live: &Live, windows: [Duration; 2]) -> Result<bool, FollowError> {
        let now = clock::now_ms();
        for level in [1, 2] {
            let window = u64::try_from(windows[level - 1].as_millis()).unwrap_or(u64::MAX).max(1);
            let record = &self.state.record;
            let fresh = record.seq - record.windows[level - 1];
            // Not the time of the last position: while the database changes all the time, that is now.
            if now / window <= self.merged_ms[level - 1] / window {
                continue;
            }
            let worth = if level == 2 { fresh > 0 } else { fresh >= WORTH_MERGING };
            if worth && !self.merge_level(level, live)? {
                return Ok(false);
            }
            self.merged_ms[level - 1] = now;
        }
        Ok(true)
    }

    fn merge_level(&mut self, level: usize, live: &Live) -> Result<bool, FollowError> {
        let sealer = self.sealer()?;
        let mut record = self.state.record.clone();
        let from = record.windows[level - 1];
        let changes = self.state.map.changed_since(from);
        let making = Making {
            level: u8::try_from(level).unwrap_or(u8::MAX),
            from,
            to: record.seq,
            time_ms: record.time_ms,
            prev: hash_of(&record.prev[level]),
            meta: Meta {
                full: false,
                page_size: record.page_size,
                page_count: self.state.map.count(),
                base: hex::decode(&record.bases[level - 1]).map_or(0, u128::from_be_bytes),
                state: self.state.map.state(),
            },
            changes: &changes,
        };
        let then = &self.stashes[level - 1];
        let mut images = Window { now: live.current(), then };
        let base = |pgno| then.hash(pgno);
        let outgoing = match self.spool(&making, &sealer, &mut images, &base, &mut record) {
            Err(FollowError::Pack(error)) if error.is_unstable() => return Ok(false),
            outgoing => outgoing?,
        };
        record.windows[level - 1] = record.seq;
        record.bases[level - 1] = hex::encode(&self.state.map.state().to_be_bytes());
        self.commit(record, self.state.map.count(), &[], &outgoing)?;
        self.stashes[level - 1] = Stash::default();
        Ok(true)
    }

    /// Makes an object's parts and spools them; notes it in `record` as its level's last.
    fn spool(
        &self,
        making: &Making<'_>,
        sealer: &Sealer,
        images: &mut dyn Images,
        base: &dyn Fn(u32) -> Option<Hash>,
        record: &mut Record,
    ) -> Result<Vec<Outgoing>, FollowError> {
        let outgoing = Mutex::new(Vec::new());
        let spooled = || outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        let (safe, spool) = (if making.level == 0 { making.to } else { 0 }, self.state.spool_dir());
        let made = making.make::<FollowError>(sealer, images, base, &|name: Name, object| {
            let file = spool_into(&spool, &object).map_err(FollowError::State)?;
            let seq = if name.part == 0 { safe } else { 0 };
            let (key, bytes) = (name.key(sealer.chain), object.len() as u64);
            spooled().push(Outgoing { key, file, bytes, seq, time_ms: making.time_ms });
            Ok(())
        });
        let outgoing = outgoing.into_inner().unwrap_or_else(PoisonError::into_inner);
        match made {
            Ok(hash) => {
                let level = usize::from(making.level);
                record.prev[level] = hex::encode(&hash);
                record.last[level] = making.to;
                Ok(outgoing)
            }
            Err(error) => {
                self.state.discard(&outgoing);
                Err(error)
            }
        }
    }

    /// Makes a record durable; nothing has changed if that fails.
    pub(crate) fn commit(
        &mut self,
        record: Record,
        count: u32,
        pages: &[(u32, Page)],
        outgoing: &[Outgoing],
    ) -> Result<(), FollowError> {
        let commit = |state: &mut State| -> Result<(), StateError> {
            if !outgoing.is_empty() {
                state.sync_spool()?;
            }
            fault::point("spooled");
            state.commit(record, (count, pages), outgoing)?;
            fault::point("committed");
            Ok(())
        };
        commit(&mut self.state).map_err(|error| {
            self.state.discard(outgoing);
            FollowError::State(error)
        })
    }

    fn next_record(&self) -> Record {
        let mut record = self.state.record.clone();
        record.seq += 1;
        // A clock that was set back must not make an earlier position look later.
        record.time_ms = clock::now_ms().max(record.time_ms);
        record
    }

    fn numbered(&self, changes: &[(u32, Hash)], changed: u64) -> Vec<(u32, Page)> {
        changes.iter().map(|&(pgno, hash)| (pgno, Page { hash, changed })).collect()
    }
}

impl From<PackError> for FollowError {
    fn from(error: PackError) -> Self {
        Self::Pack(error)
    }
}

struct Nothing;

impl Images for Nothing {
    fn new_image(&mut self, _: u32, _: &mut [u8]) -> bool {
        false
    }
}

pub(crate) fn hash_of(hex: &str) -> [u8; 32] {
    hex::decode(hex).unwrap_or_default()
}
