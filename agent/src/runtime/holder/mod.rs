//! The holder: one small process an app, which keeps the app's listener and runs what serves it.
//!
//! It lives in a session of its own and outlives the agent, so that an agent may crash, restart or be upgraded
//! and no request is lost. It knows nothing of deploys: it is told which instances to run and which to retire.
//! As root it keeps root, so that the agent alone may talk to it; the instances are started as the app's user.

mod control;
pub(crate) mod crew;
mod instance;
pub mod life;
pub(crate) mod listener;
pub(crate) mod pauses;
pub mod protocol;

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use listener::Listener;
use nix::sys::stat::{Mode, umask};
use tokio::signal::unix::{SignalKind, signal};

/// How long instances may take to end when the holder itself is told to.
const LAST_DEADLINE: Duration = Duration::from_secs(40);

/// The variable that holds `owner` where arguments cannot: in a unit of systemd.
pub const OWNER: &str = "FLIPSIDE_OWNER";

/// What `flipside-agent hold` is started with.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct HoldArgs {
    /// The app's folder of sockets.
    #[arg(long)]
    pub run: PathBuf,
    /// The file that the app's output is appended to.
    #[arg(long)]
    pub log: PathBuf,
    /// Who may connect to the app's socket: user and group id, with a colon between.
    #[arg(long, env = OWNER, value_parser = owner)]
    pub owner: Option<(u32, u32)>,
}

impl HoldArgs {
    /// The arguments after the program's name.
    pub fn argv(&self) -> Vec<String> {
        let mut argv = vec![
            "hold".to_owned(),
            "--run".to_owned(),
            self.run.display().to_string(),
            "--log".to_owned(),
            self.log.display().to_string(),
        ];
        if let Some((uid, gid)) = self.owner {
            argv.extend(["--owner".to_owned(), format!("{uid}:{gid}")]);
        }
        argv
    }
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let ids = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    ids.ok_or_else(|| format!("{text:?} is no uid:gid"))
}

/// Why a holder cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Another holder of the same app runs.
    #[error("the app is held by another process: {} is locked", .0.display())]
    Held(PathBuf),
    /// A file or socket could not be made.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

pub(crate) fn failed<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> HoldError + 'a {
    move |source| HoldError::Io { what, path: path.to_owned(), source }
}

/// Holds until told to quit. Must be called before any other thread is started.
///
/// # Errors
/// When another holder runs, or the sockets cannot be made.
pub fn main(args: &HoldArgs) -> Result<(), HoldError> {
    umask(Mode::from_bits_truncate(0o022));
    let _lock = lock(&args.run)?;
    // First of all: it must become descriptor 3.
    let listener = Listener::bind(&args.run, args.owner)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("start in", &args.run))?;
    runtime.block_on(hold(args, listener))
}

async fn hold(args: &HoldArgs, listener: Listener) -> Result<(), HoldError> {
    let door = control::Door::open(&args.run)?;
    let mut term = signal(SignalKind::terminate()).map_err(failed("listen for signals in", &args.run))?;
    let mut house = instance::House::new(args, listener);
    tracing::info!(pid = std::process::id(), "HolderStarted");
    let deadline = tokio::select! {
        deadline = door.serve(&mut house) => deadline,
        _ = term.recv() => LAST_DEADLINE,
    };
    house.end(deadline).await;
    tracing::info!("HolderEnded");
    Ok(())
}

/// One holder an app: the lock goes with the process, however it ends.
fn lock(run: &Path) -> Result<File, HoldError> {
    let path = run.join("holder.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed("open", &path))?;
    match file.try_lock() {
        // Out of the way of descriptor 3.
        Ok(()) => rustix::io::fcntl_dupfd_cloexec(&file, 10)
            .map(File::from)
            .map_err(|error| failed("lock", &path)(error.into())),
        Err(TryLockError::WouldBlock) => Err(HoldError::Held(path)),
        Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        hold: HoldArgs,
    }

    #[test]
    fn what_is_written_is_read_back() {
        for owner in [None, Some((1001, 33))] {
            let args = HoldArgs { run: "/run/f/blog".into(), log: "/var/log/f/blog.log".into(), owner };
            assert_eq!(Typed::parse_from(args.argv()).hold, args);
        }
        assert!(Typed::try_parse_from(["hold", "--run", "/r", "--log", "/l", "--owner", "x:1"]).is_err());
    }

    #[test]
    fn an_app_is_held_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        assert!(matches!(lock(folder.path()), Err(HoldError::Held(_))));
        drop(first);
        lock(folder.path()).unwrap();
    }
}
