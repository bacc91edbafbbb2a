//! `flipside-agent follow`: whatever touches an app's databases or the app's part of the store, as the app's user.
//!
//! The child takes its job from its standard input. Nobody of the same user may look into it: it can hold the
//! store's keys and an identity, and the app's code has the same user.

mod fetch;
mod follow;
mod look;
mod swap;

use std::{
    fs::File,
    io::{self, BufRead, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path},
    sync::Arc,
};

use flipside_backup::{
    crypt::{HostKey, Identities},
    state::{signing_key, standing},
    store::{self, Patience, Retrying, S3, Store, Throttled},
};
use rustix::fs::FlockOperation;

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
    let _alone = match &job.task {
        Task::Fetch { .. } | Task::Swap { .. } | Task::Recover => Some(alone(&job.state)?),
        _ => None,
    };
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

/// Waits until no other child restores this app, and keeps others from it. The kernel ends a child with its agent,
/// but not before the disk has answered it, and the next agent may be there by then.
fn alone(state: &Path) -> Result<File, Refused> {
    let path = state.join("restore.lock");
    let failed = |error: io::Error| Refused::new(format!("cannot lock {}: {error}", path.display()), "");
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    Ok(file)
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

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::MetadataExt,
        path::PathBuf,
        process::{Child, Command},
        time::{Duration, Instant},
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    use rusqlite::Connection;
    use serde_json::json;

    use super::*;

    fn job(folder: &Path, task: Task) -> Job {
        Job {
            app: "blog".into(),
            url: String::new(),
            credentials: None,
            limit: 0,
            state: folder.to_owned(),
            data: folder.to_owned(),
            identity: None,
            task,
        }
    }

    fn until(what: &str, mut so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !so() {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Not a test by itself: the swap of an agent that is gone, which the next one starts as a process.
    #[test]
    fn swapping() {
        let Some(folder) = std::env::var_os("FLIPSIDE_TEST_SWAP").map(PathBuf::from) else { return };
        let databases = vec!["a".to_owned()];
        let task = Task::Swap { databases, aside: ".restoring-T".into(), stamp: "T".into() };
        work(&job(&folder, task)).unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "a test starts itself, from an argument list")]
    fn swap_elsewhere(folder: &Path) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "backup::child::tests::swapping"]).env("FLIPSIDE_TEST_SWAP", folder);
        command.spawn().unwrap()
    }

    #[test]
    fn recovery_waits_for_a_swap_that_outlives_its_agent() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        fs::create_dir(data.join(".restoring-T")).unwrap();
        let value = |path: &str| -> String {
            let db = Connection::open(data.join(path)).unwrap();
            db.query_row("SELECT x FROM t", [], |row| row.get(0)).unwrap()
        };
        for (path, value) in [("a", "old"), (".restoring-T/0", "new")] {
            let db = Connection::open(data.join(path)).unwrap();
            db.execute_batch(&format!("CREATE TABLE t(x); INSERT INTO t VALUES('{value}')")).unwrap();
        }
        // Somebody's lock keeps the swap at its first step.
        let busy = Connection::open(data.join("a")).unwrap();
        busy.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let mut swap = swap_elsewhere(data);
        let pid = Pid::from_raw(swap.id().cast_signed());
        until("a swap has begun", || data.join(".restoring-T/swap.json").exists());
        kill(pid, Signal::SIGSTOP).unwrap();
        drop(busy);
        let lock = format!(":{} ", fs::metadata(data.join("restore.lock")).unwrap().ino());
        let waits = || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            locks.lines().any(|line| line.contains("->") && line.contains(&lock))
        };
        let found = std::thread::scope(|scope| {
            let recovery = scope.spawn(|| work(&job(data, Task::Recover)).unwrap());
            until("the recovery waits", || waits() || recovery.is_finished());
            assert!(!recovery.is_finished(), "beside a swap");
            kill(pid, Signal::SIGKILL).unwrap();
            swap.wait().unwrap();
            recovery.join().unwrap()
        });
        assert_eq!(found, json!({ "finished": true, "kept": ["a.replaced-T"] }));
        assert_eq!((value("a"), value("a.replaced-T")), ("new".to_owned(), "old".to_owned()));
    }
}
