//! Makes the release current and has every worker serve it.
//!
//! Two renames: the environment, then `current`. Workers that start in between see the old release with the new
//! environment for an instant and are replaced by the reload that follows.

use std::path::Path;

use flipside_api::{Code, Failure, ReleaseId};

use super::super::{
    context::Context,
    fault::{Moment, point},
};
use crate::{
    app::{deployment::Step, plan::Kind},
    host::fault,
    sys::{atomic_write, beneath},
};

/// How many lines of the app's log a failure carries.
const LINES: usize = 30;

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    let paths = &ctx.paths;
    if paths.env_next().exists() {
        keep_old_env(ctx)?;
        atomic_write::rename(&paths.env_next(), &paths.env_file())
            .map_err(|error| fault("cannot put the environment in place", &error))?;
    }
    point_current(ctx, &ctx.work.release)?;
    point(Step::Switch, Moment::During).await?;
    let (instance, release) = (ctx.instance(), &ctx.work.release);
    let taken = match take_over(ctx).await? {
        TakeOver::Reload => ctx.runtime.reload(&instance, release).await,
        TakeOver::Replace => ctx.runtime.replace(&instance, release).await,
        TakeOver::Start => ctx.runtime.start(&instance, release).await,
    };
    taken.map_err(|failure| with_log(ctx, failure))?;
    Ok(format!("every worker serves {release}"))
}

/// Puts environment and `current` back, and has every worker serve the old release again.
pub(super) async fn undo(ctx: &Context) -> Result<(), Failure> {
    let paths = &ctx.paths;
    let Some(previous) = &ctx.work.previous else {
        ctx.runtime.stop(paths).await?;
        for path in [paths.current(), paths.env_file()] {
            beneath::remove_tree(&path)
                .map_err(|error| fault("cannot remove what the deploy made", &error))?;
        }
        return Ok(());
    };
    if paths.env_previous().exists() {
        atomic_write::rename(&paths.env_previous(), &paths.env_file())
            .map_err(|error| fault("cannot put the old environment back", &error))?;
    }
    point_current(ctx, previous)?;
    if !ctx.work.was_up {
        return ctx.runtime.stop(paths).await;
    }
    let (runtime, instance) = (ctx.old_runtime()?, ctx.old_instance());
    match take_over(ctx).await? {
        // Undoing the hold starts the old release.
        _ if ctx.is_held() => runtime.hold(paths).await,
        TakeOver::Reload => runtime.reload(&instance, previous).await,
        TakeOver::Replace => runtime.replace(&instance, previous).await,
        TakeOver::Start => runtime.start(&instance, previous).await,
    }
}

/// How workers come to serve what is current.
enum TakeOver {
    Reload,
    Replace,
    Start,
}

/// Where nothing runs there is nothing to reload, whatever the plan said.
async fn take_over(ctx: &Context) -> Result<TakeOver, Failure> {
    let observed = ctx.runtime.observe(&ctx.paths).await?;
    Ok(match Kind::from_name(&ctx.work.kind) {
        _ if observed.workers.is_empty() => TakeOver::Start,
        Some(Kind::Hot) => TakeOver::Reload,
        Some(Kind::Held) => TakeOver::Start,
        _ => TakeOver::Replace,
    })
}

fn keep_old_env(ctx: &Context) -> Result<(), Failure> {
    let (env, previous) = (ctx.paths.env_file(), ctx.paths.env_previous());
    match std::fs::read(&env) {
        Ok(bytes) => atomic_write::write(&previous, &zeroize::Zeroizing::new(bytes), 0o640, ctx.readable())
            .map_err(|error| fault("cannot keep the old environment", &error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fault("cannot read the old environment", &error)),
    }
}

fn point_current(ctx: &Context, release: &ReleaseId) -> Result<(), Failure> {
    let target = Path::new("releases").join(release.as_str());
    atomic_write::symlink(&target, &ctx.paths.current())
        .map_err(|error| fault("cannot point `current` at the release", &error))
}

/// The failure with the app's last words.
pub(super) fn with_log(ctx: &Context, mut failure: Failure) -> Failure {
    if failure.log.is_empty() {
        failure.log = ctx.log_tail(LINES);
    }
    if failure.code == Code::Host {
        failure.code = Code::Switch;
    }
    failure
}
