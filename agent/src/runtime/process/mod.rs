//! Apps as uWSGI processes, of the host or of containers on it.
//!
//! This side has no state: the holder of each app knows what runs, and an agent that was restarted asks it.

pub(crate) mod client;
mod house;
mod log;
mod look;
mod orphan;
mod reach;
mod unit;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use async_trait::async_trait;
use flipside_api::{Code, Failure, ReleaseId, RuntimeKind};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use self::{
    client::ClientError,
    house::Held,
    log::LogMark,
    look::{Seen, look},
    reach::{Chain, Goal, Stuck},
};
use super::{
    InstanceSpec, Observed, Runtime,
    assets::Assets,
    docker::{Containers, Tools},
    holder::protocol::{Ask, CONTAINS, HolderState, Instance, Order},
    uwsgi::{MERCY_SECONDS, files::InstanceFiles, ini, install::Installer},
};
use crate::{
    app::paths::AppPaths,
    host::{chain, fault},
    sys::{atomic_write, clock, proc},
};

/// How long an instance may take to end gently.
const GENTLY: Duration = Duration::from_secs(MERCY_SECONDS + 5);
/// The same for one that served nobody when it was looked at: it may have begun to meanwhile.
const BRIEFLY: Duration = Duration::from_secs(2);

/// Runs apps as processes.
#[derive(Debug, Clone)]
pub struct ProcessRuntime {
    /// The agent's own program, which is also the holder.
    pub agent: PathBuf,
    /// Where uWSGI comes from.
    pub installer: Installer,
    /// The loader.
    pub assets: Assets,
    /// The group that may connect to the sockets of apps that run as users of their own: nginx's.
    pub web_group: String,
    /// Whether holders are units of systemd.
    pub units: bool,
    /// What puts instances into containers; `None`: they are processes of the host.
    pub containers: Option<Containers>,
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        if self.containers.is_some() { RuntimeKind::Docker } else { RuntimeKind::Process }
    }

    fn limits_memory(&self) -> bool {
        self.units || self.containers.is_some()
    }

    fn options(&self, spec: &InstanceSpec) -> String {
        // All instances of the same options have the same hash, so no name of one goes in.
        let files = InstanceFiles::new(spec.paths.run(), "instance");
        let ini = self.ini(spec, &files, &PathBuf::from(&spec.python)).unwrap_or_default();
        let mut hash = Sha256::new();
        let contained = self.containers.as_ref().map(|containers| containers.options(spec));
        for part in [&ini, &spec.python, &self.installer.requirement].into_iter().chain(&contained) {
            hash.update(part);
            hash.update([0]);
        }
        for (name, value) in self.env(spec) {
            hash.update(format!("{name}={value}\0"));
        }
        hash.update(spec.account.as_ref().map_or(String::new(), |a| format!("{}:{}", a.uid, a.gid)));
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    async fn ready(&self, spec: &InstanceSpec) -> Result<String, Failure> {
        self.uwsgi(spec).await?;
        match &self.containers {
            Some(containers) => containers.ready(spec).await,
            None => Ok(String::new()),
        }
    }

    async fn observe(&self, paths: &AppPaths) -> Result<Observed, Failure> {
        let state = house::find(paths).await?;
        let mut instances = orphan::orphans(paths.run(), state.as_ref());
        instances.extend(state.iter().flat_map(|state| state.instances.clone()));
        let mut observed = Observed {
            listening: state.is_some_and(|state| state.published),
            options: instances.iter().rfind(|i| !i.retiring).map(|i| i.options.clone()),
            ..Observed::default()
        };
        for instance in &instances {
            observed.workers.extend(workers(paths, instance).await.into_iter().map(|seen| seen.worker));
        }
        if observed.workers.is_empty()
            && let Some(instance) = instances.iter().rfind(|instance| !instance.retiring)
        {
            let away = self.awaits_engine(instance).await.err().map(|failure| failure.message);
            observed.problem = away.or_else(|| instance.refused.clone());
        }
        Ok(observed)
    }

    async fn start(&self, spec: &InstanceSpec, release: &ReleaseId) -> Result<(), Failure> {
        self.limit(spec).await?;
        let held = self.held(spec).await?;
        let orphans = orphan::orphans(spec.paths.run(), Some(&held.state));
        if orphans.is_empty() {
            // Requests wait from now on.
            house::publish(&spec.paths).await?;
        }
        let started = match active(&spec.paths, &held.state).await {
            None => self.launch(spec, release).await.map(drop),
            Some(instance) if instance.options != self.options(spec) => self.relay(spec, release).await,
            Some(instance) => {
                self.retire_all_but(&spec.paths, &held.state, &instance.name).await?;
                self.confirm(spec, release, &instance).await
            }
        };
        if let Err(failure) = started {
            if held.fresh {
                house::quit(&spec.paths, &held.state, Duration::ZERO).await?;
            }
            return Err(failure);
        }
        retire_orphans(&spec.paths).await
    }

    async fn reload(&self, spec: &InstanceSpec, release: &ReleaseId) -> Result<(), Failure> {
        let Some(state) = house::find(&spec.paths).await? else { return self.start(spec, release).await };
        match active(&spec.paths, &state).await {
            None => self.start(spec, release).await,
            Some(instance) => {
                self.limit(spec).await?;
                self.retire_all_but(&spec.paths, &state, &instance.name).await?;
                retire_orphans(&spec.paths).await?;
                self.chain(spec, release, &instance).await
            }
        }
    }

    async fn replace(&self, spec: &InstanceSpec, release: &ReleaseId) -> Result<(), Failure> {
        match house::find(&spec.paths).await? {
            Some(state) if !state.instances.is_empty() => {
                self.limit(spec).await?;
                self.relay(spec, release).await
            }
            _ => self.start(spec, release).await,
        }
    }

    async fn hold(&self, paths: &AppPaths) -> Result<(), Failure> {
        let account = house::account_of(paths);
        let held = house::find_or_start(self, paths, account.as_ref()).await?;
        retire_orphans(paths).await?;
        house::retire(paths, &names(&held.state), GENTLY).await
    }

    async fn stop(&self, paths: &AppPaths) -> Result<(), Failure> {
        let state = house::find(paths).await?;
        for orphan in orphan::orphans(paths.run(), state.as_ref()) {
            orphan::retire(paths.run(), &orphan, GENTLY).await;
        }
        match state {
            Some(state) => house::quit(paths, &state, GENTLY).await,
            None => Ok(()),
        }
    }
}

