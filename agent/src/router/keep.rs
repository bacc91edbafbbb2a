//! Keeping the apps up: one whose holder was killed, or that nobody serves, is brought back; and what is wrong with
//! an app is told.
//!
//! The holder starts an instance again that ends, uWSGI a worker. This is for what they cannot: a holder that was
//! killed leaves its instance behind, which serves on and which nobody would start again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use flipside_api::{AppName, Failure, Who};

use super::{
    Router, crew,
    health::{Problem, Told},
};
use crate::{
    app::record::App,
    deploy,
    runtime::{Observed, holder::protocol::CrewState},
    sys::clock,
};

/// How often is looked. A look asks one socket an app.
const EVERY: Duration = Duration::from_secs(5);

/// An app that could not be brought back is left alone for twice as long each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// An app that is left alone.
struct Pause {
    until: Instant,
    long: Duration,
    /// Why it could not be brought back.
    why: String,
}

impl Router {
    /// Keeps them until the agent stops.
    pub async fn keep(&self) {
        let (mut pauses, mut told) = (HashMap::<AppName, Pause>::new(), Told::default());
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            let Ok(mut apps) = self.host.records.apps().await else { continue };
            apps.retain(|app| !app.stopped);
            told.keep(&apps.iter().map(|app| app.spec.app.clone()).collect());
            for app in &apps {
                let name = &app.spec.app;
                let mut pause = pauses.remove(name);
                // An app that is left half started is brought back by the next agent.
                let problems = tokio::select! {
                    () = self.stop.cancelled() => return,
                    problems = self.keep_one(app, &mut pause) => problems,
                };
                told.tell(self.witness.get().map(AsRef::as_ref), name, &problems);
                pauses.extend(pause.map(|pause| (name.clone(), pause)));
            }
        }
    }

    /// Brings an app back that is not up, unless it is left alone; what is wrong with it.
    async fn keep_one(&self, app: &App, pause: &mut Option<Pause>) -> Vec<Problem> {
        let seen = self.look(app).await;
        let is_well = seen.as_ref().is_ok_and(|(observed, crew)| {
            is_kept(observed) && deploy::is_settled(&self.host, app, crew).unwrap_or(false)
        });
        if is_well {
            *pause = None;
        } else if pause.as_ref().is_none_or(|pause| pause.until <= Instant::now()) {
            *pause = self.bring_back(&app.spec.app).await.err().map(|failure| {
                tracing::error!(app = %app.spec.app, error = failure.message, "AppNotBroughtBack");
                let long = pause.as_ref().map_or(EVERY, |pause| pause.long * 2).min(LONGEST_PAUSE);
                Pause { until: Instant::now() + long, long, why: failure.message }
            });
        }
        let down = pause.as_ref().map(|pause| format!("it could not be brought back: {}", pause.why));
        let problem = |what: &str, text| Problem { what: what.to_owned(), text };
        let mut problems: Vec<Problem> = down.map(|text| problem("start", text)).into_iter().collect();
        if let Ok((observed, crew)) = seen {
            problems.extend(observed.problem.map(|text| problem("workers", text)));
            problems.extend(crew::problems(&crew, clock::now_ms()));
        }
        problems
    }

    async fn look(&self, app: &App) -> Result<(Observed, CrewState), Failure> {
        let (runtime, paths) = (self.host.runtime(app.spec.runtime)?, self.host.paths(&app.spec.app));
        Ok((runtime.observe(&paths).await?, runtime.crew(&paths).await?))
    }

    async fn bring_back(&self, name: &AppName) -> Result<(), Failure> {
        let who = Who { via: "agent".into(), ..Who::default() };
        // Whatever holds the app now sees to it, or holds it down on purpose.
        let Ok(_held) = self.hold(name, "start", &who, 0).await else { return Ok(()) };
        let Some(app) = self.host.records.app(name).await?.filter(|app| !app.stopped) else {
            return Ok(());
        };
        if is_kept(&self.look(&app).await?.0) {
            return deploy::settle(&self.host, &app).await;
        }
        let instance = self.host.instance(&app.spec, self.host.account(&app.spec)?);
        self.host.runtime(app.spec.runtime)?.start(&instance, &app.release).await?;
        tracing::warn!(app = %app.spec.app, release = %app.release, "AppBroughtBack");
        deploy::settle(&self.host, &app).await
    }
}

/// Whether the listener is held, and somebody works behind it or is started by the holder again and again.
fn is_kept(observed: &Observed) -> bool {
    observed.listening && (observed.options.is_some() || !observed.workers.is_empty())
}
