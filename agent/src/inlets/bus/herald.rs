//! Follows every command and writes down what the master is to hear of it.

use std::sync::{Arc, Mutex, PoisonError};

use flipside_api::{AppName, Command, Failure, Outcome, Reply, State, Who};
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

use super::{
    answer::{self, Subject},
    request::Asked,
};
use crate::{
    db::{Db, outbox::About},
    host::chain,
    progress::Subscription,
    router::Witness,
    sys::clock,
};

/// How many beginnings and steps wait for the bus; more are dropped.
const PASSING: usize = 256;
/// An end that had no answer for so long was cut off from it by a crash.
const LOST_AFTER: i64 = 10_000;
/// What ended longer ago is no news.
const STALE_AFTER: i64 = 24 * 3_600_000;

/// An event for the master.
pub(super) type News = (String, Value);

/// Hears of every command; answers wait in agent.db, what is said on the way only in memory.
pub struct Herald {
    minion: String,
    pub(super) db: Db,
    passing: mpsc::Sender<News>,
    queue: Mutex<mpsc::Receiver<News>>,
    /// Something was said on the way.
    pub(super) passed: Notify,
    /// Something has ended.
    pub(super) news: Notify,
    tasks: TaskTracker,
}

impl Herald {
    /// A herald of the host `minion`.
    pub fn new(minion: &str, db: Db) -> Arc<Self> {
        let (passing, queue) = mpsc::channel(PASSING);
        let (passed, news, tasks) = (Notify::new(), Notify::new(), TaskTracker::new());
        Arc::new(Self {
            minion: minion.to_owned(),
            db,
            passing,
            queue: Mutex::new(queue),
            passed,
            news,
            tasks,
        })
    }

    /// Waits until what ended is written down.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// An event was refused before it became a command.
    pub(super) fn refused(self: &Arc<Self>, asked: &Asked, failure: Failure) {
        let subject = Subject {
            minion: self.minion.clone(),
            verb: asked.verb.to_owned(),
            app: asked.app.to_string(),
            who: Who { via: "event".into(), user: String::new(), id: asked.id.clone(), ..Who::default() },
        };
        let outcome = Outcome::bad(State::Refused, failure);
        let herald = Arc::clone(self);
        self.tasks.spawn(async move { herald.ended(&subject, &outcome).await });
    }

    /// Answers for what ended when nobody was there to answer: the agent was killed, or it unwound a deployment
    /// at its start.
    pub(super) async fn catch_up(&self) {
        let now = clock::now_ms();
        let lost = match self.db.unannounced(now - STALE_AFTER, now - LOST_AFTER).await {
            Ok(lost) => lost,
            Err(error) => return tracing::error!(error = chain(&error), "OutboxFailed"),
        };
        for lost in lost {
            let (minion, verb) = (self.minion.clone(), lost.verb);
            let subject = Subject { minion, verb, app: lost.app, who: lost.who };
            let outcome = Outcome { id: Some(lost.id), ..lost.outcome };
            self.ended(&subject, &outcome).await;
        }
    }

    /// Takes what was said on the way since the last time.
    pub(super) fn passing(&self, most: usize) -> Vec<News> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| queue.try_recv().ok()).take(most).collect()
    }

    fn pass(&self, news: News) {
        // Full: the bus is slow or away, and the end will be told all the same.
        if self.passing.try_send(news).is_ok() {
            self.passed.notify_one();
        }
    }

    async fn follow(&self, subject: &Subject, mut heard: Subscription) {
        if subject.takes_time() {
            self.pass(subject.started());
        }
        while let Some(reply) = heard.next().await {
            match reply {
                Reply::Progress(progress) if subject.takes_time() => {
                    if let Some(news) = subject.progress(&progress) {
                        self.pass(news);
                    }
                }
                Reply::Progress(_) => {}
                Reply::Outcome(outcome) => {
                    if subject.tells(&outcome) {
                        self.ended(subject, &outcome).await;
                    }
                }
            }
        }
    }

    async fn ended(&self, subject: &Subject, outcome: &Outcome) {
        let (tag, data) = subject.ended(outcome);
        let about = About {
            deployment: outcome.id.clone(),
            app: subject.app.clone(),
            verb: subject.verb.clone(),
            request: subject.who.id.clone(),
        };
        self.announce(about, tag, &data).await;
    }

    async fn announce(&self, about: About, tag: String, data: &Value) {
        match self.db.announce(about, tag, data.to_string(), clock::now_ms()).await {
            Ok(()) => self.news.notify_one(),
            Err(error) => tracing::error!(error = chain(&error), "OutboxFailed"),
        }
    }
}

/// The herald as the router knows it.
impl Witness for Arc<Herald> {
    fn began(&self, who: &Who, command: &Command, heard: Subscription) {
        let Some(subject) = Subject::of(&self.minion, who, command) else { return };
        let herald = Self::clone(self);
        self.tasks.spawn(async move { herald.follow(&subject, heard).await });
    }

    fn health(&self, app: &AppName, problems: Vec<String>) {
        let about =
            About { deployment: None, app: app.to_string(), verb: "health".to_owned(), request: None };
        let (tag, data) = answer::health(&self.minion, app, &problems);
        let herald = Self::clone(self);
        self.tasks.spawn(async move { herald.announce(about, tag, &data).await });
    }
}
