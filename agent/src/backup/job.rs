//! What the agent tells its child, the reader of an app's databases, and what it hears back: lines of JSON through
//! pipes. Secrets go this way only, never through an argument or the environment, where others see them.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// A text that is not to be shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The keys of an S3 store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// The access key's id.
    pub key_id: String,
    /// The access key.
    pub secret: Secret,
    /// The session token of a key that is temporary.
    pub token: Option<Secret>,
}

/// What to do, first line of the child's input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The app.
    pub app: String,
    /// The app's part of the store. A folder is the child's working folder already: the way there is root's.
    pub url: String,
    /// For S3; absent: the instance's role.
    pub credentials: Option<Credentials>,
    /// The most to send in a second, in kB; 0: all that the line takes.
    pub limit: u32,
    /// Where followers of this app remember.
    pub state: PathBuf,
    /// The app's data folder.
    pub data: PathBuf,
    /// age identities, one a line.
    pub identity: Option<Secret>,
    /// The work.
    pub task: Task,
}

/// The kinds of work.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// Follow a database until told to stop.
    Follow {
        /// Its name in the data folder.
        database: String,
        /// Who can restore.
        recipients: Vec<String>,
        /// Milliseconds until a commit is stored.
        rpo_ms: u64,
    },
    /// What can be restored.
    List {
        /// Databases whose chains are known here.
        known: Vec<String>,
    },
    /// Prove what can be proven.
    Check,
    /// Restore the newest state of each into scratch.
    Rehearse {
        /// The databases.
        databases: Vec<String>,
    },
    /// Restore aside, below the data folder.
    Fetch {
        /// One database; absent: all that the patterns name.
        only: Option<String>,
        /// The app's patterns.
        patterns: Vec<String>,
        /// The instant in milliseconds; absent: the newest state.
        time_ms: Option<u64>,
        /// The folder's name.
        aside: String,
    },
    /// Put what was fetched in place, and keep what it replaces.
    Swap {
        /// The databases, in the order of the fetched files.
        databases: Vec<String>,
        /// The folder's name.
        aside: String,
        /// What the kept files are marked with.
        stamp: String,
    },
    /// Finish a swap that was killed.
    Recover,
}

/// Later lines of a follower's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Store everything that is committed by now, and say its position.
    Backup(u64),
    /// Capture a last time, upload what there is, and end.
    Stop,
}

/// A line of the child's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// How the follower is.
    Report(Report),
    /// The answer to [`Ask::Backup`].
    Position(u64, Result<String, String>),
    /// How far a restore is.
    Progress(String),
    /// The work is done.
    Done(serde_json::Value),
    /// It cannot be done.
    Failed {
        /// Why.
        message: String,
        /// What to do.
        hint: String,
    },
}

/// How a follower is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The chain.
    pub chain: String,
    /// The last position that the store has acknowledged.
    pub safe: u64,
    /// When that state was read.
    pub safe_ms: u64,
    /// Since when something waits to be stored; 0: nothing does.
    pub waiting_ms: u64,
    /// Whether a snapshot leads to the chain.
    pub snapshot: bool,
    /// What is wrong; empty if nothing is.
    pub error: String,
}

/// What was fetched of one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fetched {
    /// Its name in the data folder.
    pub database: String,
    /// The position.
    pub position: String,
    /// When that state was read.
    pub time_ms: u64,
    /// Its bytes.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_one_line_and_shows_no_secret() {
        let job = Job {
            app: "blog".into(),
            url: "s3://b/web1/blog".into(),
            credentials: Some(Credentials {
                key_id: "id".into(),
                secret: Secret("hunter2".into()),
                token: Some(Secret("hunter2".into())),
            }),
            limit: 0,
            state: "/s".into(),
            data: "/d".into(),
            identity: Some(Secret("AGE-SECRET-KEY-1\nAGE-SECRET-KEY-2".into())),
            task: Task::Check,
        };
        let line = serde_json::to_string(&job).unwrap();
        assert!(!line.contains('\n'));
        let back: Job = serde_json::from_str(&line).unwrap();
        assert_eq!((&back.credentials, &back.identity), (&job.credentials, &job.identity));
        let shown = format!("{job:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("AGE-SECRET"), "{shown}");
    }
}
