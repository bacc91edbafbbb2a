//! One connection to a live database, and reading through it beneath SQL.
//!
//! **The database and its -shm are read through SQLite's own file handles and no other.** POSIX drops all
//! locks of a process on a file when the process closes *any* descriptor of it; one stray `File::open` would
//! silently end the read mark that keeps the log from being restarted unseen.
//!
//! This is the one file of the crate with unsafe code.

use std::{
    ffi::{c_int, c_void},
    path::Path,
    ptr,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig, ffi};

use super::wal::{INDEX_BYTES, Index};

/// SQLite refused something.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// A statement or opening failed.
    #[error("{what}")]
    Sqlite {
        /// What was tried.
        what: &'static str,
        /// SQLite's words.
        #[source]
        source: rusqlite::Error,
    },
    /// Reading a file of the database failed.
    #[error("reading the {what} at {offset} failed with SQLite's code {code}")]
    Read {
        /// Which file.
        what: &'static str,
        /// Where.
        offset: u64,
        /// SQLite's result code.
        code: c_int,
    },
}

impl HandleError {
    /// Whether somebody holds a lock: trying again may do.
    pub(crate) fn is_busy(&self) -> bool {
        let Self::Sqlite { source, .. } = self else { return false };
        matches!(
            source.sqlite_error_code(),
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
        )
    }
}

fn sqlite(what: &'static str) -> impl Fn(rusqlite::Error) -> HandleError {
    move |source| HandleError::Sqlite { what, source }
}

/// A connection that checkpoints only when asked to and reads no schema.
pub(crate) struct Handle {
    connection: Connection,
}

