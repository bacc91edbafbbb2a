//! Puts the databases back to the mark of an earlier deployment. What they replace is kept beside them, and is
//! what the undo puts back.

use std::path::PathBuf;

use flipside_api::{Code, Failure};

use super::{
    super::{
        context::Context,
        fault::{Moment, point},
    },
    mark,
};
use crate::app::deployment::Step;

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    let said = mark::sqlite(ctx, "swap", &folder(ctx)?).await?;
    point(Step::Data, Moment::During).await?;
    Ok(format!("put back {said}; the replaced are kept as *.replaced-{}", ctx.work.id))
}

pub(super) async fn undo(ctx: &Context) -> Result<(), Failure> {
    mark::sqlite(ctx, "unswap", &folder(ctx)?).await.map(drop)
}

/// Removes replaced databases beyond those kept, where a deployment such as this adds some.
pub(super) async fn prune(ctx: &Context) -> Result<(), Failure> {
    if ctx.will(Step::Data) || ctx.is_held() {
        // Which mark it was does not matter to it.
        mark::sqlite(ctx, "prune", &ctx.paths.marks()).await?;
    }
    Ok(())
}

fn folder(ctx: &Context) -> Result<PathBuf, Failure> {
    let mark = ctx.work.mark.as_ref();
    let mark = mark.ok_or_else(|| Failure::new(Code::Gate, "the rollback names no mark"))?;
    Ok(ctx.paths.marks().join(mark))
}
