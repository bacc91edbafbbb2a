//! What was typed: flags and words as clap hands them over, and nothing about what they mean.
//!
//! Every command has a one-line description and examples in its `--help`. The flags that several
//! commands share are global, so that scripts can put them once in front of the verb.

mod backup;
mod local;
mod media;
mod verbs;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(crate) use backup::{
    BackupArgs, BackupVerb, FollowArgs, InitArgs, OnceArgs, PositionArgs, PruneArgs, ReadArgs, Repo,
    RestoreFileArgs, RetainArgs, RewrapArgs, WatchArgs,
};
pub(crate) use local::{AppArgs, AppVerb, DoctorArgs, PublishArgs, SecretArgs, SecretVerb};
pub(crate) use media::{
    MediaArgs, MediaListArgs, MediaPruneArgs, MediaReadArgs, MediaRestoreArgs, MediaRunArgs, MediaVerb,
};
pub(crate) use verbs::{
    DbshellArgs, DeployArgs, EnvArgs, EnvVerb, HistoryArgs, LockArgs, LockVerb, LogsArgs, MaintenanceArgs,
    ManageArgs, OneApp, PackageArgs, PlanArgs, RestoreArgs, RollbackArgs, RunArgs, ShellArgs, StatusArgs,
    TerminalArgs, Waiting,
};

/// Publishes, deploys and runs Python web applications on your own machines.
#[derive(Debug, Parser)]
#[command(
    name = "flipside",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 refused by a gate, 4 no agent, 5 busy."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags that every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Shared {
    /// The agent's socket
    #[arg(
        long,
        global = true,
        env = "FLIPSIDE_SOCKET",
        value_name = "PATH",
        default_value = "/run/flipside/agent.sock",
        hide_env_values = true
    )]
    pub(crate) socket: PathBuf,
    /// The package store
    #[arg(long, global = true, env = "FLIPSIDE_STORE", value_name = "DIR", hide_env_values = true)]
    pub(crate) store: Option<PathBuf>,
    /// The app, instead of the first word after the verb
    #[arg(id = "app_flag", short = 'a', long = "app", global = true, value_name = "APP")]
    pub(crate) app: Option<String>,
    /// One JSON object instead of text; JSON lines for a stream
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Only the result and errors, no line for each step
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Accepted for scripts: no command asks back
    #[arg(short, long, global = true, hide = true)]
    pub(crate) yes: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Build a package from a project folder, or from ready wheels, and put it into the store
    Publish(PublishArgs),
    /// Make a published release current on this host
    Deploy(DeployArgs),
    /// Say what a deploy would do, and change nothing
    Plan(PlanArgs),
    /// Make an earlier release current again
    Rollback(RollbackArgs),
    /// List the releases of an app that are on this host
    #[command(after_help = "Example: flipside releases blog")]
    Releases(OneApp),
    /// Show what was done to an app, by whom, and how it ended
    History(HistoryArgs),
    /// Restart the workers one by one, losing no request
    #[command(after_help = "Example: flipside reload blog")]
    Reload(Waiting),
    /// Start a fresh instance and retire the old one, losing no request
    #[command(after_help = "Example: flipside restart blog --wait 60")]
    Restart(Waiting),
    /// Stop an app
    #[command(after_help = "Example: flipside stop blog")]
    Stop(Waiting),
    /// Start an app that was stopped
    #[command(after_help = "Example: flipside start blog")]
    Start(Waiting),
    /// Stop an app and forget it; its data folder and its backups stay
    #[command(after_help = "Example: flipside remove blog", alias = "destroy")]
    Remove(Waiting),
    /// Show the names of an app's environment, or write it again
    Env(EnvArgs),
    /// Show the state of this host and its apps
    Status(StatusArgs),
    /// Show the log of an app
    Logs(LogsArgs),
    /// Run a command in an app's release and environment
    #[command(alias = "exec")]
    Run(RunArgs),
    /// Run django-admin in an app's release and environment
    Manage(ManageArgs),
    /// Open Django's shell in an app's release and environment
    Shell(ShellArgs),
    /// Open a SQLite database of an app, read-only unless asked otherwise
    Dbshell(DbshellArgs),
    /// Show the maintenance page instead of an app, or no longer
    Maintenance(MaintenanceArgs),
    /// Say who holds an app's lock
    Lock(LockArgs),
    /// Back up any SQLite database, and restore it; no agent is needed
    Backup(BackupArgs),
    /// List what the agent's store can restore of an app
    #[command(after_help = "Example: flipside backups blog")]
    Backups(OneApp),
    /// Take the newest state of an app's databases to the store now
    #[command(after_help = "Example: flipside backup-now blog")]
    BackupNow(OneApp),
    /// Prove what can be proven of an app's stored backups
    #[command(after_help = "Example: flipside backup-check blog")]
    BackupCheck(OneApp),
    /// Put an app's databases back to an earlier state
    Restore(RestoreArgs),
    /// Make secrets for pillar
    Secret(SecretArgs),
    /// Start and test an application's project
    App(AppArgs),
    /// Check that this host has what Flipside needs
    Doctor(DoctorArgs),
    /// Ask the agent for a sign of life
    #[command(after_help = "Example: flipside ping")]
    Ping,
    /// Show the versions of this command, of the agent and of their contract
    #[command(after_help = "Example: flipside version --json")]
    Version,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_finds_no_fault() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_line_and_an_example() {
        fn visit(command: &clap::Command) {
            for command in command.get_subcommands() {
                let name = command.get_name();
                assert!(command.get_about().is_some(), "{name} says nothing about itself");
                if command.has_subcommands() {
                    visit(command);
                } else {
                    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                    assert!(help.contains("Example"), "{name} shows no example");
                }
            }
        }
        visit(&Cli::command());
    }

    #[test]
    fn shared_flags_stand_before_or_after_the_verb() {
        for line in ["flipside --socket /s --json status", "flipside status --socket /s --json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.shared.json, "{line}");
            assert_eq!(cli.shared.socket, PathBuf::from("/s"));
        }
    }
}
