//! What a follower remembers on this host: where its chain stands, its pages' hashes, and what is still to
//! be uploaded.
//!
//! A small SQLite database of its own, so that a segment and everything that follows from it become durable
//! in one transaction. The objects themselves lie beside it as files, written before it: a file that the
//! outbox does not name was never acknowledged, and is removed at the next start.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::{
    chain::ChainId,
    follow::WalPosition,
    hex,
    pages::{Page, PageMap},
};

mod disk;
mod outbox;

pub use disk::signing_key;
pub(crate) use outbox::Outbox;
pub use outbox::{Safe, standing};

use disk::{file, lock, make_dir, sync_dir, write_new};

/// What could not be remembered.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or folder.
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
    /// The state's database.
    #[error("the follower's state in {path} cannot be used; moved away, a new chain begins")]
    Database {
        /// Its file.
        path: PathBuf,
        /// SQLite's words.
        #[source]
        source: rusqlite::Error,
    },
    /// Another follower.
    #[error("another process follows this database already (it holds {path})")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// What is recorded makes no sense.
    #[error("the follower's state in {path} is not understood: {what}")]
    Broken {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// Where a chain stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) chain: String,
    pub(crate) seq: u64,
    pub(crate) epoch: u32,
    pub(crate) page_size: u32,
    pub(crate) time_ms: u64,
    /// BLAKE3 of the last object of each level, in hex.
    pub(crate) prev: [String; 4],
    /// The last position of each level.
    pub(crate) last: [u64; 4],
    /// Where the current windows of levels 1 and 2 began.
    pub(crate) windows: [u64; 2],
    /// The states there, in hex.
    pub(crate) bases: [String; 2],
    /// The position that only a snapshot leads to.
    pub(crate) rebased: u64,
    /// Where the last snapshot was begun; there may be parts of it in the store.
    pub(crate) tried: u64,
    /// When the last snapshot was read.
    pub(crate) snapshot_ms: u64,
    /// Up to where the database's log was read for the last position; absent: it had none.
    #[serde(default)]
    pub(crate) log: Option<LogEnd>,
}

/// How far into the log of which file a state was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogEnd {
    /// Device and inode of the database.
    pub(crate) file: (u64, u64),
    pub(crate) at: WalPosition,
}

impl Record {
    fn new() -> Self {
        let none = || hex::encode(&[0; 32]);
        Self {
            chain: ChainId::random().to_string(),
            seq: 0,
            epoch: 0,
            page_size: 0,
            time_ms: 0,
            prev: [none(), none(), none(), none()],
            last: [0; 4],
            windows: [0; 2],
            bases: [String::new(), String::new()],
            rebased: 0,
            tried: 0,
            snapshot_ms: 0,
            log: None,
        }
    }

    pub(crate) fn chain_id(&self) -> ChainId {
        // `State::open` refuses a record whose chain does not parse.
        self.chain.parse().unwrap_or(ChainId([0; 16]))
    }

    /// Whether a snapshot leads to the last rebased position, or a later one.
    pub(crate) fn has_snapshot(&self) -> bool {
        self.last[3] > 0 && self.last[3] >= self.rebased
    }
}

/// An object that waits for its upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) key: String,
    pub(crate) file: String,
    pub(crate) bytes: u64,
    /// The position that is safe once it is put; 0 if none.
    pub(crate) seq: u64,
    pub(crate) time_ms: u64,
}

/// The follower's side of the state.
pub(crate) struct State {
    pub(crate) dir: PathBuf,
    connection: Connection,
    pub(crate) record: Record,
    pub(crate) map: PageMap,
    _lock: nix::fcntl::Flock<File>,
}

