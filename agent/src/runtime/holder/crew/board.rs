//! What is known of a crew, in memory and on disk, and where its lines go.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{file, lost};
use crate::{
    runtime::holder::protocol::{Crew, CrewState, PostState, TimedState},
    sys::{atomic_write, beneath, clock, proc},
};

/// The largest state that is read back.
const LARGEST: u64 = 1 << 20;

/// The state of a crew.
pub(super) struct Board {
    shown: Mutex<CrewState>,
    file: PathBuf,
    log: PathBuf,
}

impl Board {
    /// The board with what the last holder left on it, and those of its processes that still run.
    pub(super) fn open(run: &Path, log: &Path) -> (Self, Vec<(u32, u64)>) {
        let (mut state, left) = read(run);
        state.tag = None;
        let runs = |pid: Option<u32>| pid.is_some_and(|pid| left.iter().any(|(left, _)| *left == pid));
        state.background.retain(|post| runs(post.pid));
        for timed in &mut state.schedule {
            timed.next = None;
            if timed.running.as_ref().is_some_and(|run| !runs(run.pid)) {
                timed.last = timed.running.take().map(|run| lost(run.since, &run.release));
            }
        }
        (Self { shown: Mutex::new(state), file: file(run), log: log.to_owned() }, left)
    }

    pub(super) fn show(&self) -> CrewState {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the state, and leaves it on disk where that is new.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut CrewState) -> T) -> T {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shown.clone();
        let changed = change(&mut shown);
        if *shown == before {
            return changed;
        }
        let written = serde_json::to_vec(&*shown)
            .map_err(|error| error.to_string())
            .and_then(|text| atomic_write::write(&self.file, &text, 0o600, None).map_err(|e| e.to_string()));
        if let Err(error) = written {
            tracing::error!(error, "CrewNotRecorded");
        }
        changed
    }

    /// Changes what is known of a background worker.
    pub(super) fn post(&self, name: &str, number: u16, change: impl FnOnce(&mut PostState)) {
        self.change(|state| {
            let mut posts = state.background.iter_mut();
            posts.find(|post| post.name == name && post.number == number).map(change);
        });
    }

    /// Changes what is known of a scheduled command; `None` when nothing is.
    pub(super) fn timed<T>(&self, name: &str, change: impl FnOnce(&mut TimedState) -> T) -> Option<T> {
        self.change(|state| state.schedule.iter_mut().find(|timed| timed.name == name).map(change))
    }

    /// Puts the crew on the board. What is known of schedules of the same names stays.
    pub(super) fn employ(&self, crew: &Crew) {
        let now = clock::now_ms();
        self.change(|state| {
            state.tag = Some(crew.tag.clone());
            let posts = crew.background.iter().map(|post| PostState {
                name: post.name.clone(),
                number: post.number,
                release: crew.release.clone(),
                ..PostState::default()
            });
            state.background = posts.collect();
            let is_of_it = |name: &str| crew.schedule.iter().any(|timed| timed.name == name);
            state.schedule.retain(|known| is_of_it(&known.name) || known.running.is_some());
            for timed in &crew.schedule {
                match state.schedule.iter_mut().find(|known| known.name == timed.name) {
                    Some(known) => known.cron = timed.cron.clone(),
                    None => state.schedule.push(TimedState {
                        name: timed.name.clone(),
                        cron: timed.cron.clone(),
                        seen: now,
                        ..TimedState::default()
                    }),
                }
            }
        });
    }

    /// Takes the crew off the board; what still runs of it stays.
    pub(super) fn dismiss(&self) {
        let now = clock::now_ms();
        self.change(|state| {
            if state.tag.take().is_some() {
                for timed in &mut state.schedule {
                    timed.next = None;
                    timed.seen = now;
                }
            }
        });
    }

    /// Takes a process off that another holder left behind.
    pub(super) fn forget(&self, (pid, started): (u32, u64)) {
        self.change(|state| {
            state.background.retain(|post| (post.pid, post.started) != (Some(pid), started));
            for timed in &mut state.schedule {
                if timed.running.as_ref().is_some_and(|run| (run.pid, run.started) == (Some(pid), started)) {
                    timed.last = timed.running.take().map(|run| lost(run.since, &run.release));
                }
            }
        });
    }

    /// The app's log, to append lines to.
    pub(super) fn log(&self) -> Result<Pen, String> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.log)
            .map_err(|error| format!("{}: {error}", self.log.display()))?;
        Ok(Pen(file))
    }
}

/// Writes lines into the app's log.
pub(super) struct Pen(File);

impl Pen {
    /// One line: when, whose, what.
    pub(super) fn line(&mut self, whose: &str, text: &str) {
        // In one piece, for others write there too. A full disk must not end what runs.
        let line = format!("{} [{whose}] {text}\n", clock::rfc3339(clock::now_ms()));
        let _ = self.0.write_all(line.as_bytes());
    }
}

/// The processes of a crew that run and have no holder.
pub(crate) fn left(run: &Path) -> Vec<(u32, u64)> {
    read(run).1
}

/// What a holder left on disk, and those of its processes that still run.
fn read(run: &Path) -> (CrewState, Vec<(u32, u64)>) {
    let path = file(run);
    let Some(name) = path.file_name() else { return Default::default() };
    let mut text = String::new();
    let state: CrewState = beneath::open_read(run, Path::new(name))
        .ok()
        .and_then(|file| file.take(LARGEST).read_to_string(&mut text).ok())
        .and_then(|_| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let posts = state.background.iter().map(|post| (post.pid, post.started));
    let runs = state.schedule.iter().filter_map(|timed| timed.running.as_ref());
    let known = posts.chain(runs.map(|run| (run.pid, run.started)));
    let left = known.filter_map(|(pid, started)| Some((pid?, started)));
    let left = left.filter(|(pid, started)| proc::runs(*pid, *started)).collect();
    (state, left)
}
