//! `logs`: the app's own lines to stdout, as they are; with `--json` an object a line.

use flipside_api::{Code, Command, Logs, Progress};
use serde_json::{Value, json};

use super::Session;
use crate::{
    args::LogsArgs,
    failures::{Result, exit_code_of},
    output::clean,
    when,
};

/// As of a program that a Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// `flipside logs`.
pub(crate) fn run(args: &LogsArgs, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    let since = args.since.as_deref().map(|text| when::instant(text, jiff::Timestamp::now())).transpose()?;
    let asked = Logs { app, lines: args.lines, since, grep: args.grep.clone(), follow: args.follow };
    let print = |text: &str| {
        if session.output.is_json() {
            session.output.object(&json!({"v": 1, "line": text}));
        } else {
            session.output.pass(&clean(text), false);
        }
    };
    let follow = asked.follow;
    let outcome = session.ask_with(Command::Logs(asked), &mut |progress: Progress| {
        if progress.event == "output" {
            print(&progress.message);
        }
    });
    let outcome = match outcome {
        // The usual end of following.
        Err(failure) if follow && failure.code == Code::Interrupted => return Ok(INTERRUPTED),
        outcome => outcome?,
    };
    // An agent may also answer with the lines themselves.
    let data = outcome.data.as_ref();
    let lines = data.and_then(|data| data.get("lines").unwrap_or(data).as_array());
    for line in lines.into_iter().flatten().filter_map(Value::as_str) {
        print(line);
    }
    if let Some(error) = &outcome.error {
        return Ok(session.output.failure(error));
    }
    Ok(exit_code_of(&outcome))
}
