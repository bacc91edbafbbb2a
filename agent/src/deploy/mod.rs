//! A deploy: look, plan, take the steps, and undo them all when one fails.
//!
//! [`deploy`] reads as it goes. What is on record of each step lets an agent that was killed finish or undo the
//! deployment when it starts again ([`recover`]).

mod context;
mod crew;
mod fault;
mod hooks;
mod journal;
mod look;
mod manifest;
mod probe;
mod recover;
mod rewind;
mod run;
mod steps;

use std::{path::PathBuf, sync::Arc};

use flipside_api::{AppSpec, Failure, Outcome, ReleaseId, State, StepReport, Who};
use serde_json::json;

use crate::{
    app::{
        deployment::Deployment,
        env::Env,
        plan::{Intent, Kind, Plan},
        record::Begin,
    },
    host::Host,
    progress::Channel,
    sys::clock,
};
use context::{Context, Work};
use journal::Journal;
use look::Sight;

pub(crate) use context::read_env;
pub(crate) use crew::{is_settled, settle, settle_known};
#[cfg(feature = "faults")]
pub use fault::check as check_fault;
pub(crate) use look::unseal;
pub use recover::recover;
pub(crate) use rewind::code_only;
pub(crate) use steps::installed;

/// Under what name it is remembered that the hooks of the first deploy were run.
const ONCE: &str = "once";

/// What is asked for.
pub struct Ask {
    /// Why.
    pub intent: Intent,
    /// The verb, for the record.
    pub verb: &'static str,
    /// Who asks.
    pub who: Who,
    /// The spec; its environment is in `pillar`.
    pub spec: AppSpec,
    /// The environment as the pillar gave it, armoured values and all.
    pub pillar: Env,
    /// The release.
    pub release: ReleaseId,
    /// The folder of its package; not looked at when the release is installed.
    pub package: PathBuf,
    /// Whether a fresh instance is asked for in any case.
    pub cold: bool,
    /// Whether only to plan.
    pub test: bool,
}

/// Makes it so. The caller holds the app's lock, unless it only plans.
///
/// # Errors
/// When it cannot or must not be begun. What fails on the way is an outcome.
pub async fn deploy(host: &Arc<Host>, ask: Ask, channel: &Arc<Channel>) -> Result<Outcome, Failure> {
    let mut sight = look::look(host, &ask).await?;
    if ask.intent == Intent::RollbackData {
        let rewind = rewind::find(host, &ask.spec, &ask.release, channel).await?;
        sight.plan.reasons.push(rewind.lost.clone());
        sight.mark = Some(rewind.mark);
        channel.output("data", &rewind.lost);
    }
    if ask.test {
        return Ok(planned(&sight));
    }
    if sight.plan.kind == Kind::Unchanged {
        return Ok(Outcome {
            release: Some(ask.release),
            previous: sight.current,
            ..Outcome::good(State::Unchanged, sight.plan.reasons.join("; "))
        });
    }
    begin(host, ask, sight, channel).await
}

async fn begin(host: &Arc<Host>, ask: Ask, sight: Sight, channel: &Arc<Channel>) -> Result<Outcome, Failure> {
    let at = clock::now_ms();
    let id = new_id(at);
    let steps = sight.plan.steps.clone();
    let work = Work {
        id: id.clone(),
        verb: ask.verb.to_owned(),
        spec: ask.spec,
        old: sight.old,
        release: ask.release,
        previous: sight.current,
        kind: sight.plan.kind.name().to_owned(),
        steps: steps.iter().map(|step| step.name().to_owned()).collect(),
        hooks: sight.hooks,
        was_up: sight.was_up,
        package: ask.package,
        mark: sight.mark,
    };
    let sealed = look::seal(host, &ask.pillar)?;
    let begin = Begin {
        id: id.clone(),
        app: work.spec.app.clone(),
        verb: work.verb.clone(),
        release: Some(work.release.clone()),
        previous: work.previous.clone(),
        who: ask.who,
        at,
        work: Some(look::to_json(&work)?),
        env: Some(sealed.clone()),
    };
    let ctx = Context::new(Arc::clone(host), work, sight.env, Arc::clone(channel))?;
    host.records.begin(begin).await?;
    let journal = Journal::new(Arc::clone(&host.records), id, Deployment::new(steps));
    Ok(run::run(&ctx, journal, sealed, None).await)
}

fn planned(sight: &Sight) -> Outcome {
    let Plan { kind, reasons, steps } = &sight.plan;
    let names: Vec<&str> = steps.iter().map(|step| step.name()).collect();
    let report =
        |step: &&str| StepReport { name: (*step).to_owned(), ok: true, ms: 0, message: String::new() };
    let state = if *kind == Kind::Unchanged { State::Unchanged } else { State::Planned };
    Outcome {
        release: Some(sight.release.clone()),
        previous: sight.current.clone(),
        steps: names.iter().map(report).collect(),
        data: Some(json!({ "kind": kind.name(), "reasons": reasons, "steps": names })),
        ..Outcome::good(state, reasons.join("; "))
    }
}

/// An id that sorts by time and says it.
pub(crate) fn new_id(at: i64) -> String {
    let time: String =
        clock::rfc3339(at).chars().filter(|c| c.is_ascii_digit() || *c == 'T').take(15).collect();
    format!("{time}-{:06x}", rand::random::<u32>() >> 8)
}
