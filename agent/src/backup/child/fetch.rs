//! Databases out of the store, aside: each verified before anything of the app is touched.

use std::{fs, os::unix::fs::DirBuilderExt, path::Path, sync::Arc};

use flipside_backup::restore::{self, Source, Target};
use serde_json::Value;

use super::{
    super::job::{Fetched, Job, Said},
    Refused, host_key, identities, is_plain, open_store, refused, runtime, say, stored_name,
};
use crate::sqlite;

/// How folders with fetched files are called, before the stamp.
pub(super) const ASIDE: &str = ".restoring-";

/// Restores all that is meant into the folder `aside`; the files are called by their number.
pub(super) fn fetch(
    job: &Job,
    only: Option<&str>,
    patterns: &[String],
    time_ms: Option<u64>,
    aside: &str,
) -> Result<Value, Refused> {
    let databases = meant(job, only, patterns)?;
    let folder = job.data.join(aside);
    // What a restore that failed has left. One that was killed is ended before any other begins.
    for left in fs::read_dir(&job.data).into_iter().flatten().flatten() {
        if left.file_name().to_string_lossy().starts_with(ASIDE) {
            let _ = fs::remove_dir_all(left.path());
        }
    }
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(|error| Refused::new(format!("cannot make {}: {error}", folder.display()), ""))?;
    let done = each(job, &databases, time_ms, &folder);
    if done.is_err() {
        let _ = fs::remove_dir_all(&folder);
    }
    let fetched = done?;
    serde_json::to_value(fetched).map_err(|error| refused(&error))
}

fn each(
    job: &Job,
    databases: &[String],
    time_ms: Option<u64>,
    folder: &Path,
) -> Result<Vec<Fetched>, Refused> {
    let (store, host) = (open_store(job)?, host_key(job)?);
    let keys = identities(job)?.ok_or_else(|| Refused::new("nothing can be read without an identity", ""))?;
    let target = time_ms.map_or(Target::Latest, Target::Time);
    let mut fetched = Vec::new();
    for (number, database) in databases.iter().enumerate() {
        let source = Source {
            store: Arc::clone(&store),
            identities: Arc::clone(&keys),
            name: Some(stored_name(&job.app, database)),
            chain: None,
            host: Some(host),
        };
        let mut shown = 0;
        let mut progress = |at: restore::Progress| {
            let percent = at.done * 100 / at.total.max(1);
            if percent >= shown + 25 {
                shown = percent;
                say(&Said::Progress(format!("{database}: {percent} % of {} bytes", at.total)));
            }
        };
        let restored = restore::restore(&source, target, &folder.join(number.to_string()), &mut progress)
            .map_err(|error| {
                let Refused { message, hint } = refused(&error);
                Refused::new(format!("{database}: {message}"), hint)
            })?;
        fetched.push(Fetched {
            database: database.clone(),
            position: restored.position.to_string(),
            time_ms: restored.time_ms,
            bytes: restored.bytes,
        });
    }
    Ok(fetched)
}

/// The databases that are meant: the one that was named, or all in the store that the app's patterns name.
fn meant(job: &Job, only: Option<&str>, patterns: &[String]) -> Result<Vec<String>, Refused> {
    let (store, keys, host) = (open_store(job)?, identities(job)?, host_key(job)?);
    let listed = runtime()?.block_on(restore::list(&store, keys.as_ref(), None, Some(host)));
    let prefix = stored_name(&job.app, "");
    let all = listed.map_err(|error| refused(&error))?;
    let empty = all.is_empty();
    let mut stored: Vec<String> = all
        .into_iter()
        .filter_map(|chain| chain.name?.strip_prefix(&prefix).map(str::to_owned))
        .filter(|name| is_plain(name))
        .collect();
    stored.sort();
    stored.dedup();
    let found: Vec<String> = match only {
        Some(only) => stored.iter().filter(|name| *name == only).cloned().collect(),
        None => stored.iter().filter(|name| sqlite::is_named(patterns, name)).cloned().collect(),
    };
    if !found.is_empty() {
        return Ok(found);
    }
    if empty {
        return Err(Refused::new("the store holds no backup of this app", ""));
    }
    if stored.is_empty() {
        return Err(Refused::new(
            "the identity opens no backup of this app that this host signed",
            "see whether it belongs to a recipient in [backup]; another host's backups are restored with `flipside backup restore`",
        ));
    }
    Err(Refused::new(format!("the store holds no such database; it holds {}", stored.join(", ")), ""))
}
