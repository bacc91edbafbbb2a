//! What every command needs to know of its host: composed in `main`, passed in explicitly.

use std::{path::PathBuf, sync::Arc};

use flipside_api::{AppName, AppSpec, Code, Failure, RuntimeKind};

use crate::{
    app::{paths::AppPaths, record::App},
    config::Config,
    db::Db,
    records::Records,
    runtime::{Account, InstanceSpec, Runtime, assets::Assets, crew, holder::protocol::Crew},
    secrets::Keyring,
    sys::users,
};

/// The host and what there is on it.
pub struct Host {
    /// The configuration.
    pub config: Config,
    /// What the agent remembers.
    pub records: Arc<dyn Records>,
    /// The same as a file: the event inlet keeps its outbox there.
    pub db: Db,
    /// The host's identity.
    pub keyring: Keyring,
    /// What can run apps.
    pub runtimes: Vec<Arc<dyn Runtime>>,
    /// The Python files that come with the agent.
    pub assets: Assets,
    /// The agent's own program, for the children that work as an app's user.
    pub program: PathBuf,
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

    /// The user that an app's processes run as; `None` is our own, where we are nobody special.
    ///
    /// # Errors
    /// When we are root and the app has no user of its own.
    pub fn account(&self, spec: &AppSpec) -> Result<Option<Account>, Failure> {
        if !users::am_root() {
            return Ok(None);
        }
        let name = spec.user.as_deref().unwrap_or_default();
        let account = users::account(name).map_err(|error| {
            Failure::new(Code::Gate, format!("{} has no system user: {error}", spec.app))
                .hint("apply the state flipside.app on this host: it makes the users and folders of its apps")
        })?;
        if account.uid == 0 {
            return Err(Failure::new(Code::Spec, format!("{} may not run as root", spec.app)));
        }
        Ok(Some(account))
    }

    /// What should run beside the app's web workers.
    ///
    /// # Errors
    /// When the app's user is missing.
    pub fn crew(&self, app: &App) -> Result<Crew, Failure> {
        Ok(crew::wanted(&app.spec, &app.release, &self.paths(&app.spec.app), self.account(&app.spec)?))
    }

    /// What an instance of the app should be.
    pub fn instance(&self, spec: &AppSpec, account: Option<Account>) -> InstanceSpec {
        InstanceSpec {
            paths: self.paths(&spec.app),
            account,
            workers: spec.workers,
            threads: spec.threads,
            request_timeout: spec.request_timeout,
            start_timeout: spec.start_timeout,
            memory: spec.memory,
            python: self.config.python.display().to_string(),
            release_header: spec.release_header,
        }
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
