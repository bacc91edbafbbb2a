//! Questions that change nothing: versions, state, history.

use flipside_api::{AppName, Failure, History, Outcome, State, VERSION};
use serde_json::{Map, Value, json};

use super::{Router, crew};
use crate::{
    app::record::App,
    deploy,
    host::Host,
    runtime::{Observed, Worker, holder::protocol::CrewState},
    sys::{clock, users},
};

/// The versions of the agent and of the contract.
pub(super) fn version() -> Outcome {
    Outcome::answer(json!({ "agent": env!("CARGO_PKG_VERSION"), "api": VERSION }))
}

/// The host and one app, or all.
pub(super) async fn status(router: &Router, only: Option<&AppName>) -> Result<Outcome, Failure> {
    let host = &router.host;
    let mut apps = Map::new();
    for app in host.records.apps().await? {
        if only.is_none_or(|only| *only == app.spec.app) {
            apps.insert(app.spec.app.to_string(), one(router, &app).await);
        }
    }
    if let Some(only) = only.filter(|only| !apps.contains_key(only.as_str())) {
        return Err(super::not_deployed(only));
    }
    let about = json!({
        "id": host.config.id,
        "agent": env!("CARGO_PKG_VERSION"),
        "up_seconds": (clock::now_ms() - host.started).max(0) / 1000,
        "recipient": host.keyring.recipient(),
        "isolated": users::am_root(),
        "isolation": if users::am_root() { "each app has a user of its own" } else { "all runs under one uid" },
        "apps": apps.len(),
        "backup": host.config.backup.is_some(),
    });
    Ok(Outcome::answer(json!({ "host": about, "apps": apps })))
}

async fn one(router: &Router, app: &App) -> Value {
    let paths = router.host.paths(&app.spec.app);
    let observed = match router.host.runtime(app.spec.runtime) {
        Ok(runtime) => runtime.observe(&paths).await,
        Err(failure) => Err(failure),
    };
    // A limit that nobody keeps to is told as such.
    let limited = router.host.runtime(app.spec.runtime).is_ok_and(|runtime| runtime.limits_memory());
    let (observed, problem) = match observed {
        Ok(mut observed) => {
            let problem = observed.problem.take();
            (observed, problem)
        }
        Err(failure) => (Observed::default(), Some(failure.message)),
    };
    let serving = observed.workers.iter().filter(|w| w.accepting && w.release.as_ref() == Some(&app.release));
    let state = match (app.stopped, observed.listening, serving.count()) {
        (true, false, _) => "stopped",
        (_, false, _) => "down",
        (_, true, n) if n > 0 && n == observed.workers.len() => "running",
        (_, true, _) => "degraded",
    };
    let crew = match router.host.runtime(app.spec.runtime) {
        Ok(runtime) => runtime.crew(&paths).await.unwrap_or_default(),
        Err(_) => CrewState::default(),
    };
    json!({
        "release": app.release,
        "state": state,
        "problem": problem,
        "problems": crew::problems(&crew, clock::now_ms()).into_iter().map(|it| it.text).collect::<Vec<_>>(),
        "background": crew.background.iter().map(crew::post).collect::<Vec<_>>(),
        "schedule": crew.schedule.iter().map(crew::timed).collect::<Vec<_>>(),
        "busy": router.locks.holder(&app.spec.app),
        "runtime": app.spec.runtime,
        "memory": app.spec.memory,
        "memory_enforced": app.spec.memory.map(|_| limited),
        "domains": app.spec.domains,
        "url": app.spec.public_url,
        "vhost": app.spec.vhost,
        "backup": router.backups.status(app).await,
        "maintenance": paths.maintenance().exists(),
        "workers": observed.workers.iter().map(worker).collect::<Vec<_>>(),
    })
}

fn worker(worker: &Worker) -> Value {
    json!({
        "id": worker.id,
        "pid": worker.pid,
        "accepting": worker.accepting,
        "busy": worker.busy,
        "release": worker.release,
        "rss": worker.rss,
        "requests": worker.requests,
        "respawns": worker.respawns,
    })
}

/// What was done to an app.
pub(super) async fn history(host: &Host, asked: &History) -> Result<Outcome, Failure> {
    let limit = asked.limit.clamp(1, 500);
    let entries = host.records.history(&asked.app, limit).await?;
    let entries: Vec<Value> = entries
        .iter()
        .map(|entry| {
            let outcome = entry.outcome.as_ref();
            let error = outcome.and_then(|outcome| outcome.error.as_ref());
            json!({
                "id": entry.id,
                "verb": entry.verb,
                "release": entry.release,
                "state": outcome.map_or(json!("running"), |outcome| json!(outcome.state)),
                "at": clock::rfc3339(entry.at),
                "who": entry.who,
                // The wall clock may have been put back in between; what the outcome says was measured.
                "ms": entry.ended.map(|ended| match outcome.map_or(0, |outcome| outcome.ms) {
                    0 => u64::try_from(ended - entry.at).unwrap_or(0),
                    ms => ms,
                }),
                "message": error.map_or_else(
                    || outcome.map_or("", |outcome| outcome.comment.as_str()),
                    |error| error.message.as_str(),
                ),
            })
        })
        .collect();
    Ok(Outcome::answer(Value::Array(entries)))
}

/// The releases of an app that are on this host, newest first.
pub(super) async fn releases(host: &Host, app: &AppName) -> Result<Outcome, Failure> {
    let known = host.records.app(app).await?.ok_or_else(|| super::not_deployed(app))?;
    let history = host.records.history(app, 500).await?;
    let marks = deploy::marks(&history);
    let mut found: Vec<(i64, Value)> = deploy::installed(&host.paths(app))
        .into_iter()
        .map(|(release, installed)| {
            let deployed = history.iter().find(|entry| {
                let outcome = entry.outcome.as_ref();
                outcome.is_some_and(|it| it.state == State::Deployed && it.release.as_ref() == Some(&release))
            });
            let at = deployed.map_or(installed, |entry| entry.at);
            let mark = marks.get(&release).map(|id| host.paths(app).marks().join(id));
            (
                at,
                json!({
                    "release": release,
                    "current": release == known.release,
                    "at": clock::rfc3339(at),
                    "who": deployed.map(|entry| &entry.who),
                    "mark_bytes": mark.and_then(|mark| deploy::mark_bytes(&mark)),
                }),
            )
        })
        .collect();
    found.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    Ok(Outcome::answer(found.into_iter().map(|(_, release)| release).collect()))
}

/// The names in an app's environment, never the values.
pub(super) fn env_names(host: &Host, app: &AppName) -> Result<Outcome, Failure> {
    let path = host.paths(app).env_file();
    if !path.exists() {
        return Err(super::not_deployed(app));
    }
    let names: Vec<String> = deploy::read_env(&path)?.into_keys().collect();
    Ok(Outcome::answer(json!({ "names": names })))
}
