//! From a command to what handles it: one match, one lock for each app, one answer for each request id.
//!
//! A command runs in a task of the router's own: whoever asked may leave. The same id, verb and app joins a
//! running command, and gets the recorded outcome of one that has ended.

mod crew;
mod deploys;
mod health;
mod keep;
mod lifecycle;
mod locks;
mod logs;
mod resume;
mod run;
mod status;

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};

use flipside_api::{AppName, Code, Command, Failure, Outcome, Request, State, Who};
use futures_util::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::{
        record::{App, Unfinished},
        sample::Names,
    },
    backup::Backups,
    deploy,
    host::Host,
    progress::{Channel, Subscription},
    sys::{clock, exec::Streams},
};
use locks::{Held, Locks};

/// The same key is the same command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    id: String,
    verb: &'static str,
    app: AppName,
}

/// Who hears of every command, whichever way it came.
pub trait Witness: Send + Sync {
    /// A command begins; `heard` says how it goes. Must not block: the command waits.
    fn began(&self, who: &Who, command: &Command, heard: Subscription);

    /// How an app is has changed: all that is wrong with it now, in sentences; nothing where all is well again.
    fn health(&self, app: &AppName, problems: Vec<String>);
}

/// Where all commands come together.
pub struct Router {
    host: Arc<Host>,
    backups: Arc<dyn Backups>,
    locks: Locks,
    running: Mutex<HashMap<Key, Arc<Channel>>>,
    samples: Mutex<Names>,
    tasks: TaskTracker,
    stop: CancellationToken,
    witness: OnceLock<Box<dyn Witness>>,
}

/// A command on its way to its outcome.
struct Call<'a> {
    who: &'a Who,
    verb: &'static str,
    channel: &'a Arc<Channel>,
    /// Where a program that is run reads and writes.
    streams: Option<Streams>,
}

impl Router {
    /// A router for this host; `stop` ends commands that only watch.
    pub fn new(host: Arc<Host>, backups: Arc<dyn Backups>, stop: CancellationToken) -> Arc<Self> {
        let (running, samples, tasks) = (Mutex::default(), Mutex::default(), TaskTracker::new());
        let (locks, witness) = (Locks::default(), OnceLock::new());
        Arc::new(Self { host, backups, locks, running, samples, tasks, stop, witness })
    }

    /// Has `witness` hear of every command from now on; only the first is heard.
    pub fn witnessed_by(&self, witness: Box<dyn Witness>) {
        if self.witness.set(witness).is_err() {
            tracing::error!("SecondWitnessIgnored");
        }
    }

    /// Begins what is asked, or joins it where it runs already.
    pub fn submit(self: &Arc<Self>, request: Request) -> Subscription {
        self.submit_with(request, None)
    }

    /// The same with the streams of the program that is asked for.
    pub fn submit_with(self: &Arc<Self>, request: Request, streams: Option<Streams>) -> Subscription {
        let Request { who, command, .. } = request;
        let key = key(&who, &command);
        let channel = Channel::new();
        if let Some(key) = &key {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(channel) = running.get(key) {
                return channel.subscribe();
            }
            running.insert(key.clone(), Arc::clone(&channel));
        }
        let heard = channel.subscribe();
        if let Some(witness) = self.witness.get() {
            witness.began(&who, &command, channel.overhear());
        }
        let router = Arc::clone(self);
        self.tasks.spawn(async move {
            let begun = Instant::now();
            let call = Call { who: &who, verb: command.verb(), channel: &channel, streams };
            let work = AssertUnwindSafe(router.answer(call, command, key.as_ref()));
            let mut outcome = work.catch_unwind().await.unwrap_or_else(|_| {
                let failure =
                    Failure::new(Code::Host, "the agent hit a fault of its own; its log says where");
                Outcome::bad(State::Failed, failure)
            });
            if outcome.ms == 0 {
                outcome.ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            }
            router.forget(key.as_ref());
            channel.finish(outcome);
        });
        heard
    }

