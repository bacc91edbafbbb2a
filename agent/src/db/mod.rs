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

fn to_json(value: &impl serde::Serialize) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|error| DbError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests;
