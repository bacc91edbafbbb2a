//! What runs of an instance: a process of the holder's own, or the first process of a container.
//!
//! A container's processes are the engine's children and nobody else's, but processes of this host all the same:
//! the kernel says when one ends, and takes signals for it, whether the engine answers or not.

use std::{os::fd::OwnedFd, process::Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, unix::AsyncFd},
    process::Child,
    sync::watch,
    time::Instant,
};

use crate::sys::proc;

/// What a program that starts a container says on its output, a line each: first where the container is, and only
/// then it hands the listener over; at last why it could not, if it could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The container's first process, as this host sees it, and when it started.
    Runs {
        /// Its process.
        pid: u32,
        /// In ticks since boot.
        started: u64,
    },
    /// It could not be started.
    Failed(String),
}

/// The longest that is read of a starter's output.
const LONGEST: u64 = 64 << 10;

/// A running instance.
pub(super) enum Life {
    /// A child of ours.
    Child(Child),
    /// The engine's.
    Contained {
        /// Its process.
        pid: u32,
        /// Readable once it has ended.
        end: AsyncFd<OwnedFd>,
    },
}

impl Life {
    /// Hears what `starter` says until it has ended. When `until` is set meanwhile it is ended at once, and what
    /// it had started with it.
    pub(super) async fn contained(
        mut starter: Child,
        until: &mut watch::Receiver<Option<Instant>>,
    ) -> Result<Self, String> {
        let lost = |error: std::io::Error| format!("the container's starter was lost: {error}");
        let mut said = Vec::new();
        let output = starter.stdout.take().ok_or("the container's starter has no output")?;
        let mut output = output.take(LONGEST);
        let hear = output.read_to_end(&mut said);
        tokio::pin!(hear);
        let heard = tokio::select! {
            heard = &mut hear => heard,
            _ = until.changed() => {
                starter.start_kill().map_err(lost)?;
                hear.await
            }
        };
        heard.map_err(lost)?;
        let status = starter.wait().await.map_err(lost)?;
        let text = String::from_utf8_lossy(&said);
        let words: Vec<Word> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let runs = words.iter().find_map(|word| match word {
            Word::Runs { pid, started } => Some((*pid, *started)),
            Word::Failed(_) => None,
        });
        match runs {
            Some((pid, started)) if status.success() => Self::of(pid, started),
            _ => {
                if let Some((pid, _)) = runs.filter(|(pid, started)| proc::runs(*pid, *started)) {
                    proc::kill_group(pid);
                }
                let why = words.into_iter().find_map(|word| match word {
                    Word::Failed(why) => Some(why),
                    Word::Runs { .. } => None,
                });
                Err(why.unwrap_or_else(|| format!("the container's starter ended with {status}")))
            }
        }
    }

    fn of(pid: u32, started: u64) -> Result<Self, String> {
        let gone = || "the container ended at once".to_owned();
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let end = pidfd_open(number, PidfdFlags::NONBLOCK).map_err(|_| gone())?;
        // Looked at after it was opened: from here on the number cannot be another's.
        if !proc::runs(pid, started) {
            return Err(gone());
        }
        // SAFETY: the descriptor is the AsyncFd's own from here on, and is open as long as that is.
        let end = unsafe { AsyncFd::register(end) }
            .map_err(|error| format!("the container cannot be watched: {error}"))?;
        Ok(Self::Contained { pid, end })
    }

    /// Its process; none once it has ended.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Child(child) => child.id(),
            Self::Contained { pid, .. } => Some(*pid),
        }
    }

    /// Waits until it has ended; says how.
    pub(super) async fn ended(&mut self) -> String {
        match self {
            Self::Child(child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => format!("lost: {error}"),
            },
            Self::Contained { end, .. } => match end.readable().await {
                Ok(_) => "the container ended".to_owned(),
                Err(error) => format!("lost: {error}"),
            },
        }
    }
}

/// Where the output of what is started goes.
pub(super) fn output(contained: bool, log: &std::fs::File) -> std::io::Result<Stdio> {
    if contained { Ok(Stdio::piped()) } else { log.try_clone().map(Stdio::from) }
}
