//! The instances of an app: each is started, started again with growing pauses when it ends, and retired.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout_at},
};

use super::{
    HoldArgs,
    life::{self, Life},
    listener::Listener,
    protocol::{Ask, HolderState, Instance, Order, PROTOCOL},
};
use crate::{
    runtime::uwsgi::{CHAIN_SIGNAL, files::InstanceFiles},
    sys::{
        atomic_write,
        exec::{self, Program},
        proc,
    },
};

/// The first pause before an instance that ended is started again; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// An instance that ran this long is taken to be well: the pauses begin anew.
const WELL: Duration = Duration::from_secs(60);

/// A TERM that comes while uWSGI still starts is lost on it, so it is sent again.
const AGAIN: Duration = Duration::from_secs(2);

/// Everything that a holder holds.
pub(super) struct House {
    run: PathBuf,
    log: PathBuf,
    listener: Arc<Listener>,
    rooms: Vec<Room>,
    tasks: JoinSet<()>,
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
                retire(&room.until, Duration::from_secs(within));
                Ok(())
            }
        }
    }

    /// Ends all instances and gives the listener up.
    pub(super) async fn end(mut self, within: Duration) {
        for room in &self.rooms {
            retire(&room.until, within);
        }
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

/// A second word may only bring the end nearer.
fn retire(until: &watch::Sender<Option<Instant>>, within: Duration) {
    let at = Instant::now() + within;
    until.send_modify(|until| *until = Some(until.map_or(at, |before| before.min(at))));
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
        let mut pause = FIRST_PAUSE;
        while self.until.borrow().is_none() {
            let begun = Instant::now();
            match self.start().await {
                Ok(life) => self.watch(life).await,
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
            pause = if begun.elapsed() >= WELL { FIRST_PAUSE } else { pause };
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.until.changed() => {}
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
        self.files.remove();
        tracing::info!(instance = self.order.name, "InstanceRetired");
    }

    async fn start(&mut self) -> Result<Life, String> {
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
        let unopened = |error: io::Error| format!("{}: {error}", self.log.display());
        let log = open_log(&self.log).map_err(unopened)?;
        let output = life::output(self.order.contained, &log).map_err(unopened)?;
        let child = exec::serve(&program, self.listener.fd(), (output, &log), CHAIN_SIGNAL)
            .map_err(|error| shown(&error))?;
        let life = match self.order.contained {
            false => Life::Child(child),
            true => Life::contained(child, &mut self.until).await?,
        };
        let pid = life.pid();
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
        Ok(life)
    }

    /// Waits for the instance's end, or brings it about.
    async fn watch(&mut self, mut life: Life) {
        let Some(pid) = life.pid() else { return };
        let how = loop {
            // It may have been told while it started.
            let at = *self.until.borrow_and_update();
            if let Some(at) = at {
                break self.end(pid, &mut life, at).await;
            }
            tokio::select! {
                how = life.ended() => break how,
                _ = self.until.changed() => {}
            }
        };
        if let Life::Child(_) = life {
            // Its workers end with it; those that do not are made to. The kernel does that for a container.
            proc::kill_group(pid);
        }
        self.show(|instance| instance.pid = None);
        tracing::info!(instance = self.order.name, pid, how, "InstanceEnded");
    }

    async fn end(&mut self, pid: u32, life: &mut Life, mut at: Instant) -> String {
        while Instant::now() < at {
            proc::signal(pid, Signal::SIGTERM);
            let next = at.min(Instant::now() + AGAIN);
            tokio::select! {
                ended = timeout_at(next, life.ended()) => if let Ok(how) = ended { return how },
                _ = self.until.changed() => at = self.until.borrow_and_update().unwrap_or(at),
            }
        }
        proc::kill_group(pid);
        proc::signal(pid, Signal::SIGKILL);
        life.ended().await
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
