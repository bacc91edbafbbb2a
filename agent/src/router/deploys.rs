//! The verbs that make another release or environment current: each asks the same engine.

use std::{collections::BTreeMap, path::PathBuf};

use flipside_api::{AppName, AppSpec, Code, Deploy, Failure, Outcome, Redeploy, ReleaseId, Rollback, State};

use super::{Call, Router};
use crate::{
    app::{env::Env, plan::Intent, record::App},
    deploy::{self, Ask, Private},
};

/// A release with its spec and environment.
pub(super) async fn deploy(router: &Router, call: &Call<'_>, asked: Deploy) -> Result<Outcome, Failure> {
    let Deploy { mut spec, package, test, cold, wait, allow } = asked;
    let private = Private::take(&mut spec);
    let ask = ask(call, spec, private, package.release);
    let ask = Ask { package: PathBuf::from(package.dir), test, cold, allow, ..ask };
    engine(router, call, ask, wait).await
}

/// The same with the spec and environment that this host has stored.
pub(super) async fn redeploy(router: &Router, call: &Call<'_>, asked: Redeploy) -> Result<Outcome, Failure> {
    let app = router.known(&asked.app).await?;
    let private = deploy::unseal(&router.host, &app.env)?;
    let Redeploy { package, test, cold, wait, allow, .. } = asked;
    let ask = ask(call, app.spec, private, package.release);
    let ask = Ask { package: PathBuf::from(package.dir), test, cold, allow, ..ask };
    engine(router, call, ask, wait).await
}

/// An earlier release with today's spec and environment: code only, unless asked otherwise.
pub(super) async fn rollback(router: &Router, call: &Call<'_>, asked: Rollback) -> Result<Outcome, Failure> {
    let app = router.known(&asked.app).await?;
    let release = match asked.release {
        Some(release) => release,
        None => before(router, &app).await?,
    };
    let env = if asked.with_env { env_of(router, &app, &release).await? } else { app.env };
    let private = deploy::unseal(&router.host, &env)?;
    let (spec, target) = (app.spec.clone(), release.clone());
    let intent = if asked.with_data { Intent::RollbackData } else { Intent::Rollback };
    let ask = ask(call, app.spec, private, release);
    let ask = Ask { intent, verb: "rollback", test: asked.test, allow: asked.allow, ..ask };
    let mut outcome = engine(router, call, ask, asked.wait).await?;
    if asked.with_data {
        return Ok(outcome);
    }
    if let Some(note) = deploy::code_only(&router.host, &spec, &target).await {
        outcome.comment = format!("{}; {note}", outcome.comment);
    }
    Ok(outcome)
}

/// Another environment or other files for the release that is current; what is not given is the stored one.
pub(super) async fn env(
    router: &Router,
    call: &Call<'_>,
    name: &AppName,
    (env, files): (Option<Env>, Option<BTreeMap<String, String>>),
    wait: u64,
) -> Result<Outcome, Failure> {
    let app = router.known(name).await?;
    let private = match (env, files) {
        (Some(env), Some(files)) => Private { env, files },
        (env, files) => {
            let stored = deploy::unseal(&router.host, &app.env)?;
            Private { env: env.unwrap_or(stored.env), files: files.unwrap_or(stored.files) }
        }
    };
    let ask = ask(call, app.spec, private, app.release);
    engine(router, call, Ask { intent: Intent::Env, ..ask }, wait).await
}

fn ask(call: &Call<'_>, spec: AppSpec, private: Private, release: ReleaseId) -> Ask {
    Ask {
        intent: Intent::Deploy,
        verb: call.verb,
        who: call.who.clone(),
        spec,
        private,
        release,
        package: PathBuf::new(),
        cold: false,
        test: false,
        allow: Vec::new(),
    }
}

/// The sealed environment that `release` was last deployed with.
async fn env_of(router: &Router, app: &App, release: &ReleaseId) -> Result<Vec<u8>, Failure> {
    router.host.records.env_of(&app.spec.app, release).await?.ok_or_else(|| {
        Failure::new(Code::NotFound, format!("no environment of {release} is kept on this host"))
            .hint("roll back with the current environment (without with_env), or set it in pillar and deploy")
    })
}

/// The risks that can be allowed.
const RISKS: [&str; 2] = ["destructive", "data"];

async fn engine(router: &Router, call: &Call<'_>, ask: Ask, wait: u64) -> Result<Outcome, Failure> {
    if let Some(unknown) = ask.allow.iter().find(|risk| !RISKS.contains(&risk.as_str())) {
        let known = RISKS.join(" and ");
        return Err(Failure::new(Code::Usage, format!("allow: there is no risk {unknown:?}"))
            .hint(format!("what can be allowed is {known}")));
    }
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
