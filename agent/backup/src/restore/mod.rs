//! A database out of a chain: found, read, checked at every step, and only then given its name.
//!
//! Nothing here changes a store or an existing file. Every wrong byte ends in an error that names the object.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::{
    chain::{ChainId, Name, Object, Position, SNAPSHOT},
    crypt::{HostKey, Identities},
    store::Store,
};

mod apply;
mod check;
mod find;
mod list;
pub(crate) mod reader;
mod route;

pub use check::{ChainReport, check_chain};
pub use find::is_called;
pub use list::{Listed, Point, list, rewrap};
pub use reader::ReadError;
pub use route::Routes;

use apply::{Applier, ApplyError, Written, write};
use find::find;
use reader::{Part, Reader};

/// Objects that are fetched ahead.
const AHEAD: usize = 6;

/// Which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The newest.
    Latest,
    /// The last one read at or before this time, in milliseconds since 1970.
    Time(u64),
    /// Exactly this one.
    Position(Position),
}

/// What to read from.
pub struct Source {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Whoever can open it.
    pub identities: Arc<Identities>,
    /// The database's name; not needed where the store holds one only.
    pub name: Option<String>,
    /// The chain, if it is known.
    pub chain: Option<ChainId>,
    /// The only host whose chains are believed.
    pub host: Option<HostKey>,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The position.
    pub position: Position,
    /// The database's name.
    pub name: String,
    /// When that state was read, in milliseconds since 1970.
    pub time_ms: u64,
    /// Bytes of the database.
    pub bytes: u64,
    /// Bytes that were read from the store.
    pub fetched: u64,
    /// Objects that were read.
    pub objects: u64,
    /// Who wrote it.
    pub host: Option<HostKey>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read from the store.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// An object.
    #[error("{0}")]
    Read(#[source] ReadError),
    /// There is nothing.
    #[error("{0}")]
    Nothing(String),
    /// The state cannot be reached.
    #[error("position {seq} of chain {chain} cannot be reached: an object that leads there is missing{}",
        nearest.map_or(String::new(), |seq| format!(" (the last one before it that can: {chain}:{seq})")))]
    Unreachable {
        /// The chain.
        chain: ChainId,
        /// What was wanted.
        seq: u64,
        /// The last position before it that can be reached.
        nearest: Option<u64>,
    },
    /// The place for the result.
    #[error("{path}: {what}")]
    Output {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A file of ours.
    #[error("{what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// All bytes are right, and yet SQLite finds fault.
    #[error("the state at {position} is what was backed up, but SQLite finds it damaged: {what}")]
    Damaged {
        /// The position.
        position: Position,
        /// SQLite's words.
        what: String,
    },
    /// The runtime for the store.
    #[error("the runtime could not start")]
    Runtime(#[source] io::Error),
}

/// Restores to `output`, which must not exist.
///
/// # Errors
/// When anything at all is not as it must be; then `output` does not exist.
pub fn restore(
    source: &Source,
    target: Target,
    output: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, RestoreError> {
    check_output(output)?;
    let dir = match output.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let scratch = tempfile::Builder::new().prefix(".restoring-").tempfile_in(dir);
    let scratch = scratch.map_err(|source| file("making a file in", dir, source))?;
    let restored = into_file(source, target, scratch.as_file(), scratch.path(), progress)?;
    // The disk is busy with the one, a core with the other.
    let (synced, checked) = std::thread::scope(|scope| {
        let syncing = scope.spawn(|| scratch.as_file().sync_all());
        let checked = quick_check(scratch.path(), restored.position);
        (syncing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), checked)
    });
    checked?;
    synced.map_err(|source| file("syncing", scratch.path(), source))?;
    check_output(output)?;
    scratch.persist_noclobber(output).map_err(|error| file("naming", output, error.error))?;
    let sync = || rustix::fs::fsync(File::open(dir)?.as_fd()).map_err(io::Error::from);
    sync().map_err(|source| file("syncing the folder", dir, source))?;
    Ok(restored)
}

/// Restores into a scratch file in `dir` that is gone afterwards: a rehearsal.
///
/// # Errors
/// As [`restore`].
pub fn rehearse(
    source: &Source,
    target: Target,
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, RestoreError> {
    let scratch = tempfile::Builder::new().prefix(".rehearsing-").tempfile_in(dir);
    let scratch = scratch.map_err(|source| file("making a file in", dir, source))?;
    let restored = into_file(source, target, scratch.as_file(), scratch.path(), progress)?;
    quick_check(scratch.path(), restored.position)?;
    Ok(restored)
}

fn into_file(
    source: &Source,
    target: Target,
    into: &File,
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, RestoreError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(RestoreError::Runtime)?;
    let found = runtime.block_on(find(source, target))?;
    let routes = Routes::new(&found.catalog);
    let unreachable = || RestoreError::Unreachable {
        chain: found.reader.chain,
        seq: found.seq,
        nearest: routes.last_until(found.seq),
    };
    let way = routes.to(found.seq).ok_or_else(unreachable)?;
    let total = way.iter().map(|object| object.bytes).sum();
    let mut restored = Restored {
        position: Position { chain: found.reader.chain, seq: found.seq },
        name: found.name,
        time_ms: 0,
        bytes: 0,
        fetched: 0,
        objects: 0,
        host: None,
    };
    let into = Arc::new(into.try_clone().map_err(|source| file("opening", path, source))?);
    let failed = |error| match error {
        ApplyError::Read(error) => RestoreError::Read(error),
        ApplyError::File(source) => file("writing", path, source),
    };
    let mut applier = Applier::new(Arc::clone(&into));
    walk(&runtime, (&found.reader, &into), &way, &mut |arrived, bytes| {
        let (part, written) = arrived.map_err(failed)?;
        applier.apply(&part, written).map_err(failed)?;
        restored.time_ms = part.header.time_ms;
        restored.objects += 1;
        restored.fetched += bytes;
        progress(Progress { done: restored.fetched, total });
        Ok(())
    })?;
    restored.bytes = applier.bytes();
    restored.host = found.reader.host();
    Ok(restored)
}

/// A part that has come, and its pages if they are written.
type Arrived = Result<(Part, Option<Written>), ApplyError>;

/// Fetches the parts of `way` ahead, and gives each in order to `take`, with its share of the bytes. A snapshot's
/// parts, which need nothing before them, are written as they come, on all cores.
fn walk(
    runtime: &tokio::runtime::Runtime,
    (reader, into): (&Arc<Reader>, &Arc<File>),
    way: &[&Object],
    take: &mut dyn FnMut(Arrived, u64) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let names = way.iter().flat_map(|object| {
        let parts = u32::try_from(object.keys.len()).unwrap_or(u32::MAX);
        let share = object.bytes / u64::from(parts.max(1));
        (0..parts).map(move |part| (Name { part, ..object.name }, share))
    });
    let mut flying = VecDeque::new();
    let mut names = names.fuse();
    let mut set = tokio::task::JoinSet::new();
    loop {
        while flying.len() < AHEAD
            && let Some((name, share)) = names.next()
        {
            let (send, receive) = tokio::sync::oneshot::channel();
            let (reader, into) = (Arc::clone(reader), Arc::clone(into));
            set.spawn_on(
                async move {
                    // Nobody waits for it any more when a part before it was refused.
                    let _ = send.send(arrive(reader, into, name).await);
                },
                runtime.handle(),
            );
            flying.push_back((receive, share));
        }
        let Some((receive, share)) = flying.pop_front() else { return Ok(()) };
        let arrived = runtime.block_on(receive);
        take(arrived.map_err(|_| RestoreError::Nothing("a fetch was lost".into()))?, share)?;
        while set.try_join_next().is_some() {}
    }
}

async fn arrive(reader: Arc<Reader>, into: Arc<File>, name: Name) -> Arrived {
    let sealed = reader.fetch(name).await.map_err(ApplyError::Read)?;
    let open = move || {
        let mut part = sealed.open().map_err(ApplyError::Read)?;
        if name.level != SNAPSHOT {
            return Ok((part, None));
        }
        let written = write(&into, &part)?;
        part.body.blocks = Vec::new();
        Ok((part, Some(written)))
    };
    let lost = |error| ApplyError::File(io::Error::other(error));
    tokio::task::spawn_blocking(open).await.map_err(lost)?
}

fn check_output(output: &Path) -> Result<(), RestoreError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut path = output.as_os_str().to_owned();
        path.push(suffix);
        let path = PathBuf::from(path);
        let what = if suffix.is_empty() {
            "it exists; restore to another file"
        } else {
            "it is left of another database of that name, and would spoil this one; remove it first"
        };
        if fs::symlink_metadata(&path).is_ok() {
            return Err(RestoreError::Output { path, what });
        }
    }
    Ok(())
}

/// SQLite's own quick check, touching nothing.
fn quick_check(path: &Path, position: Position) -> Result<(), RestoreError> {
    let damaged = |what: String| RestoreError::Damaged { position, what };
    let check = || -> rusqlite::Result<String> {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(immutable(path), flags)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        // Each page is looked at once or twice: what fits a processor's own cache is fastest. Looking at the file in
        // place (mmap) saves a fifth of the time, and costs the database's size of memory.
        connection.pragma_update(None, "cache_size", -512)?;
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
    };
    match check() {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(damaged(verdict)),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// The path as SQLite's URI for a file that nobody changes.
fn immutable(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte))
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + "?immutable=1"
}

fn file(what: &'static str, path: &Path, source: io::Error) -> RestoreError {
    RestoreError::File { what, path: path.to_owned(), source }
}
