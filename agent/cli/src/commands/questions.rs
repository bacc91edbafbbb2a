//! The verbs that only ask.

use flipside_api::{Backup, Command, History, Release};
use serde_json::{Value, json};

use super::Session;
use crate::{
    args::{HistoryArgs, OneApp, StatusArgs},
    failures::Result,
    output,
};

/// `flipside releases`.
pub(crate) fn releases(args: &OneApp, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    let outcome = session.ask(Command::Releases(Release { app, wait: 0 }))?;
    Ok(session.answer(&outcome, |data| {
        table(data, &["current", "release", "at", "who"], "no releases on this host")
    }))
}

/// `flipside history`.
pub(crate) fn history(args: &HistoryArgs, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    let outcome = session.ask(Command::History(History { app, limit: args.limit }))?;
    let known = ["at", "verb", "release", "state", "who", "ms", "message"];
    Ok(session.answer(&outcome, |data| table(data, &known, "nothing was done to it yet")))
}

/// `flipside backups`.
pub(crate) fn backups(args: &OneApp, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    let outcome = session.ask(Command::Backups(Backup { app }))?;
    let known = ["database", "from", "to", "position", "size"];
    Ok(session.answer(&outcome, |data| table(data, &known, "the store holds nothing of it")))
}

/// `flipside status`.
pub(crate) fn status(args: &StatusArgs, session: &Session<'_>) -> Result<u8> {
    let app = match (&args.app, &session.shared.app) {
        (None, None) => None,
        _ => Some(session.app(args.app.as_deref())?),
    };
    let outcome = session.ask(Command::Status { app })?;
    Ok(session.answer(&outcome, output::status))
}

/// `flipside lock status`.
pub(crate) fn lock(args: &OneApp, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    let mut outcome = session.ask(Command::Status { app: Some(app.clone()) })?;
    if outcome.result {
        let held = outcome.data.as_ref().and_then(|data| data.pointer(&format!("/apps/{app}/busy"))).cloned();
        outcome.data = Some(json!({"app": app, "lock": held.unwrap_or(Value::Null)}));
    }
    Ok(session.answer(&outcome, |data| match &data["lock"] {
        Value::Null => vec![format!("{app} is free")],
        holder => vec![format!("{app} is held: {}", text(holder))],
    }))
}

/// `flipside env get`.
pub(crate) fn env(args: &OneApp, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    let outcome = session.ask(Command::EnvNames(Release { app, wait: 0 }))?;
    Ok(session.answer(&outcome, |data| {
        let names = data["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(|name| format!("{}=***", output::clean(name))).collect()
    }))
}

/// `flipside ping`.
pub(crate) fn ping(session: &Session<'_>) -> Result<u8> {
    let outcome = session.ask(Command::Ping)?;
    Ok(session.answer(&outcome, |_| vec!["pong".to_owned()]))
}

/// `flipside version`: ours always, the agent's when it is there.
pub(crate) fn version(session: &Session<'_>) -> Result<u8> {
    let ours = env!("CARGO_PKG_VERSION");
    let agent = match session.ask(Command::Version) {
        Ok(outcome) => outcome.data.unwrap_or(Value::Null),
        Err(_) => Value::Null,
    };
    if session.output.is_json() {
        let object = json!({"v": 1, "flipside": ours, "contract": flipside_api::VERSION, "agent": agent});
        session.output.object(&object);
    } else {
        session.output.line(format!("flipside {ours}, contract {}", flipside_api::VERSION));
        match agent {
            Value::Null => session.output.line(format!("no agent at {}", session.shared.socket.display())),
            Value::Object(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(key, value)| format!("{key} {}", text(value))).collect();
                session.output.line(fields.join(", "));
            }
            other => session.output.line(format!("agent {}", text(&other))),
        }
    }
    Ok(crate::failures::OK)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), output::clean)
}

fn table(data: &Value, known: &[&str], nothing: &str) -> Vec<String> {
    let rows = output::rows(data);
    if rows.is_empty() { vec![nothing.to_owned()] } else { output::render(&rows, known) }
}
