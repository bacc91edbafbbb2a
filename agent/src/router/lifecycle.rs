//! The verbs that change what runs and not what it is. Each is in the history.

use std::sync::Arc;

use flipside_api::{AppName, Code, Failure, Outcome, Release, ReleaseId, Restore, State, Who};

use super::{Call, Router};
use crate::{
    app::record::{App, Begin},
    deploy,
    host::fault,
    runtime::{Runtime, crew::Runs},
    sys::{atomic_write, beneath, clock, trash},
};

/// Reload, restart, start, stop.
pub(super) async fn instance(router: &Router, call: &Call<'_>, asked: &Release) -> Result<Outcome, Failure> {
    let _held = router.hold(&asked.app, call.verb, call.who, asked.wait).await?;
    let app = router.known(&asked.app).await?;
    let runtime = router.host.runtime(app.spec.runtime)?;
    let id = begin(router, call.verb, call.who, &app).await?;
    let ended = change(router, call.verb, &app, runtime).await;
    end(router, &id, app.release, ended).await
}

async fn change(
    router: &Router,
    verb: &str,
    app: &App,
    runtime: Arc<dyn Runtime>,
) -> Result<&'static str, Failure> {
    let host = &router.host;
    let paths = host.paths(&app.spec.app);
    let spec = host.instance(&app.spec, host.account(&app.spec)?);
    let up = runtime.observe(&paths).await?.listening;
    if !up && matches!(verb, "reload" | "restart") {
        return Err(Failure::new(Code::Gate, format!("{} does not run", app.spec.app))
            .hint(format!("start it: flipside start {}", app.spec.app)));
    }
    match verb {
        "reload" => runtime.reload(&spec, &app.release).await.map(|()| "every worker is new"),
        "restart" => {
            runtime.dismiss(&paths, Runs::GoOn).await?;
            let replaced = runtime.replace(&spec, &app.release).await;
            deploy::settle(host, app).await?;
            replaced.map(|()| "a fresh instance serves")
        }
        "start" => {
            runtime.start(&spec, &app.release).await?;
            host.records.set_stopped(&app.spec.app, false).await?;
            deploy::settle(host, app).await?;
            Ok(if up { "it ran already" } else { "it runs" })
        }
        _ => {
            // First on record: an agent that is killed in between must not start it again.
            host.records.set_stopped(&app.spec.app, true).await?;
            runtime.dismiss(&paths, Runs::End).await?;
            runtime.stop(&paths).await?;
            Ok(if up { "it is stopped" } else { "it did not run" })
        }
    }
}

/// The databases as they were, from the store.
pub(super) async fn restore(router: &Router, call: &Call<'_>, asked: &Restore) -> Result<Outcome, Failure> {
    let _held = router.hold(&asked.app, call.verb, call.who, asked.wait).await?;
    let app = router.known(&asked.app).await?;
    let id = begin(router, call.verb, call.who, &app).await?;
    let ended = router.backups.restore(&app, asked, call.channel).await;
    deploy::settle_known(&router.host, &app.spec.app).await;
    // What fails before the swap has changed nothing.
    let outcome = ended.unwrap_or_else(|failure| Outcome::bad(State::Refused, failure));
    let outcome = Outcome { id: Some(id.clone()), release: Some(app.release), ..outcome };
    router.host.records.end(&id, &outcome, clock::now_ms(), None).await?;
    Ok(outcome)
}

/// Ends a restore that an agent which was killed has left.
pub(super) async fn recover_restore(router: &Router, begun: &Begin) -> Outcome {
    tracing::warn!(app = %begun.app, id = begun.id, "UnfinishedRestoreFound");
    let ended = match router.known(&begun.app).await {
        Ok(app) => router.backups.recover(&app).await,
        Err(failure) => Err(failure),
    };
    let outcome = ended.unwrap_or_else(|failure| Outcome::bad(State::Failed, failure));
    let outcome = Outcome { id: Some(begun.id.clone()), ..outcome };
    if let Err(error) = router.host.records.end(&begun.id, &outcome, clock::now_ms(), None).await {
        tracing::error!(id = begun.id, %error, "RestoreEndRecordFailed");
    }
    outcome
}

/// The maintenance page instead of the app, or no longer.
pub(super) async fn maintenance(
    router: &Router,
    call: &Call<'_>,
    name: &AppName,
    on: bool,
) -> Result<Outcome, Failure> {
    let app = router.known(name).await?;
    let id = begin(router, call.verb, call.who, &app).await?;
    let path = router.host.paths(name).maintenance();
    let done = if on {
        atomic_write::write(&path, b"", 0o644, None)
            .map(|()| "the maintenance page shows")
            .map_err(|error| fault("cannot show the maintenance page", &error))
    } else {
        beneath::remove_tree(&path)
            .map(|()| "the app shows")
            .map_err(|error| fault("cannot remove the maintenance page", &error))
    };
    end(router, &id, app.release, done).await
}

/// Stops the app and forgets it; data, uploads and backups stay.
pub(super) async fn remove(router: &Router, call: &Call<'_>, asked: &Release) -> Result<Outcome, Failure> {
    let _held = router.hold(&asked.app, call.verb, call.who, asked.wait).await?;
    let Some(app) = router.host.records.app(&asked.app).await? else {
        return Ok(Outcome::good(State::Unchanged, format!("{} is not on this host", asked.app)));
    };
    let id = begin(router, call.verb, call.who, &app).await?;
    let removed = clear(router, &app).await;
    end(router, &id, app.release, removed).await
}

async fn clear(router: &Router, app: &App) -> Result<&'static str, Failure> {
    let host = &router.host;
    let paths = host.paths(&app.spec.app);
    host.records.set_stopped(&app.spec.app, true).await?;
    let runtime = host.runtime(app.spec.runtime)?;
    runtime.dismiss(&paths, Runs::End).await?;
    runtime.stop(&paths).await?;
    for path in [
        paths.current(),
        paths.env_file(),
        paths.env_next(),
        paths.env_previous(),
        paths.files(),
        paths.maintenance(),
        paths.overlays(),
        paths.releases(),
        paths.static_root(),
    ] {
        trash::discard(&path, &paths.trash())
            .map_err(|error| fault("cannot remove what the app has", &error))?;
    }
    host.records.forget_app(&app.spec.app).await?;
    Ok("it is removed; its data, uploads and backups stay")
}

pub(super) async fn begin(router: &Router, verb: &str, who: &Who, app: &App) -> Result<String, Failure> {
    let at = clock::now_ms();
    let id = deploy::new_id(at);
    let begin = Begin {
        id: id.clone(),
        app: app.spec.app.clone(),
        verb: verb.to_owned(),
        release: Some(app.release.clone()),
        previous: None,
        who: who.clone(),
        at,
        work: None,
        env: None,
    };
    router.host.records.begin(begin).await?;
    Ok(id)
}

async fn end(
    router: &Router,
    id: &str,
    release: ReleaseId,
    ended: Result<&'static str, Failure>,
) -> Result<Outcome, Failure> {
    let outcome = match ended {
        Ok(comment) => Outcome::good(State::Ok, comment),
        Err(failure) => Outcome::bad(State::Failed, failure),
    };
    let outcome = Outcome { id: Some(id.to_owned()), release: Some(release), ..outcome };
    router.host.records.end(id, &outcome, clock::now_ms(), None).await?;
    Ok(outcome)
}
