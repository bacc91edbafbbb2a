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
mod page;
mod probe;
mod recover;
mod rewind;
mod run;
mod schema;
mod steps;
mod vhost;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use flipside_api::{AppSpec, Effect, Failure, Outcome, ReleaseId, State, StepReport, Who};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    app::{
        deployment::{Deployment, Step},
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
pub(crate) use rewind::{code_only, mark_bytes, marks};
pub(crate) use steps::installed;

/// Under what name it is remembered that the hooks of the first deploy were run.
const ONCE: &str = "once";

/// What the pillar gives an app and nobody else may read, armoured values and all.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Private {
    /// Its environment.
    pub env: Env,
    /// Its configuration files.
    pub files: BTreeMap<String, String>,
}

impl Private {
    /// Takes it out of a spec, which goes on record in plain.
    pub fn take(spec: &mut AppSpec) -> Self {
        Self { env: std::mem::take(&mut spec.env), files: std::mem::take(&mut spec.files) }
    }
}

/// What is asked for.
pub struct Ask {
    /// Why.
    pub intent: Intent,
    /// The verb, for the record.
    pub verb: &'static str,
    /// Who asks.
    pub who: Who,
    /// The spec; its environment and its files are in `private`.
    pub spec: AppSpec,
    /// What the pillar gives the app alone.
    pub private: Private,
    /// The release.
    pub release: ReleaseId,
    /// The folder of its package; not looked at when the release is installed.
    pub package: PathBuf,
    /// Whether a fresh instance is asked for in any case.
    pub cold: bool,
    /// Whether only to plan.
    pub test: bool,
    /// The risks that the operator accepts, by name.
    pub allow: Vec<String>,
}

impl Ask {
    /// Whether the operator accepts this risk.
    fn allows(&self, risk: &str) -> bool {
        self.allow.iter().any(|one| one == risk)
    }
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
        if !ask.test && !ask.allows(rewind::DATA) {
            return Err(rewind::refused(host, &ask, &rewind.lost));
        }
        channel.output("data", &rewind.lost);
    }
    let deploys = ask.intent == Intent::Deploy;
    let vhost = vhost::check(&ask.spec, &host.paths(&ask.spec.app));
    let mut outcome = match &vhost {
        _ if ask.test => planned(&sight, ask.allows(steps::DESTRUCTIVE)),
        Err(stale) if deploys => return Err(stale.clone()),
        _ if sight.plan.kind == Kind::Unchanged => Outcome {
            release: Some(ask.release),
            previous: sight.current,
            ..Outcome::good(State::Unchanged, sight.plan.reasons.join("; "))
        },
        _ => begin(host, ask, sight, channel).await?,
    };
    // What brings an app back does not wait for nginx, whose vhost other options may have made meanwhile.
    if let (Err(stale), false) = (vhost, deploys) {
        outcome.comment = format!("{}; {}: {}", outcome.comment, stale.message, stale.hint);
    }
    Ok(outcome)
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
        allow: ask.allow,
    };
    let sealed = look::seal(host, &ask.private)?;
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
    let ctx = Context::new(Arc::clone(host), work, sight.brings, Arc::clone(channel))?;
    host.records.begin(begin).await?;
    let journal = Journal::new(Arc::clone(&host.records), id, Deployment::new(steps));
    Ok(run::run(&ctx, journal, sealed, None).await)
}

fn planned(sight: &Sight, allowed: bool) -> Outcome {
    let Plan { kind, reasons, steps } = &sight.plan;
    let reasons: Vec<String> = reasons.iter().cloned().chain(foreseen(sight, allowed)).collect();
    let names: Vec<&str> = steps.iter().map(|step| step.name()).collect();
    let report =
        |step: &&str| StepReport { name: (*step).to_owned(), ok: true, ms: 0, message: String::new() };
    let state = if *kind == Kind::Unchanged { State::Unchanged } else { State::Planned };
    Outcome {
        release: Some(sight.release.clone()),
        previous: sight.current.clone(),
        steps: names.iter().map(report).collect(),
        data: Some(json!({
            "kind": kind.name(), "reasons": reasons, "steps": names, "migrations": sight.migrations,
        })),
        ..Outcome::good(state, reasons.join("; "))
    }
}

/// What a plan says of the migrations, in sentences.
fn foreseen(sight: &Sight, allowed: bool) -> Vec<String> {
    let Some(migrations) = &sight.migrations else { return Vec::new() };
    if !migrations.unknown_why.is_empty() {
        return vec![format!("migrations: {}", migrations.unknown_why)];
    }
    let mut said: Vec<String> = schema::warning(&sight.release, &migrations.unknown).into_iter().collect();
    if sight.plan.steps.contains(&Step::Migrate) {
        said.push(schema::waiting(migrations));
        let what = schema::doing(migrations, Effect::Destructive).filter(|_| !allowed);
        said.extend(what.map(|what| format!("refused without allow={}: {what}", steps::DESTRUCTIVE)));
    }
    said
}

/// An id that sorts by time and says it.
pub(crate) fn new_id(at: i64) -> String {
    let time: String =
        clock::rfc3339(at).chars().filter(|c| c.is_ascii_digit() || *c == 'T').take(15).collect();
    format!("{time}-{:06x}", rand::random::<u32>() >> 8)
}
