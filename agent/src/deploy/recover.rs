//! Deployments that an agent which was killed has left: finished where the release had proven itself, else undone.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use flipside_api::{Code, Failure, Outcome, State};

use super::{
    context::{Brings, Context, DEPLOYMENT, Work},
    journal::Journal,
    run,
};
use crate::{
    app::{
        deployment::{Deployment, Event, Next, Step},
        record::Unfinished,
    },
    host::{Host, fault},
    progress::Channel,
    sys::{clock, proc},
};

/// How long a killed program may take to be gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends what was left. The caller holds the app's lock.
pub async fn recover(host: &Arc<Host>, left: Unfinished, channel: &Arc<Channel>) -> Outcome {
    let id = left.begin.id.clone();
    tracing::warn!(app = %left.begin.app, id, verb = left.begin.verb, "UnfinishedFound");
    match resume(host, left, channel).await {
        Ok(outcome) => outcome,
        Err(failure) => {
            tracing::error!(id, error = failure.message, "UnfinishedGivenUp");
            let outcome = Outcome { id: Some(id.clone()), ..Outcome::bad(State::Failed, failure) };
            if let Err(error) = host.records.end(&id, &outcome, clock::now_ms(), None).await {
                tracing::error!(id, %error, "DeploymentEndRecordFailed");
            }
            outcome
        }
    }
}

async fn resume(host: &Arc<Host>, left: Unfinished, channel: &Arc<Channel>) -> Result<Outcome, Failure> {
    let Some(work) = left.begin.work else {
        return Err(interrupted("the agent was killed in the middle of it"));
    };
    let work: Work = serde_json::from_str(&work).map_err(|error| fault("its record is damaged", &error))?;
    let steps: Vec<Step> = work
        .steps
        .iter()
        .map(|step| step.parse())
        .collect::<Result<_, _>>()
        .map_err(|error: crate::app::deployment::UnknownStep| fault("its record is damaged", &error))?;
    let state =
        Deployment::replay(steps, &left.events).map_err(|error| fault("its record is damaged", &error))?;
    let at = state
        .begun()
        .last()
        .map_or_else(|| "before its first step".to_owned(), |step| format!("in the step {step}"));
    let mut failure = left.failure.map(|message| Failure::new(Code::Interrupted, message));
    let ctx = Context::new(Arc::clone(host), work, Brings::default(), Arc::clone(channel))?;
    ctx.served.store(left.events.contains(&Event::Started(Step::Switch)), Ordering::Relaxed);
    end_left(left.begin.id.clone()).await;
    let goes_on = state.is_past_return() || !matches!(state.todo(), Next::Do(_));
    let mut journal = Journal::new(Arc::clone(&host.records), left.begin.id, state);
    if !goes_on {
        journal.note_anyway(Event::Interrupted, "").await;
        failure = Some(interrupted(&format!("the agent was killed {at}")));
    }
    Ok(run::run(&ctx, journal, left.begin.env.unwrap_or_default(), failure).await)
}

/// The programs of the agent that was killed ended with it; what those had started in turn may go on.
async fn end_left(id: String) {
    let ended = tokio::task::spawn_blocking(move || proc::end_marked(DEPLOYMENT, &id, PATIENCE));
    if !ended.await.unwrap_or(false) {
        tracing::error!("ProgramsOfUnfinishedNotEnded");
    }
}

fn interrupted(message: &str) -> Failure {
    Failure::new(Code::Interrupted, message).hint("all that it had begun was undone: deploy again")
}
