//! From the outbox to the master, by the minion's bus.

use std::time::Duration;

use salt_wire::{Bus, FireError};
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use super::herald::{Herald, News};
use crate::host::chain;

/// Events in one request to the master, and the bytes of their data.
const BATCH: u32 = 50;
const BATCH_BYTES: usize = 256 << 10;
/// How often ends are looked for that nobody announced.
const CATCH_UP: Duration = Duration::from_secs(15);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// Sends while the bus is there; ends only by being dropped.
pub(super) async fn send(bus: &Bus, herald: &Herald, mut connected: watch::Receiver<bool>) {
    let mut catch_up = Instant::now();
    loop {
        if connected.wait_for(|connected| *connected).await.is_err() {
            return;
        }
        if catch_up <= Instant::now() {
            herald.catch_up().await;
            catch_up = Instant::now() + CATCH_UP;
        }
        match batch(bus, herald).await {
            Ok(true) => {}
            Ok(false) => {
                tokio::select! {
                    () = herald.news.notified() => {}
                    () = tokio::time::sleep_until(catch_up) => {}
                }
            }
            Err(problem) => {
                tracing::warn!(problem, "AnswersNotSent");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Sends one batch; false when there was nothing to send.
async fn batch(bus: &Bus, herald: &Herald) -> Result<bool, String> {
    let waiting = herald.db.waiting(BATCH, BATCH_BYTES).await.map_err(|error| chain(&error))?;
    // The beginnings first: an end follows its own.
    let mut events: Vec<News> = herald.passing(BATCH as usize);
    let last = waiting.last().map(|waiting| waiting.seq);
    for waiting in waiting {
        match serde_json::from_str::<Value>(&waiting.data) {
            Ok(data) => events.push((waiting.tag, data)),
            Err(error) => tracing::error!(tag = waiting.tag, %error, "OutboxDamaged"),
        }
    }
    if events.is_empty() && last.is_none() {
        return Ok(false);
    }
    match bus.fire_master_batch(&events).await {
        Ok(()) => {}
        // Such a batch would never go: better to lose it than all that wait behind it.
        Err(FireError::Encode(error)) => tracing::error!(%error, "OutboxDamaged"),
        Err(error) => return Err(error.to_string()),
    }
    if let Some(last) = last {
        herald.db.taken(last).await.map_err(|error| chain(&error))?;
    }
    Ok(true)
}
