//! What an agent does when it starts: end what another left, and have every app run that should.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use flipside_api::{AppName, Failure, Who};

use super::{Key, Router, lifecycle};
use crate::{
    app::record::{App, Unfinished},
    deploy,
    progress::Channel,
};

impl Router {
    /// Begins it. The apps concerned are held before this returns, so that no command comes first.
    ///
    /// # Errors
    /// When what is on record cannot be read.
    pub async fn resume(self: &Arc<Self>) -> Result<(), Failure> {
        let mut apps: BTreeMap<AppName, Vec<Unfinished>> = BTreeMap::new();
        for left in self.host.records.unfinished().await? {
            apps.entry(left.begin.app.clone()).or_default().push(left);
        }
        for (app, all) in apps {
            let who = all[0].begin.who.clone();
            let all: Vec<_> = all.into_iter().map(|left| self.announce(left)).collect();
            let held = self.locks.take(&app, "recover", &who, 0).await;
            let router = Arc::clone(self);
            self.tasks.spawn(async move {
                let mut ended = Vec::new();
                // One after the other: a later one was begun where an earlier one had ended, on record or not.
                for (left, key, channel) in all {
                    let outcome = if left.begin.verb == "restore" {
                        lifecycle::recover_restore(&router, &left.begin).await
                    } else {
                        deploy::recover(&router.host, left, &channel).await
                    };
                    ended.push((outcome, key, channel));
                }
                drop(held);
                for (outcome, key, channel) in ended {
                    router.forget(key.as_ref());
                    channel.finish(outcome);
                }
            });
        }
        let router = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(failure) = router.start_all().await {
                tracing::error!(error = failure.message, "AppsStartFailed");
            }
        });
        Ok(())
    }

    /// Lets whoever asks for it again join what was left.
    fn announce(&self, left: Unfinished) -> (Unfinished, Option<Key>, Arc<Channel>) {
        let (begin, channel) = (&left.begin, Channel::new());
        let key = verb(&begin.verb).zip(begin.who.id.clone()).map(|(verb, id)| Key {
            id,
            verb,
            app: begin.app.clone(),
        });
        if let Some(key) = &key {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert(key.clone(), Arc::clone(&channel));
        }
        (left, key, channel)
    }

    /// Starts every app that should run and does not: after a boot, that is all of them.
    async fn start_all(&self) -> Result<(), Failure> {
        for app in self.host.records.apps().await? {
            if self.stop.is_cancelled() {
                break;
            }
            if let Err(failure) = self.start_one(app.clone()).await {
                tracing::error!(app = %app.spec.app, error = failure.message, "AppStartFailed");
            }
        }
        Ok(())
    }

    async fn start_one(&self, app: App) -> Result<(), Failure> {
        let who = Who { via: "agent".into(), ..Who::default() };
        let _held = self.hold(&app.spec.app, "start", &who, 3600).await?;
        // It may have been changed by what held it until now.
        let Some(app) = self.host.records.app(&app.spec.app).await?.filter(|app| !app.stopped) else {
            return Ok(());
        };
        let runtime = self.host.runtime(app.spec.runtime)?;
        if runtime.observe(&self.host.paths(&app.spec.app)).await?.listening {
            tracing::info!(app = %app.spec.app, "AppAdopted");
            return deploy::settle(&self.host, &app).await;
        }
        let instance = self.host.instance(&app.spec, self.host.account(&app.spec)?);
        runtime.start(&instance, &app.release).await?;
        deploy::settle(&self.host, &app).await?;
        tracing::info!(app = %app.spec.app, release = %app.release, "AppStarted");
        Ok(())
    }
}

/// The verb of a record, as commands spell it.
fn verb(recorded: &str) -> Option<&'static str> {
    [
        "deploy",
        "rollback",
        "env",
        "reload",
        "restart",
        "start",
        "stop",
        "maintenance",
        "remove",
        "restore",
        "run",
    ]
    .into_iter()
    .find(|verb| *verb == recorded)
}
