//! `backup media`: the files beside a database, with no agent.

use std::sync::Arc;

use flipside_api::{Code, Failure};
use flipside_backup::{
    chain::ChainId,
    crypt::{CryptError, HostKey, Identities, Recipients},
    follow::state_dir,
    media::{ListEntry, MediaError, Reader, Report, Writer, set_in},
    state::signing_key,
    store::{ErrorKind, Store, StoreError},
};
use serde_json::json;

use super::{
    failed,
    follow::{limited, time},
    place::Place,
    read::policy,
};
use crate::{
    args::{
        MediaArgs, MediaListArgs, MediaPruneArgs, MediaReadArgs, MediaRestoreArgs, MediaRunArgs, MediaVerb,
    },
    commands::Session,
    failures::{OK, Result, on, usage},
    when,
};

const FAILED: u8 = 1;

/// `flipside backup media`.
pub(crate) fn run(args: &MediaArgs, session: &Session<'_>) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new(Code::Host, format!("cannot start: {e}")))?;
    runtime.block_on(async {
        match &args.verb {
            MediaVerb::Run(args) => back_up(args, session).await,
            MediaVerb::List(args) => list(args, session).await,
            MediaVerb::Restore(args) => restore(args, session).await,
            MediaVerb::Prune(args) => prune(args, session).await,
        }
    })
}

async fn back_up(args: &MediaRunArgs, session: &Session<'_>) -> Result<u8> {
    let place = Place::of(&args.repo)?;
    let store = limited(Arc::clone(&place.store), args.limit);
    let dir = std::fs::canonicalize(&args.dir).map_err(on("open", &args.dir))?;
    let recipients = place.recipients(&args.recipient)?;
    let recipients = Recipients::parse(&recipients).map_err(|e| usage(e.to_string()))?;
    let host = signing_key(&place.signing_key()).map_err(|e| failed(&e))?;
    let state = state_dir(&place.state, &place.url, &dir);
    let set = set_in(&state).map_err(|e| explain(&e))?;
    let writer = Writer {
        store: &*store,
        set,
        name: args.name.clone().unwrap_or_else(|| dir.display().to_string()),
        recipients: &recipients,
        host: &host,
        state: state.join("list.json"),
    };
    let report = writer.run(&dir).await.map_err(|e| explain(&e))?;
    tell(&report, set, session);
    Ok(if report.unreadable.is_empty() { OK } else { FAILED })
}

fn tell(report: &Report, set: ChainId, session: &Session<'_>) {
    if session.output.is_json() {
        let unreadable: Vec<_> =
            report.unreadable.iter().map(|(path, why)| json!({"path": path, "why": why})).collect();
        session.output.object(&json!({
            "v": 1, "result": report.unreadable.is_empty(), "set": set.to_string(), "list": report.list,
            "files": report.files, "bytes": report.bytes, "stored": report.stored,
            "stored_bytes": report.stored_bytes, "unreadable": unreadable, "changing": report.changing,
            "skipped": report.skipped,
        }));
        return;
    }
    for (path, why) in &report.unreadable {
        session.output.notice(format!("cannot read {path}: {why}"));
    }
    for path in &report.changing {
        session.output.notice(format!("{path} changed while it was read; the next run reads it again"));
    }
    for path in &report.skipped {
        session.output.notice(format!("{path} is no file"));
    }
    let Report { files, bytes, stored, stored_bytes, list, .. } = report;
    let end = match list {
        Some(list) => format!("list {list}"),
        None => "unchanged".to_owned(),
    };
    session.output.line(format!(
        "{files} files, {bytes} bytes; stored {stored} in {stored_bytes} bytes; set {set}, {end}"
    ));
}

async fn list(args: &MediaListArgs, session: &Session<'_>) -> Result<u8> {
    let Place { store, url, .. } = Place::of(&args.repo)?;
    let mut rows = Vec::new();
    for set in Reader::sets(&*store).await.map_err(|e| explain(&e))? {
        for ListEntry { id, time_ms, bytes } in Reader::lists(&*store, set).await.map_err(|e| explain(&e))? {
            rows.push(json!({"set": set.to_string(), "list": id, "time": time(time_ms), "bytes": bytes}));
        }
    }
    if session.output.is_json() {
        session.output.object(&json!({"v": 1, "result": true, "lists": rows}));
    } else if rows.is_empty() {
        session.output.notice(format!("there are no media in {}", url));
    } else {
        let rows = crate::output::rows(&json!(rows));
        for line in crate::output::render(&rows, &["set", "time", "list", "bytes"]) {
            session.output.line(line);
        }
    }
    Ok(OK)
}

