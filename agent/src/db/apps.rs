//! The apps as they were last deployed, and what is made once for each.

use flipside_api::{AppName, ReleaseId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Db, DbError};
use crate::app::record::App;

type Raw = (String, Vec<u8>, String, bool);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn app((spec, env, release, stopped): Raw) -> Result<App, DbError> {
    let spec = serde_json::from_str(&spec).map_err(|error| DbError::Damaged(format!("a spec: {error}")))?;
    let release = release.parse().map_err(|error| DbError::Damaged(format!("{error}")))?;
    Ok(App { spec, env, release, stopped })
}

/// Writes the app as it is now; `spec` is its spec as JSON.
pub(super) fn put(db: &Connection, app: &App, spec: &str) -> rusqlite::Result<usize> {
    db.execute(
        "INSERT INTO apps (app, spec, env, release, stopped) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (app) DO UPDATE SET spec = ?2, env = ?3, release = ?4, stopped = ?5",
        params![app.spec.app.as_str(), spec, app.env, app.release.as_str(), app.stopped],
    )
}

/// Keeps the environment that the deployment `id` has brought with its release. A rollback brings none of its own.
pub(super) fn keep_env(db: &Connection, id: &str, app: &App) -> rusqlite::Result<()> {
    let (name, release) = (app.spec.app.as_str(), app.release.as_str());
    db.execute(
        "INSERT INTO kept (app, name, value) SELECT ?1, ?2, ?3 FROM deployments WHERE id = ?4 AND verb <> 'rollback'
         ON CONFLICT (app, name) DO UPDATE SET value = excluded.value",
        params![name, env_key(release), app.env, id],
    )?;
    // Of releases that were long gone nothing is kept.
    db.execute(
        "DELETE FROM kept WHERE app = ?1 AND name LIKE 'env %' AND substr(name, 5) NOT IN
            (SELECT release FROM deployments WHERE app = ?1 AND release IS NOT NULL ORDER BY seq DESC LIMIT ?2)",
        params![name, ENVIRONMENTS],
    )
    .map(drop)
}

/// Of how many of the newest deployments the environments are kept.
const ENVIRONMENTS: u32 = 50;

/// Under what name the environment of a release is kept.
fn env_key(release: &str) -> String {
    format!("env {release}")
}

impl Db {
    /// The app of that name.
    ///
    /// # Errors
    /// When the database fails or holds nonsense.
    pub async fn app(&self, name: &AppName) -> Result<Option<App>, DbError> {
        let name = name.to_string();
        let found = self
            .with("read an app", move |db| {
                let query = "SELECT spec, env, release, stopped FROM apps WHERE app = ?1";
                db.query_row(query, [name], raw).optional()
            })
            .await?;
        found.map(app).transpose()
    }

    /// All apps, by name.
    ///
    /// # Errors
    /// When the database fails or holds nonsense.
    pub async fn apps(&self) -> Result<Vec<App>, DbError> {
        let all = self
            .with("read the apps", |db| {
                db.prepare("SELECT spec, env, release, stopped FROM apps ORDER BY app")?
                    .query_map([], raw)?
                    .collect::<Result<Vec<_>, _>>()
            })
            .await?;
        all.into_iter().map(app).collect()
    }

    /// Remembers whether the app is stopped on purpose.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_stopped(&self, name: &AppName, stopped: bool) -> Result<(), DbError> {
        let name = name.to_string();
        self.with("write an app's state", move |db| {
            db.execute("UPDATE apps SET stopped = ?2 WHERE app = ?1", params![name, stopped])
        })
        .await
        .map(drop)
    }

    /// Forgets the app; its history stays.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_app(&self, name: &AppName) -> Result<(), DbError> {
        let name = name.to_string();
        self.with("forget an app", move |db| {
            db.execute("DELETE FROM kept WHERE app = ?1 AND name LIKE 'env %'", [&name])?;
            db.execute("DELETE FROM apps WHERE app = ?1", [&name])
        })
        .await
        .map(drop)
    }

    /// The environment that a release was last deployed with.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn env_of(&self, name: &AppName, release: &ReleaseId) -> Result<Option<Vec<u8>>, DbError> {
        let (name, key) = (name.to_string(), env_key(release.as_str()));
        self.with("read an environment", move |db| {
            let query = "SELECT value FROM kept WHERE app = ?1 AND name = ?2";
            db.query_row(query, [&name, &key], |row| row.get(0)).optional()
        })
        .await
    }

    /// What was kept for the app under `key`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn kept(&self, name: &AppName, key: &'static str) -> Result<Option<Vec<u8>>, DbError> {
        let name = name.to_string();
        self.with("read what is kept", move |db| {
            let query = "SELECT value FROM kept WHERE app = ?1 AND name = ?2";
            db.query_row(query, [&name, key], |row| row.get(0)).optional()
        })
        .await
    }

    /// Keeps `value` for the app under `key`, unless something is kept there already; returns what is kept.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep(&self, name: &AppName, key: &'static str, value: Vec<u8>) -> Result<Vec<u8>, DbError> {
        let name = name.to_string();
        self.with("keep a value", move |db| {
            db.execute(
                "INSERT INTO kept (app, name, value) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![name, key, value],
            )?;
            let query = "SELECT value FROM kept WHERE app = ?1 AND name = ?2";
            db.query_row(query, [&name, key], |row| row.get(0))
        })
        .await
    }
}
