//! One database, followed until the agent says to stop. An agent that is gone is no reason to: the next one ends
//! us and goes on where we were.

use std::{io::BufRead, time::Duration};

use flipside_backup::{
    chain::Position,
    follow::{Config, Control, FollowError, Status, run, state_dir},
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    super::job::{Ask, Job, Report, Said},
    Refused, is_plain, open_store, refused, say, stored_name,
};

/// How often the agent hears of changes.
const EVERY: Duration = Duration::from_millis(250);
/// How long a backup on demand may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn follow(
    job: &Job,
    database: &str,
    recipients: &[String],
    rpo_ms: u64,
) -> Result<serde_json::Value, Refused> {
    if !is_plain(database) {
        return Err(Refused::new(format!("{database:?} is no name below the data folder"), ""));
    }
    let db = job.data.join(database);
    let state = state_dir(&job.state, &job.url, &db);
    let mut config = Config::new(&db, open_store(job)?, recipients.to_vec(), &state);
    config.name = stored_name(&job.app, database);
    config.signing_key = job.state.join("signing.key");
    config.rpo = Duration::from_millis(rpo_ms);
    let control = Control::new();
    let hearing = control.clone();
    // It ends with the process: a blocking read cannot be told to.
    std::thread::spawn(move || hear(&hearing));
    let position = in_thread(&config, &control).map_err(|error| refused(&error))?;
    Ok(json!({ "position": position.map(|position| position.to_string()) }))
}

/// Runs the follower in a thread; this one reports and hears signals.
fn in_thread(config: &Config, control: &Control) -> Result<Option<Position>, FollowError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(FollowError::Runtime)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| run(config, control));
        runtime.block_on(async {
            let mut end = signal(SignalKind::terminate()).ok();
            let mut waiting = Waiting::default();
            let mut last = None;
            while !thread.is_finished() {
                let told = async {
                    match &mut end {
                        Some(end) => end.recv().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = told => control.stop(),
                    () = tokio::time::sleep(EVERY) => {}
                }
                let report = waiting.report(&control.status());
                if last.as_ref() != Some(&report) {
                    say(&Said::Report(report.clone()));
                    last = Some(report);
                }
            }
        });
        thread.join().unwrap_or_else(|_| Err(FollowError::Ended("the follower panicked".to_owned())))
    })
}

/// Since when something waits for the store.
#[derive(Default)]
struct Waiting {
    since_ms: u64,
}

impl Waiting {
    fn report(&mut self, status: &Status) -> Report {
        let stored = status.dirty_ms == 0 && status.safe >= status.captured && status.snapshot;
        if stored {
            self.since_ms = 0;
        } else if self.since_ms == 0 {
            let now = flipside_backup::clock::now_ms();
            self.since_ms = if status.dirty_ms > 0 { status.dirty_ms } else { now };
        } else {
            // Whatever was committed before the stored state was read is stored.
            self.since_ms = self.since_ms.max(status.safe_ms);
        }
        Report {
            chain: status.chain.clone(),
            safe: status.safe,
            safe_ms: status.safe_ms,
            waiting_ms: self.since_ms,
            snapshot: status.snapshot,
            error: status.error.clone(),
        }
    }
}

/// What the agent asks, until it is gone.
fn hear(control: &Control) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        match serde_json::from_str(&line) {
            Ok(Ask::Stop) => control.stop(),
            Ok(Ask::Backup(number)) => {
                let control = control.clone();
                std::thread::spawn(move || say(&Said::Position(number, answer(&control))));
            }
            Err(error) => tracing::warn!(%error, "AskNotUnderstood"),
        }
    }
}

fn answer(control: &Control) -> Result<String, String> {
    control.backup_now(PATIENCE).map(|position| position.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_as_old_as_the_oldest_commit_that_is_not_stored() {
        let mut waiting = Waiting::default();
        let mut status = Status { snapshot: true, captured: 3, safe: 3, safe_ms: 50, ..Status::default() };
        assert_eq!(waiting.report(&status).waiting_ms, 0);
        status.dirty_ms = 100;
        assert_eq!(waiting.report(&status).waiting_ms, 100);
        (status.dirty_ms, status.captured) = (0, 4);
        assert_eq!(waiting.report(&status).waiting_ms, 100, "captured is not stored");
        (status.captured, status.safe, status.safe_ms) = (5, 4, 120);
        assert_eq!(waiting.report(&status).waiting_ms, 120);
        status.safe = 5;
        assert_eq!(waiting.report(&status).waiting_ms, 0);
    }
}
