//! The contract between the agent and those who ask it: the CLI, the Salt module, tests.
//!
//! A [`Request`] carries one [`Command`]; the agent answers with any number of [`Reply::Progress`] and
//! exactly one [`Reply::Outcome`]. On the socket each is a frame: a big-endian `u32` length, then one
//! msgpack map with named fields ([`codec`]). The JSON Schema of the same types stands in `schema.json`,
//! which a test keeps true.

mod check;
pub mod codec;
mod command;
pub mod migrations;
mod names;
mod outcome;
mod spec;

pub use command::{
    Backup, Command, Deploy, History, Logs, Metric, Package, Redeploy, Release, Request, Restore, Rollback,
    Run, Streams, Who,
};
pub use migrations::{Effect, Migrated, Migration, Migrations, Operation};
pub use names::{AppName, NameError, ReleaseId, Tag};
pub use outcome::{Code, Failure, Outcome, Progress, Reply, State, StepReport};
pub use spec::{
    AppSpec, Background, Health, Hook, Hooks, Location, RuntimeKind, Schedule, SpecError, Switch,
};

/// The version of the contract that this build speaks. The agent also understands the one before.
pub const VERSION: u32 = 1;
