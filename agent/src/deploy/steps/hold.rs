//! Ends the old workers gently before a migration that would break them; requests wait in the listener.

use flipside_api::Failure;

use super::super::{
    context::Context,
    fault::{Moment, point},
};
use crate::app::deployment::Step;

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    ctx.runtime.hold(&ctx.paths).await?;
    point(Step::Hold, Moment::During).await?;
    Ok("requests wait".to_owned())
}

pub(super) async fn undo(ctx: &Context) -> Result<(), Failure> {
    match &ctx.work.previous {
        Some(previous) => ctx.old_runtime()?.start(&ctx.old_instance(), previous).await,
        None => ctx.runtime.stop(&ctx.paths).await,
    }
}