impl ProcessRuntime {
    async fn held(&self, spec: &InstanceSpec) -> Result<Held, Failure> {
        house::find_or_start(self, &spec.paths, spec.account.as_ref()).await
    }

    async fn limit(&self, spec: &InstanceSpec) -> Result<(), Failure> {
        if self.units { unit::limit(&spec.paths, spec.memory).await } else { Ok(()) }
    }

    /// Fails where an instance has no process because the engine is away: it will be started when that is back.
    async fn awaits_engine(&self, instance: &Instance) -> Result<(), Failure> {
        match &self.containers {
            Some(containers) if instance.pid.is_none() => containers.reach().await,
            _ => Ok(()),
        }
    }

    /// Waits until the running instance serves `release`, and brings it there where it serves another.
    async fn confirm(
        &self,
        spec: &InstanceSpec,
        release: &ReleaseId,
        instance: &Instance,
    ) -> Result<(), Failure> {
        let seen = workers(&spec.paths, instance).await;
        if seen.len() == usize::from(instance.workers) && seen.iter().all(|seen| seen.serves(release)) {
            return Ok(());
        }
        self.chain(spec, release, instance).await
    }

    /// Restarts the workers of `instance` one by one.
    async fn chain(
        &self,
        spec: &InstanceSpec,
        release: &ReleaseId,
        instance: &Instance,
    ) -> Result<(), Failure> {
        self.awaits_engine(instance).await?;
        let mark = LogMark::now(spec.paths.log());
        let seen = workers(&spec.paths, instance).await;
        let old: HashSet<u32> = seen.iter().map(Seen::pid).collect();
        // A chain that got stuck on one of these waits for it for ever, and no other can begin meanwhile.
        let stuck = seen.iter().filter(|seen| seen.is_idle_start()).map(Seen::pid).collect();
        kill_stuck(&spec.paths, instance, &stuck).await;
        match client::ask(spec.paths.run(), &Ask::Reload { name: instance.name.clone() }).await {
            // Between two starts: all its workers will be new.
            Ok(_) | Err(ClientError::Refused(_)) => {}
            Err(error) => return Err(fault("cannot reload the app", &error)),
        }
        let goal = Goal { old, ..goal(spec, release, &instance.name, usize::from(instance.workers)) };
        goal.reach(Chain::Workers).await.map_err(|stuck| not_serving(spec, release, &stuck, &mark))
    }

