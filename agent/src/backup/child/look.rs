//! What the store holds, and what can be proven of it.

use std::sync::Arc;

use flipside_backup::{
    chain::chains,
    follow::state_dir,
    restore::{self, Source, Target, check_chain},
    state::standing,
};
use serde_json::{Value, json};

use super::{super::job::Job, Refused, host_key, identities, open_store, refused, runtime, stored_name};
use crate::sys::clock;

fn time(ms: u64) -> String {
    clock::rfc3339(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// Every chain with its points. Without an identity names are known only of what is followed here.
pub(super) fn list(job: &Job, known: &[String]) -> Result<Value, Refused> {
    let (store, keys) = (open_store(job)?, identities(job)?);
    let listed = runtime()?.block_on(restore::list(&store, keys.as_ref(), None, None));
    let mut here = Vec::new();
    for database in known {
        let dir = state_dir(&job.state, &job.url, &job.data.join(database));
        if let Ok(Some((chain, _))) = standing(&dir) {
            here.push((chain.to_string(), database));
        }
    }
    let prefix = stored_name(&job.app, "");
    let mut rows = Vec::new();
    for chain in listed.map_err(|error| refused(&error))? {
        let name = chain.name.as_deref().map(|name| name.strip_prefix(&prefix).unwrap_or(name));
        let name = name.or_else(|| {
            here.iter().find(|(id, _)| *id == chain.chain).map(|(_, database)| database.as_str())
        });
        for point in &chain.points {
            rows.push(json!({
                "database": name,
                "time": time(point.time_ms),
                "position": format!("{}:{}", chain.chain, point.seq),
                "kind": if point.snapshot { "snapshot" } else { "newest" },
                "bytes": chain.bytes,
            }));
        }
    }
    Ok(Value::Array(rows))
}

/// A report of each chain.
pub(super) fn check(job: &Job) -> Result<Value, Refused> {
    let (store, keys, host) = (open_store(job)?, identities(job)?, host_key(job)?);
    let all = runtime()?.block_on(chains(&*store)).map_err(|error| refused(&error))?;
    if all.is_empty() {
        return Err(Refused::new("the store holds no backup of this app yet", "wait for the first snapshot"));
    }
    let mut rows = Vec::new();
    for chain in all {
        let report = check_chain(&store, chain, (keys.as_ref(), Some(host)), &job.state, &mut |_| {})
            .map_err(|error| refused(&error))?;
        rows.push(json!({
            "chain": report.chain,
            "database": report.name.as_deref().map(|name| name.strip_prefix(&stored_name(&job.app, "")).unwrap_or(name)),
            "objects": report.objects,
            "bytes": report.bytes,
            "newest": time(report.last_ms),
            "oldest": time(report.first_ms),
            "restored": report.restored,
            "findings": report.findings,
        }));
    }
    Ok(Value::Array(rows))
}

/// Restores the newest state of each into a file that is gone afterwards.
pub(super) fn rehearse(job: &Job, databases: &[String]) -> Result<Value, Refused> {
    let (store, host) = (open_store(job)?, host_key(job)?);
    let keys = identities(job)?.ok_or_else(|| Refused::new("there is no identity", ""))?;
    let mut rows = Vec::new();
    for database in databases {
        let source = Source {
            store: Arc::clone(&store),
            identities: Arc::clone(&keys),
            name: Some(stored_name(&job.app, database)),
            chain: None,
            host: Some(host),
        };
        let done = restore::rehearse(&source, Target::Latest, &job.state, &mut |_| {});
        rows.push(match done {
            Ok(restored) => json!({ "database": database, "position": restored.position.to_string() }),
            Err(error) => json!({ "database": database, "error": refused(&error).message }),
        });
    }
    Ok(Value::Array(rows))
}
