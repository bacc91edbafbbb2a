//! What an instance says of its workers.
//!
//! The statistics are a socket in a folder of the app's user, so what stands there may be a link, a fifo, a stream
//! without end or somebody else's socket. It counts only when it is a socket, not behind a link, and the process
//! at its other end is the master that was started; and it gets a bounded time and size to say its piece.

use std::{os::fd::AsRawFd, path::Path, time::Duration};

use serde::Deserialize;
use tokio::{io::AsyncReadExt, net::UnixStream, time::timeout};

use super::files::NOTES;
use crate::sys::beneath::{self, BeneathError};

const DEADLINE: Duration = Duration::from_secs(2);

/// The most that is read. A worker is some 400 bytes.
const LARGEST: u64 = 1 << 20;

/// What uWSGI says of one worker.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct WorkerStats {
    /// Its number, from 1.
    pub id: u32,
    /// Its process; 0 while there is none.
    pub pid: u32,
    /// 1 when it takes requests.
    pub accepting: u8,
    /// `idle`, `busy`, or what else it does.
    pub status: String,
    /// Requests since it started.
    pub requests: u64,
    /// How often it was started.
    pub respawn_count: u64,
    /// What it has loaded: one, or nothing.
    pub apps: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Stats {
    #[serde(default)]
    workers: Vec<WorkerStats>,
}

/// Statistics that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// No socket is there.
    #[error("no statistics")]
    Place(#[source] BeneathError),
    /// The socket failed.
    #[error("the statistics' socket failed")]
    Io(#[source] std::io::Error),
    /// Somebody else answers.
    #[error("the statistics come from process {found:?} and not from uWSGI's, {expected}")]
    Stranger {
        /// Who answers.
        found: Option<i32>,
        /// Who should.
        expected: u32,
    },
    /// It takes too long.
    #[error("no statistics within {} s", DEADLINE.as_secs())]
    Late,
    /// The answer is too long, or no such JSON.
    #[error("statistics that make no sense")]
    Nonsense(#[source] serde_json::Error),
}

/// The workers of the instance `name`, whose master is `master`, below the app's folder of sockets.
///
/// # Errors
/// When they cannot be had, in two seconds at most.
pub async fn read(run: &Path, name: &str, master: u32) -> Result<Vec<WorkerStats>, StatsError> {
    timeout(DEADLINE, unhurried(run, name, master)).await.map_err(|_| StatsError::Late)?
}

async fn unhurried(run: &Path, name: &str, master: u32) -> Result<Vec<WorkerStats>, StatsError> {
    let path = Path::new(NOTES).join(format!("{name}.stats"));
    let socket = beneath::open_socket(run, &path).map_err(StatsError::Place)?;
    // By descriptor: nothing can be put in its place between the look and the call.
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let mut stream = UnixStream::connect(path).await.map_err(StatsError::Io)?;
    let found = stream.peer_cred().map_err(StatsError::Io)?.pid();
    if found != i32::try_from(master).ok() {
        return Err(StatsError::Stranger { found, expected: master });
    }
    let mut text = Vec::new();
    (&mut stream).take(LARGEST).read_to_end(&mut text).await.map_err(StatsError::Io)?;
    let stats: Stats = serde_json::from_slice(&text).map_err(StatsError::Nonsense)?;
    Ok(stats.workers)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::symlink, os::unix::net::UnixListener, thread};

    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    fn run() -> (tempfile::TempDir, std::path::PathBuf) {
        let run = tempfile::tempdir().unwrap();
        fs::create_dir(run.path().join("w")).unwrap();
        let path = run.path().join("w/i.stats");
        (run, path)
    }

    fn me() -> u32 {
        std::process::id()
    }

    /// A server in the place of uWSGI's that says `text`.
    fn server(path: &Path, text: Vec<u8>) {
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(&text);
        });
    }

    #[tokio::test]
    async fn workers_are_read() {
        let (run, path) = run();
        let text =
            br#"{"workers":[{"id":1,"pid":5,"accepting":1,"status":"busy","apps":[{"id":0}],"new":1}]}"#;
        server(&path, text.to_vec());
        let workers = read(run.path(), "i", me()).await.unwrap();
        assert_eq!((workers[0].pid, workers[0].apps.len()), (5, 1));
    }

    #[tokio::test]
    async fn strangers_links_fifos_and_files_are_refused_at_once() {
        let (run, path) = run();
        server(&path, Vec::new());
        assert!(matches!(read(run.path(), "i", 1).await, Err(StatsError::Stranger { .. })));
        let elsewhere = run.path().join("elsewhere.sock");
        let _listener = UnixListener::bind(&elsewhere).unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(matches!(read(run.path(), "i", me()).await, Err(StatsError::Place(_))));
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(read(run.path(), "i", me()).await, Err(StatsError::Place(_))));
    }

    #[tokio::test]
    async fn silence_noise_and_giants_have_an_end() {
        let (run, path) = run();
        let _silent = UnixListener::bind(&path).unwrap();
        assert!(matches!(read(run.path(), "i", me()).await, Err(StatsError::Late)));
        for text in [vec![b'['; 3 << 20], b"{\"workers\":3}".to_vec(), Vec::new()] {
            fs::remove_file(&path).unwrap();
            server(&path, text);
            assert!(matches!(read(run.path(), "i", me()).await, Err(StatsError::Nonsense(_))));
        }
    }
}
