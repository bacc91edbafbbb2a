//! Instances whose holder was killed: they still serve, and nobody would start them again.
//!
//! They are known by the records that their holder left in a folder that only we can write; a record counts while
//! the very process that it names still runs.

use std::{fs, io::Read, path::Path, time::Duration};

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::look::look;
use crate::{
    runtime::{
        holder::protocol::{HolderState, Instance},
        uwsgi::files::InstanceFiles,
    },
    sys::{beneath, proc},
};

const TICK: Duration = Duration::from_millis(50);

/// An orphan that gets no new requests has done with those it has after three looks without a busy worker.
const QUIET: usize = 3;

/// How long an orphan is given to work its queue off before it is told to end.
const DRAIN: Duration = Duration::from_secs(10);

/// The instances that run without a holder, oldest first. Files of those that have ended are removed.
pub(super) fn orphans(run: &Path, holder: Option<&HolderState>) -> Vec<Instance> {
    let held =
        |name: &str| holder.is_some_and(|state| state.instances.iter().any(|instance| instance.name == name));
    let mut orphans: Vec<Instance> = records(run).into_iter().filter(|record| !held(&record.name)).collect();
    orphans.retain(|record| {
        let runs = record.pid.is_some_and(|pid| proc::runs(pid, record.started));
        if !runs {
            InstanceFiles::new(run, &record.name).remove();
        }
        runs
    });
    orphans.sort_by_key(|record| record.started);
    orphans
}

fn records(run: &Path) -> Vec<Instance> {
    let Ok(entries) = fs::read_dir(run) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let stem = name.to_str()?.strip_suffix(".json")?;
            let mut text = String::new();
            beneath::open_read(run, Path::new(&name)).ok()?.take(1 << 16).read_to_string(&mut text).ok()?;
            let record: Instance = serde_json::from_str(&text).ok()?;
            (record.name == stem).then_some(record)
        })
        .collect()
}

/// Ends an orphan that gets no new requests: lets it work off what it has, then as gently as it allows.
pub(super) async fn retire(run: &Path, orphan: &Instance, within: Duration) {
    let Some(master) = orphan.pid else { return };
    let runs = || proc::runs(master, orphan.started);
    let drained = Instant::now() + DRAIN.min(within);
    let mut quiet = 0;
    while runs() && quiet < QUIET && Instant::now() < drained {
        let busy = look(run, &orphan.name, master).await.iter().any(|seen| seen.worker.busy);
        quiet = if busy { 0 } else { quiet + 1 };
        sleep(TICK).await;
    }
    let killed = Instant::now() + within;
    let mut again = Instant::now();
    while runs() && Instant::now() < killed {
        if Instant::now() >= again {
            proc::signal(master, Signal::SIGTERM);
            again = Instant::now() + Duration::from_secs(2);
        }
        sleep(TICK).await;
    }
    if runs() {
        proc::kill_group(master);
    }
    InstanceFiles::new(run, &orphan.name).remove();
    tracing::info!(instance = orphan.name, master, "OrphanRetired");
}
