//! `run`: a command in an app's release and environment, as if it ran here: stdin in, output out, and its
//! exit code.

use std::{
    io::{IsTerminal, Read},
    os::fd::AsFd,
};

use flipside_api::{Command, Progress, Run, codec::MAX_FRAME};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::Session;
use crate::{
    args::RunArgs,
    failures::{Result, exit_code_of, on, usage},
};

/// The most that a request can carry beside the input.
const MOST_INPUT: usize = MAX_FRAME - (64 << 10);

/// A code above this says that a signal ended the command, not that it chose to fail.
const SIGNALLED: i64 = 128;

/// `flipside run`.
pub(crate) fn run(args: &RunArgs, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    let stdin = if args.no_stdin { None } else { input(session)? };
    let asked = Run { app, command: args.command.clone(), stdin, timeout: args.timeout };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outcome = session.ask_with(Command::Run(asked), &mut |progress: Progress| {
        if progress.event != "output" {
            return;
        }
        let is_err = progress.step == "stderr";
        if session.output.is_json() {
            if is_err { &mut err } else { &mut out }.push(progress.message);
        } else {
            session.output.pass(&progress.message, is_err);
        }
    })?;
    let code = outcome.data.as_ref().and_then(|data| data["code"].as_i64());
    if session.output.is_json() {
        let mut object = json!(outcome);
        object["code"] = json!(code);
        object["stdout"] = Value::from(out);
        object["stderr"] = Value::from(err);
        session.output.object(&object);
    } else if let Some(error) = outcome.error.as_ref().filter(|_| code.is_none_or(|code| code > SIGNALLED)) {
        session.output.explain(error);
    }
    Ok(code.map_or_else(|| exit_code_of(&outcome), |code| u8::try_from(code).unwrap_or(u8::MAX)))
}

/// All of stdin, unless it is a terminal.
fn input(session: &Session<'_>) -> Result<Option<Vec<u8>>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(None);
    }
    // An inherited pipe that nobody ends looks like a hang; say what is waited for.
    let mut waiting = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    if poll(&mut waiting, PollTimeout::from(2000u16)) == Ok(0) {
        session.output.notice("waiting for the end of stdin; -n gives the command no input");
    }
    let mut bytes = Vec::new();
    let most = MOST_INPUT as u64 + 1;
    stdin.lock().take(most).read_to_end(&mut bytes).map_err(on("read", "stdin".as_ref()))?;
    if bytes.len() > MOST_INPUT {
        return Err(usage(format!("stdin is larger than {} MiB", MOST_INPUT >> 20))
            .hint("copy the file into the app's data folder, and let the command read it there"));
    }
    Ok((!bytes.is_empty()).then_some(bytes))
}
