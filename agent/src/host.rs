//! What every command needs to know of its host: composed in `main`, passed in explicitly.

use std::sync::Arc;

use flipside_api::{AppName, Code, Failure, RuntimeKind};

use crate::{app::paths::AppPaths, config::Config, db::Db, runtime::Runtime, secrets::Keyring};

/// The host and what there is on it.
pub struct Host {
    /// The configuration.
    pub config: Config,
    /// What the agent remembers.
    pub db: Db,
    /// The host's identity.
    pub keyring: Keyring,
    /// What can run apps.
    pub runtimes: Vec<Arc<dyn Runtime>>,
    /// When the agent started, in milliseconds.
    pub started: i64,
}

impl Host {
    /// Where an app lies.
    pub fn paths(&self, app: &AppName) -> AppPaths {
        AppPaths::new(app, &self.config.apps_dir, &self.config.run_dir, &self.config.log_dir)
    }

    /// The runtime of that kind.
    ///
    /// # Errors
    /// When this agent has none.
    pub fn runtime(&self, kind: RuntimeKind) -> Result<Arc<dyn Runtime>, Failure> {
        self.runtimes.iter().find(|runtime| runtime.kind() == kind).cloned().ok_or_else(|| {
            let name = format!("{kind:?}").to_lowercase();
            Failure::new(Code::Gate, format!("this host has no runtime {name}"))
                .hint("say runtime: process in the app's pillar, or give the host that runtime")
        })
    }
}

/// A fault of the host as a failure, with what it was doing.
pub fn fault(what: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Code::Host, format!("{what}: {}", chain(error)))
}

/// An error and all that it comes from, in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
