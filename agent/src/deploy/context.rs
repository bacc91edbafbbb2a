//! What the steps of one deployment work with.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use flipside_api::{AppSpec, Code, Failure, Hooks, Progress, ReleaseId};
use serde::{Deserialize, Serialize};

use super::page::Page;
use crate::{
    app::{
        deployment::Step,
        env::{self, Env},
        paths::AppPaths,
        plan::Kind,
    },
    host::{Host, fault},
    progress::Channel,
    runtime::{Account, InstanceSpec, Runtime, assets::Schema},
    sys::{
        exec::{self, Ended, Program},
        tail, trash,
    },
};

/// The most output of a program that is kept to show.
const TAIL: usize = 256 << 10;

/// The variable that tells whose child a program is: what a killed agent left of it is found by that and ended.
pub(super) const DEPLOYMENT: &str = "FLIPSIDE_DEPLOYMENT";

/// What is on record of a deployment, so that a restarted agent can finish or undo it. No secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    /// Its id.
    pub(crate) id: String,
    /// The verb that began it.
    pub(crate) verb: String,
    /// The spec that it brings, without environment.
    pub(crate) spec: AppSpec,
    /// The spec that was deployed before.
    pub(crate) old: Option<AppSpec>,
    /// The release that it brings.
    pub(crate) release: ReleaseId,
    /// The release that was current.
    pub(crate) previous: Option<ReleaseId>,
    /// How the release takes over.
    pub(crate) kind: String,
    /// The steps.
    pub(crate) steps: Vec<String>,
    /// The hooks.
    pub(crate) hooks: Hooks,
    /// Whether the app was up before.
    pub(crate) was_up: bool,
    /// The folder of the package.
    pub(crate) package: PathBuf,
    /// The deployment to whose mark the databases go back.
    #[serde(default)]
    pub(crate) mark: Option<String>,
    /// The risks that were accepted.
    #[serde(default)]
    pub(crate) allow: Vec<String>,
}

/// One deployment, for its steps.
pub(crate) struct Context {
    pub(crate) host: Arc<Host>,
    pub(crate) work: Work,
    pub(crate) paths: AppPaths,
    pub(crate) account: Option<Account>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) brings: Brings,
    pub(crate) channel: Arc<Channel>,
    /// Whether workers of the release may have served, and so written to the databases.
    pub(crate) served: AtomicBool,
    pub(crate) found: Found,
    pub(crate) page: Page,
    held: AtomicBool,
}

/// What the release will see of its surroundings; empty when a restarted agent goes on.
#[derive(Default)]
pub(crate) struct Brings {
    /// The whole environment.
    pub(crate) env: Env,
    /// The folder of the configuration files, and what is in it.
    pub(crate) files: Option<(PathBuf, BTreeMap<String, String>)>,
}

/// What a step found out for those after it, in the same agent.
#[derive(Default)]
pub(crate) struct Found {
    /// The release's migrations; nothing where they are not Django's.
    pub(crate) schema: OnceLock<Schema>,
    /// Whether the release answered badly before its migrations: it is asked again before the switch.
    pub(crate) sick: AtomicBool,
    /// What whoever asked should know, in a sentence.
    pub(crate) note: OnceLock<String>,
}

impl Context {
    /// The context of `work`.
    ///
    /// # Errors
    /// When the host lacks the app's user or runtime.
    pub(crate) fn new(
        host: Arc<Host>,
        work: Work,
        brings: Brings,
        channel: Arc<Channel>,
    ) -> Result<Self, Failure> {
        let paths = host.paths(&work.spec.app);
        let account = host.account(&work.spec)?;
        let runtime = host.runtime(work.spec.runtime)?;
        let held = AtomicBool::new(work.kind == Kind::Held.name());
        let (found, page) = (Found::default(), Page::new(paths.maintenance(), &work.id));
        let served = AtomicBool::new(false);
        Ok(Self { host, work, paths, account, runtime, brings, channel, served, found, page, held })
    }

    /// How the release takes over.
    pub(crate) fn kind(&self) -> Kind {
        if self.is_held() { Kind::Held } else { Kind::from_name(&self.work.kind).unwrap_or(Kind::Cold) }
    }

