//! `flipside-agent follow`: whatever touches an app's databases or the app's part of the store, as the app's user.
//!
//! The child takes its job from its standard input. Nobody of the same user may look into it: it can hold the
//! store's keys and an identity, and the app's code has the same user.

mod fetch;
mod follow;
mod look;
mod swap;

use std::{
    io::{BufRead, Write},
    path::{Component, Path},
    sync::Arc,
};

use flipside_backup::{
    crypt::{HostKey, Identities},
    state::{signing_key, standing},
    store::{self, Patience, Retrying, S3, Store, Throttled},
};

use super::job::{Job, Said, Task};

/// The longest first line: a job with identities.
const LONGEST_JOB: u64 = 4 << 20;

/// Work that cannot be done.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refused {
    message: String,
    hint: &'static str,
}

impl Refused {
    fn new(message: impl Into<String>, hint: &'static str) -> Self {
        Self { message: message.into(), hint }
    }
}

/// An error of the library, with all that is beneath it, each said once.
fn refused(error: &(dyn std::error::Error + 'static)) -> Refused {
    let (mut message, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    Refused::new(message, "")
}

/// Says a line to the agent; one that is gone does not end us.
fn say(said: &Said) {
    if let Ok(mut line) = serde_json::to_string(said) {
        line.push('\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

/// The child's whole life. Whether all went well.
pub fn main() -> bool {
    let _ = nix::sys::prctl::set_dumpable(false);
    let mut line = String::new();
    let read = std::io::Read::take(std::io::stdin().lock(), LONGEST_JOB).read_line(&mut line);
    if read.is_err() || !line.ends_with('\n') {
        // The agent ended before it had said what to do, or a person typed the command.
        return false;
    }
    let done = serde_json::from_str(&line)
        .map_err(|error| Refused::new(format!("the job is not understood: {error}"), ""))
        .and_then(|job| work(&job));
    zeroize::Zeroize::zeroize(&mut line);
    match done {
        Ok(value) => {
            say(&Said::Done(value));
            true
        }
        Err(Refused { message, hint }) => {
            say(&Said::Failed { message, hint: hint.to_owned() });
            false
        }
    }
}

/// The last position of each chain that is followed with the states in `folder`, for people.
pub fn positions(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let stood = entries.filter_map(|entry| standing(&entry.path()).ok()?);
    let mut all: Vec<String> =
        stood.filter(|(_, safe)| safe.seq > 0).map(|(chain, safe)| format!("{chain}:{}", safe.seq)).collect();
    all.sort();
    if all.is_empty() { String::new() } else { format!("; stored up to {}", all.join(", ")) }
}

fn work(job: &Job) -> Result<serde_json::Value, Refused> {
    match &job.task {
        Task::Follow { database, recipients, rpo_ms } => follow::follow(job, database, recipients, *rpo_ms),
        Task::List { known } => look::list(job, known),
        Task::Check => look::check(job),
        Task::Rehearse { databases } => look::rehearse(job, databases),
        Task::Fetch { only, patterns, time_ms, aside } => {
            fetch::fetch(job, only.as_deref(), patterns, *time_ms, aside)
        }
        Task::Swap { databases, aside, stamp } => swap::swap(&job.data, databases, aside, stamp),
        Task::Recover => swap::recover(&job.data),
    }
}

/// The app's part of the store.
fn open_store(job: &Job) -> Result<Arc<dyn Store>, Refused> {
    let opened = match &job.credentials {
        Some(keys) if job.url.starts_with("s3://") => S3::new(&job.url).map(|s3| {
            let token = keys.token.as_ref().map(|token| token.0.as_str());
            let s3 = s3.with_credentials(&keys.key_id, &keys.secret.0, token);
            Arc::new(Retrying::new(Arc::new(s3), Patience::default())) as Arc<dyn Store>
        }),
        _ if job.url.starts_with("s3://") => store::open(&job.url),
        _ => store::open("."),
    };
    let store = opened.map_err(|error| refused(&error))?;
    Ok(if job.limit == 0 { store } else { Arc::new(Throttled::new(store, u64::from(job.limit) * 1000)) })
}

fn identities(job: &Job) -> Result<Option<Arc<Identities>>, Refused> {
    let Some(text) = &job.identity else { return Ok(None) };
    Identities::parse("the identity", &text.0).map(|all| Some(Arc::new(all))).map_err(|error| refused(&error))
}

/// Our own public key: no other host's chains are believed.
fn host_key(job: &Job) -> Result<HostKey, Refused> {
    let key = signing_key(&job.state.join("signing.key")).map_err(|error| refused(&error))?;
    Ok(HostKey(key.verifying_key().to_bytes()))
}

/// What a database is called in the store. With the app before it, a name is never taken for the last part of
/// another.
fn stored_name(app: &str, database: &str) -> String {
    format!("{app}/{database}")
}

/// Whether `database` is a plain path below its folder.
fn is_plain(database: &str) -> bool {
    !database.is_empty() && Path::new(database).components().all(|part| matches!(part, Component::Normal(_)))
}

fn runtime() -> Result<tokio::runtime::Runtime, Refused> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Refused::new(format!("no runtime: {error}"), ""))
}
