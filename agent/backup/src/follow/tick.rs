//! The follower's loop: what is looked at, in which order, twenty milliseconds apart.

use std::{
    io::Write,
    thread::Scope,
    time::{Duration, Instant},
};

use super::{
    Config, FollowError, age_ms,
    capture::{Keeper, hash_of},
    control::Control,
    live::{Live, LiveError},
    snapshot::{Frozen, Job, Snapshot},
    upload::{Remote, with_causes},
};
use crate::{chain::SNAPSHOT, clock, fault, hex, state::Safe};

mod log;

const TICK: Duration = Duration::from_millis(20);
/// After this long without a commit the ticks become fewer.
const IDLE_AFTER: Duration = Duration::from_secs(2);
const IDLE_TICK: Duration = Duration::from_millis(100);
/// Bytes that are compared in a tick after a start that compared none: 25 MB a second.
const PROVEN_AT_ONCE: u32 = 512 << 10;
/// After so long it is said that somebody's locks keep us out.
const SHUT_OUT_LONG: Duration = Duration::from_secs(5);
/// Bytes of the log beyond which a full spool makes the follower let go.
const LET_GO_AFTER: u64 = 64 << 20;

pub(crate) struct Follower<'a, 'scope, 'env> {
    config: &'a Config,
    control: &'a Control,
    keeper: Keeper,
    remote: Remote,
    scope: &'scope Scope<'scope, 'env>,
    live: Option<Live>,
    job: Option<Job<'scope>>,
    /// When the next reading, reopening, handover and snapshot may be.
    read_at: Instant,
    open_at: Instant,
    restart_at: Instant,
    shut_out_at: Instant,
    shut_out_pause: Duration,
    snapshot_at: Instant,
    merge_at: Instant,
    copied: u32,
    /// Whether the next opening may go on where the last follower stood.
    resumable: bool,
    /// The next page to be compared, after a start that compared none.
    unproven: Option<u32>,
    /// Since when somebody's locks keep us out.
    shut_out: Option<Instant>,
    /// When something was last found committed.
    dirty_at: Instant,
}

