//! An app's backups: the seam, and behind it one child process for each database, as the app's user.
//!
//! The agent itself opens neither an app's database nor the app's part of the store. It starts `flipside-agent
//! follow`, tells it its job through a pipe, keeps it alive and ends it gently. A follower survives an agent that
//! was killed; the next one ends it and goes on where it was.

pub mod child;
mod follower;
mod job;
mod place;
mod record;
mod stored;
mod watch;

pub use stored::Stored;

use std::sync::Arc;

use async_trait::async_trait;
use flipside_api::{Code, Failure, Outcome, Restore};

use crate::{app::record::App, progress::Channel};

/// The backups of the apps of this host.
#[async_trait]
pub trait Backups: Send + Sync {
    /// Takes the newest state of the databases to the store and says its position.
    async fn backup(&self, app: &App) -> Result<Outcome, Failure>;
    /// What the store can restore.
    async fn list(&self, app: &App) -> Result<Outcome, Failure>;
    /// Proves what can be proven of the stored backups.
    async fn check(&self, app: &App) -> Result<Outcome, Failure>;
    /// Puts the databases back to an earlier state. The caller holds the app's lock.
    async fn restore(&self, app: &App, asked: &Restore, channel: &Arc<Channel>) -> Result<Outcome, Failure>;
    /// Ends a restore in which the agent was killed: one that had begun to put files in place is finished. The
    /// caller holds the app's lock.
    async fn recover(&self, app: &App) -> Result<Outcome, Failure>;
    /// What status says of an app's backups; nothing where there are none.
    async fn status(&self, app: &App) -> Option<serde_json::Value>;
}

/// A host whose owner has named no store.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBackups;

fn absent() -> Failure {
    Failure::new(Code::Gate, "this host has no store for backups").hint(
        "name one in the table [backup] of agent.toml (repo and recipients), and restart flipside-agent",
    )
}

#[async_trait]
impl Backups for NoBackups {
    async fn backup(&self, _app: &App) -> Result<Outcome, Failure> {
        Err(absent())
    }

    async fn list(&self, _app: &App) -> Result<Outcome, Failure> {
        Err(absent())
    }

    async fn check(&self, _app: &App) -> Result<Outcome, Failure> {
        Err(absent())
    }

    async fn restore(
        &self,
        _app: &App,
        _asked: &Restore,
        _channel: &Arc<Channel>,
    ) -> Result<Outcome, Failure> {
        Err(absent())
    }

    async fn recover(&self, _app: &App) -> Result<Outcome, Failure> {
        Err(absent())
    }

    async fn status(&self, _app: &App) -> Option<serde_json::Value> {
        None
    }
}