    /// Whether requests are held while the databases change.
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Has requests held, though the plan did not say so.
    ///
    /// # Errors
    /// When it cannot be put on record, where an agent that is started after us looks.
    pub(crate) async fn hold_instead(&self) -> Result<(), Failure> {
        let mut work = Work { kind: Kind::Held.name().to_owned(), ..self.work.clone() };
        let later = |name: &String| name.parse::<Step>().is_ok_and(|step| step > Step::Hold);
        let place = work.steps.iter().position(later).unwrap_or(work.steps.len());
        work.steps.insert(place, Step::Hold.name().to_owned());
        self.host.records.revise(&work.id, super::look::to_json(&work)?).await?;
        self.held.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether databases that are put back may hold what was written, and answered for, since the switch.
    pub(crate) fn has_written(&self) -> bool {
        self.is_held() && self.will(Step::Migrate) && self.served.load(Ordering::Relaxed)
    }

    /// Whether the plan has this step.
    pub(crate) fn will(&self, step: Step) -> bool {
        self.work.steps.iter().any(|name| name == step.name())
    }

    /// The instance that the new spec asks for.
    pub(crate) fn instance(&self) -> InstanceSpec {
        self.host.instance(&self.work.spec, self.account.clone())
    }

    /// The instance that ran before, as far as is known.
    pub(crate) fn old_instance(&self) -> InstanceSpec {
        let spec = self.work.old.as_ref().unwrap_or(&self.work.spec);
        self.host.instance(spec, self.account.clone())
    }

    /// The runtime that it ran in.
    ///
    /// # Errors
    /// When the host has it no more.
    pub(crate) fn old_runtime(&self) -> Result<Arc<dyn Runtime>, Failure> {
        let spec = self.work.old.as_ref().unwrap_or(&self.work.spec);
        self.host.runtime(spec.runtime)
    }

    /// The venv of the new release.
    pub(crate) fn venv(&self) -> PathBuf {
        self.paths.release(&self.work.release).join("venv")
    }

    /// User and group id of the app, where it has its own.
    pub(crate) fn owner(&self) -> Option<(u32, u32)> {
        self.account.as_ref().map(|account| (account.uid, account.gid))
    }

    /// Root with the app's group: what the app may read and not write.
    pub(crate) fn readable(&self) -> Option<(u32, u32)> {
        self.account.as_ref().map(|account| (0, account.gid))
    }

    /// The environment that programs of the release see now: the next one until the switch.
    pub(crate) fn current_env(&self) -> Result<Env, Failure> {
        let next = self.paths.env_next();
        let path = if next.exists() { next } else { self.paths.env_file() };
        read_env(&path)
    }

    /// Runs a program of the release as the app's user; its lines are progress.
    pub(crate) async fn run(
        &self,
        argv: Vec<String>,
        env: BTreeMap<String, String>,
        timeout: Duration,
    ) -> Result<Ended, Failure> {
        let (channel, secrets) = (Arc::clone(&self.channel), env.clone());
        self.run_heard(argv, env, timeout, &mut |line| channel.output("", &env::blacken(line, &secrets)))
            .await
    }

    /// The same, and only its end is of interest.
    pub(crate) async fn run_unheard(
        &self,
        argv: Vec<String>,
        env: BTreeMap<String, String>,
        timeout: Duration,
    ) -> Result<Ended, Failure> {
        self.run_heard(argv, env, timeout, &mut |_| {}).await
    }

    async fn run_heard(
        &self,
        argv: Vec<String>,
        env: BTreeMap<String, String>,
        timeout: Duration,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Ended, Failure> {
        let mut env = env;
        env.insert(DEPLOYMENT.to_owned(), self.work.id.clone());
        let program = Program {
            argv,
            env,
            cwd: self.paths.data(),
            account: self.account.clone(),
            stdin: None,
            timeout,
            tail: TAIL,
        };
        exec::run(program, on_line)
            .await
            .map_err(|error| fault("cannot run a program of the release", &error))
    }

    /// The failure without the secrets of the app's environment: it goes on record, and to whoever asked.
    pub(crate) fn blackened(&self, mut failure: Failure) -> Failure {
        let stored = if self.brings.env.is_empty() { self.current_env().ok() } else { None };
        let env = stored.as_ref().unwrap_or(&self.brings.env);
        failure.message = env::blacken(&failure.message, env);
        for line in &mut failure.log {
            *line = env::blacken(line, env);
        }
        failure
    }

    /// Takes a path of the app away, at once.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), Failure> {
        trash::discard(path, &self.paths.trash())
            .map_err(|error| fault("cannot remove what is no longer needed", &error))
    }

    /// Tells those who listen.
    pub(crate) fn say(&self, step: &str, event: &str, message: &str, ms: u64) {
        self.channel.send(Progress { step: step.into(), event: event.into(), message: message.into(), ms });
    }

    /// The last lines of the app's log.
    pub(crate) fn log_tail(&self, lines: usize) -> Vec<String> {
        tail::tail(self.paths.log(), lines)
    }
}

/// The env file at `path`, understood.
///
/// # Errors
/// When it is missing or damaged.
pub(crate) fn read_env(path: &std::path::Path) -> Result<Env, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| fault(&format!("cannot read {}", path.display()), &error))?;
    env::from_file(&text)
        .map_err(|problem| Failure::new(Code::Host, format!("{}: {problem}", path.display())))
}