impl Handle {
    /// Opens the database, which must exist; no part of the path may be a link.
    pub(crate) fn open(path: &Path) -> Result<Self, HandleError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let opened = sqlite("opening the database");
        let connection = Connection::open_with_flags(path, flags).map_err(&opened)?;
        connection.busy_timeout(Duration::from_millis(250)).map_err(&opened)?;
        // Without this our close, if it is the last, checkpoints and deletes the log under the app's feet.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .and_then(|_| connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false))
            .and_then(|_| connection.execute_batch("PRAGMA wal_autocheckpoint=0; PRAGMA mmap_size=0"))
            .map_err(&opened)?;
        Ok(Self { connection })
    }

    /// Waits for locks without SQLite's growing pauses: those miss the moments in which a busy writer has let go.
    pub(crate) fn wait_eagerly(&mut self) -> Result<(), HandleError> {
        let again = |tries| {
            std::thread::sleep(Duration::from_micros(100));
            tries < 1000
        };
        self.connection.busy_handler(Some(again)).map_err(sqlite("setting how to wait for locks"))
    }

    /// Begins a read transaction: from here on the snapshot stands. Parses no schema.
    pub(crate) fn begin(&self) -> Result<(), HandleError> {
        self.end();
        self.connection.execute_batch("BEGIN; PRAGMA user_version").map_err(|error| {
            self.end();
            sqlite("beginning to read")(error)
        })
    }

    /// Shuts out writers until [`Self::end`].
    pub(crate) fn begin_immediate(&self) -> Result<(), HandleError> {
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(sqlite("shutting out writers"))
    }

    /// Ends the transaction, if there is one.
    pub(crate) fn end(&self) {
        if !self.connection.is_autocommit() {
            // ROLLBACK of a transaction that wrote nothing cannot fail in a way that we could mend.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// Copies of the log go into the file, as far as marks allow, without waiting for anyone: frames in the
    /// log, and frames of them in the file.
    pub(crate) fn checkpoint(&self) -> Result<(u32, u32), HandleError> {
        let (mut log, mut done) = (0, 0);
        // SAFETY: the connection is open; the call writes two numbers and keeps nothing.
        let code = unsafe {
            let (db, mode) = (self.connection.handle(), ffi::SQLITE_CHECKPOINT_PASSIVE);
            ffi::sqlite3_wal_checkpoint_v2(db, c"main".as_ptr(), mode, &raw mut log, &raw mut done)
        };
        if code != ffi::SQLITE_OK {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            return Err(sqlite("a passive checkpoint")(error));
        }
        Ok((u32::try_from(log).unwrap_or(0), u32::try_from(done).unwrap_or(0)))
    }

    /// A number that changes when another connection commits; for databases without a log.
    pub(crate) fn data_version(&self) -> Result<i64, HandleError> {
        self.connection
            .query_row("PRAGMA data_version", [], |row| row.get(0))
            .map_err(sqlite("reading the data version"))
    }

    /// Reads the database file; what lies beyond its end is zeros.
    pub(crate) fn read_db(&self, offset: u64, buffer: &mut [u8]) -> Result<(), HandleError> {
        read(self.file(ffi::SQLITE_FCNTL_FILE_POINTER), "database", offset, buffer)
    }

    /// Reads the log; what lies beyond its end is zeros.
    pub(crate) fn read_wal(&self, offset: u64, buffer: &mut [u8]) -> Result<(), HandleError> {
        read(self.file(ffi::SQLITE_FCNTL_JOURNAL_POINTER), "log", offset, buffer)
    }

    /// The bytes of the database file.
    pub(crate) fn db_size(&self) -> Result<u64, HandleError> {
        let file = self.file(ffi::SQLITE_FCNTL_FILE_POINTER);
        let failed = |code| HandleError::Read { what: "database's size", offset: 0, code };
        // SAFETY: SQLite gave the pointer for this open connection; the methods live as long as it.
        let size = unsafe {
            let methods = methods(file).ok_or(failed(ffi::SQLITE_MISUSE))?;
            let file_size = (*methods).xFileSize.ok_or(failed(ffi::SQLITE_MISUSE))?;
            let mut size = 0;
            match file_size(file, &raw mut size) {
                ffi::SQLITE_OK => size,
                code => return Err(failed(code)),
            }
        };
        u64::try_from(size).map_err(|_| failed(ffi::SQLITE_MISUSE))
    }

    /// The wal-index's header and how many frames are in the file already. `None` while a writer changes
    /// it, or there is none. Only after a first [`Self::begin`] on a database with a log.
    pub(crate) fn index(&self) -> Option<(Index, u32)> {
        let file = self.file(ffi::SQLITE_FCNTL_FILE_POINTER);
        let mut bytes = [0u8; INDEX_BYTES];
        // SAFETY: as in `db_size`; region 0 is 32 KiB that stay mapped while the connection is open. Others
        // write it meanwhile, hence volatile words; torn copies fail the header's own checks.
        unsafe {
            let methods = methods(file)?;
            if (*methods).iVersion < 2 {
                return None;
            }
            let mut region: *mut c_void = ptr::null_mut();
            if (*methods).xShmMap?(file, 0, 32768, 0, &raw mut region) != ffi::SQLITE_OK || region.is_null() {
                return None;
            }
            let words = region.cast::<u32>();
            for (i, word) in bytes.chunks_exact_mut(4).enumerate() {
                // A writer writes the second copy first: reading in order with a fence between sees a tear.
                if i == 12 {
                    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
                }
                word.copy_from_slice(&words.add(i).read_volatile().to_ne_bytes());
            }
        }
        Index::parse(&bytes)
    }

    fn file(&self, which: c_int) -> *mut ffi::sqlite3_file {
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        // SAFETY: the connection is open; both controls write one pointer and keep nothing.
        unsafe {
            let into = (&raw mut file).cast::<c_void>();
            ffi::sqlite3_file_control(self.connection.handle(), c"main".as_ptr(), which, into);
        }
        file
    }
}

unsafe fn methods(file: *mut ffi::sqlite3_file) -> Option<*const ffi::sqlite3_io_methods> {
    // SAFETY: `file` is null or a live sqlite3_file; a closed one has null methods.
    unsafe { if file.is_null() || (*file).pMethods.is_null() { None } else { Some((*file).pMethods) } }
}

fn read(
    file: *mut ffi::sqlite3_file,
    what: &'static str,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), HandleError> {
    let failed = |code| HandleError::Read { what, offset, code };
    let length = c_int::try_from(buffer.len()).map_err(|_| failed(ffi::SQLITE_MISUSE))?;
    let at = i64::try_from(offset).map_err(|_| failed(ffi::SQLITE_MISUSE))?;
    // SAFETY: as in `db_size`; xRead fills at most `length` bytes, and zeroes what a short read leaves.
    let code = unsafe {
        let methods = methods(file).ok_or(failed(ffi::SQLITE_MISUSE))?;
        let read = (*methods).xRead.ok_or(failed(ffi::SQLITE_MISUSE))?;
        read(file, buffer.as_mut_ptr().cast::<c_void>(), length, at)
    };
    if code == ffi::SQLITE_OK || code == ffi::SQLITE_IOERR_SHORT_READ { Ok(()) } else { Err(failed(code)) }
}
