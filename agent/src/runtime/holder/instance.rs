//! The instances of an app: each is started, started again with growing pauses when it ends, and retired.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    process::Child,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep},
};

use super::{
    HoldArgs,
    crew::Crews,
    listener::Listener,
    pauses::Pauses,
    protocol::{Ask, HolderState, Instance, Order, PROTOCOL},
};
use crate::{
    runtime::uwsgi::{CHAIN_SIGNAL, files::InstanceFiles},
    sys::{
        atomic_write,
        exec::{self, Program, Tell},
        proc,
    },
};

/// A TERM that comes while uWSGI still starts is lost on it, so it is sent again.
const AGAIN: Duration = Duration::from_secs(2);

/// Everything that a holder holds.
pub(super) struct House {
    run: PathBuf,
    log: PathBuf,
    listener: Arc<Listener>,
    rooms: Vec<Room>,
    tasks: JoinSet<()>,
    crews: Crews,
}

struct Room {
    shown: Arc<Mutex<Instance>>,
    until: watch::Sender<Option<Instant>>,
    task: AbortHandle,
}

impl Room {
    fn show(&self) -> Instance {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl House {
    pub(super) fn new(args: &HoldArgs, listener: Listener) -> Self {
        Self {
            run: args.run.clone(),
            log: args.log.clone(),
            listener: Arc::new(listener),
            rooms: Vec::new(),
            tasks: JoinSet::new(),
            crews: Crews::new(args),
        }
    }

    pub(super) fn state(&mut self) -> HolderState {
        self.prune();
        HolderState {
            v: PROTOCOL,
            pid: std::process::id(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            published: self.listener.is_published(),
            instances: self.rooms.iter().map(Room::show).collect(),
            crew: self.crews.state(),
        }
    }

    pub(super) fn heed(&mut self, ask: Ask) -> Result<(), String> {
        self.prune();
        match ask {
            Ask::State | Ask::Quit { .. } => Ok(()),
            Ask::Publish => {
                self.listener.publish().map_err(|error| format!("{:#}", anyhow::Error::new(error)))
            }
            Ask::Start(order) => self.start(*order),
            Ask::Reload { name } => match self.room(&name)?.show().pid {
                Some(pid) => {
                    proc::signal_number(pid, CHAIN_SIGNAL);
                    Ok(())
                }
                None => Err(format!("{name} does not run at the moment")),
            },
            Ask::Retire { name, within } => {
                let room = self.room(&name)?;
                room.shown.lock().unwrap_or_else(PoisonError::into_inner).retiring = true;
                exec::retire(&room.until, Duration::from_secs(within));
                Ok(())
            }
            Ask::Employ(crew) => self.crews.employ(*crew),
            Ask::Dismiss { within, runs } => {
                self.crews.dismiss(Duration::from_secs(within), runs);
                Ok(())
            }
        }
    }

    /// Ends all instances, and what runs beside them, and gives the listener up.
    pub(super) async fn end(mut self, within: Duration) {
        self.crews.dismiss(within, true);
        for room in &self.rooms {
            exec::retire(&room.until, within);
        }
        self.crews.ended().await;
        while self.tasks.join_next().await.is_some() {}
        self.listener.remove();
        // The control socket goes last: while it is there, something still runs.
        let _ = std::fs::remove_file(self.run.join("holder.sock"));
    }

    fn start(&mut self, order: Order) -> Result<(), String> {
        if !order.is_sound() {
            return Err("the name of the instance is not sound".to_owned());
        }
        if self.room(&order.name).is_ok() {
            // Asked again by an agent that did not hear the answer.
            return Ok(());
        }
        let shown = Arc::new(Mutex::new(Instance {
            name: order.name.clone(),
            options: order.options.clone(),
            workers: order.workers,
            ..Instance::default()
        }));
        let (until, heard) = watch::channel(None);
        let keeper = Keeper {
            files: InstanceFiles::new(&self.run, &order.name),
            log: self.log.clone(),
            listener: Arc::clone(&self.listener),
            shown: Arc::clone(&shown),
            until: heard,
            order,
        };
        let task = self.tasks.spawn(keeper.keep());
        self.rooms.push(Room { shown, until, task });
        Ok(())
    }

    fn room(&self, name: &str) -> Result<&Room, String> {
        self.rooms.iter().find(|room| room.show().name == name).ok_or_else(|| format!("no instance {name:?}"))
    }

    fn prune(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.rooms.retain(|room| !room.task.is_finished());
    }
}

/// Keeps one instance running.
struct Keeper {
    order: Order,
    files: InstanceFiles,
    log: PathBuf,
    listener: Arc<Listener>,
    shown: Arc<Mutex<Instance>>,
    until: watch::Receiver<Option<Instant>>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut pauses = Pauses::default();
        while self.until.borrow().is_none() {
            let begun = Instant::now();
            match self.start() {
                Ok(child) => self.watch(child).await,
                Err(error) => {
                    tracing::error!(instance = self.order.name, error, "InstanceNotStarted");
                    self.show(|instance| {
                        instance.refusals += 1;
                        instance.refused = Some(error);
                    });
                }
            }
            if self.until.borrow().is_some() {
                break;
            }
            tokio::select! {
                () = sleep(pauses.after(begun.elapsed())) => {}
                _ = self.until.changed() => {}
            }
        }
        self.files.remove();
        tracing::info!(instance = self.order.name, "InstanceRetired");
    }

    fn start(&self) -> Result<Child, String> {
        let program = Program {
            argv: self.order.argv.clone(),
            env: self.order.env.clone(),
            cwd: self.order.cwd.clone(),
            account: self.order.account.clone(),
            stdin: None,
            timeout: Duration::MAX,
            tail: 0,
        };
        let shown = |error: &dyn std::error::Error| match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        let log = open_log(&self.log).map_err(|error| format!("{}: {error}", self.log.display()))?;
        let child =
            exec::serve(&program, self.listener.fd(), &log, CHAIN_SIGNAL).map_err(|error| shown(&error))?;
        let pid = child.id();
        let instance = self.show(|instance| {
            instance.starts += 1;
            instance.pid = pid;
            instance.started = pid.and_then(proc::process).map_or(0, |process| process.started);
        });
        // For the agent, should this holder die and leave the instance behind.
        let record = serde_json::to_vec(&instance).map_err(|error| error.to_string())?;
        if let Err(error) = atomic_write::write(&self.files.record, &record, 0o600, None) {
            tracing::error!(instance = self.order.name, error = shown(&error), "InstanceNotRecorded");
        }
        tracing::info!(instance = self.order.name, pid, "InstanceStarted");
        Ok(child)
    }

    /// Waits for the instance's end, or brings it about. Its workers end with it; those that do not are made to.
    async fn watch(&mut self, mut child: Child) {
        let pid = child.id();
        let status = exec::see_off(&mut child, &mut self.until, Tell::Every(AGAIN)).await;
        self.show(|instance| instance.pid = None);
        match status {
            Ok(status) => tracing::info!(instance = self.order.name, pid, %status, "InstanceEnded"),
            Err(error) => tracing::error!(instance = self.order.name, pid, %error, "InstanceLost"),
        }
    }

    fn show(&self, change: impl FnOnce(&mut Instance)) -> Instance {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut shown);
        shown.clone()
    }
}

fn open_log(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW).open(path)
}
