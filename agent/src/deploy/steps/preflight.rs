//! Makes sure that an instance can be started at all, imports the release in a process of its own and asks it once,
//! before anybody else can; then the `check` hooks.

use std::time::Duration;

use flipside_api::Failure;

use super::super::{
    context::Context,
    fault::{Moment, point},
    hooks,
};
use crate::{
    app::{deployment::Step, health},
    runtime::assets::Verdict,
};

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    let spec = &ctx.work.spec;
    let made = ctx.runtime.ready(&ctx.instance()).await?;
    if !made.is_empty() {
        ctx.channel.output("", &made);
    }
    let timeout = Duration::from_secs(u64::from(spec.start_timeout));
    let https = spec.public_url.starts_with("https://");
    let host = health::host(&spec.domains);
    let argv = ctx.host.assets.preflight_argv(&ctx.venv(), &spec.health.path, &host, https);
    let ended = ctx.run(argv, ctx.current_env()?, timeout).await?;
    let answered = match (Verdict::of(&ended, timeout), Verdict::answer(&ended)) {
        (Ok(verdict), _) => {
            verdict.status.map_or_else(|| "imported".to_owned(), |status| format!("answered {status}"))
        }
        // Its tables, and the names of its static files, may be those to come; the health check judges it afterwards.
        (Err(_), Some(status)) if ctx.will(Step::Migrate) || ctx.will(Step::Static) => {
            format!("answered {status} before its static files and migration")
        }
        (Err(_), Some(status)) if ctx.will(Step::Data) => {
            format!("answered {status} before its databases are back")
        }
        (Err(failure), _) => return Err(failure),
    };
    point(Step::Preflight, Moment::During).await?;
    let checks = hooks::run(ctx, "check", ctx.work.hooks.check.as_ref()).await?;
    Ok(if checks.is_empty() { answered } else { format!("{answered}; {checks}") })
}
