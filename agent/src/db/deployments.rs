//! Deployments with their journals: what was begun, how far it came, how it ended.

use flipside_api::{AppName, Outcome, ReleaseId, Who};
use rusqlite::{Row, params};

use super::{Db, DbError, apps, to_json};
use crate::app::{
    deployment::Event,
    record::{App, Begin, Entry, Unfinished},
};

/// How many entries of history an app keeps, and how many of them may be one-off commands: a rollback looks for the
/// deploys.
const HISTORY: u32 = 500;
const RUNS: u32 = 100;

impl Db {
    /// Records that something begins.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin(&self, begin: Begin) -> Result<(), DbError> {
        self.with("begin a deployment", move |db| {
            db.execute(
                "INSERT INTO deployments
                    (id, app, verb, release, previous, via, user, request, uid, started, work, env)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                params![
                    begin.id,
                    begin.app.as_str(),
                    begin.verb,
                    begin.release.as_ref().map(ReleaseId::as_str),
                    begin.previous.as_ref().map(ReleaseId::as_str),
                    begin.who.via,
                    begin.who.user,
                    begin.who.id,
                    begin.who.uid,
                    begin.at,
                    begin.work,
                    begin.env,
                ],
            )
        })
        .await
        .map(drop)
    }

    /// Records another work for a deployment.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revise(&self, id: &str, work: String) -> Result<(), DbError> {
        let id = id.to_owned();
        self.with("revise a deployment", move |db| {
            db.execute("UPDATE deployments SET work = ?2 WHERE id = ?1 AND ended IS NULL", params![id, work])
        })
        .await
        .map(drop)
    }

    /// Records an event of a deployment.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record(&self, id: &str, event: Event, at: i64, message: String) -> Result<(), DbError> {
        let id = id.to_owned();
        let (word, step) = event.parts();
        self.with("record a step", move |db| {
            db.execute(
                "INSERT INTO steps (deployment, seq, event, step, at, message)
                 VALUES (?1, (SELECT count(*) FROM steps WHERE deployment = ?1), ?2, ?3, ?4, ?5)",
                params![id, word, step.map(|step| step.name()), at, message],
            )
        })
        .await
        .map(drop)
    }

    /// Ends something, in one transaction with what the app is now and the answer to whoever asks again.
    ///
    /// # Errors
    /// When the database fails; then nothing of it is recorded.
    pub async fn end(&self, id: &str, outcome: &Outcome, at: i64, app: Option<App>) -> Result<(), DbError> {
        let id = id.to_owned();
        let outcome = to_json(outcome)?;
        let spec = app.as_ref().map(|app| to_json(&app.spec)).transpose()?;
        self.with("end a deployment", move |db| {
            let transaction = db.transaction()?;
            transaction.execute(
                "UPDATE deployments SET ended = ?2, outcome = ?3, work = NULL, env = NULL WHERE id = ?1",
                params![id, at, outcome],
            )?;
            transaction.execute(
                "INSERT INTO requests (id, verb, app, outcome, at)
                 SELECT request, verb, app, outcome, ?2 FROM deployments WHERE id = ?1 AND request IS NOT NULL
                 ON CONFLICT DO UPDATE SET outcome = excluded.outcome, at = excluded.at",
                params![id, at],
            )?;
            if let (Some(app), Some(spec)) = (app, spec) {
                apps::put(&transaction, &app, &spec)?;
                apps::keep_env(&transaction, &id, &app)?;
            }
            transaction.execute(
                "DELETE FROM deployments
                 WHERE ended IS NOT NULL AND app = (SELECT app FROM deployments WHERE id = ?1)
                    AND seq NOT IN (SELECT seq FROM deployments
                        WHERE app = (SELECT app FROM deployments WHERE id = ?1)
                        ORDER BY seq DESC LIMIT ?2)",
                params![id, HISTORY],
            )?;
            transaction.execute(
                "DELETE FROM deployments
                 WHERE ended IS NOT NULL AND verb = 'run'
                    AND app = (SELECT app FROM deployments WHERE id = ?1)
                    AND seq NOT IN (SELECT seq FROM deployments
                        WHERE app = (SELECT app FROM deployments WHERE id = ?1) AND verb = 'run'
                        ORDER BY seq DESC LIMIT ?2)",
                params![id, RUNS],
            )?;
            transaction.commit()
        })
        .await
    }

    /// What was begun and has not ended, oldest first.
    ///
    /// # Errors
    /// When the database fails or holds nonsense.
    pub async fn unfinished(&self) -> Result<Vec<Unfinished>, DbError> {
        let rows = self
            .with("read unfinished deployments", |db| {
                let mut found = Vec::new();
                let mut all = db.prepare(
                    "SELECT id, app, verb, release, previous, via, user, request, uid, started, work, env
                     FROM deployments WHERE ended IS NULL ORDER BY seq",
                )?;
                let mut steps =
                    db.prepare("SELECT event, step, message FROM steps WHERE deployment = ?1 ORDER BY seq")?;
                for row in all.query_map([], raw)? {
                    let row = row?;
                    let events = steps
                        .query_map([&row.id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                        .collect::<Result<Vec<(String, Option<String>, String)>, _>>()?;
                    found.push((row, events));
                }
                Ok(found)
            })
            .await?;
        rows.into_iter()
            .map(|(row, events)| {
                let failed = events.iter().find(|(word, _, _)| word == "failed");
                let failure = failed.map(|(_, _, message)| message.clone());
                let events = events
                    .into_iter()
                    .map(|(word, step, _)| {
                        let step = step.map(|step| step.parse()).transpose().ok().flatten();
                        Event::from_parts(&word, step).ok_or_else(|| {
                            DbError::Damaged(format!("the journal of {} says {word:?}", row.id))
                        })
                    })
                    .collect::<Result<_, _>>()?;
                Ok(Unfinished { begin: row.begin()?, events, failure })
            })
            .collect()
    }

    /// The newest `limit` entries of an app's history, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn history(&self, app: &AppName, limit: u32) -> Result<Vec<Entry>, DbError> {
        let app = app.to_string();
        self.with("read the history", move |db| {
            db.prepare(
                "SELECT id, verb, release, via, user, request, uid, started, ended, outcome
                 FROM deployments WHERE app = ?1 ORDER BY seq DESC LIMIT ?2",
            )?
            .query_map(params![app, limit], entry)?
            .collect()
        })
        .await
    }
}