    /// Starts an instance beside what runs and, once it serves, retires the rest.
    async fn relay(&self, spec: &InstanceSpec, release: &ReleaseId) -> Result<(), Failure> {
        let name = self.launch(spec, release).await?;
        let state = house::find(&spec.paths).await?.unwrap_or_default();
        self.retire_all_but(&spec.paths, &state, &name).await
    }

    async fn retire_all_but(&self, paths: &AppPaths, state: &HolderState, name: &str) -> Result<(), Failure> {
        for other in state.instances.iter().filter(|other| other.name != name) {
            let seen = workers(paths, other).await;
            // One that serves nobody, as a deploy that was cut short leaves behind, need not be waited for.
            let idle = seen.iter().all(Seen::is_idle_start);
            let within = if idle { BRIEFLY } else { GENTLY };
            house::retire(paths, std::slice::from_ref(&other.name), within).await?;
        }
        Ok(())
    }

    /// Starts an instance and waits until it serves `release`; one that does not is ended again.
    async fn launch(&self, spec: &InstanceSpec, release: &ReleaseId) -> Result<String, Failure> {
        let mark = LogMark::now(spec.paths.log());
        let order = self.order(spec).await?;
        let name = order.name.clone();
        let holder = house::find(&spec.paths).await?.unwrap_or_default();
        if order.contained && holder.v < CONTAINS {
            return Err(older(spec, &holder));
        }
        client::ask(spec.paths.run(), &Ask::Start(Box::new(order)))
            .await
            .map_err(|error| fault("cannot start an instance", &error))?;
        let reached = goal(spec, release, &name, usize::from(spec.workers)).reach(Chain::Fresh).await;
        if let Err(stuck) = reached {
            let failure = not_serving(spec, release, &stuck, &mark);
            house::retire(&spec.paths, &[name], Duration::ZERO).await?;
            return Err(failure);
        }
        Ok(name)
    }

    /// The Python of the environment that uWSGI is in.
    async fn uwsgi(&self, spec: &InstanceSpec) -> Result<PathBuf, Failure> {
        self.installer.ensure(&spec.python).await.map_err(|error| {
            let failure = fault("uWSGI is not installed", &error);
            match error {
                super::uwsgi::install::InstallError::Failed { log, .. } => failure.log(log),
                _ => failure,
            }
        })
    }

    async fn order(&self, spec: &InstanceSpec) -> Result<Order, Failure> {
        let python = self.uwsgi(spec).await?;
        house::prepare(&spec.paths, spec.account.as_ref())?;
        let name = format!("i{:x}-{:04x}", clock::now_ms(), rand::random::<u16>());
        let files = InstanceFiles::new(spec.paths.run(), &name);
        let text =
            self.ini(spec, &files, &python).map_err(|error| fault("cannot configure uWSGI", &error))?;
        atomic_write::write(&files.ini, text.as_bytes(), 0o644, None)
            .map_err(|error| fault("cannot configure uWSGI", &error))?;
        let script = python.with_file_name("uwsgi");
        let argv = [&python.display().to_string(), "-I", "-u", &script.display().to_string(), "--ini"];
        let mut argv: Vec<String> = argv.iter().map(|argument| (*argument).to_owned()).collect();
        argv.push(files.ini.display().to_string());
        let order = Order {
            name,
            argv,
            env: self.env(spec),
            cwd: spec.paths.data(),
            account: spec.account.clone(),
            contained: false,
            options: self.options(spec),
            workers: spec.workers,
        };
        let tools = Tools { agent: &self.agent, assets: &self.assets, uwsgi: &self.installer.folder };
        match &self.containers {
            Some(containers) => containers.contain(order, spec, &tools).await,
            None => Ok(order),
        }
    }

    fn ini(
        &self,
        spec: &InstanceSpec,
        files: &InstanceFiles,
        python: &std::path::Path,
    ) -> Result<String, ini::IniError> {
        ini::render(&ini::Options {
            python,
            loader: &self.assets.loader,
            cwd: &spec.paths.data(),
            stats: &files.stats,
            workers: spec.workers,
            threads: spec.threads,
            backlog: ini::backlog(),
        })
    }

