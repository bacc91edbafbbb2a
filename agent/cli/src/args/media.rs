//! The arguments of `backup media`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Repo, RetainArgs};

/// `backup media`.
#[derive(Debug, Args)]
pub(crate) struct MediaArgs {
    #[command(subcommand)]
    pub(crate) verb: MediaVerb,
}

/// What to do with a folder of files.
#[derive(Debug, Subcommand)]
pub(crate) enum MediaVerb {
    /// Store what is new in a folder, encrypted; an unchanged folder stores nothing
    #[command(after_help = "Example: flipside backup media run --repo /mnt/backups \
        /srv/flipside/apps/blog/media")]
    Run(MediaRunArgs),
    /// List what can be restored; needs no identity
    #[command(after_help = "Example: flipside backup media list --repo /mnt/backups")]
    List(MediaListArgs),
    /// Write the files as they were into a new folder
    #[command(after_help = "Example: flipside backup media restore --repo /mnt/backups --identity key.txt \
        --timestamp 2026-11-28T10:00:00Z -o ./media")]
    Restore(MediaRestoreArgs),
    /// Show what of the past may go, and with --apply remove it
    #[command(
        after_help = "Example: flipside backup media prune --repo /mnt/backups --identity key.txt --apply"
    )]
    Prune(MediaPruneArgs),
}

/// `backup media run`.
#[derive(Debug, Args)]
pub(crate) struct MediaRunArgs {
    #[command(flatten)]
    pub(crate) repo: Repo,
    /// Who can restore, instead of those of `init`; may be repeated
    #[arg(long, value_name = "AGE")]
    pub(crate) recipient: Vec<String>,
    /// What the folder is to people; encrypted [default: its path]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The most to send in a second
    #[arg(long, value_name = "KILOBYTES")]
    pub(crate) limit: Option<u64>,
    /// The folder with the files
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// `backup media list`.
#[derive(Debug, Args)]
pub(crate) struct MediaListArgs {
    #[command(flatten)]
    pub(crate) repo: Repo,
}

/// Whose media, and who reads them.
#[derive(Debug, Args)]
pub(crate) struct MediaReadArgs {
    #[command(flatten)]
    pub(crate) repo: Repo,
    /// A file with an age identity or an SSH private key
    #[arg(long, value_name = "FILE", env = "FLIPSIDE_BACKUP_IDENTITY", hide_env_values = true)]
    pub(crate) identity: PathBuf,
    /// The host's key, as `init` printed it: nothing that another host signed is believed
    #[arg(long, value_name = "HEX")]
    pub(crate) host_key: Option<String>,
    /// The set, where the store holds several
    #[arg(long, value_name = "ID")]
    pub(crate) set: Option<String>,
}

/// `backup media prune`.
#[derive(Debug, Args)]
pub(crate) struct MediaPruneArgs {
    #[command(flatten)]
    pub(crate) read: MediaReadArgs,
    #[command(flatten)]
    pub(crate) retain: RetainArgs,
}

/// `backup media restore`.
#[derive(Debug, Args)]
pub(crate) struct MediaRestoreArgs {
    #[command(flatten)]
    pub(crate) read: MediaReadArgs,
    /// As it was then (RFC 3339, or an age such as 10m): the last list that is not later [default: the last]
    #[arg(long, value_name = "TIME", conflicts_with = "list")]
    pub(crate) timestamp: Option<String>,
    /// This list
    #[arg(long, value_name = "ID")]
    pub(crate) list: Option<String>,
    /// The new folder
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Only these files and folders
    #[arg(value_name = "PATH")]
    pub(crate) only: Vec<String>,
}