const SCHEMA: &str = "
PRAGMA journal_mode=wal; PRAGMA synchronous=full; PRAGMA busy_timeout=10000;
BEGIN;
CREATE TABLE IF NOT EXISTS meta(k TEXT PRIMARY KEY, v TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS page(pgno INTEGER PRIMARY KEY, hash BLOB NOT NULL, changed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS outbox(
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, file TEXT NOT NULL, bytes INTEGER NOT NULL,
    seq INTEGER NOT NULL, time_ms INTEGER NOT NULL);
COMMIT;";

impl State {
    /// Opens the state in `dir`, or begins a new chain there; only one follower may.
    pub(crate) fn open(dir: &Path) -> Result<Self, StateError> {
        make_dir(dir)?;
        make_dir(&dir.join("spool"))?;
        let lock = lock(&dir.join("lock"))?;
        let path = dir.join("state.db");
        let failed = |source| StateError::Database { path: path.clone(), source };
        let connection = connect(&path).map_err(failed)?;
        let text: Option<String> = connection
            .query_row("SELECT v FROM meta WHERE k='record'", [], |row| row.get(0))
            .optional()
            .map_err(failed)?;
        let broken = |what| StateError::Broken { path: path.clone(), what };
        let record = match text {
            Some(text) => serde_json::from_str(&text).map_err(|_| broken("the record"))?,
            None => Record::new(),
        };
        if record.chain.parse::<ChainId>().is_err() {
            return Err(broken("the chain's id"));
        }
        let pages = load_pages(&connection).map_err(failed)?;
        let map = PageMap::new(pages.ok_or_else(|| broken("the pages"))?);
        let state = Self { dir: dir.to_owned(), connection, record, map, _lock: lock };
        state.sweep()?;
        Ok(state)
    }

    /// Makes a new record durable, with the pages that changed and what is to be uploaded.
    pub(crate) fn commit(
        &mut self,
        record: Record,
        (count, pages): (u32, &[(u32, Page)]),
        outgoing: &[Outgoing],
    ) -> Result<(), StateError> {
        let failed = |source| StateError::Database { path: self.dir.join("state.db"), source };
        let text = serde_json::to_string(&record)
            .map_err(|_| StateError::Broken { path: self.dir.clone(), what: "the new record" })?;
        let write = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            transaction.execute("INSERT OR REPLACE INTO meta VALUES('record', ?1)", [&text])?;
            transaction.execute("DELETE FROM page WHERE pgno > ?1", [count])?;
            {
                let mut insert = transaction.prepare("INSERT OR REPLACE INTO page VALUES(?1, ?2, ?3)")?;
                for (pgno, page) in pages {
                    insert.execute(params![pgno, page.hash.to_be_bytes(), page.changed.cast_signed()])?;
                }
                let mut insert = transaction.prepare(
                    "INSERT INTO outbox(key, file, bytes, seq, time_ms) VALUES(?1, ?2, ?3, ?4, ?5)",
                )?;
                for out in outgoing {
                    let (bytes, seq) = (out.bytes.cast_signed(), out.seq.cast_signed());
                    insert.execute(params![out.key, out.file, bytes, seq, out.time_ms.cast_signed()])?;
                }
            }
            transaction.commit()
        };
        write(&mut self.connection).map_err(failed)?;
        self.record = record;
        self.map.resize(count);
        pages.iter().for_each(|(pgno, page)| self.map.set(*pgno, *page));
        Ok(())
    }

    /// Where [`spool_into`] writes.
    pub(crate) fn spool_dir(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// Makes the names of spooled files durable; once before a commit that mentions them.
    pub(crate) fn sync_spool(&self) -> Result<(), StateError> {
        sync_dir(&self.dir.join("spool"))
    }

    /// Forgets spooled files that were not committed.
    pub(crate) fn discard(&self, outgoing: &[Outgoing]) {
        for out in outgoing {
            let _ = fs::remove_file(self.dir.join("spool").join(&out.file));
        }
    }

    /// A position is in the store by another way than the outbox.
    pub(crate) fn raise_safe(&self, safe: Safe) -> Result<(), StateError> {
        let text = format!(r#"{{"seq":{},"time_ms":{}}}"#, safe.seq, safe.time_ms);
        let sql = "INSERT INTO meta VALUES('safe', ?1) ON CONFLICT(k) DO UPDATE SET v=excluded.v \
                   WHERE json_extract(v, '$.seq') < ?2";
        let done = self.connection.execute(sql, params![text, safe.seq.cast_signed()]);
        done.map(|_| ()).map_err(|source| StateError::Database { path: self.dir.join("state.db"), source })
    }

    /// The bytes that wait for their upload, and the oldest one's time.
    pub(crate) fn waiting(&self) -> Result<(u64, u64), StateError> {
        waiting(&self.connection)
            .map_err(|source| StateError::Database { path: self.dir.join("state.db"), source })
    }

    /// Whether an epoch's key waits for its upload.
    pub(crate) fn epoch_waits(&self) -> Result<bool, StateError> {
        let sql = "SELECT EXISTS(SELECT 1 FROM outbox WHERE key LIKE '%/epoch/%')";
        self.connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(|source| StateError::Database { path: self.dir.join("state.db"), source })
    }

    /// Another connection to the same state, for the uploader.
    pub(crate) fn outbox(&self) -> Result<Outbox, StateError> {
        Outbox::open(&self.dir)
    }

    fn sweep(&self) -> Result<(), StateError> {
        let spool = self.dir.join("spool");
        let failed = |source| StateError::Database { path: self.dir.join("state.db"), source };
        let listed = fs::read_dir(&spool).map_err(|source| file("listing", &spool, source))?;
        for entry in listed.flatten() {
            let name = entry.file_name();
            let known: bool = self
                .connection
                .query_row("SELECT count(*) FROM outbox WHERE file=?1", [name.to_string_lossy()], |row| {
                    row.get(0)
                })
                .map_err(failed)?;
            if !known {
                fs::remove_file(entry.path()).map_err(|source| file("removing", &entry.path(), source))?;
            }
        }
        Ok(())
    }
}

/// Writes an object into the spool `dir`, durably; it counts once [`State::commit`] names it.
pub(crate) fn spool_into(dir: &Path, bytes: &[u8]) -> Result<String, StateError> {
    let name = hex::encode(&rand::random::<[u8; 12]>());
    write_new(&dir.join(&name), bytes)?;
    Ok(name)
}

fn waiting(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    connection.query_row("SELECT coalesce(sum(bytes), 0), coalesce(min(time_ms), 0) FROM outbox", [], |row| {
        Ok((row.get(0).map(i64::cast_unsigned)?, row.get(1).map(i64::cast_unsigned)?))
    })
}

fn load_pages(connection: &Connection) -> rusqlite::Result<Option<Vec<Page>>> {
    let mut pages = Vec::new();
    let mut query = connection.prepare("SELECT pgno, hash, changed FROM page ORDER BY pgno")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let pgno: u32 = row.get(0)?;
        let hash: [u8; 16] = row.get(1)?;
        if pgno as usize != pages.len() + 1 {
            return Ok(None);
        }
        pages.push(Page { hash: u128::from_be_bytes(hash), changed: row.get::<_, i64>(2)?.cast_unsigned() });
    }
    Ok(Some(pages))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}
