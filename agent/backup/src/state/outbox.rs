//! What waits for its upload, and how far the store has acknowledged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::{Outgoing, Record, StateError, connect, disk::file};
use crate::chain::{ChainId, Name};

/// The uploader's side of the state.
pub(crate) struct Outbox {
    dir: PathBuf,
    connection: Connection,
}

/// The last position that the store has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Safe {
    /// Its number.
    pub seq: u64,
    /// When that state was read.
    pub time_ms: u64,
}

impl Outbox {
    pub(super) fn open(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join("state.db");
        let connection = connect(&path).map_err(|source| StateError::Database { path, source })?;
        Ok(Self { dir: dir.to_owned(), connection })
    }

    fn failed(&self) -> impl Fn(rusqlite::Error) -> StateError + use<> {
        let path = self.dir.join("state.db");
        move |source| StateError::Database { path: path.clone(), source }
    }

    /// The oldest object that may go up, with its id. What only a snapshot will lead to waits for that: whatever
    /// is in the store can be restored.
    pub(crate) fn next(&self) -> Result<Option<(i64, Outgoing)>, StateError> {
        let held = self.standing()?.map(|(record, _)| record).filter(|record| !record.has_snapshot());
        let is_held = |key: &str| {
            held.as_ref().is_some_and(|record| {
                Name::parse(record.chain_id(), key).is_some_and(|name| name.to > record.rebased)
            })
        };
        let waiting = || -> rusqlite::Result<_> {
            let mut all = self
                .connection
                .prepare("SELECT id, key, file, bytes, seq, time_ms FROM outbox ORDER BY id")?;
            let mut rows = all.query([])?;
            while let Some(row) = rows.next()? {
                let key: String = row.get(1)?;
                if !is_held(&key) {
                    let number = |i| row.get(i).map(i64::cast_unsigned);
                    let (bytes, seq, time_ms) = (number(3)?, number(4)?, number(5)?);
                    return Ok(Some((row.get(0)?, Outgoing { key, file: row.get(2)?, bytes, seq, time_ms })));
                }
            }
            Ok(None)
        };
        waiting().map_err(self.failed())
    }

    /// The bytes of a spooled object.
    pub(crate) fn read(&self, out: &Outgoing) -> Result<Vec<u8>, StateError> {
        let path = self.dir.join("spool").join(&out.file);
        fs::read(&path).map_err(|source| file("reading", &path, source))
    }

    /// The store has it.
    pub(crate) fn done(&mut self, id: i64, out: &Outgoing) -> Result<(), StateError> {
        let failed = self.failed();
        let write = |connection: &mut Connection| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            transaction.execute("DELETE FROM outbox WHERE id=?1", [id])?;
            if out.seq > 0 {
                let safe = format!(r#"{{"seq":{},"time_ms":{}}}"#, out.seq, out.time_ms);
                transaction.execute("INSERT OR REPLACE INTO meta VALUES('safe', ?1)", [safe])?;
            }
            transaction.commit()
        };
        write(&mut self.connection).map_err(failed)?;
        let path = self.dir.join("spool").join(&out.file);
        fs::remove_file(&path).map_err(|source| file("removing", &path, source))
    }

    /// The record, and the last position that the store has acknowledged.
    pub(crate) fn standing(&self) -> Result<Option<(Record, Safe)>, StateError> {
        let get = |key: &str| -> Result<Option<String>, StateError> {
            self.connection
                .query_row("SELECT v FROM meta WHERE k=?1", [key], |row| row.get(0))
                .optional()
                .map_err(self.failed())
        };
        let broken = |what| StateError::Broken { path: self.dir.clone(), what };
        let Some(record) = get("record")? else { return Ok(None) };
        let record = serde_json::from_str(&record).map_err(|_| broken("the record"))?;
        let safe = match get("safe")? {
            Some(safe) => serde_json::from_str(&safe).map_err(|_| broken("the safe position"))?,
            None => Safe::default(),
        };
        // Without its snapshot a chain cannot be restored, whatever else is there.
        let safe = if Record::has_snapshot(&record) { safe } else { Safe::default() };
        Ok(Some((record, safe)))
    }
}

/// The chain that is followed with the state in `dir`, and the last position that the store has
/// acknowledged; `None` if nothing was ever followed there.
///
/// # Errors
/// When the state cannot be read.
pub fn standing(dir: &Path) -> Result<Option<(ChainId, Safe)>, StateError> {
    if !dir.join("state.db").exists() {
        return Ok(None);
    }
    Ok(Outbox::open(dir)?.standing()?.map(|(record, safe)| (record.chain_id(), safe)))
}
