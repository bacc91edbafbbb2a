//! The outcomes of requests that carried an id: one that comes again gets the same answer.

use flipside_api::{AppName, Outcome};
use rusqlite::{OptionalExtension, params};

use super::{Db, DbError, to_json};

/// How many answers are kept.
const KEPT: u32 = 5000;

impl Db {
    /// The recorded answer, if the request was answered.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn answered(&self, id: &str, verb: &str, app: &AppName) -> Result<Option<Outcome>, DbError> {
        let key = [id.to_owned(), verb.to_owned(), app.to_string()];
        let text: Option<String> = self
            .with("read an answer", move |db| {
                let query = "SELECT outcome FROM requests WHERE id = ?1 AND verb = ?2 AND app = ?3";
                db.query_row(query, key, |row| row.get(0)).optional()
            })
            .await?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Records an answer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn answer(
        &self,
        (id, verb, app): (&str, &str, &AppName),
        outcome: &Outcome,
        at: i64,
    ) -> Result<(), DbError> {
        let key = (id.to_owned(), verb.to_owned(), app.to_string());
        let outcome = to_json(outcome)?;
        self.with("record an answer", move |db| {
            db.execute(
                "INSERT INTO requests (id, verb, app, outcome, at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET outcome = excluded.outcome, at = excluded.at",
                params![key.0, key.1, key.2, outcome, at],
            )?;
            db.execute(
                "DELETE FROM requests
                 WHERE rowid NOT IN (SELECT rowid FROM requests ORDER BY rowid DESC LIMIT ?1)",
                [KEPT],
            )
        })
        .await
        .map(drop)
    }
}
