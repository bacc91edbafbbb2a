//! Answers on their way to the master: kept until the minion's bus has taken them.
//!
//! A deployment's end and its answer are two writes; a crash between them leaves a deployment that is ended and
//! not announced, which [`Db::unannounced`] finds.

use flipside_api::{Outcome, Who};
use rusqlite::params;

use super::{Db, DbError, deployments::who};

/// How many answers wait at most; the oldest go first.
const KEPT: u32 = 2000;

/// An answer that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its place in the queue.
    pub seq: i64,
    /// The event's tag.
    pub tag: String,
    /// The event's data as JSON.
    pub data: String,
}

/// What an answer is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The deployment, where its id is known.
    pub deployment: Option<String>,
    /// The app.
    pub app: String,
    /// The verb.
    pub verb: String,
    /// The id of the request.
    pub request: Option<String>,
}

/// A deployment that has ended, and whose answer nobody has written yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Unannounced {
    /// The deployment's id.
    pub id: String,
    /// The app.
    pub app: String,
    /// The verb.
    pub verb: String,
    /// Who asked.
    pub who: Who,
    /// How it ended.
    pub outcome: Outcome,
}

impl Db {
    /// Queues an answer, and in the same transaction marks what it is about as announced, where that has a
    /// record of its own.
    ///
    /// # Errors
    /// When the database fails; then neither is done.
    pub async fn announce(&self, about: About, tag: String, data: String, at: i64) -> Result<(), DbError> {
        self.with("queue an answer", move |db| {
            let transaction = db.transaction()?;
            // One command at a time works on an app: without an id the last of its kind is meant.
            transaction.execute(
                "UPDATE deployments SET announced = 1
                 WHERE announced = 0 AND ended IS NOT NULL
                    AND CASE WHEN ?1 IS NOT NULL THEN id = ?1
                        ELSE app = ?2 AND verb = ?3 AND request IS ?4 END",
                params![about.deployment, about.app, about.verb, about.request],
            )?;
            transaction
                .execute("INSERT INTO outbox (tag, data, at) VALUES (?1, ?2, ?3)", params![tag, data, at])?;
            transaction.execute(
                "DELETE FROM outbox WHERE seq <= (SELECT max(seq) FROM outbox) - ?1",
                [i64::from(KEPT)],
            )?;
            transaction.commit()
        })
        .await
    }

    /// The oldest answers that wait: at most `rows`, and of `bytes` in all unless the first alone has more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting(&self, rows: u32, bytes: usize) -> Result<Vec<Waiting>, DbError> {
        let mut all = self
            .with("read the outbox", move |db| {
                db.prepare("SELECT seq, tag, data FROM outbox ORDER BY seq LIMIT ?1")?
                    .query_map([rows], |row| {
                        Ok(Waiting { seq: row.get(0)?, tag: row.get(1)?, data: row.get(2)? })
                    })?
                    .collect::<Result<Vec<_>, _>>()
            })
            .await?;
        let mut sum = 0;
        let fit = all
            .iter()
            .take_while(|waiting| {
                sum += waiting.data.len();
                sum <= bytes
            })
            .count();
        all.truncate(fit.max(1));
        Ok(all)
    }

    /// Forgets answers that were taken: all up to `seq`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn taken(&self, seq: i64) -> Result<(), DbError> {
        self.with("empty the outbox", move |db| db.execute("DELETE FROM outbox WHERE seq <= ?1", [seq]))
            .await
            .map(drop)
    }

    /// Deployments that ended between `since` and `until` without an answer, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unannounced(&self, since: i64, until: i64) -> Result<Vec<Unannounced>, DbError> {
        let rows = self
            .with("read unannounced deployments", move |db| {
                db.prepare(
                    "SELECT id, app, verb, via, user, request, uid, outcome FROM deployments
                     WHERE announced = 0 AND outcome IS NOT NULL AND ended BETWEEN ?1 AND ?2
                     ORDER BY seq LIMIT 100",
                )?
                .query_map([since, until], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, who(row, 3)?, row.get(7)?))
                })?
                .collect::<Result<Vec<(String, String, String, Who, String)>, _>>()
            })
            .await?;
        rows.into_iter()
            .map(|(id, app, verb, who, outcome)| {
                let outcome = serde_json::from_str(&outcome)
                    .map_err(|error| DbError::Damaged(format!("the outcome of {id}: {error}")))?;
                Ok(Unannounced { id, app, verb, who, outcome })
            })
            .collect()
    }
}
