//! The backups of a host that has a store: the verbs, and the rehearsals.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use flipside_api::{AppName, AppSpec, Code, Failure, Outcome, Progress, Restore, State, StepReport};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Backups,
    job::{Fetched, Task},
    place::Place,
    record::Record,
    watch::Watch,
};
use crate::{
    app::record::App,
    host::{Host, fault},
    progress::Channel,
    runtime::crew::Runs,
    sys::clock,
};

/// How long looking at a whole store may take, and a restore.
const LOOK: Duration = Duration::from_secs(3600);
const FETCH: Duration = Duration::from_secs(24 * 3600);
const SWAP: Duration = Duration::from_secs(600);
/// How often is seen whether a rehearsal is due; one that failed is tried again after an hour.
const DUE: Duration = Duration::from_secs(5);
const HOUR_MS: i64 = 3600 * 1000;

/// Rehearsals that failed: when and why.
type Rehearsals = HashMap<(AppName, String), (i64, String)>;

/// The backups of this host.
pub struct Stored {
    watch: Arc<Watch>,
    failed: Mutex<Rehearsals>,
}

impl Stored {
    /// Backups to the store of the host's configuration; nothing where it names none.
    pub fn new(host: &Arc<Host>) -> Option<Arc<Self>> {
        let config = host.config.backup.clone()?;
        let place = Arc::new(Place { host: Arc::clone(host), config });
        Some(Arc::new(Self { watch: Watch::new(place), failed: Mutex::default() }))
    }

    /// Follows and rehearses until `stop`; returns when every follower has ended.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(self.watch.run(&stop), self.rehearsals(&stop));
    }

    fn place(&self) -> &Place {
        &self.watch.place
    }

    async fn rehearsals(&self, stop: &CancellationToken) {
        if self.place().config.identity_file.is_none() {
            return;
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(DUE) => {}
            }
            for (spec, database, seen) in self.watch.all() {
                if !seen.report.snapshot || !self.is_due(&spec, &database) {
                    continue;
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.rehearse(&spec, &database) => {}
                }
            }
        }
    }

    fn is_due(&self, spec: &AppSpec, database: &str) -> bool {
        let (now, every) = (clock::now_ms(), i64::from(self.place().config.rehearse_hours) * HOUR_MS);
        let failed = self.failed().get(&(spec.app.clone(), database.to_owned())).map(|(at, _)| *at);
        now - self.watch.register.get(&spec.app, database).verified_ms >= every
            && failed.is_none_or(|at| now - at >= HOUR_MS)
    }

    /// Restores one database into scratch, and remembers how that went.
    async fn rehearse(&self, spec: &AppSpec, database: &str) {
        let task = Task::Rehearse { databases: vec![database.to_owned()] };
        let done = match self.place().identity(None) {
            Ok(identity) => self.place().run(spec, identity, task, FETCH, None).await,
            Err(failure) => Err(failure),
        };
        let problem = match done {
            Ok(rows) => rows[0]["error"].as_str().map(str::to_owned),
            Err(failure) => Some(failure.message),
        };
        let key = (spec.app.clone(), database.to_owned());
        let Some(problem) = problem else {
            self.failed().remove(&key);
            let verified_ms = clock::now_ms();
            let record = Record { verified_ms, ..self.watch.register.get(&spec.app, database) };
            if let Err(error) = self.watch.register.put(&record) {
                tracing::error!(error, "FollowerRecordFailed");
            }
            return;
        };
        tracing::error!(app = %spec.app, database, problem, "RehearsalFailed");
        self.failed().insert(key, (clock::now_ms(), problem));
    }

    fn failed(&self) -> MutexGuard<'_, Rehearsals> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a child put files in place. Whatever becomes of that, an app that listens, or waits since an agent was
    /// killed, serves afterwards.
    async fn swap(&self, app: &App, task: Task) -> Result<Value, Failure> {
        let host = &self.place().host;
        let (runtime, paths) = (host.runtime(app.spec.runtime)?, host.paths(&app.spec.app));
        let instance = host.instance(&app.spec, host.account(&app.spec)?);
        let up = runtime.observe(&paths).await?.listening;
        // Whatever writes beside the web workers ends first; the caller brings it back.
        let held = match runtime.dismiss(&paths, Runs::End).await {
            Ok(()) if up => runtime.hold(&paths).await,
            dismissed => dismissed,
        };
        let swapped = match held {
            Ok(()) => self.place().run(&app.spec, None, task, SWAP, None).await,
            Err(failure) => Err(failure),
        };
        let started = if up { runtime.start(&instance, &app.release).await } else { Ok(()) };
        let swapped = swapped?;
        started.map(|()| swapped)
    }
}

