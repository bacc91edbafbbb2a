//! The steps of a deploy, each a do and its undo.
//!
//! An undo is idempotent, needs nothing but what is on record and on disk, and puts back what its do may have
//! changed, also when that was cut short.

mod data;
mod env;
mod fetch;
mod health;
mod hold;
mod mark;
mod migrate;
mod preflight;
mod prepare;
mod retire;
mod schema;
mod statics;
mod switch;
mod tree;
mod venv;

use flipside_api::Failure;

use super::{
    context::Context,
    fault::{Moment, point},
    hooks,
};
use crate::app::deployment::Step;

pub(crate) use env::digest;
pub(crate) use fetch::take;
pub(crate) use schema::DESTRUCTIVE;
pub(crate) use venv::{installed, is_installed};

/// Does a step; what it did, in a line.
pub(crate) async fn work(step: Step, ctx: &Context) -> Result<String, Failure> {
    match step {
        Step::Fetch => fetch::work(ctx).await,
        Step::Env => env::work(ctx).await,
        Step::Venv => venv::work(ctx).await,
        Step::Mark => mark::work(ctx).await,
        Step::Prepare => prepare::work(ctx).await,
        Step::Preflight => preflight::work(ctx).await,
        Step::Schema => schema::work(ctx).await,
        Step::Static => statics::work(ctx).await,
        Step::Hold => hold::work(ctx).await,
        Step::Data => data::work(ctx).await,
        Step::Migrate => migrate::work(ctx).await,
        Step::Once => once(ctx).await,
        Step::Switch => switch::work(ctx).await,
        Step::Health => health::work(ctx).await,
        Step::After => after(ctx).await,
        Step::Retire => retire::work(ctx).await,
    }
}

/// Undoes a step.
pub(crate) async fn undo(step: Step, ctx: &Context) -> Result<(), Failure> {
    match step {
        Step::Fetch => fetch::undo(ctx),
        Step::Env => env::undo(ctx),
        Step::Venv => venv::undo(ctx),
        Step::Mark => mark::undo(ctx),
        Step::Static => statics::undo(ctx).await,
        Step::Hold => hold::undo(ctx).await,
        Step::Data => data::undo(ctx).await,
        Step::Migrate => migrate::undo(ctx).await,
        Step::Switch => switch::undo(ctx).await,
        // What these change is the app's own: a new file beside old ones, or nothing.
        Step::Prepare
        | Step::Preflight
        | Step::Schema
        | Step::Once
        | Step::Health
        | Step::After
        | Step::Retire => Ok(()),
    }
}

/// The hooks of the first deploy; that they were run is remembered, also when the deploy fails later.
async fn once(ctx: &Context) -> Result<String, Failure> {
    let said = hooks::run(ctx, "once", ctx.work.hooks.once.as_ref()).await?;
    point(Step::Once, Moment::During).await?;
    ctx.host.records.keep(&ctx.work.spec.app, super::ONCE, b"1".to_vec()).await?;
    Ok(said)
}

async fn after(ctx: &Context) -> Result<String, Failure> {
    let said = hooks::run(ctx, "after", ctx.work.hooks.after.as_ref()).await?;
    point(Step::After, Moment::During).await?;
    Ok(said)
}