struct Raw {
    id: String,
    app: String,
    verb: String,
    release: Option<String>,
    previous: Option<String>,
    who: Who,
    at: i64,
    work: Option<String>,
    env: Option<Vec<u8>>,
}

/// Who asked: `via`, `user`, `request` and `uid`, from the column `first` on.
pub(super) fn who(row: &Row<'_>, first: usize) -> rusqlite::Result<Who> {
    Ok(Who {
        via: row.get(first)?,
        user: row.get(first + 1)?,
        id: row.get(first + 2)?,
        uid: row.get(first + 3)?,
    })
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        id: row.get(0)?,
        app: row.get(1)?,
        verb: row.get(2)?,
        release: row.get(3)?,
        previous: row.get(4)?,
        who: who(row, 5)?,
        at: row.get(9)?,
        work: row.get(10)?,
        env: row.get(11)?,
    })
}

impl Raw {
    fn begin(self) -> Result<Begin, DbError> {
        let wrong = |error: flipside_api::NameError| DbError::Damaged(error.to_string());
        let parse = |id: Option<String>| id.map(|id| id.parse::<ReleaseId>()).transpose();
        Ok(Begin {
            id: self.id,
            app: self.app.parse().map_err(wrong)?,
            verb: self.verb,
            release: parse(self.release).map_err(wrong)?,
            previous: parse(self.previous).map_err(wrong)?,
            who: self.who,
            at: self.at,
            work: self.work,
            env: self.env,
        })
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let outcome: Option<String> = row.get(9)?;
    Ok(Entry {
        id: row.get(0)?,
        verb: row.get(1)?,
        release: row.get(2)?,
        who: who(row, 3)?,
        at: row.get(7)?,
        ended: row.get(8)?,
        // An entry of an older agent that cannot be understood is shown without its outcome.
        outcome: outcome.and_then(|text| serde_json::from_str(&text).ok()),
    })
}
