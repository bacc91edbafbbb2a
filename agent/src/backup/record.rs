//! What the agent remembers of each follower, in files of its own: which databases there were, and which process
//! another agent left behind.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use flipside_api::AppName;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::sys::{atomic_write, beneath, proc};

/// How long a follower may take to capture and upload its last.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(15);

/// One follower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) app: AppName,
    pub(super) database: String,
    /// Its process and when that started; 0: none.
    pub(super) pid: u32,
    pub(super) started: u64,
    /// When its newest state was last restored and verified; 0: never.
    pub(super) verified_ms: i64,
}

/// All of them.
#[derive(Debug, Clone)]
pub(super) struct Register {
    folder: PathBuf,
}

impl Register {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("followers") }
    }

    fn path(&self, app: &AppName, database: &str) -> PathBuf {
        let digest = Sha256::digest(database.as_bytes());
        let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{app}-{digest}.json"))
    }

    /// The record of a database; a new one if there is none.
    pub(super) fn get(&self, app: &AppName, database: &str) -> Record {
        read(&self.path(app, database)).filter(|it| it.app == *app && it.database == database).unwrap_or_else(
            || Record { app: app.clone(), database: database.to_owned(), pid: 0, started: 0, verified_ms: 0 },
        )
    }

    pub(super) fn put(&self, record: &Record) -> Result<(), String> {
        beneath::ensure_dir(&self.folder, 0o700, None).map_err(|error| error.to_string())?;
        let text = serde_json::to_vec(record).map_err(|error| error.to_string())?;
        atomic_write::write(&self.path(&record.app, &record.database), &text, 0o600, None)
            .map_err(|error| error.to_string())
    }

    /// All records, in no order.
    pub(super) fn all(&self) -> Vec<Record> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| read(&entry.path())).collect()
    }
}

fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Ends the process of a record, if it still runs: gently first.
pub(super) async fn end(record: &Record) {
    let runs = || record.pid != 0 && proc::runs(record.pid, record.started);
    if !runs() {
        return;
    }
    proc::signal(record.pid, Signal::SIGTERM);
    let begun = tokio::time::Instant::now();
    while runs() && begun.elapsed() < LAST_WORDS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if runs() {
        tracing::warn!(app = %record.app, database = record.database, "FollowerKilled");
        proc::signal(record.pid, Signal::SIGKILL);
        while runs() && begun.elapsed() < 2 * LAST_WORDS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_again_and_another_databases_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let register = Register::new(folder.path());
        let app: AppName = "blog".parse().unwrap();
        assert_eq!(register.all(), []);
        let record = Record { pid: 7, started: 8, verified_ms: 9, ..register.get(&app, "sub/db.sqlite3") };
        register.put(&record).unwrap();
        assert_eq!(register.get(&app, "sub/db.sqlite3"), record);
        assert_eq!(register.get(&app, "db.sqlite3").pid, 0);
        assert_eq!(register.all(), [record]);
    }

    #[tokio::test]
    async fn a_process_that_only_has_the_number_is_left_alone() {
        let me = std::process::id();
        let app: AppName = "blog".parse().unwrap();
        let record = Record { app, database: "x".into(), pid: me, started: 1, verified_ms: 0 };
        end(&record).await;
    }
}