impl<'a, 'scope, 'env> Follower<'a, 'scope, 'env> {
    pub(crate) fn new(
        config: &'a Config,
        control: &'a Control,
        keeper: Keeper,
        remote: Remote,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Self {
        let now = Instant::now();
        Self {
            config,
            control,
            keeper,
            remote,
            scope,
            live: None,
            job: None,
            read_at: now,
            open_at: now,
            restart_at: now,
            shut_out_at: now,
            shut_out_pause: Duration::ZERO,
            snapshot_at: now,
            merge_at: now,
            copied: 0,
            // One pass stays for no proof.
            resumable: !config.once,
            unproven: None,
            shut_out: None,
            dirty_at: now,
        }
    }

    /// Until it is stopped, or all is stored.
    pub(crate) fn run(mut self) -> Result<(), FollowError> {
        loop {
            let stopping = self.control.is_stopping();
            match self.tick(stopping) {
                Ok(()) => self.note_let_in(),
                Err(error) => self.trouble(error)?,
            }
            if self.control.fatal().is_some() {
                return Ok(());
            }
            if let Err(error) = self.reap() {
                self.trouble(error)?;
            }
            let idle = self.job.is_none();
            // One that was just put in the place of the other is still to be read.
            let read = self.live.is_some() || Instant::now() < self.open_at;
            if stopping && read && idle || self.config.once && idle && self.is_all_stored() {
                return Ok(());
            }
            let idle = self.dirty_at.elapsed() > IDLE_AFTER && self.unproven.is_none();
            self.control.wait(if idle { IDLE_TICK.min(self.config.rpo / 4) } else { TICK });
        }
    }

    fn tick(&mut self, stopping: bool) -> Result<(), FollowError> {
        let wanted = self.control.wanted();
        if self.live.is_none() && !self.open()? {
            return Ok(());
        }
        let Some(live) = &self.live else { return Ok(()) };
        if live.is_replaced().map_err(FollowError::Live)? {
            tracing::info!("DatabaseReplaced");
            self.live = None;
            self.open_at = Instant::now();
            return Ok(());
        }
        let dirty = live.is_dirty().map_err(FollowError::Live)?;
        self.note_dirty(dirty);
        let due = Instant::now() >= self.read_at
            || live.is_on_zero()
            || wanted.is_some()
            || stopping
            || self.config.once;
        if dirty {
            self.dirty_at = Instant::now();
        }
        let mut current = !dirty;
        if dirty && due && self.has_room()? {
            self.read()?;
            current = true;
        }
        if let Some(ticket) = wanted
            && current
        {
            self.control.answer(ticket, self.keeper.state.record.seq);
        }
        self.bound_the_log()?;
        self.prove()?;
        if Instant::now() >= self.merge_at {
            self.merge_at = Instant::now() + (self.config.windows[0] / 10).min(Duration::from_secs(1));
            if let Some(live) = &self.live {
                self.keeper.merge(live, self.config.windows)?;
            }
        }
        if !stopping { self.snapshot() } else { Ok(()) }
    }

    /// Opens the database and goes on where the last follower stood, or else compares all of it with what is on
    /// record.
    fn open(&mut self) -> Result<bool, FollowError> {
        if Instant::now() < self.open_at {
            return Ok(false);
        }
        self.open_at = Instant::now() + Duration::from_millis(500);
        let mut live = Live::open(&self.config.db).map_err(FollowError::Live)?;
        let (map, record) = (&self.keeper.state.map, &self.keeper.state.record);
        let resumed = match record.log {
            Some(end) if self.resumable => {
                live.resume(end, record.page_size, map).map_err(FollowError::Live)?
            }
            _ => None,
        };
        self.resumable = false;
        self.unproven = resumed.as_ref().map(|_| 1);
        let reading = match resumed {
            Some(reading) => reading,
            None => live.read_all(map).map_err(FollowError::Live)?,
        };
        if self.keeper.capture(&live, &reading)? && reading.compared {
            self.control.update(|status| status.gaps += 1);
        }
        live.accept(reading);
        self.live = Some(live);
        self.captured();
        Ok(true)
    }

    /// Compares some more pages after a start that compared none.
    fn prove(&mut self) -> Result<(), FollowError> {
        let (Some(first), Some(live)) = (self.unproven, &self.live) else { return Ok(()) };
        let map = &self.keeper.state.map;
        let count = PROVEN_AT_ONCE / self.keeper.state.record.page_size.max(512);
        self.unproven = Some(first + count).filter(|next| *next <= map.count());
        if live.differs(first, count, map).map_err(FollowError::Live)? {
            tracing::warn!("FileChangedPastSqlite");
            self.live = None;
            self.open_at = Instant::now();
        }
        Ok(())
    }

    /// Reads on; what does not continue is compared.
    fn read(&mut self) -> Result<(), FollowError> {
        let Some(live) = &mut self.live else { return Ok(()) };
        let began = Instant::now();
        let map = &self.keeper.state.map;
        let reading = match live.read_on(map) {
            Err(LiveError::Gap(why)) => {
                tracing::warn!(why, "LogGap");
                self.control.update(|status| status.gaps += 1);
                live.read_all(map)
            }
            reading => reading,
        };
        let reading = reading.map_err(FollowError::Live)?;
        if let Err(error) = self.keeper.capture(live, &reading) {
            live.reject();
            return Err(error);
        }
        live.accept(reading);
        // Comparing a database without a log keeps its writers waiting: at most a tenth of the time.
        let pause = if live.has_log() { Duration::ZERO } else { began.elapsed() * 10 };
        // Two in a row are free: after a quiet time nothing waits.
        let period = self.config.rpo * 3 / 4;
        let next = self.read_at.max(began.checked_sub(period).unwrap_or(began)) + period;
        self.read_at = next.max(began + pause);
        self.captured();
        Ok(())
    }

    fn captured(&mut self) {
        let record = &self.keeper.state.record;
        let log_bytes = self.live.as_ref().map_or(0, Live::log_bytes);
        self.control.update(|status| {
            (status.captured, status.captured_ms) = (record.seq, record.time_ms);
            status.snapshot = record.has_snapshot();
            (status.dirty_ms, status.log_bytes) = (0, log_bytes);
        });
        self.note_spool();
    }

    fn note_spool(&self) {
        if let Ok((bytes, _)) = self.keeper.state.waiting() {
            self.control.update(|status| status.spool_bytes = bytes);
        }
    }

    fn note_dirty(&self, dirty: bool) {
        if dirty && self.control.status().dirty_ms == 0 {
            self.control.update(|status| status.dirty_ms = clock::now_ms());
        }
    }

    /// Whether the spool takes more. A full one lets the log grow, and then lets go of it: what is missed is
    /// compared once there is room.
    fn has_room(&mut self) -> Result<bool, FollowError> {
        let status = self.control.status();
        if status.spool_bytes < self.config.spool_limit {
            return Ok(true);
        }
        let log = std::fs::symlink_metadata(self.log_path()).map_or(0, |metadata| metadata.len());
        if log > LET_GO_AFTER {
            tracing::warn!("SpoolFull");
            self.live = None;
            self.open_at = Instant::now() + Duration::from_secs(10);
        }
        Ok(false)
    }

    fn log_path(&self) -> std::path::PathBuf {
        let mut path = self.config.db.clone().into_os_string();
        path.push("-wal");
        path.into()
    }

    /// Begins a snapshot if one is due and none is being taken.
    fn snapshot(&mut self) -> Result<(), FollowError> {
        let asked = self.job.is_none() && self.control.take_snapshot_wanted();
        let record = &self.keeper.state.record;
        let old = u128::from(age_ms(record.snapshot_ms)) >= self.config.snapshot_every.as_millis()
            && record.seq > record.last[usize::from(SNAPSHOT)];
        let due = !record.has_snapshot() || old;
        // Each new base gets its snapshot at once; a failed one is tried again after a while.
        let now = record.tried < record.rebased || Instant::now() >= self.snapshot_at;
        let begin = asked || due && now;
        if self.job.is_some() || !begin {
            return Ok(());
        }
        self.snapshot_at = Instant::now() + Duration::from_secs(60);
        if record.tried == record.seq {
            // Parts of an earlier try may lie in the store under this position's names.
            self.keeper.bump()?;
        }
        let mut record = self.keeper.state.record.clone();
        record.tried = record.seq;
        let count = self.keeper.state.map.count();
        self.keeper.commit(record, count, &[], &[])?;
        let sealer = self.keeper.new_epoch()?;
        let Some(frozen) = self.freeze()? else { return Ok(()) };
        let record = &self.keeper.state.record;
        let snapshot = Snapshot {
            frozen,
            map: self.keeper.state.map.clone(),
            page_size: record.page_size,
            sealer,
            seq: record.seq,
            time_ms: record.time_ms,
            prev: hash_of(&record.prev[usize::from(SNAPSHOT)]),
        };
        let (remote, control) = (self.remote.clone(), self.control.clone());
        let once = self.config.once;
        self.job = Some(self.scope.spawn(move || {
            let keep_on = || (once || !control.is_stopping()) && control.fatal().is_none();
            snapshot.take(&remote, &keep_on)
        }));
        self.captured();
        // The mark that took the frozen one's place may stand beyond what we have read.
        self.read()
    }

    fn freeze(&mut self) -> Result<Option<Frozen>, FollowError> {
        let Some(live) = &mut self.live else { return Ok(None) };
        if let Some((handle, frames)) = live.freeze().map_err(FollowError::Live)? {
            return Ok(Some(Frozen::Mark(handle, frames)));
        }
        let copied =
            || -> Result<std::fs::File, std::io::Error> { tempfile::tempfile_in(&self.keeper.state.dir) };
        let source =
            |source| FollowError::Live(LiveError::Path { path: self.keeper.state.dir.clone(), source });
        let mut file = copied().map_err(source)?;
        live.copy_to(&mut std::io::BufWriter::new(&mut file), &self.keeper.state.map)
            .map_err(FollowError::Live)?;
        file.flush().map_err(source)?;
        Ok(Some(Frozen::Copy(file)))
    }

    /// Takes note of a snapshot that has ended.
    fn reap(&mut self) -> Result<(), FollowError> {
        if self.job.is_none() {
            return Ok(());
        }
        let epoch_waits = self.keeper.state.epoch_waits().map_err(FollowError::State)?;
        // A snapshot counts when its key is in the store too. One that we cannot wait for is taken again.
        let ready = !epoch_waits || self.control.is_stopping();
        let Some(job) = self.job.take_if(|job| ready && job.is_finished()) else { return Ok(()) };
        if epoch_waits {
            return Ok(());
        }
        let taken = job.join().map_err(|_| FollowError::Internal("a snapshot"))?;
        let taken = match taken {
            Ok(Some(taken)) => taken,
            Ok(None) => return Ok(()),
            Err(FollowError::Pack(error)) if error.is_unstable() && !self.config.once => {
                tracing::warn!(error = %with_causes(&error), "SnapshotFailed");
                self.snapshot_at = Instant::now() + Duration::from_secs(1);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        fault::point("snapshot");
        let level = usize::from(SNAPSHOT);
        let mut record = self.keeper.state.record.clone();
        (record.last[level], record.prev[level]) = (taken.seq, hex::encode(&taken.hash));
        record.snapshot_ms = taken.time_ms;
        let count = self.keeper.state.map.count();
        self.keeper.commit(record, count, &[], &[])?;
        let safe = Safe { seq: taken.seq, time_ms: taken.time_ms };
        self.keeper.state.raise_safe(safe).map_err(FollowError::State)?;
        let has_snapshot = self.keeper.state.record.has_snapshot();
        self.control.update(|status| {
            (status.snapshot, status.snapshot_ms) = (has_snapshot, taken.time_ms);
            if status.safe < taken.seq {
                (status.safe, status.safe_ms) = (taken.seq, taken.time_ms);
            }
        });
        Ok(())
    }

    fn is_all_stored(&self) -> bool {
        let status = self.control.status();
        self.live.is_some() && status.snapshot && status.safe >= status.captured && status.spool_bytes == 0
    }

    /// Whether locks have kept us out for so long that it is worth a word: no app's transaction takes that long,
    /// but one with `locking_mode=EXCLUSIVE` keeps everybody out.
    fn is_shut_out(&mut self) -> bool {
        let since = *self.shut_out.get_or_insert_with(Instant::now);
        since.elapsed() > if self.config.once { self.config.patience } else { SHUT_OUT_LONG }
    }

    fn note_let_in(&mut self) {
        if self.live.is_some()
            && let Some(since) = self.shut_out.take()
            && since.elapsed() > SHUT_OUT_LONG
        {
            self.control.update(|status| status.error.clear());
        }
    }

    /// What may pass is said and tried again; the rest ends the follower.
    fn trouble(&mut self, error: FollowError) -> Result<(), FollowError> {
        let passes = match &error {
            FollowError::Live(error) if error.is_busy() && !self.is_shut_out() => return Ok(()),
            FollowError::Live(_) | FollowError::Pack(_) | FollowError::State(_) => !self.config.once,
            _ => false,
        };
        if !passes {
            return Err(error);
        }
        let text = with_causes(&error);
        if self.control.status().error != text {
            tracing::warn!(error = %text, "FollowFailed");
        }
        self.control.update(|status| status.error = text);
        // Begin again from the file: whatever it was, a comparison is right.
        self.live = None;
        self.open_at = Instant::now() + Duration::from_millis(500);
        Ok(())
    }
}
