//! Keeping the apps up: one whose holder was killed, or that nobody serves, is brought back.
//!
//! The holder starts an instance again that ends, uWSGI a worker. This is for what they cannot: a holder that was
//! killed leaves its instance behind, which serves on and which nobody would start again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use flipside_api::{AppName, Failure, Who};

use super::Router;
use crate::{app::record::App, deploy};

/// How often is looked. A look asks one socket an app.
const EVERY: Duration = Duration::from_secs(5);

/// An app that could not be brought back is left alone for twice as long each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

impl Router {
    /// Keeps them until the agent stops.
    pub async fn keep(&self) {
        let mut pauses: HashMap<AppName, (Instant, Duration)> = HashMap::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            let Ok(apps) = self.host.records.apps().await else { continue };
            for app in apps.into_iter().filter(|app| !app.stopped) {
                let name = app.spec.app.clone();
                if pauses.get(&name).is_some_and(|(until, _)| Instant::now() < *until) {
                    continue;
                }
                // An app that is left half started is brought back by the next agent.
                let kept = tokio::select! {
                    () = self.stop.cancelled() => return,
                    kept = self.keep_one(app) => kept,
                };
                match kept {
                    Ok(()) => drop(pauses.remove(&name)),
                    Err(failure) => {
                        tracing::error!(app = %name, error = failure.message, "AppNotBroughtBack");
                        let pause =
                            pauses.get(&name).map_or(EVERY, |(_, pause)| *pause * 2).min(LONGEST_PAUSE);
                        pauses.insert(name, (Instant::now() + pause, pause));
                    }
                }
            }
        }
    }

    async fn keep_one(&self, app: App) -> Result<(), Failure> {
        if self.is_up(&app).await? && deploy::is_settled(&self.host, &app).await? {
            return Ok(());
        }
        let who = Who { via: "agent".into(), ..Who::default() };
        // Whatever holds the app now sees to it, or holds it down on purpose.
        let Ok(_held) = self.hold(&app.spec.app, "start", &who, 0).await else { return Ok(()) };
        let Some(app) = self.host.records.app(&app.spec.app).await?.filter(|app| !app.stopped) else {
            return Ok(());
        };
        if self.is_up(&app).await? {
            return deploy::settle(&self.host, &app).await;
        }
        let instance = self.host.instance(&app.spec, self.host.account(&app.spec)?);
        self.host.runtime(app.spec.runtime)?.start(&instance, &app.release).await?;
        tracing::warn!(app = %app.spec.app, release = %app.release, "AppBroughtBack");
        deploy::settle(&self.host, &app).await
    }

    /// Whether the listener is held and somebody works behind it.
    async fn is_up(&self, app: &App) -> Result<bool, Failure> {
        let observed = self.host.runtime(app.spec.runtime)?.observe(&self.host.paths(&app.spec.app)).await?;
        Ok(observed.listening && !observed.workers.is_empty())
    }
}
