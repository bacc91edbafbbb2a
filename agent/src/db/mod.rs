//! `agent.db`: what the agent must not forget. The one place of SQL.
//!
//! Environments are here only as ciphertext to the host's own identity; this module never sees them open.

mod apps;
mod deployments;
mod migrate;
pub mod outbox;
mod records;
mod requests;

use std::{
    fs::{self, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::Connection;

/// What can go wrong with the agent's own database.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite refused.
    #[error("agent.db: cannot {what}")]
    Sql {
        /// What was attempted.
        what: &'static str,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// The file was written by a newer agent.
    #[error(
        "{} was written by a newer agent (schema {found}, this one knows {known}): install that one again, or put \
         back the copy {}.v{known}",
        path.display(), path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The file cannot be made ours alone.
    #[error("cannot keep others from {}", path.display())]
    Private {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is stored makes no sense.
    #[error("agent.db: {0}")]
    Damaged(String),
    /// The agent is ending.
    #[error("agent.db: the agent is ending")]
    Ending,
}

/// The database. Clones share one connection: the agent writes little, and one after the other.
#[derive(Debug, Clone)]
pub struct Db {
    connection: Arc<Mutex<Connection>>,
}

impl Db {
    /// Opens the database at `path`, makes it where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// When it cannot be opened, is damaged, or is newer than this agent.
    pub fn open(path: &Path) -> Result<Self, DbError> {
        let sql = |what| move |source| DbError::Sql { what, source };
        private(path)?;
        let connection = Connection::open(path).map_err(sql("open it"))?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(sql("set its timeout"))?;
        connection
            .execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")
            .map_err(sql("configure it"))?;
        migrate::migrate(&connection, path)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Runs `work` on the connection, on a thread that may block.
    async fn with<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, DbError> {
        let connection = Arc::clone(&self.connection);
        tokio::task::spawn_blocking(move || {
            // A panic in the middle of a transaction has rolled it back: the connection is still sound.
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection)
        })
        .await
        .map_err(|_| DbError::Ending)?
        .map_err(|source| DbError::Sql { what, source })
    }
}

/// Makes the file where it is missing, and keeps everybody else from it: others may pass through its folder.
/// SQLite's own files beside it take its mode.
fn private(path: &Path) -> Result<(), DbError> {
    let failed = |source| DbError::Private { path: path.to_owned(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    // An earlier agent may have made them.
    for left in ["", "-wal", "-shm"] {
        let left = format!("{}{left}", path.display());
        if Path::new(&left).exists() {
            fs::set_permissions(left, Permissions::from_mode(0o600)).map_err(failed)?;
        }
    }
    file.map(drop).map_err(failed)
}

fn to_json(value: &impl serde::Serialize) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|error| DbError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests;
