//! The arguments of `backup`, which needs no agent.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::MediaArgs;

/// `backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    pub(crate) verb: BackupVerb,
}

/// What to do about backups.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupVerb {
    /// Remember for whom this host encrypts what it puts into a store, and print the host's key
    #[command(after_help = "Example: flipside backup init --repo /mnt/backups --recipient age1…")]
    Init(InitArgs),
    /// Store what changed in a database since the last time, once
    #[command(after_help = "Example: flipside backup run --repo /mnt/backups /srv/blog/db.sqlite3")]
    Run(OnceArgs),
    /// Store every change of a database as it happens, until stopped
    #[command(
        after_help = "Example: flipside backup watch --repo s3://backups/blog?region=eu-central-1 --rpo 10 \
                            /srv/blog/db.sqlite3"
    )]
    Watch(WatchArgs),
    /// Print the last position that the store has acknowledged
    #[command(after_help = "Example: flipside backup position --repo /mnt/backups /srv/blog/db.sqlite3")]
    Position(PositionArgs),
    /// List what can be restored from a store
    #[command(after_help = "Example: flipside backup list --repo /mnt/backups --identity key.txt")]
    List(ReadArgs),
    /// Prove what can be proven of a store; with an identity, restore the newest state to scratch
    #[command(after_help = "Example: flipside backup check --repo /mnt/backups --identity key.txt")]
    Check(ReadArgs),
    /// Restore a database to a new file
    #[command(
        after_help = "Examples:\n  flipside backup restore --repo /mnt/backups --identity key.txt -o db.sqlite3\n  \
        flipside backup restore --repo /mnt/backups --identity key.txt --timestamp 2026-11-28T10:00:00Z -o old.db"
    )]
    Restore(RestoreFileArgs),
    /// Say what may go from a store; with --apply, remove it
    #[command(after_help = "Example: flipside backup prune --repo /mnt/backups --apply")]
    Prune(PruneArgs),
    /// Encrypt the keys of all epochs anew, for other recipients
    #[command(
        after_help = "Example: flipside backup rewrap --repo /mnt/backups --identity key.txt --recipient age1…"
    )]
    Rewrap(RewrapArgs),
    /// The files beside a database: what users uploaded
    Media(MediaArgs),
}

/// The store.
#[derive(Debug, Clone, Args)]
pub(crate) struct Repo {
    /// The store: a folder, or s3://bucket/prefix?region=…&endpoint=…
    #[arg(long, value_name = "URL", env = "FLIPSIDE_BACKUP_REPO", hide_env_values = true)]
    pub(crate) repo: String,
    /// Where this host keeps its signing key and what it knows of the databases it follows
    /// [default: /var/lib/flipside/backup as root, else ~/.local/state/flipside/backup]
    #[arg(long, value_name = "DIR", env = "FLIPSIDE_BACKUP_STATE", hide_env_values = true)]
    pub(crate) state: Option<PathBuf>,
}

/// `backup init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    pub(crate) repo: Repo,
    /// Who can restore: age1… or an SSH public key; may be repeated
    #[arg(long, value_name = "AGE", required = true)]
    pub(crate) recipient: Vec<String>,
}

/// `backup run`.
#[derive(Debug, Args)]
pub(crate) struct FollowArgs {
    #[command(flatten)]
    pub(crate) repo: Repo,
    /// Who can restore, instead of those of `init`; may be repeated
    #[arg(long, value_name = "AGE")]
    pub(crate) recipient: Vec<String>,
    /// What the database is called in the store [default: its path]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The most to send in a second
    #[arg(long, value_name = "KILOBYTES")]
    pub(crate) limit: Option<u64>,
    /// The database
    #[arg(value_name = "DB")]
    pub(crate) db: PathBuf,
}

/// `backup run`.
#[derive(Debug, Args)]
pub(crate) struct OnceArgs {
    #[command(flatten)]
    pub(crate) follow: FollowArgs,
    /// Seconds after which a store that takes nothing ends the run
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub(crate) patience: u64,
}

/// `backup watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) follow: FollowArgs,
    /// Seconds after which a commit is stored at the latest [default: 1 for a folder, 10 for S3]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) rpo: Option<f64>,
    /// Mebibytes that may wait for their upload on this host
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub(crate) spool: u64,
}

/// `backup position`.
#[derive(Debug, Args)]
pub(crate) struct PositionArgs {
    #[command(flatten)]
    pub(crate) repo: Repo,
    /// The database
    #[arg(value_name = "DB")]
    pub(crate) db: PathBuf,
}

/// Verbs that read a store.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    pub(crate) repo: Repo,
    /// A file with an age identity or an SSH private key; may be repeated
    #[arg(long, value_name = "FILE", env = "FLIPSIDE_BACKUP_IDENTITY", hide_env_values = true)]
    pub(crate) identity: Vec<PathBuf>,
    /// The host's key, as `init` printed it: nothing that another host signed is believed
    #[arg(long, value_name = "HEX")]
    pub(crate) host_key: Option<String>,
    /// Only this chain
    #[arg(long, value_name = "HEX")]
    pub(crate) chain: Option<String>,
    /// The database: its name or path
    #[arg(value_name = "DB")]
    pub(crate) db: Option<String>,
}

/// `backup restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreFileArgs {
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// The last state at or before this time (RFC 3339), or an age such as 10m
    #[arg(long, value_name = "TIME", conflicts_with = "position")]
    pub(crate) timestamp: Option<String>,
    /// The state at this position
    #[arg(long, value_name = "P")]
    pub(crate) position: Option<String>,
    /// The new file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// `backup prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) repo: Repo,
    #[command(flatten)]
    pub(crate) retain: RetainArgs,
    /// Only this chain
    #[arg(long, value_name = "HEX")]
    pub(crate) chain: Option<String>,
}

/// What stays.
#[derive(Debug, Args)]
pub(crate) struct RetainArgs {
    /// Remove what the plan names
    #[arg(long)]
    pub(crate) apply: bool,
    /// Hours in which everything stays
    #[arg(long, value_name = "N", default_value_t = 24)]
    pub(crate) all_hours: u32,
    /// Days in which the last state of each hour stays
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(crate) hourly_days: u32,
    /// Days in which the last state of each day stays
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) daily_days: u32,
    /// Days in which the last state of each month stays
    #[arg(long, value_name = "N", default_value_t = 366)]
    pub(crate) monthly_days: u32,
}

/// `backup rewrap`.
#[derive(Debug, Args)]
pub(crate) struct RewrapArgs {
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Who can restore from now on: age1… or an SSH public key; may be repeated
    #[arg(long, value_name = "AGE", required = true)]
    pub(crate) recipient: Vec<String>,
}
