//! Waiting until an instance is as it should be, or it is plain that it will not be.

use std::{
    collections::HashSet,
    path::Path,
    time::{Duration, Instant},
};

use flipside_api::ReleaseId;
use tokio::time::sleep;

use super::{
    client::{self, ClientError},
    look::{Seen, look},
};
use crate::runtime::{
    holder::protocol::{Ask, Instance},
    uwsgi::MERCY_SECONDS,
};

const TICK: Duration = Duration::from_millis(100);

/// So many new workers may end before they serve: one may be bad luck.
const MOST_CRASHES: usize = 2;

/// So many times uWSGI may not be started at all: a disk may be full for a moment.
const MOST_REFUSALS: u32 = 2;

/// After so long without news from workers that are all well, the chain has ended short of the goal, and is begun
/// again. The master looks once a second.
const NUDGE: Duration = Duration::from_secs(3);
const MOST_NUDGES: usize = 5;

/// Workers that serve have stayed for so long: one that crashes just after its start has not.
const STEADY: Duration = Duration::from_millis(500);

/// An old worker is gone after this, by force at last.
const MERCY: Duration = Duration::from_secs(MERCY_SECONDS + 10);

/// How an instance should be: every worker new and serving the release.
pub(super) struct Goal<'a> {
    /// The app's folder of sockets.
    pub(super) run: &'a Path,
    /// The instance.
    pub(super) name: &'a str,
    /// The release.
    pub(super) release: &'a ReleaseId,
    /// How many workers.
    pub(super) workers: usize,
    /// Workers that do not count: they were there before.
    pub(super) old: HashSet<u32>,
    /// How long one worker may take to import the app.
    pub(super) start_timeout: Duration,
}

/// Why the goal is not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stuck {
    /// Workers end before they serve.
    #[error("its workers end while they start")]
    Crash,
    /// A worker starts and starts.
    #[error("worker {0} did not start within {1} s")]
    Hang(u32, u64),
    /// An old worker does not end.
    #[error("worker process {0} did not end within {1} s")]
    Drain(u32, u64),
    /// Workers serve something else.
    #[error("its workers serve {0} instead")]
    Other(String),
    /// Workers come and go.
    #[error("its workers come and go, and not within {0} s did all of them stay")]
    Restless(u64),
    /// uWSGI cannot even be started.
    #[error("uWSGI cannot be started: {0}")]
    Refused(String),
    /// uWSGI itself does not stay.
    #[error("uWSGI ends when it is started")]
    Instance,
    /// The holder.
    #[error(transparent)]
    Holder(ClientError),
}

/// What was seen so far.
#[derive(Default)]
struct Past {
    /// New workers.
    fresh: HashSet<u32>,
    /// Those of them that have not served yet.
    starting: HashSet<u32>,
    crashes: usize,
    nudges: usize,
    starts: Option<u32>,
}

impl Goal<'_> {
    /// Waits until it is reached. `chain`: by restarting worker after worker, else by a fresh instance.
    pub(super) async fn reach(&self, chain: Chain) -> Result<(), Stuck> {
        let mut past = Past::default();
        let begun = Instant::now();
        let mut last: Option<(Vec<(u32, bool)>, Instant)> = None;
        loop {
            let instance = self.instance().await?;
            let first = *past.starts.get_or_insert(instance.starts);
            if instance.starts > first.max(1) + 1 {
                return Err(Stuck::Instance);
            }
            if let Some(refused) = instance.refused.filter(|_| instance.refusals >= MOST_REFUSALS) {
                return Err(Stuck::Refused(refused));
            }
            let seen = match instance.pid {
                Some(master) => look(self.run, self.name, master).await,
                None => Vec::new(),
            };
            past.count(&seen, &self.old);
            if past.crashes >= MOST_CRASHES {
                return Err(Stuck::Crash);
            }
            let now: Vec<(u32, bool)> = seen.iter().map(|seen| (seen.pid(), seen.is_up())).collect();
            let since = match &last {
                Some((then, since)) if *then == now => since.elapsed(),
                _ => {
                    last = Some((now, Instant::now()));
                    Duration::ZERO
                }
            };
            if self.is_reached(&seen) && since >= STEADY {
                return Ok(());
            }
            self.judge(&seen, since)?;
            if begun.elapsed() > self.longest() {
                return Err(Stuck::Restless(self.longest().as_secs()));
            }
            let well = seen.len() == self.workers && seen.iter().all(Seen::is_up);
            if well && since >= NUDGE {
                if past.nudges >= MOST_NUDGES || matches!(chain, Chain::Fresh) {
                    return Err(self.other(&seen));
                }
                past.nudges += 1;
                last = None;
                self.ask(&Ask::Reload { name: self.name.to_owned() }).await?;
            }
            sleep(TICK).await;
        }
    }

    fn is_reached(&self, seen: &[Seen]) -> bool {
        seen.len() == self.workers
            && seen.iter().all(|seen| seen.serves(self.release) && !self.old.contains(&seen.pid()))
    }

    /// Whether what has not changed for so long can still be waited for.
    fn judge(&self, seen: &[Seen], since: Duration) -> Result<(), Stuck> {
        let starting = seen.iter().find(|seen| !seen.is_up() && !self.old.contains(&seen.pid()));
        match starting {
            Some(seen) if since > self.start_timeout => {
                Err(Stuck::Hang(seen.worker.id, self.start_timeout.as_secs()))
            }
            None if since > MERCY.max(self.start_timeout) => {
                let old = seen.iter().find(|seen| self.old.contains(&seen.pid()));
                Err(old.map_or(Stuck::Instance, |old| Stuck::Drain(old.pid(), MERCY.as_secs())))
            }
            _ => Ok(()),
        }
    }

    /// However much happens, it has an end.
    fn longest(&self) -> Duration {
        (MERCY + self.start_timeout) * u32::try_from(self.workers).unwrap_or(u32::MAX).saturating_add(1)
    }

    fn other(&self, seen: &[Seen]) -> Stuck {
        let other = seen.iter().find(|seen| !seen.serves(self.release));
        let release = other.and_then(|seen| seen.worker.release.as_ref());
        Stuck::Other(release.map_or_else(|| "no release that they tell".to_owned(), ToString::to_string))
    }

    async fn instance(&self) -> Result<Instance, Stuck> {
        let state = self.ask(&Ask::State).await?;
        state.instances.into_iter().find(|instance| instance.name == self.name).ok_or(Stuck::Instance)
    }

    async fn ask(&self, ask: &Ask) -> Result<crate::runtime::holder::protocol::HolderState, Stuck> {
        match client::ask(self.run, ask).await {
            // It is between two starts, which is seen soon enough.
            Err(ClientError::Refused(_)) if matches!(ask, Ask::Reload { .. }) => {
                client::ask(self.run, &Ask::State).await
            }
            other => other,
        }
        .map_err(Stuck::Holder)
    }
}

/// How the goal is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// Worker after worker, nudged where the chain stops short.
    Workers,
    /// All at once.
    Fresh,
}

impl Past {
    fn count(&mut self, seen: &[Seen], old: &HashSet<u32>) {
        // A second chain ends workers that served well.
        let counted = if self.nudges == 0 { &self.fresh } else { &self.starting };
        let there: HashSet<u32> = seen.iter().map(Seen::pid).collect();
        self.crashes += counted.difference(&there).count();
        let fresh = || seen.iter().filter(|seen| !old.contains(&seen.pid()));
        self.starting = fresh().filter(|seen| !seen.is_up()).map(Seen::pid).collect();
        self.fresh = fresh().map(Seen::pid).collect();
    }
}
