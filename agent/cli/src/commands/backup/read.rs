//! The verbs that read a store, prune it, or hand its keys on.

use std::{sync::Arc, time::Instant};

use flipside_api::{Code, Failure};
use flipside_backup::{
    chain::{Catalog, ChainId, Position, chains},
    crypt::{HostKey, Identities, Recipients},
    restore::{self, ChainReport, Source, Target, check_chain},
    retain,
};
use serde_json::json;

use super::{
    failed,
    follow::time,
    place::{Place, database},
};
use crate::{
    args::{PruneArgs, ReadArgs, RestoreFileArgs, RetainArgs, RewrapArgs},
    commands::Session,
    failures::{OK, Result, on, usage},
    when,
};

const FOUND: u8 = 1;

/// `backup restore`.
pub(super) fn restore(args: &RestoreFileArgs, session: &Session<'_>) -> Result<u8> {
    let began = Instant::now();
    let source = source(&args.read)?;
    let target = target(args, &source)?;
    let mut shown = 0;
    let restored = restore::restore(&source, target, &args.output, &mut |progress| {
        let percent = progress.done * 100 / progress.total.max(1);
        if percent >= shown + 10 && !session.output.is_json() && !session.shared.quiet {
            shown = percent;
            session.output.notice(format!("{percent} % of {}", size(progress.total)));
        }
    })
    .map_err(|error| failed(&error))?;
    let output = args.output.display().to_string();
    if session.output.is_json() {
        session.output.object(&json!({
            "v": 1, "result": true, "position": restored.position.to_string(), "name": restored.name,
            "time": time(restored.time_ms), "bytes": restored.bytes, "fetched": restored.fetched,
            "objects": restored.objects, "host_key": restored.host.map(|host| host.to_string()),
            "output": output, "ms": u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        }));
        return Ok(OK);
    }
    session.output.line(format!(
        "{output}: {} as of {} (position {}), {} from {} in {} objects",
        restored.name,
        time(restored.time_ms),
        restored.position,
        size(restored.bytes),
        size(restored.fetched),
        restored.objects
    ));
    if let (None, Some(host)) = (source.host, restored.host) {
        session.output.notice(format!("signed by the host {host}; --host-key refuses any other"));
    }
    Ok(OK)
}

fn target(args: &RestoreFileArgs, source: &Source) -> Result<Target> {
    if let Some(text) = &args.timestamp {
        let instant = when::instant(text, jiff::Timestamp::now())?;
        let parsed: jiff::Timestamp = instant.parse().map_err(|_| usage(format!("{text:?} is no time")))?;
        return Ok(Target::Time(u64::try_from(parsed.as_millisecond()).unwrap_or(0)));
    }
    let Some(text) = &args.position else { return Ok(Target::Latest) };
    if let Ok(seq) = text.parse() {
        let chain = match source.chain {
            Some(chain) => chain,
            None => match wait(chains(&*source.store))?.map_err(|error| failed(&error))?.as_slice() {
                [chain] => *chain,
                _ => {
                    return Err(usage(format!("position {text} of which chain?"))
                        .hint("write it as `backup position` prints it, CHAIN:NUMBER, or add --chain"));
                }
            },
        };
        return Ok(Target::Position(Position { chain, seq }));
    }
    text.parse().map(Target::Position).map_err(|error| usage(format!("{error}")))
}

/// `backup list`.
pub(super) fn list(args: &ReadArgs, session: &Session<'_>) -> Result<u8> {
    let place = Place::of(&args.repo)?;
    let identities = identities(args)?;
    let (only, host) = (chain_of(args.chain.as_deref())?, host_of(args)?);
    let listed = wait(restore::list(&place.store, identities.as_ref(), only, host))?;
    let wanted = args.db.as_deref().map(name_of);
    let listed: Vec<_> = listed
        .map_err(|error| failed(&error))?
        .into_iter()
        .filter(|chain| match (&wanted, &chain.name) {
            (Some(wanted), Some(name)) => restore::is_called(name, wanted),
            _ => true,
        })
        .collect();
    if session.output.is_json() {
        session.output.object(&json!({"v": 1, "result": true, "chains": listed}));
        return Ok(OK);
    }
    for chain in listed {
        session.output.line(format!(
            "{} {}  {} in {} objects",
            chain.chain,
            chain.name.as_deref().unwrap_or("(named only to those with an identity)"),
            size(chain.bytes),
            chain.objects
        ));
        for point in chain.points {
            let how = if point.snapshot { "snapshot" } else { "newest" };
            session.output.line(format!("  {}  {}:{}  {how}", time(point.time_ms), chain.chain, point.seq));
        }
    }
    Ok(OK)
}

/// `backup check`.
pub(super) fn check(args: &ReadArgs, session: &Session<'_>) -> Result<u8> {
    let place = Place::of(&args.repo)?;
    let identities = identities(args)?;
    let host = host_of(args)?;
    let all = match chain_of(args.chain.as_deref())? {
        Some(chain) => vec![chain],
        None => wait(chains(&*place.store))?.map_err(|error| failed(&error))?,
    };
    if all.is_empty() {
        return Err(Failure::new(Code::NotFound, format!("{} holds no backup", place.url)));
    }
    let mut reports = Vec::new();
    for chain in all {
        let report =
            check_chain(&place.store, chain, (identities.as_ref(), host), &std::env::temp_dir(), &mut |_| {})
                .map_err(|error| failed(&error))?;
        reports.push(report);
    }
    let good = reports.iter().all(|report| report.findings.is_empty());
    if session.output.is_json() {
        session.output.object(&json!({"v": 1, "result": good, "chains": reports}));
    } else {
        reports.iter().for_each(|report| show(report, session));
    }
    Ok(if good { OK } else { FOUND })
}

