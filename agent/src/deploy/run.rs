//! Takes the steps of a deployment, or takes them back.

use std::panic::AssertUnwindSafe;

use flipside_api::{Code, Failure, Outcome, State, StepReport};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::{
    context::Context,
    crew,
    fault::{Moment, point},
    journal::Journal,
    steps,
};
use crate::{
    app::{
        deployment::{Event, Next, Step},
        record::App,
    },
    sys::clock,
};

/// What is told at the end.
#[derive(Default)]
struct Report {
    steps: Vec<StepReport>,
    failure: Option<Failure>,
    broken: Vec<String>,
}

/// Goes on until the deployment has ended one way or the other, and records how.
pub(super) async fn run(
    ctx: &Context,
    mut journal: Journal,
    env: Vec<u8>,
    failure: Option<Failure>,
) -> Outcome {
    let begun = Instant::now();
    let mut report = Report { failure, ..Report::default() };
    let end = loop {
        match journal.todo() {
            Next::Do(step) => forward(ctx, &mut journal, step, &mut report).await,
            Next::Undo(step) => back(ctx, &mut journal, step, &mut report).await,
            end => break end,
        }
    };
    let outcome = Outcome { ms: millis(begun), ..outcome(ctx, end, report) };
    let app = (end == Next::Deployed).then(|| App {
        spec: ctx.work.spec.clone(),
        env,
        release: ctx.work.release.clone(),
        stopped: false,
    });
    tracing::info!(app = %ctx.work.spec.app, id = ctx.work.id, state = ?outcome.state, "DeploymentEnded");
    if let Err(error) = ctx.host.records.end(&ctx.work.id, &outcome, clock::now_ms(), app).await {
        // It stays unfinished on record, and is ended in the same way before anything else is done with the app.
        tracing::error!(id = ctx.work.id, %error, "DeploymentEndRecordFailed");
    }
    crew::settle_known(&ctx.host, &ctx.work.spec.app).await;
    outcome
}

async fn forward(ctx: &Context, journal: &mut Journal, step: Step, report: &mut Report) {
    if let Err(failure) = note(journal, Event::Started(step), "").await {
        report.failure = Some(failure);
        return journal.note_anyway(Event::Interrupted, "").await;
    }
    ctx.say(step.name(), "started", "", 0);
    let begun = Instant::now();
    let worked = attempt(ctx, step).await;
    let ms = millis(begun);
    if ctx.is_held() {
        journal.need(Step::Hold);
    }
    let (worked, ok) = match worked {
        Ok(message) => (Ok(message), true),
        // The release is in service and healthy: what could not be cleared away is tried again next time.
        Err(failure) if step == Step::Retire => (Ok(failure.message), false),
        Err(failure) => (Err(ctx.blackened(failure)), false),
    };
    let noted = match worked {
        Ok(message) => {
            let noted = note(journal, Event::Done(step), &message).await;
            noted.map(|()| message)
        }
        Err(failure) => Err(failure),
    };
    let (event, message) = match &noted {
        Ok(message) if ok => ("done", message),
        Ok(message) => ("failed", message),
        Err(failure) => ("failed", &failure.message),
    };
    ctx.say(step.name(), event, message, ms);
    let ok = ok && noted.is_ok();
    report.steps.push(StepReport { name: step.name().to_owned(), ok, ms, message: message.clone() });
    if let Err(failure) = noted {
        tracing::warn!(app = %ctx.work.spec.app, %step, error = failure.message, "StepFailed");
        journal.note_anyway(Event::Failed(step), &failure.message).await;
        report.failure = Some(failure);
    }
}

/// Before the point of no return what cannot be written down is not done; after it, nothing is undone for that.
async fn note(journal: &mut Journal, event: Event, message: &str) -> Result<(), Failure> {
    if journal.is_past_return() {
        journal.note_anyway(event, message).await;
        return Ok(());
    }
    journal.note(event, message).await
}

/// The work of a step. A fault of our own in it is a failure like any other, and undone like any other.
async fn attempt(ctx: &Context, step: Step) -> Result<String, Failure> {
    let work = async {
        point(step, Moment::Before).await?;
        let message = steps::work(step, ctx).await?;
        point(step, Moment::After).await?;
        Ok(message)
    };
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(own_fault(step)))
}

async fn back(ctx: &Context, journal: &mut Journal, step: Step, report: &mut Report) {
    let work = async {
        steps::undo(step, ctx).await?;
        point(step, Moment::Undo).await
    };
    match AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(own_fault(step))) {
        Ok(()) => {
            ctx.say(step.name(), "undone", "", 0);
            journal.note_anyway(Event::Undone(step), "").await;
        }
        Err(failure) => {
            tracing::error!(app = %ctx.work.spec.app, %step, error = failure.message, "StepUndoFailed");
            ctx.say(step.name(), "failed", &format!("could not be undone: {}", failure.message), 0);
            journal.note_anyway(Event::UndoFailed(step), &failure.message).await;
            report.broken.push(format!("{step} could not be undone: {}", failure.message));
        }
    }
}

fn own_fault(step: Step) -> Failure {
    Failure::new(
        Code::Host,
        format!("the agent hit a fault of its own in the step {step}; its log says where"),
    )
}

fn outcome(ctx: &Context, end: Next, report: Report) -> Outcome {
    let work = &ctx.work;
    let failure = report
        .failure
        .unwrap_or_else(|| Failure::new(Code::Interrupted, "the agent was stopped in the middle of it"));
    let base = match end {
        Next::Deployed => {
            let what = if work.verb == "env" { "the environment of" } else { "" };
            let note = ctx.found.note.get().map_or_else(String::new, |note| format!("; {note}"));
            Outcome::good(
                State::Deployed,
                format!("{what} {} is current ({}){note}", work.release, ctx.kind().name()).trim(),
            )
        }
        Next::Broken => {
            let mut failure = failure;
            failure.message = format!("{}; then {}", failure.message, report.broken.join("; "));
            Outcome::bad(State::Failed, failure)
        }
        // What a gate has refused was not begun, but for what is needed to see it.
        _ if failure.code == Code::Gate => Outcome::bad(State::Refused, failure),
        _ => Outcome::bad(State::RolledBack, failure),
    };
    let deployed = end == Next::Deployed;
    // Unless requests were held, others may have written since: their databases are not put back.
    let migrated = !ctx.is_held()
        && report.steps.iter().any(|step| step.name == Step::Migrate.name())
        && ctx.found.schema.get().is_none_or(|found| !found.migrations.pending.is_empty());
    let but = if ctx.has_written() {
        format!("; what was written since the switch is kept beside the databases as *.replaced-{}", work.id)
    } else if migrated {
        ", but what was migrated stays in the databases".to_owned()
    } else {
        String::new()
    };
    let undone = format!("all is as it was before{but}");
    Outcome {
        release: if deployed { Some(work.release.clone()) } else { work.previous.clone() },
        previous: work.previous.clone(),
        id: Some(work.id.clone()),
        steps: report.steps,
        comment: if deployed { base.comment.clone() } else { undone },
        ..base
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
