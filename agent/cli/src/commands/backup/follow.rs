//! The verbs that put something into a store.

use std::{path::Path, sync::Arc, time::Duration};

use flipside_api::{Code, Failure};
use flipside_backup::{
    chain::Position,
    follow::{Config, Control, FollowError, Status, run, state_dir},
    state,
    store::{Store, Throttled},
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    failed,
    place::{Place, database},
};
use crate::{
    args::{FollowArgs, InitArgs, OnceArgs, PositionArgs, WatchArgs},
    commands::Session,
    failures::{OK, Result, usage},
};

/// `backup init`.
pub(super) fn init(args: &InitArgs, session: &Session<'_>) -> Result<u8> {
    let place = Place::of(&args.repo)?;
    let key = state::signing_key(&place.signing_key()).map_err(|error| failed(&error))?;
    place.remember(&args.recipient)?;
    let key = flipside_backup::crypt::HostKey(key.verifying_key().to_bytes()).to_string();
    if session.output.is_json() {
        let repo = &place.url;
        session.output.object(
            &json!({"v": 1, "result": true, "repo": repo, "host_key": key, "recipients": args.recipient}),
        );
    } else {
        session.output.line(format!("host key: {key}"));
        session
            .output
            .notice("keep the host key with your identity: `--host-key` makes restores refuse forgeries");
    }
    Ok(OK)
}

/// `backup run`.
pub(super) fn once(args: &OnceArgs, session: &Session<'_>) -> Result<u8> {
    let mut config = config(&args.follow, true)?;
    config.patience = Duration::from_secs(args.patience);
    config.drain = Duration::from_secs(3600);
    let control = Control::new();
    let mut said_error = String::new();
    let position = in_thread(&config, &control, &mut |status| {
        if status.error != said_error && !status.error.is_empty() {
            session.output.notice(&status.error);
        }
        said_error = status.error;
    })?;
    said(session, position, &control.status());
    Ok(OK)
}

/// `backup watch`.
pub(super) fn watch(args: &WatchArgs, session: &Session<'_>) -> Result<u8> {
    let mut config = config(&args.follow, false)?;
    let usual = if args.follow.repo.repo.contains("://") { 10.0 } else { 1.0 };
    config.rpo = Duration::try_from_secs_f64(args.rpo.unwrap_or(usual))
        .ok()
        .filter(|rpo| (Duration::from_millis(20)..=Duration::from_secs(86400)).contains(rpo))
        .ok_or_else(|| usage("--rpo takes seconds, from 0.02 to 86400"))?;
    config.spool_limit = args.spool.max(1) << 20;
    let control = Control::new();
    let mut last = Status::default();
    let position = in_thread(&config, &control, &mut |status| {
        if session.output.is_json() {
            if status.safe != last.safe || status.error != last.error || status.snapshot != last.snapshot {
                session.output.object(&json!(status));
            }
        } else if status.error != last.error && !status.error.is_empty() {
            session.output.notice(&status.error);
        } else if status.snapshot && !last.snapshot {
            session
                .output
                .line(format!("stored up to {}:{}; every change follows", status.chain, status.safe));
        }
        last = status;
    })?;
    said(session, position, &control.status());
    Ok(OK)
}

/// `backup position`.
pub(super) fn position(args: &PositionArgs, session: &Session<'_>) -> Result<u8> {
    let place = Place::of(&args.repo)?;
    let db = database(&args.db)?;
    let dir = state_dir(&place.state, &place.url, &db);
    let standing = state::standing(&dir).map_err(|error| failed(&error))?;
    let stored = standing.filter(|(_, safe)| safe.seq > 0);
    let Some((chain, safe)) = stored else {
        let message = format!("this host has stored nothing yet of {} in {}", db.display(), place.url);
        return Err(Failure::new(Code::NotFound, message)
            .hint("flipside backup run, or wait for the first snapshot; --state names another memory"));
    };
    let position = Position { chain, seq: safe.seq };
    if session.output.is_json() {
        session.output.object(
            &json!({"v": 1, "result": true, "position": position.to_string(), "time": time(safe.time_ms)}),
        );
    } else {
        session.output.line(position.to_string());
    }
    Ok(OK)
}

fn config(args: &FollowArgs, once: bool) -> Result<Config> {
    let place = Place::of(&args.repo)?;
    let db = database(&args.db)?;
    if once && !db.exists() {
        return Err(Failure::new(Code::NotFound, format!("there is no database at {}", db.display())));
    }
    let recipients = place.recipients(&args.recipient)?;
    let dir = state_dir(&place.state, &place.url, &db);
    let mut config = Config::new(&db, limited(place.store.clone(), args.limit), recipients, &dir);
    config.name = args.name.clone().unwrap_or_else(|| name_of(&db));
    config.signing_key = place.signing_key();
    config.once = once;
    Ok(config)
}

/// The store, at most so many kB a second.
pub(super) fn limited(store: Arc<dyn Store>, limit: Option<u64>) -> Arc<dyn Store> {
    match limit {
        Some(limit) => Arc::new(Throttled::new(store, limit.saturating_mul(1000))),
        None => store,
    }
}

fn name_of(db: &Path) -> String {
    db.to_string_lossy().into_owned()
}

/// Runs the follower in a thread; a signal tells it to end, a second one ends us.
fn in_thread(config: &Config, control: &Control, look: &mut dyn FnMut(Status)) -> Result<Option<Position>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Code::Host, format!("no runtime: {error}")))?;
    let followed: std::result::Result<Option<Position>, FollowError> = std::thread::scope(|scope| {
        let thread = scope.spawn(|| run(config, control));
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut end)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            let mut told = false;
            while !thread.is_finished() {
                tokio::select! {
                    _ = interrupt.recv() => told = tell(control, told),
                    _ = end.recv() => told = tell(control, told),
                    () = tokio::time::sleep(Duration::from_millis(50)) => look(control.status()),
                }
            }
        });
        thread.join().unwrap_or_else(|_| Err(FollowError::Ended("the follower panicked".to_owned())))
    });
    followed.map_err(|error| failed(&error))
}

fn tell(control: &Control, told: bool) -> bool {
    if told {
        std::process::exit(130);
    }
    control.stop();
    true
}

fn said(session: &Session<'_>, position: Option<Position>, status: &Status) {
    let position = position.map(|position| position.to_string());
    if session.output.is_json() {
        let time = position.as_ref().map(|_| time(status.safe_ms));
        session.output.object(&json!({
            "v": 1, "result": true, "position": position, "time": time,
            "waiting": status.spool_bytes,
        }));
        return;
    }
    match position {
        Some(position) => session.output.line(position),
        None => session
            .output
            .notice("nothing can be restored yet: it ended before its first snapshot was stored"),
    }
    if status.spool_bytes > 0 {
        let bytes = status.spool_bytes;
        session
            .output
            .notice(format!("{bytes} bytes wait on this host and go to the store at the next start"));
    }
}

/// Milliseconds since 1970 as RFC 3339.
pub(super) fn time(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map(|time| time.to_string()).unwrap_or_default()
}
