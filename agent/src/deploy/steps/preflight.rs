//! Makes sure that an instance can be started at all, imports the release in a process of its own and asks it once,
//! before anybody else can; then the `check` hooks.
//!
//! The same process looks at the migrations, for the step `schema`. A release that answers badly because its tables
//! or static files are still to come is asked again when they are there, and before it serves anybody.

use std::{sync::atomic::Ordering, time::Duration};

use flipside_api::{Code, Failure};

use super::super::{
    context::Context,
    fault::{Moment, point},
    hooks,
};
use crate::{
    app::{deployment::Step, health},
    runtime::assets::{Tree, Verdict},
    sys::exec::Ended,
};

/// How long a release may take to get better, once all that it needs is there.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    let made = ctx.runtime.ready(&ctx.instance()).await?;
    if !made.is_empty() {
        ctx.channel.output("", &made);
    }
    let mut more = Vec::new();
    if ctx.will(Step::Schema) {
        more.extend(ctx.host.assets.schema_arguments());
        more.extend((!ctx.will(Step::Migrate)).then(|| "--lenient".to_owned()));
    }
    let (ended, timeout) = ask(ctx, more).await?;
    if let Some(schema) = Verdict::read(&ended).and_then(|verdict| verdict.schema) {
        let _ = ctx.found.schema.set(schema);
    }
    let answered = match (Verdict::of(&ended, timeout), Verdict::answer(&ended)) {
        (Ok(verdict), _) => {
            verdict.status.map_or_else(|| "imported".to_owned(), |status| format!("answered {status}"))
        }
        // Its tables, and the names of its static files, may be those to come.
        (Err(_), Some(status))
            if [Step::Migrate, Step::Static, Step::Data].iter().any(|it| ctx.will(*it)) =>
        {
            ctx.found.sick.store(true, Ordering::Relaxed);
            format!("answered {status}; asked again before the switch")
        }
        (Err(failure), _) => return Err(failure),
    };
    point(Step::Preflight, Moment::During).await?;
    let checks = hooks::run(ctx, "check", ctx.work.hooks.check.as_ref()).await?;
    Ok(if checks.is_empty() { answered } else { format!("{answered}; {checks}") })
}

/// Asks a release again that answered badly. A definite error is final: nobody is served by it.
pub(super) async fn again(ctx: &Context) -> Result<(), Failure> {
    if !ctx.found.sick.load(Ordering::Relaxed) {
        return Ok(());
    }
    let patience = ["--patience".to_owned(), PATIENCE.as_secs().to_string()];
    let (ended, timeout) = ask(ctx, patience.to_vec()).await?;
    let failure = match (Verdict::of(&ended, timeout), Verdict::answer(&ended)) {
        (Ok(_), _) => return Ok(()),
        // It may only be busy with something that a process of its own cannot have: health decides.
        (Err(_), Some(status)) if !health::is_definite(status) => return Ok(()),
        (Err(failure), _) => failure,
    };
    let path = &ctx.work.spec.health.path;
    let message = format!("{path}: {}, asked before the switch; nobody was served by it", failure.message);
    let hint = match ctx.found.note.get() {
        Some(note) if !ctx.will(Step::Migrate) => note.clone(),
        _ if !failure.hint.is_empty() => failure.hint,
        _ => "see options.health and what the release needs to answer there".to_owned(),
    };
    Err(Failure { code: Code::Health, message, hint, log: failure.log })
}

async fn ask(ctx: &Context, more: Vec<String>) -> Result<(Ended, Duration), Failure> {
    let spec = &ctx.work.spec;
    let timeout = Duration::from_secs(u64::from(spec.start_timeout));
    let https = spec.public_url.starts_with("https://");
    let host = health::host(&spec.domains);
    let mut argv = ctx.host.assets.preflight_argv(Tree::Venv(&ctx.venv()), &spec.health.path, &host, https);
    argv.extend(["--stack-after".to_owned(), format!("{:.1}", timeout.as_secs_f64() * 0.9)]);
    argv.extend(more);
    Ok((ctx.run_unheard(argv, ctx.current_env()?, timeout).await?, timeout))
}
