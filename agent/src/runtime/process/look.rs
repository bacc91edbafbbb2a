//! A look at an instance: the kernel says which workers there are, uWSGI what they do, each worker what it serves.
//!
//! Only the kernel is believed in what matters: a process is a worker when it is a child of the master. What the
//! app's user could have written makes it look worse at most, and never holds us up.

use std::{io::Read, path::Path};

use flipside_api::ReleaseId;

use crate::{
    runtime::{
        Worker,
        uwsgi::{
            files::NOTES,
            stats::{self, WorkerStats},
        },
    },
    sys::{beneath, proc},
};

/// A worker, and whether it has the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The worker.
    pub(super) worker: Worker,
    /// Whether it has an app loaded.
    pub(super) loaded: bool,
    /// Whether uWSGI told of it. What it did not tell of may be serving, for all we know.
    pub(super) told: bool,
}

impl Seen {
    pub(super) fn pid(&self) -> u32 {
        self.worker.pid
    }

    /// Whether it takes requests for `release`.
    pub(super) fn serves(&self, release: &ReleaseId) -> bool {
        self.is_up() && self.worker.release.as_ref() == Some(release)
    }

    /// Whether it serves nobody for certain: it is starting, stuck or about to crash.
    pub(super) fn is_idle_start(&self) -> bool {
        self.told && !self.loaded && !self.worker.accepting
    }

    /// Whether it takes requests.
    pub(super) fn is_up(&self) -> bool {
        self.loaded && self.worker.accepting
    }
}

/// The workers of the instance `name`, whose master is `master`.
pub(super) async fn look(run: &Path, name: &str, master: u32) -> Vec<Seen> {
    let told = match stats::read(run, name, master).await {
        Ok(told) => told,
        Err(error) => {
            tracing::debug!(%error, instance = name, "StatsUnread");
            Vec::new()
        }
    };
    proc::children(master)
        .into_iter()
        .map(|pid| {
            // In a container it has another number of its own, by which uWSGI and it itself go.
            let own = proc::own_number(pid);
            let note = if own == pid { own.to_string() } else { format!("{name}/{own}") };
            let told = told.iter().find(|worker| worker.pid == own);
            seen(pid, told, release(run, &note))
        })
        .collect()
}

fn seen(pid: u32, told: Option<&WorkerStats>, release: Option<ReleaseId>) -> Seen {
    let nothing = WorkerStats::default();
    let is_told = told.is_some();
    let told = told.unwrap_or(&nothing);
    Seen {
        told: is_told,
        loaded: !told.apps.is_empty(),
        worker: Worker {
            id: told.id,
            pid,
            accepting: told.accepting == 1,
            busy: told.status == "busy",
            release,
            rss: proc::resident(pid),
            requests: told.requests,
            respawns: told.respawn_count,
        },
    }
}

/// What the worker that left `note` says that it serves.
fn release(run: &Path, note: &str) -> Option<ReleaseId> {
    let note = Path::new(NOTES).join(note);
    let mut text = String::new();
    beneath::open_read(run, &note).ok()?.take(200).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_note_is_a_release_or_nothing() {
        let run = tempfile::tempdir().unwrap();
        let notes = run.path().join(NOTES);
        fs::create_dir(&notes).unwrap();
        let id = "1.0-44136fa355b3";
        crate::sys::atomic_write::write(&notes.join("7"), id.as_bytes(), 0o644, None).unwrap();
        assert_eq!(release(run.path(), "7"), Some(id.parse().unwrap()));
        symlink(notes.join("7"), notes.join("8")).unwrap();
        symlink("/dev/zero", notes.join("9")).unwrap();
        crate::sys::atomic_write::write(&notes.join("10"), &vec![b'x'; 1 << 20], 0o644, None).unwrap();
        for note in ["8", "9", "10", "11", "i/7"] {
            assert_eq!(release(run.path(), note), None, "{note}");
        }
    }

    #[tokio::test]
    async fn what_is_no_child_of_the_master_is_no_worker() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(look(run.path(), "i", u32::MAX).await, []);
    }
}
