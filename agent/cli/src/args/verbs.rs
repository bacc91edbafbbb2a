//! The arguments of the verbs that ask the agent.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// An app.
#[derive(Debug, Args)]
pub(crate) struct OneApp {
    /// The app; absent: -a, or the name in .flipside-app
    #[arg(value_name = "APP")]
    pub(crate) app: Option<String>,
}

/// An app, and how long to wait for its lock.
#[derive(Debug, Args)]
pub(crate) struct Waiting {
    /// The app; absent: -a, or the name in .flipside-app
    #[arg(value_name = "APP")]
    pub(crate) app: Option<String>,
    #[command(flatten)]
    pub(crate) lock: Wait,
}

/// How long to wait for an app's lock.
#[derive(Debug, Clone, Args)]
pub(crate) struct Wait {
    /// Wait so many seconds while another command holds the app [without a number: 900]
    #[arg(long, alias = "lock-wait", value_name = "SECONDS", num_args = 0..=1, require_equals = false,
          default_value_t = 0, default_missing_value = "900", hide_default_value = true)]
    pub(crate) wait: u64,
}

/// Which package.
#[derive(Debug, Clone, Args)]
pub(crate) struct PackageArgs {
    /// The tag to take the release from [default: latest]
    #[arg(long, short, value_name = "TAG", conflicts_with = "release")]
    pub(crate) tag: Option<String>,
    /// The release, as `flipside publish` printed it
    #[arg(long, value_name = "RELEASE")]
    pub(crate) release: Option<String>,
    /// A JSON file with the app's spec [default: the spec that the agent has stored]
    #[arg(long, value_name = "FILE")]
    pub(crate) spec: Option<PathBuf>,
    /// Switch cold even where hot would do
    #[arg(long)]
    pub(crate) cold: bool,
    /// Accept a risk by name, such as `destructive`; may be repeated
    #[arg(long, value_name = "RISK", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    #[command(flatten)]
    pub(crate) lock: Wait,
}

/// `deploy`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  flipside deploy blog --tag latest --store /srv/salt/packages\n  \
    flipside deploy blog --spec blog.json --dry-run")]
pub(crate) struct DeployArgs {
    /// The app; absent: -a, or the name in .flipside-app
    #[arg(value_name = "APP")]
    pub(crate) app: Option<String>,
    #[command(flatten)]
    pub(crate) package: PackageArgs,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `plan`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  flipside plan blog\n  flipside plan blog --steps\n  \
    flipside plan blog --detailed-exitcode   # 2 when there is something to do")]
pub(crate) struct PlanArgs {
    /// The app; absent: -a, or the name in .flipside-app
    #[arg(value_name = "APP")]
    pub(crate) app: Option<String>,
    #[command(flatten)]
    pub(crate) package: PackageArgs,
    /// Print the names of the steps, one a line, and nothing else
    #[arg(long)]
    pub(crate) steps: bool,
    /// Exit with 2 when there is something to do
    #[arg(long)]
    pub(crate) detailed_exitcode: bool,
}

/// `rollback`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  flipside rollback blog\n  \
    flipside rollback blog 1.0-0123456789ab --with-data --dry-run")]
pub(crate) struct RollbackArgs {
    /// The app, then the release to go to [default: the one before]
    #[arg(value_name = "APP [RELEASE]", num_args = 0..=2)]
    pub(crate) words: Vec<String>,
    /// Also put the databases back to where they were before the deploy
    #[arg(long)]
    pub(crate) with_data: bool,
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) lock: Wait,
}

/// `history`.
#[derive(Debug, Args)]
#[command(after_help = "Example: flipside history blog -n 50")]
pub(crate) struct HistoryArgs {
    /// The app; absent: -a, or the name in .flipside-app
    #[arg(value_name = "APP")]
    pub(crate) app: Option<String>,
    /// At most so many entries, newest first
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    pub(crate) limit: u32,
}

/// `env`.
#[derive(Debug, Args)]
pub(crate) struct EnvArgs {
    #[command(subcommand)]
    pub(crate) verb: EnvVerb,
}

/// What to do about the environment. Values are set in pillar, and nowhere else.
#[derive(Debug, Subcommand)]
pub(crate) enum EnvVerb {
    /// Show the names of the variables; values are never shown
    #[command(after_help = "Example: flipside env get blog")]
    Get(OneApp),
    /// Write the env file again from what is stored, and reload the app if it changed
    #[command(after_help = "Examples:\n  flipside env apply blog\n  flipside env apply blog --file env.json")]
    Apply {
        /// The app; absent: -a, or the name in .flipside-app
        #[arg(value_name = "APP")]
        app: Option<String>,
        /// A JSON map of names to values, plain or armoured, that replaces what is stored (`-` is stdin)
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        lock: Wait,
    },
}

