//! The mark that a rollback with data goes back to, and what would be lost by it.

use std::{path::Path, sync::Arc, time::Duration};

use flipside_api::{AppSpec, Code, Failure, ReleaseId, State};

use super::Ask;
use crate::{
    app::record::Entry,
    host::{Host, fault},
    progress::Channel,
    sqlite::SCHEMA_CHANGED,
    sys::{
        clock,
        exec::{self, Program},
    },
};

/// How long rows are counted.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many tables are named.
const TABLES: usize = 40;

/// The name by which an operator allows the loss of what was written since the mark.
pub(super) const DATA: &str = "data";

/// A mark to go back to.
pub(super) struct Rewind {
    /// The deployment that made it.
    pub(super) mark: String,
    /// What would be lost, in a sentence.
    pub(super) lost: String,
}

/// The answer to a rollback with data that nobody has allowed yet.
pub(super) fn refused(host: &Host, ask: &Ask, lost: &str) -> Failure {
    let (app, release, id) = (&ask.spec.app, &ask.release, &host.config.id);
    Failure::new(Code::Gate, lost).hint(format!(
        "nothing has changed. To go on: salt '{id}' flipside.rollback {app} release={release} with_data=True \
         allow={DATA} (on the host: flipside rollback {app} {release} --with-data --yes); what is replaced is kept"
    ))
}

/// The mark of the deployment that last replaced `target`.
///
/// # Errors
/// When there is none.
pub(super) async fn find(
    host: &Host,
    spec: &AppSpec,
    target: &ReleaseId,
    channel: &Arc<Channel>,
) -> Result<Rewind, Failure> {
    let app = &spec.app;
    let gate = |message: String| {
        Failure::new(Code::Gate, message).hint(format!(
            "roll back the code alone, or put the data back with `flipside restore {app} --timestamp …`"
        ))
    };
    let entry = replaced(host, spec, target)
        .await?
        .ok_or_else(|| gate(format!("no deploy on record has replaced {target}, so there is no mark")))?;
    let mark = host.paths(app).marks().join(&entry.id);
    if !mark.is_dir() {
        return Err(gate(format!(
            "the deploy {} that replaced {target} has left no mark of the databases (it made none, or newer \
             deploys have removed it)",
            entry.id
        )));
    }
    channel.output("data", "comparing the databases with their mark");
    let rows = match compare(host, spec, &mark).await? {
        None => "the rows could not be counted in time".to_owned(),
        Some(lines) => {
            let rows: Vec<&str> =
                lines.iter().map(String::as_str).filter(|line| *line != SCHEMA_CHANGED).collect();
            if rows.is_empty() {
                "every table has as many rows as then".to_owned()
            } else {
                let more = rows.len().saturating_sub(TABLES);
                let named = rows.iter().take(TABLES).copied().collect::<Vec<_>>().join("; ");
                if more == 0 { named } else { format!("{named}; and {more} tables more") }
            }
        }
    };
    let lost = format!("all writes to the databases since {} are lost: {rows}", clock::rfc3339(entry.at));
    Ok(Rewind { mark: entry.id, lost })
}

/// What a rollback of code alone leaves as it is, where that matters: a note, and never a failure.
pub(crate) async fn code_only(host: &Host, spec: &AppSpec, target: &ReleaseId) -> Option<String> {
    let entry = replaced(host, spec, target).await.ok()??;
    let mark = host.paths(&spec.app).marks().join(&entry.id);
    if !mark.is_dir() {
        return None;
    }
    let lines = compare(host, spec, &mark).await.ok()??;
    lines.iter().any(|line| line == SCHEMA_CHANGED).then(|| {
        format!("code only: the schema of the databases has changed since {}", clock::rfc3339(entry.at))
    })
}

/// The newest deploy that replaced `target`.
async fn replaced(host: &Host, spec: &AppSpec, target: &ReleaseId) -> Result<Option<Entry>, Failure> {
    let history = host.records.history(&spec.app, 500).await?;
    Ok(history.into_iter().find(|entry| {
        entry.verb == "deploy"
            && entry.outcome.as_ref().is_some_and(|outcome| {
                outcome.state == State::Deployed
                    && outcome.previous.as_ref() == Some(target)
                    && outcome.release.as_ref() != Some(target)
            })
    }))
}

/// What differs, as the app's user sees it; `None` when it cannot be told in time.
async fn compare(host: &Host, spec: &AppSpec, mark: &Path) -> Result<Option<Vec<String>>, Failure> {
    let paths = host.paths(&spec.app);
    let (program, data) = (host.program.display().to_string(), paths.data().display().to_string());
    let mark = mark.display().to_string();
    let mut argv: Vec<String> =
        [&program, "sqlite", "compare", "--data", &data, "--mark", &mark, "--"].map(str::to_owned).to_vec();
    argv.extend(spec.databases.iter().cloned());
    let program = Program {
        argv,
        env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        cwd: paths.data(),
        account: host.account(spec)?,
        stdin: None,
        timeout: PATIENCE,
        tail: 64 << 10,
    };
    let ended = exec::run(program, &mut |_| {})
        .await
        .map_err(|error| fault("cannot compare the databases with their mark", &error))?;
    Ok(ended.ok().then(|| ended.lines(10_000)))
}
