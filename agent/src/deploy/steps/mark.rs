//! Copies of the databases from before the first hook, made by SQLite as the app's user: a held deploy that fails
//! puts them back, and so can an operator.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use flipside_api::{Code, Failure};

use super::super::{
    context::Context,
    fault::{Moment, point},
};
use crate::{app::deployment::Step, host::fault, sys::beneath};

const TIMEOUT: Duration = Duration::from_secs(1800);

/// Where the mark of this deployment lies.
pub(super) fn folder(ctx: &Context) -> PathBuf {
    ctx.paths.marks().join(&ctx.work.id)
}

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    beneath::ensure_dir(&folder(ctx), 0o700, ctx.owner())
        .map_err(|error| fault("cannot make a mark", &error))?;
    point(Step::Mark, Moment::During).await?;
    make(ctx).await
}

/// Copies the databases as they are now, over the copies that are there.
pub(super) async fn make(ctx: &Context) -> Result<String, Failure> {
    sqlite(ctx, "mark", &folder(ctx)).await
}

pub(super) fn undo(ctx: &Context) -> Result<(), Failure> {
    ctx.discard(&folder(ctx))
}

/// Has the app's user work on the databases: `mark` copies them into the folder `mark`, `unmark` back from it.
pub(super) async fn sqlite(ctx: &Context, verb: &str, mark: &Path) -> Result<String, Failure> {
    let program = ctx.host.program.display().to_string();
    let (data, mark) = (ctx.paths.data().display().to_string(), mark.display().to_string());
    let mut argv: Vec<String> =
        [&program, "sqlite", verb, "--data", &data, "--mark", &mark, "--id", &ctx.work.id]
            .into_iter()
            .map(str::to_owned)
            .collect();
    if verb == "mark" {
        // A chain's position beside the copy: where a restore leads to the state before this deploy.
        argv.extend(["--backups".to_owned(), ctx.paths.backups().display().to_string()]);
    }
    argv.push("--".to_owned());
    argv.extend(ctx.work.spec.databases.iter().cloned());
    let env = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into();
    let ended = ctx.run(argv, env, TIMEOUT).await?;
    if ended.ok() {
        return Ok(ended.lines(1).pop().unwrap_or_default());
    }
    let lines = ended.lines(20);
    let why = lines.last().map_or_else(String::new, |line| format!(": {line}"));
    Err(Failure::new(Code::Backup, format!("the databases could not be copied ({verb}){why}"))
        .hint("see to free disk and to what else holds the databases, and try again")
        .log(lines))
}
