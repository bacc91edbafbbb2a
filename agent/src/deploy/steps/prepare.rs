//! Hooks that write into the release: it is the app's while they run, and sealed afterwards.

use flipside_api::{Code, Failure};

use super::{
    super::{
        context::Context,
        fault::{Moment, point},
        hooks,
    },
    tree, venv,
};
use crate::app::deployment::Step;

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    give(ctx, ctx.owner()).await?;
    let said = hooks::run(ctx, "prepare", ctx.work.hooks.prepare.as_ref()).await;
    give(ctx, ctx.owner().map(|_| (0, 0))).await?;
    let said = said?;
    point(Step::Prepare, Moment::During).await?;
    venv::seal(&ctx.paths.release(&ctx.work.release), &ctx.work.release)?;
    Ok(said)
}

async fn give(ctx: &Context, owner: Option<(u32, u32)>) -> Result<(), Failure> {
    let Some(owner) = owner else { return Ok(()) };
    let folder = ctx.paths.release(&ctx.work.release);
    tokio::task::spawn_blocking(move || tree::give(&folder, owner))
        .await
        .map_err(|_| Failure::new(Code::Interrupted, "the agent is ending"))?
}
