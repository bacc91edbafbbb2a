//! The schema, version by version; `user_version` says how far a file has come.

use std::path::Path;

use rusqlite::Connection;

use super::DbError;

/// Each entry takes the schema one version further. Entries are never changed, only added.
pub(super) const STEPS: [&str; 3] = [
    "
CREATE TABLE apps (
    app TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    env BLOB NOT NULL,
    release TEXT NOT NULL,
    stopped INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE kept (
    app TEXT NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (app, name)
) STRICT;
CREATE TABLE deployments (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    app TEXT NOT NULL,
    verb TEXT NOT NULL,
    release TEXT,
    previous TEXT,
    via TEXT NOT NULL,
    user TEXT NOT NULL,
    request TEXT,
    started INTEGER NOT NULL,
    ended INTEGER,
    work TEXT,
    env BLOB,
    outcome TEXT
) STRICT;
CREATE INDEX deployments_app ON deployments (app, seq);
CREATE TABLE steps (
    deployment TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    event TEXT NOT NULL,
    step TEXT,
    at INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (deployment, seq)
) STRICT;
CREATE TABLE requests (
    id TEXT NOT NULL,
    verb TEXT NOT NULL,
    app TEXT NOT NULL,
    outcome TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (id, verb, app)
) STRICT;
",
    // What ended before there was an outbox is nobody's news.
    "
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    tag TEXT NOT NULL,
    data TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;
ALTER TABLE deployments ADD COLUMN announced INTEGER NOT NULL DEFAULT 0;
UPDATE deployments SET announced = 1 WHERE ended IS NOT NULL;
",
    "ALTER TABLE deployments ADD COLUMN uid INTEGER;",
];

/// Brings the schema up to date; a file that holds something is copied first.
pub(super) fn migrate(connection: &Connection, path: &Path) -> Result<(), DbError> {
    let sql = |what| move |source| DbError::Sql { what, source };
    let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    let found: u32 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sql("read its version"))?;
    if found > known {
        return Err(DbError::Newer { path: path.to_owned(), found, known });
    }
    if found > 0 && found < known {
        let copy = format!("{}.v{found}", path.display());
        let copied = std::fs::metadata(&copy).is_ok_and(|copy| copy.len() > 0);
        if !copied {
            super::private(Path::new(&copy))?;
            connection.execute("VACUUM INTO ?1", [copy]).map_err(sql("copy it before its migration"))?;
        }
    }
    for (version, step) in (1..).zip(STEPS).skip(found as usize) {
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {step} PRAGMA user_version = {version}; COMMIT;"))
            .map_err(sql("migrate it"))?;
    }
    Ok(())
}