fn no_identity() -> Failure {
    Failure::new(Code::Gate, "nothing can be restored without an identity: this host can encrypt only").hint(
        "restore with `flipside restore APP --identity FILE`, or name one in [backup] identity_file of agent.toml",
    )
}

/// The instant in milliseconds.
fn instant(text: &str) -> Result<u64, Failure> {
    text.parse::<jiff::Timestamp>()
        .ok()
        .and_then(|time| u64::try_from(time.as_millisecond()).ok())
        .ok_or_else(|| {
            Failure::new(Code::Usage, format!("{text:?} is no time"))
                .hint("write it as 2026-01-31T12:00:00Z, with a Z or an offset")
        })
}

/// A step of the restore has ended well.
fn done(channel: &Channel, outcome: &mut Outcome, name: &str, (begun, message): (i64, String)) {
    let ms = u64::try_from(clock::now_ms() - begun).unwrap_or(0);
    channel.send(Progress { step: name.into(), event: "done".into(), message: message.clone(), ms });
    outcome.steps.push(StepReport { name: name.into(), ok: true, ms, message });
}

#[async_trait]
impl Backups for Stored {
    async fn backup(&self, app: &App) -> Result<Outcome, Failure> {
        if !app.spec.backup {
            return Err(Failure::new(Code::Gate, format!("{} has backup: false in pillar", app.spec.app)));
        }
        self.watch.look_now(app).await;
        let followers = self.watch.of(&app.spec.app);
        if followers.is_empty() {
            return Err(Failure::new(Code::NotFound, format!("{} has no database yet", app.spec.app))
                .hint("its pillar's databases name files of its data folder"));
        }
        let asked = followers.iter().map(|(_, follower)| follower.backup());
        let answers = futures_util::future::join_all(asked).await;
        let (mut rows, mut problems) = (Vec::new(), Vec::new());
        for ((database, _), answer) in followers.iter().zip(answers) {
            match answer {
                Ok(position) => rows.push(json!({ "database": database, "position": position })),
                Err(problem) => problems.push(format!("{database}: {problem}")),
            }
        }
        if problems.is_empty() {
            // Events carry the comment to the master: what it heard there is a witness against the store.
            let at = rows.iter().filter_map(|row| {
                Some(format!("{} at {}", row["database"].as_str()?, row["position"].as_str()?))
            });
            let comment = at.collect::<Vec<_>>().join(", ");
            return Ok(Outcome { comment, ..Outcome::answer(Value::Array(rows)) });
        }
        Err(Failure::new(Code::Backup, format!("not all is stored: {}", problems.join("; "))))
    }

    async fn list(&self, app: &App) -> Result<Outcome, Failure> {
        let known = self.watch.databases(&app.spec).await.into_iter().collect();
        let (identity, task) = (self.place().identity(None)?, Task::List { known });
        self.place().run(&app.spec, identity, task, LOOK, None).await.map(Outcome::answer)
    }

    async fn check(&self, app: &App) -> Result<Outcome, Failure> {
        let identity = self.place().identity(None)?;
        let rows = self.place().run(&app.spec, identity, Task::Check, LOOK, None).await?;
        let findings = rows.as_array().into_iter().flatten().filter_map(|row| row["findings"].as_array());
        let findings: Vec<String> =
            findings.flatten().map(|finding| finding.as_str().unwrap_or_default().to_owned()).collect();
        let mut outcome = Outcome::answer(rows);
        if !findings.is_empty() {
            let failure = Failure::new(Code::Backup, format!("{} findings in the store", findings.len()))
                .hint("docs/backups.md says what each means")
                .log(findings);
            outcome = Outcome { data: outcome.data, ..Outcome::bad(State::Failed, failure) };
        }
        Ok(outcome)
    }

