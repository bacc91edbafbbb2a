//! What is printed: results to stdout, troubles to stderr, colours only for a terminal.
//!
//! With `--json` stdout holds one object (or, for a stream, one a line) and nothing else, also when the
//! command failed. Whoever reads us through a pipe may stop reading; that is no failure of ours.

mod plan;
mod screen;
mod table;

use std::io::{IsTerminal, Write};

use flipside_api::{Failure, Outcome, Progress, State};
use serde_json::{Value, json};

pub(crate) use plan::migrations;
pub(crate) use screen::status;
pub(crate) use table::{render, rows};

use crate::{args::Shared, failures::exit_code, when};

/// The way to the user.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    colour: bool,
}

impl Output {
    /// As the flags and the terminal ask for.
    pub(crate) fn of(shared: &Shared) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour =
            !shared.json && !plain && std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        Self { json: shared.json, quiet: shared.quiet, colour }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// A line of the result.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        write_or_leave(&mut std::io::stdout().lock(), format!("{}\n", text.as_ref()).as_bytes());
    }

    /// An object of the result.
    pub(crate) fn object(&self, value: &Value) {
        self.line(value.to_string());
    }

    /// Something that the user should know and that is no failure.
    pub(crate) fn notice(&self, text: impl AsRef<str>) {
        let mark = self.paint("33", "note:");
        write_or_leave(&mut std::io::stderr().lock(), format!("{mark} {}\n", text.as_ref()).as_bytes());
    }

    /// A line of a command's or a log's output, as it is.
    pub(crate) fn pass(&self, text: &str, error: bool) {
        let text = format!("{text}\n");
        if error {
            write_or_leave(&mut std::io::stderr().lock(), text.as_bytes());
        } else {
            write_or_leave(&mut std::io::stdout().lock(), text.as_bytes());
        }
    }

    /// A step that has ended: its name, its time, and what it says.
    pub(crate) fn step(&self, name: &str, event: &str, ms: u64, message: &str) {
        if self.json || self.quiet {
            return;
        }
        let (mark, colour) = match event {
            "done" => ("✓", "32"),
            "failed" => ("✗", "31"),
            "undone" => ("↶", "33"),
            _ => ("·", "2"),
        };
        let mark = self.paint(colour, mark);
        let message = clean(message);
        self.line(format!("  {mark} {name:<10} {:>9}  {message}", when::took(ms)).trim_end());
    }

    /// What an agent says on its way.
    pub(crate) fn progress(&self, progress: &Progress) {
        match progress.event.as_str() {
            "started" => {}
            "output" if !self.json && !self.quiet => {
                self.line(format!("      | {}", clean(&progress.message)))
            }
            "output" => {}
            event => self.step(&progress.step, event, progress.ms, &progress.message),
        }
    }

    /// Why not, and what to do. Gives the exit code.
    pub(crate) fn failure(&self, failure: &Failure) -> u8 {
        if self.json {
            let state = if failure.code == flipside_api::Code::Busy { State::Busy } else { State::Failed };
            let outcome = Outcome::bad(state, failure.clone());
            self.object(&json!(outcome));
        } else {
            self.explain(failure);
        }
        exit_code(failure.code)
    }

    /// The same for people, on stderr.
    pub(crate) fn explain(&self, failure: &Failure) {
        let mut text = String::new();
        for line in &failure.log {
            text.push_str(&format!("  | {}\n", clean(line)));
        }
        text.push_str(&format!("{} {}\n", self.paint("31;1", "error:"), clean_lines(&failure.message)));
        if !failure.hint.is_empty() {
            text.push_str(&format!("{} {}\n", self.paint("36", "hint:"), clean_lines(&failure.hint)));
        }
        write_or_leave(&mut std::io::stderr().lock(), text.as_bytes());
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A text from elsewhere on one line, unable to steer a terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// A reader that has closed the pipe (`| head`) has what it wants; anything else is nothing we could tell.
fn write_or_leave(to: &mut impl Write, bytes: &[u8]) {
    if to.write_all(bytes).and_then(|()| to.flush()).is_err() {
        std::process::exit(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_steer_a_terminal() {
        assert_eq!(clean("a\x1b[31mb\rc\td"), "a\u{fffd}[31mb\u{fffd}c\td");
        assert_eq!(clean_lines("a\nb\x07"), "a\nb\u{fffd}");
    }
}
