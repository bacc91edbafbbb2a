//! From the outbox to the master, by the minion.
//!
//! `fire_master` is the minion's promise to try, and it forgets what it could not deliver. So an end is sent over
//! the minion's own channel to the master, and stays in the outbox until the master itself has answered. Salt 3007
//! never passes such an answer on; there the promise must do.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use salt_wire::{AskError, Bus, FireError, discover::Minion};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::herald::{Herald, News};
use crate::host::chain;

/// Events in one request to the master, and the bytes of their data.
const BATCH: u32 = 50;
const BATCH_BYTES: usize = 256 << 10;
/// How often ends are looked for that nobody announced.
const CATCH_UP: Duration = Duration::from_secs(15);
/// The pauses after failures.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How long the minion may take to say that the master does not answer it: three tries of up to ten seconds.
const PATIENCE: Duration = Duration::from_secs(40);
/// When a minion that is silent is first asked again, then after twice as long: one that has just started is, until
/// it has found its master.
const ASK_AGAIN: Duration = Duration::from_secs(4);
/// When a silent minion is taken for one that never passes answers on: at once, or if it did before.
const MUTE_AFTER: (Duration, Duration) = (Duration::from_secs(100), Duration::from_secs(3600));

/// Sends what is said on the way, and nobody's loss if it is lost.
pub(super) async fn send_passing(bus: &Bus, herald: &Herald, mut connected: watch::Receiver<bool>) {
    while connected.wait_for(|connected| *connected).await.is_ok() {
        let events = herald.passing(BATCH as usize);
        if events.is_empty() {
            herald.passed.notified().await;
        } else if let Err(error) = bus.fire_master_batch(&events).await {
            tracing::debug!(%error, "ProgressNotSent");
        }
    }
}

/// Sends the ends, each until it has arrived.
pub(super) async fn send_ends(
    bus: &Bus,
    minion: &Minion,
    herald: &Herald,
    mut connected: watch::Receiver<bool>,
) {
    let mut route = Route { bus, minion, herald, proven: false };
    let mut pause = PAUSES.0;
    while connected.wait_for(|connected| *connected).await.is_ok() {
        let mut gone = connected.clone();
        let problem = tokio::select! {
            problem = route.serve(&mut pause) => problem,
            // Another minion may have other manners.
            _ = gone.wait_for(|connected| !connected) => continue,
        };
        tracing::warn!(problem, "AnswersNotSent");
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// How ends get from here to the master.
struct Route<'a> {
    bus: &'a Bus,
    minion: &'a Minion,
    herald: &'a Herald,
    /// Whether the minion has ever passed on an answer.
    proven: bool,
}

impl Route<'_> {
    /// Sends batch after batch until one fails; says why.
    async fn serve(&mut self, pause: &mut Duration) -> String {
        let answers = match self.understand().await {
            Ok(answers) => answers,
            Err(error) => return chain(&error),
        };
        self.proven |= answers;
        tracing::info!(answers, "MinionUnderstood");
        let mut catch_up = Instant::now();
        loop {
            if catch_up <= Instant::now() {
                self.herald.catch_up().await;
                catch_up = Instant::now() + CATCH_UP;
            }
            match self.batch(answers).await {
                Ok(true) => *pause = PAUSES.0,
                Ok(false) => tokio::select! {
                    () = self.herald.news.notified() => {}
                    () = sleep_until(catch_up) => {}
                },
                Err(problem) => return problem,
            }
        }
    }

    /// Whether the minion passes on the master's answers.
    async fn understand(&self) -> Result<bool, AskError> {
        let mut asked = FuturesUnordered::new();
        let (mut again, mut pause) = (Instant::now(), ASK_AGAIN);
        let mute = sleep(if self.proven { MUTE_AFTER.1 } else { MUTE_AFTER.0 });
        tokio::pin!(mute);
        loop {
            tokio::select! {
                Some(answer) = asked.next() => match answer {
                    // That it looked in vain for the master is an answer too.
                    Ok(()) | Err(AskError::NoMaster) => return Ok(true),
                    Err(AskError::Silence) => {}
                    Err(error) => return Err(error),
                },
                () = sleep_until(again) => {
                    asked.push(self.ask(&[]));
                    again += pause;
                    pause *= 2;
                }
                () = &mut mute => return Ok(false),
            }
        }
    }

    /// Sends one batch; false when there was nothing to send.
    async fn batch(&self, answers: bool) -> Result<bool, String> {
        let db = &self.herald.db;
        let waiting = db.waiting(BATCH, BATCH_BYTES).await.map_err(|error| chain(&error))?;
        let Some(last) = waiting.last().map(|waiting| waiting.seq) else { return Ok(false) };
        // The beginnings first: an end follows its own.
        let mut events: Vec<News> = self.herald.passing(BATCH as usize);
        for waiting in waiting {
            match serde_json::from_str::<Value>(&waiting.data) {
                Ok(data) => events.push((waiting.tag, data)),
                Err(error) => tracing::error!(tag = waiting.tag, %error, "OutboxDamaged"),
            }
        }
        let sent = if answers {
            self.ask(&events).await
        } else {
            self.bus.fire_master_batch(&events).await.map_err(AskError::Fire)
        };
        match sent {
            Ok(()) => {}
            // Such a batch would never go: better to lose it than all that wait behind it.
            Err(AskError::Fire(FireError::Encode(error))) => tracing::error!(%error, "OutboxDamaged"),
            Err(error) => return Err(chain(&error)),
        }
        db.taken(last).await.map_err(|error| chain(&error))?;
        Ok(true)
    }

    /// Hands events to the first master that takes them; none at all is a question whether one would.
    async fn ask(&self, events: &[News]) -> Result<(), AskError> {
        let events: Vec<_> = events.iter().map(|(tag, data)| InBatch { tag, data }).collect();
        let load = json!({ "cmd": "_minion_event", "id": self.minion.id, "pretag": null, "events": events });
        let mut failed = AskError::Silence;
        for master in &self.minion.masters {
            match self.bus.ask_master(master, &load, PATIENCE).await {
                Ok(_) => return Ok(()),
                Err(AskError::Silence) => {}
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

#[derive(Serialize)]
struct InBatch<'a> {
    tag: &'a str,
    data: &'a Value,
}
