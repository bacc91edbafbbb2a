//! Ends the old workers gently before a migration that would break them; requests wait in the listener.

use std::time::Duration;

use flipside_api::Failure;

use super::super::{
    context::Context,
    fault::{Moment, point},
};
use crate::app::deployment::Step;

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    if !ctx.is_held() {
        return Ok("not needed: no migration is destructive".to_owned());
    }
    let after = ctx.work.spec.maintenance_after;
    ctx.page.show_after(Duration::from_secs(u64::from(after)));
    ctx.runtime.hold(&ctx.paths).await?;
    point(Step::Hold, Moment::During).await?;
    Ok(format!("requests wait; after {after} s new ones get the maintenance page"))
}

pub(super) async fn undo(ctx: &Context) -> Result<(), Failure> {
    if !ctx.is_held() {
        return Ok(());
    }
    let started = start_old(ctx).await;
    ctx.page.hide().await?;
    started
}

async fn start_old(ctx: &Context) -> Result<(), Failure> {
    match &ctx.work.previous {
        Some(previous) => ctx.runtime.start(&ctx.old_instance(), previous).await,
        None => ctx.runtime.stop(&ctx.paths).await,
    }
}
