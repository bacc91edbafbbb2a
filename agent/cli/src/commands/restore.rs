//! The agent's backup verbs that do something. Without an agent there is `flipside backup`.

use flipside_api::{Backup, Code, Command, Failure, Restore};

use super::Session;
use crate::{
    args::{OneApp, RestoreArgs},
    failures::{Result, on},
    when,
};

/// `flipside backup-now`.
pub(crate) fn now(args: &OneApp, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    session.finish(Command::Backup(Backup { app }))
}

/// `flipside backup-check`.
pub(crate) fn check(args: &OneApp, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    session.finish(Command::BackupCheck(Backup { app }))
}

/// `flipside restore`.
pub(crate) fn restore(args: &RestoreArgs, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    let timestamp = args.timestamp.as_deref().map(when::timestamp).transpose()?;
    let identity = args.identity.as_deref().map(|path| {
        let text = std::fs::read_to_string(path).map_err(on("read", path))?;
        let key = text.lines().map(str::trim).find(|line| line.starts_with("AGE-SECRET-KEY-"));
        key.map(str::to_owned).ok_or_else(|| {
            Failure::new(Code::Usage, format!("{} holds no age identity", path.display()))
                .hint("a line of it must start with AGE-SECRET-KEY-")
        })
    });
    let identity = identity.transpose()?;
    let asked = Restore { app, timestamp, database: args.database.clone(), identity, wait: args.lock.wait };
    session.finish(Command::Restore(asked))
}
