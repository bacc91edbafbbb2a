//! What is heard of a running command: everybody who asks for it hears all of it, and its one outcome.
//!
//! A command never waits for those who listen. What a slow listener misses is counted and said.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use flipside_api::{Outcome, Progress, Reply};
use tokio::sync::{broadcast, watch};

/// How much a listener may lag behind, and how much of the past a late one hears.
const KEPT: usize = 1024;

/// One running command, as others hear it.
#[derive(Debug)]
pub struct Channel {
    past: Mutex<VecDeque<Progress>>,
    progress: broadcast::Sender<Progress>,
    outcome: watch::Sender<Option<Outcome>>,
    /// Closed when nobody is left who asked.
    askers: watch::Sender<()>,
}

impl Channel {
    /// A command that begins.
    pub fn new() -> Arc<Self> {
        let past = Mutex::new(VecDeque::new());
        let (progress, outcome) = (broadcast::Sender::new(KEPT), watch::Sender::new(None));
        Arc::new(Self { past, progress, outcome, askers: watch::Sender::new(()) })
    }

    /// Says that something happened.
    pub fn send(&self, progress: Progress) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(progress.clone());
        // Nobody needs to listen.
        let _ = self.progress.send(progress);
    }

    /// A line of output; `step` says whose.
    pub fn output(&self, step: &str, line: &str) {
        self.send(Progress { step: step.into(), event: "output".into(), message: line.into(), ms: 0 });
    }

    /// Says how it ended.
    pub fn finish(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }

    /// How much waits for the slowest of those who listen.
    pub fn waiting(&self) -> usize {
        self.progress.len()
    }

    /// Ends when nobody is left who asked; those who only overhear it do not count.
    pub async fn abandoned(&self) {
        self.askers.closed().await;
    }

    /// Somebody who asked, and hears all of it from the beginning.
    pub fn subscribe(&self) -> Subscription {
        Subscription { _asker: Some(self.askers.subscribe()), ..self.overhear() }
    }

    /// Somebody who did not ask, and hears all of it from the beginning.
    pub fn overhear(&self) -> Subscription {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        Subscription {
            past: past.clone(),
            progress: self.progress.subscribe(),
            outcome: self.outcome.subscribe(),
            ended: false,
            _asker: None,
        }
    }
}

/// Somebody who listens to a command.
#[derive(Debug)]
pub struct Subscription {
    past: VecDeque<Progress>,
    progress: broadcast::Receiver<Progress>,
    outcome: watch::Receiver<Option<Outcome>>,
    ended: bool,
    _asker: Option<watch::Receiver<()>>,
}

impl Subscription {
    /// What is heard next; nothing after the outcome, or when the command was lost.
    pub async fn next(&mut self) -> Option<Reply> {
        if self.ended {
            return None;
        }
        if let Some(progress) = self.past.pop_front() {
            return Some(Reply::Progress(progress));
        }
        loop {
            tokio::select! {
                biased;
                heard = self.progress.recv() => match heard {
                    Ok(progress) => return Some(Reply::Progress(progress)),
                    Err(broadcast::error::RecvError::Lagged(missed)) => return Some(Reply::Progress(lagged(missed))),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
                changed = self.outcome.wait_for(Option::is_some) => {
                    // What was said before the outcome is heard before it.
                    if changed.is_err() || self.progress.is_empty() {
                        break;
                    }
                }
            }
        }
        self.ended = true;
        let outcome = self.outcome.borrow().clone();
        outcome.map(|outcome| Reply::Outcome(Box::new(outcome)))
    }
}

fn lagged(missed: u64) -> Progress {
    Progress {
        step: String::new(),
        event: "output".into(),
        message: format!("[{missed} lines came faster than they were read, and are left out]"),
        ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use flipside_api::State;

    use super::*;

    async fn all(mut of: Subscription) -> Vec<String> {
        let mut heard = Vec::new();
        while let Some(reply) = of.next().await {
            heard.push(match reply {
                Reply::Progress(progress) => progress.message,
                Reply::Outcome(outcome) => outcome.comment,
            });
        }
        heard
    }

    #[tokio::test]
    async fn early_and_late_listeners_hear_the_same() {
        let channel = Channel::new();
        let early = channel.subscribe();
        channel.output("", "one");
        let late = channel.subscribe();
        channel.output("", "two");
        channel.finish(Outcome::good(State::Ok, "end"));
        let after = channel.subscribe();
        for subscription in [early, late, after] {
            assert_eq!(all(subscription).await, ["one", "two", "end"]);
        }
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_missed() {
        let channel = Channel::new();
        let slow = channel.subscribe();
        for n in 0..KEPT + 10 {
            channel.output("", &n.to_string());
        }
        channel.finish(Outcome::good(State::Ok, "end"));
        let heard = all(slow).await;
        assert!(heard[0].starts_with("[10 lines"), "{}", heard[0]);
        assert_eq!(heard.last().unwrap(), "end");
    }

    #[tokio::test]
    async fn a_command_that_is_lost_ends_its_listeners() {
        let channel = Channel::new();
        let listener = channel.subscribe();
        drop(channel);
        assert!(all(listener).await.is_empty());
    }

    #[tokio::test]
    async fn it_is_noticed_when_nobody_listens() {
        let channel = Channel::new();
        let (listener, witness) = (channel.subscribe(), channel.overhear());
        drop(listener);
        channel.abandoned().await;
        drop(witness);
    }
}