    async fn restore(&self, app: &App, asked: &Restore, channel: &Arc<Channel>) -> Result<Outcome, Failure> {
        let identity = self.place().identity(asked.identity.as_deref())?.ok_or_else(no_identity)?;
        let time_ms = asked.timestamp.as_deref().map(instant).transpose()?;
        let mut begun = clock::now_ms();
        let mut outcome = Outcome::good(State::Ok, "");
        // Each follower has stored its last now; they go on while the files come.
        drop(self.watch.pause(&app.spec.app).await);
        done(channel, &mut outcome, "pause", (begun, "all that was captured is stored".into()));
        begun = clock::now_ms();
        let stamp = clock::rfc3339(begun).replace([':', '.', '-'], "");
        let aside = format!(".restoring-{stamp}");
        let (only, patterns) = (asked.database.clone(), app.spec.databases.clone());
        let task = Task::Fetch { only, patterns, time_ms, aside: aside.clone() };
        let fetched = self.place().run(&app.spec, Some(identity), task, FETCH, Some(channel)).await?;
        let fetched: Vec<Fetched> =
            serde_json::from_value(fetched).map_err(|error| fault("cannot understand the reader", &error))?;
        done(channel, &mut outcome, "fetch", (begun, format!("{} verified aside", fetched.len())));
        begun = clock::now_ms();
        // What was committed meanwhile is stored too, and nobody else has the databases open.
        let _pause = self.watch.pause(&app.spec.app).await;
        let databases = fetched.iter().map(|one| one.database.clone()).collect();
        match self.swap(app, Task::Swap { databases, aside, stamp: stamp.clone() }).await {
            Ok(kept) => done(channel, &mut outcome, "swap", (begun, format!("kept: {kept}"))),
            Err(failure) => {
                return Ok(Outcome { steps: outcome.steps, ..Outcome::bad(State::Failed, failure) });
            }
        }
        let time = |ms| clock::rfc3339(i64::try_from(ms).unwrap_or(i64::MAX));
        let row = |it: &Fetched| json!({ "database": it.database, "position": it.position, "time": time(it.time_ms), "bytes": it.bytes });
        outcome.data = Some(fetched.iter().map(row).collect());
        outcome.comment = format!("restored; what was there is kept as .replaced-{stamp}");
        Ok(outcome)
    }

    async fn recover(&self, app: &App) -> Result<Outcome, Failure> {
        let _pause = self.watch.pause(&app.spec.app).await;
        let found = self.swap(app, Task::Recover).await?;
        if found["finished"] == true {
            let comment = "the agent was killed while it put the files in place, and has finished now";
            return Ok(Outcome { data: Some(found["kept"].clone()), ..Outcome::good(State::Ok, comment) });
        }
        let failure = Failure::new(Code::Interrupted, "the agent was killed in the middle of it");
        Err(failure
            .hint("nothing of the app was touched, or all of it was done: see history and restore again"))
    }

    async fn status(&self, app: &App) -> Option<Value> {
        if !app.spec.backup {
            return None;
        }
        let (now, mut databases) = (clock::now_ms(), Map::new());
        for (database, follower) in self.watch.of(&app.spec.app) {
            let (seen, record) = (follower.seen(), self.watch.register.get(&app.spec.app, &database));
            let failed = self.failed().get(&(app.spec.app.clone(), database.clone())).cloned();
            let since = i64::try_from(seen.report.waiting_ms).unwrap_or(now);
            let lag = if since == 0 { 0 } else { (now - since).max(0) / 1000 };
            let error = [seen.problem, seen.report.error].into_iter().find(|text| !text.is_empty());
            let position = format!("{}:{}", seen.report.chain, seen.report.safe);
            databases.insert(
                database,
                json!({
                    "runs": seen.runs,
                    "lag_seconds": seen.runs.then_some(lag),
                    "position": (seen.report.safe > 0).then_some(position),
                    "verified_seconds": (record.verified_ms > 0).then(|| (now - record.verified_ms).max(0) / 1000),
                    "error": error,
                    "rehearsal_error": failed.map(|(_, problem)| problem),
                }),
            );
        }
        Some(Value::Object(databases))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_names_its_zone() {
        assert_eq!(instant("1970-01-01T00:00:01.5Z").unwrap(), 1500);
        assert_eq!(instant("1970-01-01T01:00:01+01:00").unwrap(), 1000);
        for text in ["yesterday", "2026-01-31T12:00:00", "1960-01-01T00:00:00Z", ""] {
            assert_eq!(instant(text).unwrap_err().code, Code::Usage, "{text}");
        }
    }
}
