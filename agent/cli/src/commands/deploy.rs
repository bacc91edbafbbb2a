//! `deploy`, `plan` and `rollback`.

use std::{io::Read, path::Path};

use flipside_api::{AppName, AppSpec, Command, Deploy, Outcome, Redeploy, Rollback, State};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Session;
use crate::{
    args::{DeployArgs, PackageArgs, PlanArgs, RollbackArgs},
    failures::{Result, exit_code_of, on, usage},
    project,
    publish::store::Store,
};

/// The exit code of `plan --detailed-exitcode` when there is something to do.
const DIFFERENCES: u8 = 2;

/// `flipside deploy`.
pub(crate) fn deploy(args: &DeployArgs, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    let command = command(&app, &args.package, args.dry_run, session)?;
    if args.dry_run {
        let outcome = session.ask(command)?;
        return Ok(show_plan(&outcome, &app, session));
    }
    let outcome = session.ask(command)?;
    let code = session.ended("deploy", app.as_str(), &outcome);
    hint_undo(&outcome, &app, session);
    Ok(code)
}

/// `flipside plan`.
pub(crate) fn plan(args: &PlanArgs, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    let mut command = command(&app, &args.package, true, session)?;
    let mut outcome = session.ask_with(command.clone(), &mut |_| {})?;
    if args.steps && outcome.state == State::Unchanged {
        session.output.notice("nothing is to do now; these are the steps of the same deploy with --cold");
        match &mut command {
            Command::Deploy(deploy) => deploy.cold = true,
            Command::Redeploy(redeploy) => redeploy.cold = true,
            _ => {}
        }
        outcome = session.ask_with(command, &mut |_| {})?;
    }
    let code = if args.steps && outcome.result {
        show_steps(&outcome, session)
    } else {
        show_plan(&outcome, &app, session)
    };
    let differs = outcome.result && outcome.state != State::Unchanged;
    Ok(if args.detailed_exitcode && differs { DIFFERENCES } else { code })
}

/// `flipside rollback`.
pub(crate) fn rollback(args: &RollbackArgs, session: &Session<'_>) -> Result<u8> {
    // With -a the only word is the release.
    let (word, release) = match (args.words.as_slice(), &session.shared.app) {
        ([first, second], _) => (Some(first.as_str()), Some(second)),
        ([release], Some(app)) if release != app => (None, Some(release)),
        ([app], _) => (Some(app.as_str()), None),
        _ => (None, None),
    };
    let app = session.app(word)?;
    let release = release.map(|text| text.parse()).transpose().map_err(|error| usage(format!("{error}")))?;
    let mut allow = args.allow.clone();
    allow.extend(args.yes.then(|| "data".to_owned()));
    let asked = Rollback {
        app: app.clone(),
        release,
        wait: args.lock.wait,
        with_data: args.with_data,
        with_env: args.with_env,
        test: args.dry_run,
        allow,
    };
    let outcome = session.ask(Command::Rollback(asked))?;
    if args.dry_run {
        return Ok(show_plan(&outcome, &app, session));
    }
    let code = session.ended("rollback", app.as_str(), &outcome);
    hint_undo(&outcome, &app, session);
    Ok(code)
}

/// The request for a deploy: with the spec of a file, else with the one that the agent has.
fn command(app: &AppName, args: &PackageArgs, test: bool, session: &Session<'_>) -> Result<Command> {
    let store = Store::new(project::store(session.shared, Path::new("."))?);
    let package = match &args.release {
        Some(release) => store.release(app, &release.parse().map_err(|error| usage(format!("{error}")))?)?,
        None => {
            let tag = args.tag.as_deref().unwrap_or("latest");
            store.tagged(app, &tag.parse().map_err(|error| usage(format!("{error}")))?)?
        }
    };
    let (cold, wait, allow) = (args.cold, args.lock.wait, args.allow.clone());
    let Some(file) = &args.spec else {
        return Ok(Command::Redeploy(Redeploy { app: app.clone(), package, test, cold, wait, allow }));
    };
    let spec: AppSpec = read_json(file)?;
    if spec.app != *app {
        return Err(usage(format!("{} is the spec of {}, not of {app}", file.display(), spec.app)));
    }
    spec.check().map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        usage(format!("{}: {}", file.display(), problems.join("; ")))
    })?;
    Ok(Command::Deploy(Box::new(Deploy { spec, package, test, cold, wait, allow })))
}

/// The JSON in a file; `-` is stdin.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(on("read", Path::new("stdin")))?;
    } else {
        text = std::fs::read_to_string(path).map_err(on("read", path))?;
    }
    serde_json::from_str(&text).map_err(|error| usage(format!("{}: {error}", path.display())))
}

fn show_steps(outcome: &Outcome, session: &Session<'_>) -> u8 {
    if session.output.is_json() {
        let names: Vec<&str> = outcome.steps.iter().map(|step| step.name.as_str()).collect();
        session.output.object(&json!({"v": 1, "steps": names}));
    } else {
        for step in &outcome.steps {
            session.output.line(&step.name);
        }
    }
    exit_code_of(outcome)
}

fn show_plan(outcome: &Outcome, app: &AppName, session: &Session<'_>) -> u8 {
    if !session.output.is_json() && outcome.result {
        for step in &outcome.steps {
            session
                .output
                .line(format!("  {:<10} {}", step.name, crate::output::clean(&step.message)).trim_end());
        }
        for line in crate::output::migrations(outcome.data.as_ref()) {
            session.output.line(line);
        }
    }
    session.ended("plan", app.as_str(), outcome)
}

fn hint_undo(outcome: &Outcome, app: &AppName, session: &Session<'_>) {
    if let (false, State::Deployed, Some(previous)) =
        (session.output.is_json(), outcome.state, &outcome.previous)
        && outcome.release.as_ref() != Some(previous)
    {
        session.output.line(format!("undo: flipside rollback {app} {previous}"));
    }
}
