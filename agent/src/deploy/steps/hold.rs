//! Ends the old workers gently before a migration that would break them; requests wait in the listener.
//!
//! The mark is made anew then: what was written since the first one was answered for, and a failure that puts the
//! databases back must not lose it.

use std::time::Duration;

use flipside_api::Failure;

use super::{
    super::{
        context::Context,
        fault::{Moment, point},
    },
    mark,
};
use crate::{app::deployment::Step, runtime::crew::Runs};

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    ctx.runtime.dismiss(&ctx.paths, Runs::End).await?;
    let after = ctx.work.spec.maintenance_after;
    ctx.page.show_after(Duration::from_secs(u64::from(after)));
    ctx.runtime.hold(&ctx.paths).await?;
    point(Step::Hold, Moment::During).await?;
    if ctx.will(Step::Mark) {
        mark::make(ctx).await?;
    }
    Ok(format!("requests wait; after {after} s new ones get the maintenance page"))
}

pub(super) async fn undo(ctx: &Context) -> Result<(), Failure> {
    let started = start_old(ctx).await;
    ctx.page.hide().await?;
    started
}

async fn start_old(ctx: &Context) -> Result<(), Failure> {
    match &ctx.work.previous {
        Some(previous) => ctx.old_runtime()?.start(&ctx.old_instance(), previous).await,
        None => ctx.runtime.stop(&ctx.paths).await,
    }
}