    /// What uWSGI itself sees; the loader puts the app's environment in its place.
    fn env(&self, spec: &InstanceSpec) -> BTreeMap<String, String> {
        let notes = spec.paths.run().join(super::uwsgi::files::NOTES);
        BTreeMap::from([
            ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("FLIPSIDE_HOME".to_owned(), spec.paths.home().display().to_string()),
            ("FLIPSIDE_NOTES".to_owned(), notes.display().to_string()),
            ("FLIPSIDE_RELEASE_HEADER".to_owned(), u8::from(spec.release_header).to_string()),
            ("FLIPSIDE_REQUEST_TIMEOUT".to_owned(), spec.request_timeout.to_string()),
        ])
    }
}

fn goal<'a>(spec: &'a InstanceSpec, release: &'a ReleaseId, name: &'a str, workers: usize) -> Goal<'a> {
    let start_timeout = Duration::from_secs(u64::from(spec.start_timeout));
    Goal { run: spec.paths.run(), name, release, workers, old: HashSet::new(), start_timeout }
}

fn names(state: &HolderState) -> Vec<String> {
    state.instances.iter().map(|instance| instance.name.clone()).collect()
}

/// Kills those of the workers `stuck` that serve nobody for certain: each is halted before it is looked at again,
/// or it could take a request just before it is killed.
async fn kill_stuck(paths: &AppPaths, instance: &Instance, stuck: &HashSet<u32>) {
    if stuck.is_empty() {
        return;
    }
    stuck.iter().for_each(|pid| proc::signal(*pid, Signal::SIGSTOP));
    for seen in workers(paths, instance).await.iter().filter(|seen| stuck.contains(&seen.pid())) {
        if seen.is_idle_start() {
            tracing::info!(app = %paths.app, pid = seen.pid(), "StuckWorkerKilled");
            proc::signal(seen.pid(), Signal::SIGKILL);
        }
    }
    stuck.iter().for_each(|pid| proc::signal(*pid, Signal::SIGCONT));
}

/// Ends what a killed holder left behind, once new requests come to its successor.
async fn retire_orphans(paths: &AppPaths) -> Result<(), Failure> {
    house::publish(paths).await?;
    // Asked anew: what was started just now is no orphan.
    let Some(state) = house::find(paths).await? else {
        return Err(fault("the app was let go", &ClientError::Absent));
    };
    for orphan in orphan::orphans(paths.run(), Some(&state)) {
        orphan::retire(paths.run(), &orphan, GENTLY).await;
    }
    Ok(())
}

async fn workers(paths: &AppPaths, instance: &Instance) -> Vec<Seen> {
    match instance.pid {
        Some(master) => look(paths.run(), &instance.name, master).await,
        None => Vec::new(),
    }
}

/// The instance that serves: the newest whose workers are all up, else the newest.
async fn active(paths: &AppPaths, state: &HolderState) -> Option<Instance> {
    let candidates: Vec<&Instance> = state.instances.iter().filter(|instance| !instance.retiring).collect();
    if let [only] = candidates.as_slice() {
        return Some((*only).clone());
    }
    for instance in candidates.iter().rev() {
        let seen = workers(paths, instance).await;
        if seen.len() == usize::from(instance.workers) && seen.iter().all(Seen::is_up) {
            return Some((*instance).clone());
        }
    }
    candidates.last().map(|instance| (*instance).clone())
}

/// A holder that an older agent started cannot start containers.
fn older(spec: &InstanceSpec, holder: &HolderState) -> Failure {
    let app = &spec.paths.app;
    let message = format!("the holder of {app} is of version {} and starts no containers", holder.build);
    Failure::new(Code::Host, message)
        .hint(format!("once, when a short stop does no harm: flipside stop {app}, then deploy again"))
}

fn not_serving(spec: &InstanceSpec, release: &ReleaseId, stuck: &Stuck, mark: &LogMark) -> Failure {
    let hint = match stuck {
        Stuck::Crash | Stuck::Restless(_) => "The release cannot be loaded; see the log.",
        Stuck::Hang(..) => "It hangs while it is imported, or needs a larger start_timeout.",
        Stuck::Drain(..) => "A request in it does not end; a request_timeout ends such.",
        Stuck::Other(_) => "Was `current` changed by somebody else?",
        Stuck::Instance | Stuck::Refused(_) | Stuck::Holder(_) => "See the log.",
    };
    let message = format!("{} did not take over as {release}: {}", spec.paths.app, chain(stuck));
    Failure::new(Code::Switch, message).hint(hint).log(mark.lines())
}
