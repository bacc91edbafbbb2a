//! Changes the databases. Where requests were held meanwhile, nobody has written since the mark until the switch, so
//! a failure puts the databases back, and keeps what they held where the switch was begun; otherwise what was
//! migrated stays, and the old code goes on with it.

use flipside_api::Failure;

use super::{
    super::{
        context::Context,
        fault::{Moment, point},
        hooks,
    },
    mark,
};
use crate::{app::deployment::Step, runtime::crew::Runs};

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    // Background workers of the old code may know only the old tables; they come back when the deploy has ended.
    ctx.runtime.dismiss(&ctx.paths, Runs::GoOn).await?;
    let said = hooks::run(ctx, "migrate", ctx.work.hooks.migrate.as_ref()).await?;
    point(Step::Migrate, Moment::During).await?;
    Ok(said)
}

pub(super) async fn undo(ctx: &Context) -> Result<(), Failure> {
    let mark = mark::folder(ctx);
    if ctx.is_held() && mark.is_dir() {
        let way = if ctx.has_written() { "swap" } else { "unmark" };
        mark::sqlite(ctx, way, &mark).await?;
    }
    Ok(())
}
