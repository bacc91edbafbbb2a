//! The mark that a rollback with data goes back to, and what would be lost by it.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use flipside_api::{AppSpec, Code, Failure, ReleaseId, State};

use super::Ask;
use crate::{
    app::record::Entry,
    host::{Host, fault},
    progress::Channel,
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
    let since = clock::rfc3339(entry.at);
    let lost = match ask(host, spec, "compare", &mark).await?.map(|lines| told(&lines)) {
        None => {
            format!("all writes to the databases since {since} are lost; they could not be counted in time")
        }
        Some((0, _)) => format!("no row of the databases was written since {since}"),
        Some((rows, tables)) => {
            format!("all writes to the databases since {since} are lost, at least {rows} rows: {tables}")
        }
    };
    Ok(Rewind { mark: entry.id, lost })
}

/// The number in the last line, and the tables in those before it.
fn told(lines: &[String]) -> (u64, String) {
    let Some((last, tables)) = lines.split_last() else { return (0, String::new()) };
    let mut named = tables.iter().take(TABLES).cloned().collect::<Vec<_>>().join("; ");
    if tables.len() > TABLES {
        named.push_str(&format!("; and {} tables more", tables.len() - TABLES));
    }
    (last.parse().unwrap_or(0), named)
}

/// What a rollback of code alone leaves as it is, where that matters: a note, and never a failure.
pub(crate) async fn code_only(host: &Host, spec: &AppSpec, target: &ReleaseId) -> Option<String> {
    let entry = replaced(host, spec, target).await.ok()??;
    let mark = host.paths(&spec.app).marks().join(&entry.id);
    if !mark.is_dir() {
        return None;
    }
    let lines = ask(host, spec, "schema", &mark).await.ok()??;
    (lines.last()? == "true").then(|| {
        format!("code only: the schema of the databases has changed since {}", clock::rfc3339(entry.at))
    })
}

/// The newest deploy that replaced `target`.
async fn replaced(host: &Host, spec: &AppSpec, target: &ReleaseId) -> Result<Option<Entry>, Failure> {
    let history = host.records.history(&spec.app, 500).await?;
    Ok(history.into_iter().find(|entry| replaces(entry) == Some(target)))
}

/// The release that a deploy replaced by another, and so the one that its mark leads back to.
fn replaces(entry: &Entry) -> Option<&ReleaseId> {
    let outcome = entry.outcome.as_ref().filter(|outcome| outcome.state == State::Deployed)?;
    let previous = outcome.previous.as_ref()?;
    (entry.verb == "deploy" && outcome.release.as_ref() != Some(previous)).then_some(previous)
}

/// Of each release the deployment whose mark leads back to it: the newest. `history` is newest first.
pub(crate) fn marks(history: &[Entry]) -> BTreeMap<ReleaseId, String> {
    let mut marks = BTreeMap::new();
    for entry in history {
        if let Some(release) = replaces(entry) {
            marks.entry(release.clone()).or_insert_with(|| entry.id.clone());
        }
    }
    marks
}

/// The bytes of a mark; `None` where there is none.
pub(crate) fn mark_bytes(mark: &Path) -> Option<u64> {
    let mut left: Vec<_> = std::fs::read_dir(mark).ok()?.collect();
    let mut bytes = 0;
    while let Some(entry) = left.pop() {
        let Ok(entry) = entry else { continue };
        match entry.metadata() {
            Ok(about) if about.is_dir() => left.extend(std::fs::read_dir(entry.path()).into_iter().flatten()),
            Ok(about) => bytes += about.len(),
            Err(_) => {}
        }
    }
    Some(bytes)
}

/// What the app's user sees of the databases and a mark; `None` when it cannot be told in time.
async fn ask(host: &Host, spec: &AppSpec, verb: &str, mark: &Path) -> Result<Option<Vec<String>>, Failure> {
    let paths = host.paths(&spec.app);
    let (program, data) = (host.program.display().to_string(), paths.data().display().to_string());
    let mark = mark.display().to_string();
    let mut argv: Vec<String> =
        [&program, "sqlite", verb, "--data", &data, "--mark", &mark, "--"].map(str::to_owned).to_vec();
    argv.extend(spec.databases.iter().cloned());
    let program = Program {
        cwd: paths.data(),
        account: host.account(spec)?,
        timeout: PATIENCE,
        tail: 64 << 10,
        ..Program::new(argv)
    };
    let ended = exec::run(program, &mut |_| {})
        .await
        .map_err(|error| fault("cannot compare the databases with their mark", &error))?;
    Ok(ended.ok().then(|| ended.lines(10_000)))
}