/// `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  flipside status\n  flipside status blog --json")]
pub(crate) struct StatusArgs {
    /// One app [default: all]
    #[arg(value_name = "APP")]
    pub(crate) app: Option<String>,
}

/// `logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  flipside logs blog -n 100 --grep Traceback\n  \
    flipside logs blog -f --since 10m")]
pub(crate) struct LogsArgs {
    /// The app; absent: -a, or the name in .flipside-app
    #[arg(value_name = "APP")]
    pub(crate) app: Option<String>,
    /// The newest so many lines
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    pub(crate) lines: u32,
    /// Go on with new lines as they come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only lines since then: RFC 3339, or an age such as 90s, 10m, 2h, 1d
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Only lines that contain this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) grep: Option<String>,
}

/// `run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  flipside run blog -- django-admin check\n  \
    flipside run blog -- django-admin shell < script.py\n  flipside run -t blog -- bash\n\nThe exit code is that of the command.")]
pub(crate) struct RunArgs {
    /// The app; absent: -a, or the name in .flipside-app
    #[arg(value_name = "APP")]
    pub(crate) app: Option<String>,
    /// End the command after so many seconds; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) timeout: u32,
    /// Give the command no input, as ssh -n
    #[arg(short = 'n', long, conflicts_with = "tty")]
    pub(crate) no_stdin: bool,
    #[command(flatten)]
    pub(crate) terminal: TerminalArgs,
    /// Program and arguments
    #[arg(value_name = "CMD", last = true, required = true)]
    pub(crate) command: Vec<String>,
}

/// Whether a command gets a terminal.
#[derive(Debug, Args)]
pub(crate) struct TerminalArgs {
    /// Give the command a terminal [default: where input and output are one]
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Give it none
    #[arg(short = 'T', long, conflicts_with = "tty")]
    pub(crate) no_tty: bool,
}

/// `manage`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  flipside manage blog check --deploy\n  \
    flipside manage blog createsuperuser\n\nThe exit code is that of the command. Flags of flipside stand before the app.")]
pub(crate) struct ManageArgs {
    #[command(flatten)]
    pub(crate) terminal: TerminalArgs,
    /// The app, then what django-admin is told
    #[arg(value_name = "APP ARGS", num_args = 1.., required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

/// `shell`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  flipside shell blog\n  flipside shell blog < script.py")]
pub(crate) struct ShellArgs {
    /// The app; absent: -a, or the name in .flipside-app
    #[arg(value_name = "APP")]
    pub(crate) app: Option<String>,
    #[command(flatten)]
    pub(crate) terminal: TerminalArgs,
}

/// `dbshell`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  flipside dbshell blog\n  flipside dbshell blog shop.sqlite3 --write\n  \
    echo 'SELECT count(*) FROM auth_user;' | flipside dbshell blog"
)]
pub(crate) struct DbshellArgs {
    /// The app; absent: -a, or the name in .flipside-app
    #[arg(value_name = "APP")]
    pub(crate) app: Option<String>,
    /// The database, a file in the app's data folder [default: the app's own]
    #[arg(value_name = "DB")]
    pub(crate) database: Option<String>,
    /// Also let it be changed
    #[arg(long)]
    pub(crate) write: bool,
    #[command(flatten)]
    pub(crate) terminal: TerminalArgs,
}

/// `maintenance`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  flipside maintenance on blog\n  flipside maintenance off blog")]
pub(crate) struct MaintenanceArgs {
    /// `on` or `off`, and the app
    #[arg(value_name = "on|off [APP]", num_args = 1..=2, required = true)]
    pub(crate) words: Vec<String>,
}

/// `lock`.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    #[command(subcommand)]
    pub(crate) verb: LockVerb,
}

/// What to ask about the lock. None releases it: the agent holds it, and it ends with its command.
#[derive(Debug, Subcommand)]
pub(crate) enum LockVerb {
    /// Say who holds the app, with what and since when
    #[command(after_help = "Example: flipside lock status blog")]
    Status(OneApp),
}

/// `restore`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  flipside restore blog\n  \
    flipside restore blog --timestamp 2026-11-28T10:00:00Z --identity key.txt")]
pub(crate) struct RestoreArgs {
    /// The app; absent: -a, or the name in .flipside-app
    #[arg(value_name = "APP")]
    pub(crate) app: Option<String>,
    /// The instant, RFC 3339 [default: the newest state]
    #[arg(long, value_name = "WHEN")]
    pub(crate) timestamp: Option<String>,
    /// One database of the app [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// A file with the age identity to decrypt with [default: the host's, where its owner opted in]
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) lock: Wait,
}