async fn restore(args: &MediaRestoreArgs, session: &Session<'_>) -> Result<u8> {
    let Place { store, url, .. } = Place::of(&args.read.repo)?;
    let (identities, host) = keys(&args.read)?;
    let set = the_set(&*store, &url, args.read.set.as_deref()).await?;
    let id = the_list(&*store, set, args).await?;
    let reader = Reader::new(&*store, set, &identities, host);
    let list = reader.list(&id).await.map_err(|e| explain(&e))?;
    let done = reader.restore(&list, &args.only, &args.output).await.map_err(|e| explain(&e))?;
    let time = time(done.time_ms);
    if session.output.is_json() {
        session.output.object(&json!({
            "v": 1, "result": true, "set": set.to_string(), "list": id, "time": time, "name": list.name,
            "files": done.files, "bytes": done.bytes, "output": args.output,
        }));
    } else {
        let (files, bytes, output) = (done.files, done.bytes, args.output.display());
        session.output.line(format!("{files} files, {bytes} bytes, as of {time}, in {output}"));
    }
    Ok(OK)
}

async fn prune(args: &MediaPruneArgs, session: &Session<'_>) -> Result<u8> {
    let Place { store, url, .. } = Place::of(&args.read.repo)?;
    let (identities, host) = keys(&args.read)?;
    let set = the_set(&*store, &url, args.read.set.as_deref()).await?;
    let reader = Reader::new(&*store, set, &identities, host);
    let now = jiff::Timestamp::now().as_millisecond();
    let plan = reader.plan_prune(now, &policy(&args.retain)).await.map_err(|e| explain(&e))?;
    if !session.output.is_json() {
        session.output.line(plan.to_string());
    }
    if args.retain.apply {
        plan.apply(&*store, &reader).await.map_err(|e| explain(&e))?;
    }
    if session.output.is_json() {
        session.output.object(&json!({
            "v": 1, "result": true, "applied": args.retain.apply, "set": set.to_string(),
            "keep_lists": plan.keep.len(), "remove_lists": plan.remove.len(), "keep": plan.blobs,
            "remove": plan.remove_blobs, "freed": plan.freed,
        }));
    } else if !args.retain.apply {
        session.output.notice("nothing was removed: this is the plan; --apply carries it out");
    }
    Ok(OK)
}

/// Who reads, and whom they believe.
fn keys(args: &MediaReadArgs) -> Result<(Identities, Option<HostKey>)> {
    let content = std::fs::read_to_string(&args.identity).map_err(on("read", &args.identity))?;
    let identities = Identities::parse(&args.identity.display().to_string(), &content);
    let host = args.host_key.as_deref().map(str::parse).transpose();
    let host = host.map_err(|e: CryptError| usage(e.to_string()))?;
    Ok((identities.map_err(|e| usage(e.to_string()))?, host))
}

async fn the_set(store: &dyn Store, url: &str, set: Option<&str>) -> Result<ChainId> {
    if let Some(text) = set {
        return text.parse().map_err(|_| usage(format!("{text:?} is no id of a set: 32 hex digits")));
    }
    match Reader::sets(store).await.map_err(|e| explain(&e))?.as_slice() {
        [set] => Ok(*set),
        [] => Err(Failure::new(Code::NotFound, format!("there are no media in {}", url))),
        sets => {
            let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
            Err(usage(format!("the store holds several sets: {}", sets.join(", "))).hint("say --set"))
        }
    }
}

async fn the_list(store: &dyn Store, set: ChainId, args: &MediaRestoreArgs) -> Result<String> {
    if let Some(id) = &args.list {
        return Ok(id.clone());
    }
    let latest = match &args.timestamp {
        Some(text) => {
            let instant = when::instant(text, jiff::Timestamp::now())?;
            let time: jiff::Timestamp = instant.parse().map_err(|_| usage(format!("{text:?} is no time")))?;
            u64::try_from(time.as_millisecond()).unwrap_or(0)
        }
        None => u64::MAX,
    };
    let lists = Reader::lists(store, set).await.map_err(|e| explain(&e))?;
    let fitting = lists.into_iter().rfind(|list| list.time_ms <= latest);
    let none = || Failure::new(Code::NotFound, format!("set {set} has no list as old as that"));
    fitting.map(|list| list.id).ok_or_else(|| none().hint("flipside backup media list shows what there is"))
}

fn store_failure(error: &StoreError) -> Failure {
    let code = match error.kind() {
        _ if error.operation() == "open" => Code::Usage,
        ErrorKind::NotFound => Code::NotFound,
        _ => Code::Backup,
    };
    Failure::new(code, failed(error).message).hint(error.advice())
}

fn explain(error: &MediaError) -> Failure {
    match error {
        MediaError::Store(store) => store_failure(store),
        MediaError::NoList(_) => Failure::new(Code::NotFound, error.to_string()),
        MediaError::Local { .. } => Failure::new(Code::Host, failed(error).message),
        _ => Failure::new(Code::Backup, failed(error).message),
    }
}
