//! The files of one instance in an app's folder of sockets.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::sys::beneath;

/// Where the files of an instance lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceFiles {
    /// Its options; root's.
    pub ini: PathBuf,
    /// What is known of its process; root's.
    pub record: PathBuf,
    /// Its statistics: a socket in a folder of the app's user, who may put anything there.
    pub stats: PathBuf,
    /// The words of workers that number their processes in their own way, in the same folder.
    notes: PathBuf,
}

/// The folder below an app's folder of sockets that the app's user owns.
pub const NOTES: &str = "w";

impl InstanceFiles {
    /// The files of the instance `name`.
    pub fn new(run: &Path, name: &str) -> Self {
        Self {
            ini: run.join(format!("{name}.ini")),
            record: run.join(format!("{name}.json")),
            stats: run.join(NOTES).join(format!("{name}.stats")),
            notes: run.join(NOTES).join(name),
        }
    }

    /// Removes them. Unlinking follows no link.
    pub fn remove(&self) {
        for path in [&self.ini, &self.stats, &self.record] {
            let _ = fs::remove_file(path);
        }
        let _ = beneath::remove_tree(&self.notes);
    }
}