fn show(report: &ChainReport, session: &Session<'_>) {
    let name = report.name.as_deref().unwrap_or("");
    let proven = if report.restored { "restored and sound" } else { "whole as far as can be seen" };
    let verdict = if report.findings.is_empty() { proven } else { "NOT SOUND" };
    session.output.line(format!(
        "{} {name}: {verdict}; {} objects, {}, newest {} of {}",
        report.chain,
        report.objects,
        size(report.bytes),
        report.last.map_or("none".to_owned(), |last| last.to_string()),
        time(report.last_ms)
    ));
    report.findings.iter().for_each(|finding| session.output.line(format!("  {finding}")));
}

/// `backup prune`.
pub(super) fn prune(args: &PruneArgs, session: &Session<'_>) -> Result<u8> {
    let place = Place::of(&args.repo)?;
    let policy = policy(&args.retain);
    let all = match chain_of(args.chain.as_deref())? {
        Some(chain) => vec![chain],
        None => wait(chains(&*place.store))?.map_err(|error| failed(&error))?,
    };
    let now = jiff::Timestamp::now().as_millisecond();
    let mut done = Vec::new();
    for chain in all {
        let catalog = wait(Catalog::load(&*place.store, chain))?.map_err(|error| failed(&error))?;
        let plan = retain::plan(&catalog, now, &policy).map_err(|error| failed(&error))?;
        if !session.output.is_json() {
            session.output.line(plan.to_string());
        }
        if args.retain.apply {
            wait(retain::apply(&*place.store, &plan, |_| {}))?.map_err(|error| failed(&error))?;
        }
        done.push(json!({
            "chain": chain.to_string(), "keep": plan.keep.len(), "remove": plan.remove.len(),
            "remove_parts": plan.remove_parts.len(), "stranded": plan.stranded.len(), "freed": plan.freed(),
        }));
    }
    if session.output.is_json() {
        session.output.object(&json!({"v": 1, "result": true, "applied": args.retain.apply, "chains": done}));
    } else if !args.retain.apply {
        session.output.notice("nothing was removed: this is the plan; --apply carries it out");
    }
    Ok(OK)
}

/// What stays, as typed.
pub(super) fn policy(args: &RetainArgs) -> retain::Policy {
    let RetainArgs { all_hours, hourly_days, daily_days, monthly_days, .. } = *args;
    retain::Policy { all_hours, hourly_days, daily_days, monthly_days }
}

/// `backup rewrap`.
pub(super) fn rewrap(args: &RewrapArgs, session: &Session<'_>) -> Result<u8> {
    let source = source(&args.read)?;
    let recipients = Recipients::parse(&args.recipient).map_err(|error| usage(error.to_string()))?;
    let count = wait(restore::rewrap(&source, &recipients))?.map_err(|error| failed(&error))?;
    if session.output.is_json() {
        session.output.object(&json!({"v": 1, "result": true, "epochs": count}));
    } else {
        session.output.line(format!("{count} epochs are encrypted to the new recipients"));
        session.output.notice("`flipside backup init` tells each host of them for the epochs to come");
    }
    Ok(OK)
}

fn source(args: &ReadArgs) -> Result<Source> {
    let place = Place::of(&args.repo)?;
    let identities = identities(args)?.ok_or_else(|| {
        usage("nothing can be read without an identity").hint("--identity FILE, with AGE-SECRET-KEY-1… in it")
    })?;
    Ok(Source {
        store: place.store,
        identities,
        name: args.db.as_deref().map(name_of),
        chain: chain_of(args.chain.as_deref())?,
        host: host_of(args)?,
    })
}

/// A path that exists here stands for the name that following it gives; all else is a name as it is.
fn name_of(db: &str) -> String {
    match database(db.as_ref()) {
        Ok(path) if std::path::Path::new(db).exists() => path.to_string_lossy().into_owned(),
        _ => db.to_owned(),
    }
}

fn identities(args: &ReadArgs) -> Result<Option<Arc<Identities>>> {
    let mut all = String::new();
    for path in &args.identity {
        all.push_str(&std::fs::read_to_string(path).map_err(on("read", path))?);
        all.push('\n');
    }
    if args.identity.is_empty() {
        return Ok(None);
    }
    let from = args.identity.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    Identities::parse(&from, &all).map(|all| Some(Arc::new(all))).map_err(|error| usage(error.to_string()))
}

fn chain_of(text: Option<&str>) -> Result<Option<ChainId>> {
    let parse = |text: &str| text.parse().map_err(|_| usage(format!("{text:?} is no chain: 32 hex digits")));
    text.map(parse).transpose()
}

fn host_of(args: &ReadArgs) -> Result<Option<HostKey>> {
    args.host_key.as_deref().map(|text| text.parse().map_err(|error| usage(format!("{error}")))).transpose()
}

fn wait<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Code::Host, format!("no runtime: {error}")))?;
    Ok(runtime.block_on(future))
}

#[expect(clippy::cast_precision_loss, reason = "for people, one digit behind the point")]
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
