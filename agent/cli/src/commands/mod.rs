//! From what was typed to what is done: one match, one file a family of verbs.

mod app;
mod backup;
mod deploy;
mod doctor;
mod logs;
mod publish;
mod questions;
mod restore;
mod run;
mod secret;

use flipside_api::{Command, Outcome, Progress, Release};

use crate::{
    args::{Cli, EnvVerb, LockVerb, Shared, Verb, Waiting},
    client,
    failures::{Result, exit_code_of, usage},
    output::Output,
    project, when,
};

/// Does what was typed, and gives the exit code.
pub(crate) fn run(cli: Cli, output: &Output) -> Result<u8> {
    let session = Session { shared: &cli.shared, output };
    match cli.verb {
        Verb::Publish(args) => publish::run(&args, &session),
        Verb::Deploy(args) => deploy::deploy(&args, &session),
        Verb::Plan(args) => deploy::plan(&args, &session),
        Verb::Rollback(args) => deploy::rollback(&args, &session),
        Verb::Releases(args) => questions::releases(&args, &session),
        Verb::History(args) => questions::history(&args, &session),
        Verb::Status(args) => questions::status(&args, &session),
        Verb::Lock(args) => match args.verb {
            LockVerb::Status(args) => questions::lock(&args, &session),
        },
        Verb::Backup(args) => backup::run(&args, &session),
        Verb::Backups(args) => questions::backups(&args, &session),
        Verb::Ping => questions::ping(&session),
        Verb::Version => questions::version(&session),
        Verb::Reload(args) => session.act(&args, Command::Reload),
        Verb::Restart(args) => session.act(&args, Command::Restart),
        Verb::Stop(args) => session.act(&args, Command::Stop),
        Verb::Start(args) => session.act(&args, Command::Start),
        Verb::Remove(args) => session.act(&args, Command::Remove),
        Verb::Env(args) => match args.verb {
            EnvVerb::Get(args) => questions::env(&args, &session),
            EnvVerb::Apply { app, file, lock } => {
                let app = session.app(app.as_deref())?;
                let env = file.as_deref().map(deploy::read_json).transpose()?;
                session.finish(Command::Env { app, env, files: None, wait: lock.wait })
            }
        },
        Verb::Logs(args) => logs::run(&args, &session),
        Verb::Run(args) => run::run(&args, &session),
        Verb::Manage(args) => run::manage(&args, &session),
        Verb::Shell(args) => run::shell(&args, &session),
        Verb::Dbshell(args) => run::dbshell(&args, &session),
        Verb::Maintenance(args) => session.maintenance(&args.words),
        Verb::BackupNow(args) => restore::now(&args, &session),
        Verb::BackupCheck(args) => restore::check(&args, &session),
        Verb::Restore(args) => restore::restore(&args, &session),
        Verb::Secret(args) => secret::run(&args, &session),
        Verb::App(args) => app::run(&args, &session),
        Verb::Doctor(args) => doctor::run(&args, &session),
    }
}

/// What every command works with.
pub(crate) struct Session<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) output: &'a Output,
}

impl Session<'_> {
    /// The app that the command is about.
    fn app(&self, word: Option<&str>) -> Result<flipside_api::AppName> {
        project::app(word, self.shared)
    }

    /// Asks the agent, showing the steps as they end.
    fn ask(&self, command: Command) -> Result<Outcome> {
        self.ask_with(command, &mut |progress| self.output.progress(&progress))
    }

    fn ask_with(&self, command: Command, on_progress: &mut dyn FnMut(Progress)) -> Result<Outcome> {
        client::ask(&self.shared.socket, command, on_progress)
    }

    /// A verb that needs an app and its lock, and no more.
    fn act(&self, args: &Waiting, command: fn(Release) -> Command) -> Result<u8> {
        let app = self.app(args.app.as_deref())?;
        self.finish(command(Release { app, wait: args.lock.wait }))
    }

    /// Asks, and prints how it ended.
    fn finish(&self, command: Command) -> Result<u8> {
        let subject = command.app().map(ToString::to_string).unwrap_or_default();
        let verb = command.verb();
        let outcome = self.ask(command)?;
        Ok(self.ended(verb, &subject, &outcome))
    }

    /// Prints how a command ended, and gives the exit code.
    fn ended(&self, verb: &str, subject: &str, outcome: &Outcome) -> u8 {
        if self.output.is_json() {
            self.output.object(&serde_json::json!(outcome));
        } else if let Some(error) = &outcome.error {
            self.output.explain(error);
            self.output.notice(summary(verb, subject, outcome));
        } else {
            self.output.line(summary(verb, subject, outcome));
        }
        exit_code_of(outcome)
    }

    /// Prints the answer to a question: the object with `--json`, else the lines that `lines` makes of it.
    fn answer(&self, outcome: &Outcome, lines: impl FnOnce(&serde_json::Value) -> Vec<String>) -> u8 {
        if self.output.is_json() {
            self.output.object(&serde_json::json!(outcome));
        } else if let Some(error) = &outcome.error {
            self.output.explain(error);
        } else {
            for line in lines(outcome.data.as_ref().unwrap_or(&serde_json::Value::Null)) {
                self.output.line(line);
            }
        }
        exit_code_of(outcome)
    }

    /// `maintenance on APP`, or the words the other way round.
    fn maintenance(&self, words: &[String]) -> Result<u8> {
        let switch = |word: &str| match word {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (on, app) = match words.as_slice() {
            [first] => (switch(first), None),
            [first, second] => match switch(first) {
                Some(on) => (Some(on), Some(*second)),
                None => (switch(second), Some(*first)),
            },
            _ => (None, None),
        };
        let on = on.ok_or_else(|| usage("say `on` or `off`").hint("flipside maintenance on blog"))?;
        self.finish(Command::Maintenance { app: self.app(app)?, on })
    }
}

/// The last line: what is so now, since which release, in what time.
fn summary(verb: &str, subject: &str, outcome: &Outcome) -> String {
    let state =
        serde_json::to_value(outcome.state).ok().and_then(|state| Some(state.as_str()?.replace('_', " ")));
    let state = match state.as_deref() {
        Some("ok") | None => format!("{verb} ok"),
        Some(state) => state.to_owned(),
    };
    let mut text = format!("{state}: {subject}");
    if let Some(release) = &outcome.release {
        text.push_str(&format!(" {release}"));
    }
    if let Some(previous) =
        outcome.previous.as_ref().filter(|previous| Some(*previous) != outcome.release.as_ref())
    {
        text.push_str(&format!(" (before: {previous})"));
    }
    if outcome.ms > 0 {
        text.push_str(&format!(" in {}", when::took(outcome.ms)));
    }
    if !outcome.comment.is_empty() {
        text.push_str(&format!("\n{}", outcome.comment));
    }
    text
}
