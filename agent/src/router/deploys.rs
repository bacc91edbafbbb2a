//! The verbs that make another release or environment current: each asks the same engine.

use std::{collections::BTreeMap, path::PathBuf};

use flipside_api::{AppName, AppSpec, Code, Deploy, Failure, Outcome, Redeploy, ReleaseId, Rollback, State};

use super::{Call, Router};
use crate::{
    app::{env::Env, plan::Intent, record::App},
    deploy::{self, Ask},
};

/// A release with its spec and environment.
pub(super) async fn deploy(router: &Router, call: &Call<'_>, asked: Deploy) -> Result<Outcome, Failure> {
    let Deploy { spec, package, test, cold, wait, .. } = asked;
    let (spec, pillar) = split(spec);
    let ask = ask(call, spec, pillar, package.release);
    let ask = Ask { package: PathBuf::from(package.dir), test, cold, ..ask };
    engine(router, call, ask, wait).await
}

/// The same with the spec and environment that this host has stored.
pub(super) async fn redeploy(router: &Router, call: &Call<'_>, asked: Redeploy) -> Result<Outcome, Failure> {
    let app = router.known(&asked.app).await?;
    let pillar = deploy::unseal(&router.host, &app.env)?;
    let ask = ask(call, app.spec, pillar, asked.package.release);
    let ask = Ask { package: PathBuf::from(asked.package.dir), test: asked.test, cold: asked.cold, ..ask };
    engine(router, call, ask, asked.wait).await
}

/// An earlier release with today's spec and environment: code only, unless asked otherwise.
pub(super) async fn rollback(router: &Router, call: &Call<'_>, asked: Rollback) -> Result<Outcome, Failure> {
    let app = router.known(&asked.app).await?;
    let release = match asked.release {
        Some(release) => release,
        None => before(router, &app).await?,
    };
    let pillar = deploy::unseal(&router.host, &app.env)?;
    let ask = ask(call, app.spec, pillar, release);
    if asked.with_data {
        let ask = Ask { intent: Intent::RollbackData, verb: "rollback", test: asked.test, ..ask };
        return engine(router, call, ask, asked.wait).await;
    }
    let (spec, target) = (ask.spec.clone(), ask.release.clone());
    let ask = Ask { intent: Intent::Rollback, verb: "rollback", test: asked.test, ..ask };
    let mut outcome = engine(router, call, ask, asked.wait).await?;
    if let Some(note) = deploy::code_only(&router.host, &spec, &target).await {
        outcome.comment = format!("{}; {note}", outcome.comment);
    }
    Ok(outcome)
}

/// Another environment for the release that is current, or the stored one written again.
pub(super) async fn env(
    router: &Router,
    call: &Call<'_>,
    name: &AppName,
    env: Option<BTreeMap<String, String>>,
    wait: u64,
) -> Result<Outcome, Failure> {
    let app = router.known(name).await?;
    let pillar = match env {
        Some(env) => env,
        None => deploy::unseal(&router.host, &app.env)?,
    };
    let ask = ask(call, app.spec, pillar, app.release);
    engine(router, call, Ask { intent: Intent::Env, ..ask }, wait).await
}

fn ask(call: &Call<'_>, spec: AppSpec, pillar: Env, release: ReleaseId) -> Ask {
    Ask {
        intent: Intent::Deploy,
        verb: call.verb,
        who: call.who.clone(),
        spec,
        pillar,
        release,
        package: PathBuf::new(),
        cold: false,
        test: false,
    }
}

async fn engine(router: &Router, call: &Call<'_>, ask: Ask, wait: u64) -> Result<Outcome, Failure> {
    if ask.test {
        return deploy::deploy(&router.host, ask, call.channel).await;
    }
    let _held = router.hold(&ask.spec.app, call.verb, call.who, wait).await?;
    // While this one waited, an agent that had been killed may have ended the very same request.
    if let Some(id) = &call.who.id
        && let Some(outcome) = router.host.records.answered(id, call.verb, &ask.spec.app).await?
    {
        return Ok(outcome);
    }
    deploy::deploy(&router.host, ask, call.channel).await
}

/// The spec without its environment, and that.
fn split(mut spec: AppSpec) -> (AppSpec, Env) {
    let pillar = std::mem::take(&mut spec.env);
    (spec, pillar)
}

/// The release that the current one replaced when it was deployed.
async fn before(router: &Router, app: &App) -> Result<ReleaseId, Failure> {
    let history = router.host.records.history(&app.spec.app, 500).await?;
    let deployed = history.iter().filter(|entry| entry.verb == "deploy").find_map(|entry| {
        let outcome = entry.outcome.as_ref()?;
        let it = outcome.state == State::Deployed && outcome.release.as_ref() == Some(&app.release);
        outcome.previous.clone().filter(|previous| it && *previous != app.release)
    });
    deployed.ok_or_else(|| {
        Failure::new(Code::NotFound, format!("there is no release before {} on record", app.release))
            .hint(format!("name one of those that `flipside releases {}` lists", app.spec.app))
    })
}
