//! `run` and its kin: a command in an app's release and environment, as if it ran here: stdin in, output out, and
//! its exit code.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use flipside_api::{AppName, Code, Command, Failure, Outcome, Run, Streams};
use serde_json::{Value, json};

use super::Session;
use crate::{
    args::{DbshellArgs, ManageArgs, RunArgs, ShellArgs, TerminalArgs},
    client,
    failures::{Result, exit_code_of, usage},
    terminal::Terminal,
};

/// A code above this says that a signal ended the command, not that it chose to fail.
const SIGNALLED: i64 = 128;
/// How long output may still come after the command has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The interpreter looks for a database's own shell, and is one where there is none.
const DBSHELL: &str = include_str!("dbshell.py");

/// `flipside run`.
pub(crate) fn run(args: &RunArgs, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    let asked = Asked { app, command: args.command.clone(), timeout: args.timeout, no_stdin: args.no_stdin };
    asked.go(&args.terminal, session)
}

/// `flipside manage`.
pub(crate) fn manage(args: &ManageArgs, session: &Session<'_>) -> Result<u8> {
    let (app, words) = match (&session.shared.app, args.words.split_first()) {
        (Some(_), _) => (session.app(None)?, args.words.as_slice()),
        (None, Some((app, words))) => (session.app(Some(app))?, words),
        (None, None) => return Err(usage("which app?")),
    };
    let words = words.iter().map(String::as_str);
    plain(app, ["django-admin"].into_iter().chain(words)).go(&args.terminal, session)
}

/// `flipside shell`.
pub(crate) fn shell(args: &ShellArgs, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    plain(app, ["django-admin", "shell"]).go(&args.terminal, session)
}

/// `flipside dbshell`.
pub(crate) fn dbshell(args: &DbshellArgs, session: &Session<'_>) -> Result<u8> {
    let app = session.app(args.app.as_deref())?;
    let (database, mode) =
        (args.database.as_deref().unwrap_or_default(), if args.write { "rw" } else { "ro" });
    plain(app, ["python3", "-c", DBSHELL, mode, database]).go(&args.terminal, session)
}

fn plain<'a>(app: AppName, words: impl IntoIterator<Item = &'a str>) -> Asked {
    Asked { app, command: words.into_iter().map(str::to_owned).collect(), timeout: 0, no_stdin: false }
}

/// A command, and how it is to run.
struct Asked {
    app: AppName,
    command: Vec<String>,
    timeout: u32,
    no_stdin: bool,
}

impl Asked {
    fn go(self, terminal: &TerminalArgs, session: &Session<'_>) -> Result<u8> {
        let both = io::stdin().is_terminal() && io::stdout().is_terminal();
        let own = both && !self.no_stdin && !session.output.is_json();
        if terminal.tty || (own && !terminal.no_tty) {
            self.on_a_terminal(session)
        } else {
            self.piped(session)
        }
    }

    fn on_a_terminal(self, session: &Session<'_>) -> Result<u8> {
        if session.output.is_json() {
            return Err(usage("--json and a terminal do not go together").hint("leave --tty out"));
        }
        let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
        let (terminal, end) = Terminal::open().map_err(|error| host("open a terminal", &error))?;
        let outcome = self.ask(session, Streams::Terminal { term }, vec![end]);
        terminal.close();
        finish(session, &outcome?, None)
    }

    fn piped(self, session: &Session<'_>) -> Result<u8> {
        let json = session.output.is_json();
        let failed = |error: io::Error| host("make pipes", &error);
        let input = input(self.no_stdin).map_err(failed)?;
        let (out, output) = self::output(io::stdout().as_fd(), json).map_err(failed)?;
        let (err, errors) = self::output(io::stderr().as_fd(), json).map_err(failed)?;
        let outcome = self.ask(session, Streams::Three, vec![input, out, err])?;
        let deadline = Instant::now() + LAST_WORDS;
        let said = [output, errors].map(|heard| heard.and_then(|heard| words(heard, deadline)));
        finish(session, &outcome, json.then_some(said))
    }

    fn ask(self, session: &Session<'_>, streams: Streams, descriptors: Vec<OwnedFd>) -> Result<Outcome> {
        let Self { app, command, timeout, .. } = self;
        let run = Run { app, command, stdin: None, timeout, streams: Some(streams) };
        client::ask_with(&session.shared.socket, Command::Run(run), descriptors, &mut |_| {})
    }
}

/// Prints how it ended, and gives the command's own exit code.
fn finish(session: &Session<'_>, outcome: &Outcome, said: Option<[Option<Vec<u8>>; 2]>) -> Result<u8> {
    let code = outcome.data.as_ref().and_then(|data| data["code"].as_i64());
    if let Some(said) = said {
        let [out, err] = said.map(|bytes| {
            let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
            Value::from(text.lines().map(Value::from).collect::<Vec<_>>())
        });
        let mut object = json!(outcome);
        object["code"] = json!(code);
        object["stdout"] = out;
        object["stderr"] = err;
        session.output.object(&object);
    } else if let Some(error) = outcome.error.as_ref().filter(|_| code.is_none_or(|code| code > SIGNALLED)) {
        session.output.explain(error);
    }
    Ok(code.map_or_else(|| exit_code_of(outcome), |code| u8::try_from(code).unwrap_or(u8::MAX)))
}

/// What the command reads. Never a terminal itself, into which it could type: what comes from one is passed on.
fn input(none: bool) -> io::Result<OwnedFd> {
    if none {
        return Ok(File::open("/dev/null")?.into());
    }
    let ours = io::stdin().as_fd().try_clone_to_owned()?;
    if !io::stdin().is_terminal() {
        return Ok(ours);
    }
    let (theirs, mut to) = io::pipe()?;
    // It ends with this program: nobody waits for a line that is not typed.
    std::thread::spawn(move || io::copy(&mut File::from(ours), &mut to));
    Ok(theirs.into())
}

/// What is heard of one stream of the command: the bytes where they are kept.
type Heard = JoinHandle<Vec<u8>>;

/// Where the command writes: straight to where we do, but for a terminal, or where its words are kept.
fn output(ours: BorrowedFd<'_>, kept: bool) -> io::Result<(OwnedFd, Option<Heard>)> {
    let (copy, shown) = (ours.try_clone_to_owned()?, ours.is_terminal());
    if !kept && !shown {
        return Ok((copy, None));
    }
    let (mut from, theirs) = io::pipe()?;
    let heard = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What cannot be shown or kept is lost, and the command does not wait for it.
        let _ = if kept {
            from.read_to_end(&mut bytes).map(drop)
        } else {
            io::copy(&mut from, &mut File::from(copy)).map(drop)
        };
        bytes
    });
    Ok((theirs.into(), Some(heard)))
}

/// What was heard, once all of it has come or its time is up: what left the command's session may hold on for ever.
fn words(heard: Heard, deadline: Instant) -> Option<Vec<u8>> {
    while !heard.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    if heard.is_finished() { heard.join().ok() } else { None }
}

fn host(what: &str, error: &io::Error) -> Failure {
    Failure::new(Code::Host, format!("cannot {what}: {error}"))
}
