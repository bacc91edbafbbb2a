//! `flipside`: the command line of developers and operators.
//!
//! Verbs about a running app are one request to the agent of this host over its UNIX socket; `publish`,
//! `secret`, `app` and `doctor` need no agent. The exit code says how it went: 0 ok, 1 failed, 2 usage,
//! 3 refused by a gate, 4 no agent, 5 busy.

mod args;
mod client;
mod commands;
mod exec;
mod failures;
mod files;
mod output;
mod project;
mod publish;
mod terminal;
mod when;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    flipside_backup::memory::give_back();
    let cli = args::Cli::parse();
    let output = output::Output::of(&cli.shared);
    let code = commands::run(cli, &output).unwrap_or_else(|failure| output.failure(&failure));
    ExitCode::from(code)
}
