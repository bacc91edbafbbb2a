//! Following one live database: every commit becomes a segment in the store, and the app does not notice.
//!
//! [`run`] blocks until it is stopped. One follower a process and database: SQLite's locks are the
//! process's, see `handle`. The follower thinks in readings (`live`), makes them durable (`capture`), and
//! leaves the network to an uploader thread and to the snapshot's own.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    chain::Position,
    clock,
    crypt::{CryptError, Recipients},
    state::{Safe, State, StateError, signing_key},
    store::Store,
};

mod capture;
mod control;
mod handle;
mod images;
mod live;
mod pack;
mod snapshot;
mod stash;
mod tick;
mod upload;
mod wal;

pub use control::{AskError, Control, Status};
pub use handle::HandleError;
pub use live::LiveError;
pub use pack::PackError;

pub(crate) use wal::WalPosition;

use capture::Keeper;
use upload::{Remote, Uploader};

/// What to follow, for whom, and where to.
pub struct Config {
    /// The database. No part of the path may be a link.
    pub db: PathBuf,
    /// What the database is called in its backups; only recipients can read it.
    pub name: String,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Who can restore: `age1…` or SSH public keys.
    pub recipients: Vec<String>,
    /// Where the follower remembers; of this database alone. See [`state_dir`].
    pub state_dir: PathBuf,
    /// The host's signing key; made if it is not there.
    pub signing_key: PathBuf,
    /// A commit is in the store after this long, if the store answers.
    pub rpo: Duration,
    /// The most bytes that wait for their upload; beyond it nothing is captured until there is room.
    pub spool_limit: u64,
    /// How old the last snapshot may grow.
    pub snapshot_every: Duration,
    /// The windows of levels 1 and 2.
    pub windows: [Duration; 2],
    /// How long to go on uploading once it is stopped.
    pub drain: Duration,
    /// End when everything committed at the start is stored, instead of waiting for more.
    pub once: bool,
    /// With `once`: how long a store that does not take an object is asked again.
    pub patience: Duration,
}

impl Config {
    /// The usual figures.
    pub fn new(db: &Path, store: Arc<dyn Store>, recipients: Vec<String>, state_dir: &Path) -> Self {
        Self {
            db: db.to_owned(),
            name: db.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            store,
            recipients,
            state_dir: state_dir.to_owned(),
            signing_key: state_dir.join("signing.key"),
            rpo: Duration::from_secs(1),
            spool_limit: 1 << 30,
            snapshot_every: Duration::from_secs(86400),
            windows: [Duration::from_secs(300), Duration::from_secs(3600)],
            drain: Duration::from_secs(10),
            once: false,
            patience: Duration::from_secs(300),
        }
    }
}

/// Why a follower ended.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The live database.
    #[error("{0}")]
    Live(#[source] LiveError),
    /// What the follower remembers.
    #[error("{0}")]
    State(#[source] StateError),
    /// Making a segment.
    #[error("{0}")]
    Pack(#[source] PackError),
    /// Keys.
    #[error("{0}")]
    Crypt(#[source] CryptError),
    /// Somebody else writes this chain.
    #[error(
        "{key} is in the store already and is not ours: another follower writes this chain. Stop it, or move \
         the state folder of this one away, and a new chain begins"
    )]
    Fenced {
        /// The object.
        key: String,
    },
    /// The store will not do it.
    #[error("{what}{}", if hint.is_empty() { String::new() } else { format!(" ({hint})") })]
    Store {
        /// What failed.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// A thread of ours gave up.
    #[error("{0}")]
    Ended(String),
    /// A mistake of ours.
    #[error("{0} could not be made: a mistake in this program")]
    Internal(&'static str),
    /// The runtime for the store.
    #[error("the runtime could not start")]
    Runtime(#[source] std::io::Error),
}

/// The folder beneath `root` in which the follower of this store and database remembers.
pub fn state_dir(root: &Path, repo: &str, db: &Path) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    hasher.update(repo.as_bytes()).update(&[0]).update(db.as_os_str().as_encoded_bytes());
    root.join(crate::hex::encode(&hasher.finalize().as_bytes()[..8]))
}

/// Follows the database until `control` stops it (or, with `once`, until all is stored). Returns the last
/// position that the store has acknowledged; none where no snapshot leads to one yet.
///
/// # Errors
/// What no waiting mends: another follower, unusable state, bad recipients; with `once`, whatever fails.
pub fn run(config: &Config, control: &Control) -> Result<Option<Position>, FollowError> {
    let result = follow(config, control);
    if let Err(error) = &result {
        control.fail(upload::with_causes(error));
    }
    control.end();
    result
}

fn follow(config: &Config, control: &Control) -> Result<Option<Position>, FollowError> {
    let recipients = Recipients::parse(&config.recipients).map_err(FollowError::Crypt)?;
    let host = signing_key(&config.signing_key).map_err(FollowError::State)?;
    let state = State::open(&config.state_dir).map_err(FollowError::State)?;
    let outbox = state.outbox().map_err(FollowError::State)?;
    let (spool_bytes, _) = state.waiting().map_err(FollowError::State)?;
    let safe = outbox.standing().map_err(FollowError::State)?.map_or(Safe::default(), |(_, safe)| safe);
    let record = &state.record;
    control.update(|status| {
        status.chain = record.chain.clone();
        (status.captured, status.captured_ms) = (record.seq, record.time_ms);
        (status.safe, status.safe_ms) = (safe.seq, safe.time_ms);
        (status.snapshot, status.snapshot_ms) = (record.has_snapshot(), record.snapshot_ms);
        status.spool_bytes = spool_bytes;
    });
    let chain = record.chain_id();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(FollowError::Runtime)?;
    let remote = Remote {
        store: config.store.clone(),
        runtime: runtime.handle().clone(),
        control: control.clone(),
        patience: config.once.then_some(config.patience),
    };
    let uploader =
        Uploader { remote: remote.clone(), outbox, host: host.clone(), drain: config.drain, head_ms: 0 };
    let keeper = Keeper::new(state, recipients, host, config.name.clone());
    let followed = std::thread::scope(|scope| {
        scope.spawn(move || uploader.run());
        let followed = tick::Follower::new(config, control, keeper, remote, scope).run();
        control.captured_all();
        followed
    });
    followed?;
    match control.fatal() {
        Some(why) => Err(FollowError::Ended(why)),
        None => {
            let status = control.status();
            Ok(status.snapshot.then_some(Position { chain, seq: status.safe }))
        }
    }
}

fn age_ms(since_ms: u64) -> u64 {
    clock::now_ms().saturating_sub(since_ms)
}