    /// Waits until every command has ended.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn forget(&self, key: Option<&Key>) {
        if let Some(key) = key {
            self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        }
    }

    async fn answer(&self, call: Call<'_>, command: Command, key: Option<&Key>) -> Outcome {
        if self.stop.is_cancelled() {
            let failure =
                Failure::new(Code::Interrupted, "the agent is stopping").hint("ask again in a moment");
            return Outcome::bad(State::Refused, failure);
        }
        if let Some(Key { id, verb, app }) = key {
            match self.host.records.answered(id, verb, app).await {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => {}
                Err(error) => return Outcome::bad(State::Refused, error.into()),
            }
        }
        let (verb, who, app) = (call.verb, call.who, command.app().map(ToString::to_string));
        tracing::info!(verb, app, via = who.via, user = who.user, "CommandStarted");
        let outcome = self.handle(call, command).await.unwrap_or_else(|failure| {
            let state = if failure.code == Code::Busy { State::Busy } else { State::Refused };
            Outcome::bad(state, failure)
        });
        let error = outcome.error.as_ref().map(|error| error.message.as_str());
        tracing::info!(verb, app, state = ?outcome.state, error, "CommandEnded");
        // What was not begun may be asked again under the same id.
        if let Some(Key { id, verb, app }) = key
            && !matches!(outcome.state, State::Busy | State::Refused | State::Planned)
            && let Err(error) = self.host.records.answer((id, verb, app), &outcome, clock::now_ms()).await
        {
            tracing::error!(%error, "AnswerRecordFailed");
        }
        outcome
    }

    async fn handle(&self, call: Call<'_>, command: Command) -> Result<Outcome, Failure> {
        match command {
            Command::Ping => Ok(Outcome::answer(serde_json::json!({ "id": self.host.config.id }))),
            Command::Version => Ok(status::version()),
            Command::Status { app } => status::status(self, app.as_ref()).await,
            Command::History(asked) => status::history(&self.host, &asked).await,
            Command::Releases(asked) => status::releases(&self.host, &asked.app).await,
            Command::EnvNames(asked) => status::env_names(&self.host, &asked.app),
            Command::Deploy(asked) => deploys::deploy(self, &call, *asked).await,
            Command::Redeploy(asked) => deploys::redeploy(self, &call, asked).await,
            Command::Rollback(asked) => deploys::rollback(self, &call, asked).await,
            Command::Env { app, env, files, wait } => {
                deploys::env(self, &call, &app, (env, files), wait).await
            }
            Command::Reload(asked)
            | Command::Restart(asked)
            | Command::Start(asked)
            | Command::Stop(asked) => lifecycle::instance(self, &call, &asked).await,
            Command::Maintenance { app, on } => lifecycle::maintenance(self, &call, &app, on).await,
            Command::Remove(asked) => lifecycle::remove(self, &call, &asked).await,
            Command::Logs(asked) => logs::logs(self, &call, &asked).await,
            Command::Run(asked) => run::run(self, call, asked).await,
            Command::Backup(asked) => self.backups.backup(&self.known(&asked.app).await?).await,
            Command::Backups(asked) => self.backups.list(&self.known(&asked.app).await?).await,
            Command::BackupCheck(asked) => self.backups.check(&self.known(&asked.app).await?).await,
            Command::Restore(asked) => lifecycle::restore(self, &call, &asked).await,
            Command::Metric(asked) => {
                self.known(&asked.app).await?;
                self.samples.lock().unwrap_or_else(PoisonError::into_inner).take(&asked)?;
                Err(Failure::new(Code::Gate, "this agent has no sink for an app's own samples")
                    .hint("the sample is sound, and was dropped: no sink of metrics is configured"))
            }
        }
    }

    /// Takes the app's lock, and ends first what could not be ended on record, as with a full disk: what comes
    /// now builds on it.
    async fn hold(&self, app: &AppName, verb: &'static str, who: &Who, wait: u64) -> Result<Held, Failure> {
        let held = self.locks.take(app, verb, who, wait).await?;
        for left in self.left(app).await? {
            deploy::recover(&self.host, left, &Channel::new()).await;
        }
        match self.left(app).await?.first() {
            None => Ok(held),
            Some(left) => Err(Failure::new(
                Code::Host,
                format!("how the {} before this ended cannot be put on record", left.begin.verb),
            )
            .hint("see to the disk that holds the agent's state_dir")),
        }
    }

    /// The deployments of the app that have not ended on record.
    async fn left(&self, app: &AppName) -> Result<Vec<Unfinished>, Failure> {
        let mut left = self.host.records.unfinished().await?;
        left.retain(|left| left.begin.app == *app && left.begin.work.is_some());
        Ok(left)
    }

    /// The app, which was deployed here.
    async fn known(&self, app: &AppName) -> Result<App, Failure> {
        self.host.records.app(app).await?.ok_or_else(|| not_deployed(app))
    }
}

/// The failure of a command about an app that this host does not have.
fn not_deployed(app: &AppName) -> Failure {
    Failure::new(Code::NotFound, format!("{app} was never deployed on this host"))
        .hint(format!("deploy it: salt 'THIS-HOST' flipside.deploy {app}"))
}

/// The key of a command that may be joined: one that has an id and changes something.
fn key(who: &Who, command: &Command) -> Option<Key> {
    let changes = !matches!(
        command,
        Command::Ping
            | Command::Version
            | Command::Status { .. }
            | Command::History(_)
            | Command::Releases(_)
            | Command::EnvNames(_)
            | Command::Logs(_)
            | Command::Metric(_)
            | Command::Backups(_)
    ) && command.verb() != "plan";
    let id = who.id.clone().filter(|id| !id.is_empty() && changes)?;
    Some(Key { id, verb: command.verb(), app: command.app()?.clone() })
}
