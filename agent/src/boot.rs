//! What the agent needs before it can serve: a log, folders, the certainty to be alone.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use flipside_agent::{
    app::paths::TRASH,
    backup,
    config::Config,
    runtime::{
        Runtime, assets::Assets, docker::Containers, process::ProcessRuntime, uwsgi::install::Installer,
    },
    sqlite, sys,
};
use tracing_subscriber::EnvFilter;

/// Logs to standard error: one line an event, `FLIPSIDE_LOG` says how much.
pub(crate) fn trace() {
    let filter = EnvFilter::try_from_env("FLIPSIDE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
}

/// Makes the agent's folders. Others pass through them; what is private in them is so by its own mode.
pub(crate) fn folders(config: &Config) -> anyhow::Result<()> {
    for (folder, mode) in [
        (&config.state_dir, 0o711),
        (&config.apps_dir, 0o755),
        (&config.run_dir, 0o755),
        (&config.log_dir, 0o755),
    ] {
        if !folder.is_dir() {
            sys::beneath::ensure_dir(folder, mode, None)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Has cleared away what an agent that was ended had no time for.
pub(crate) fn sweep(config: &Config) {
    for app in std::fs::read_dir(&config.apps_dir).into_iter().flatten().flatten() {
        sys::trash::sweep(app.path().join(TRASH));
    }
    // Earlier agents had one cache for all builds, which only grew.
    let trash = config.state_dir.join(TRASH);
    if let Err(error) = sys::trash::discard(&config.state_dir.join("build"), &trash) {
        tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), "OldCacheNotRemoved");
    }
    sys::trash::sweep(trash);
}

/// How long the lock of an agent that was killed may outlive it: the kernel ends a process thread by thread.
const ENDING: Duration = Duration::from_secs(5);

/// Makes sure that no other agent works on this state. The lock is the kernel's, so it is never stale.
pub(crate) fn only_instance(state_dir: &Path) -> anyhow::Result<File> {
    let path = state_dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < ENDING => {
                std::thread::sleep(Duration::from_millis(50));
            }
            taken => taken
                .with_context(|| format!("another agent works on {}: end it first", state_dir.display()))?,
        }
    }
}

/// Writes the process id where it is wanted.
pub(crate) fn pid_file(path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let line = format!("{}\n", std::process::id());
    sys::atomic_write::write(path, line.as_bytes(), 0o644, None)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What can run apps on this host.
pub(crate) fn runtimes(
    config: &Config,
    program: &Path,
    assets: &Assets,
) -> anyhow::Result<Vec<Arc<dyn Runtime>>> {
    if config.app_units {
        anyhow::ensure!(
            sys::users::am_root() && Path::new("/run/systemd/system").is_dir(),
            "app_units is true in agent.toml, but {}: apply the state flipside.agent, which knows this host",
            if sys::users::am_root() { "no systemd runs here" } else { "the agent is not root" },
        );
    }
    let installer = Installer {
        folder: config.state_dir.join("uwsgi"),
        uv: config.uv.clone(),
        requirement: config.uwsgi.clone(),
    };
    let process = ProcessRuntime {
        agent: program.to_owned(),
        installer,
        assets: assets.clone(),
        web_group: config.web_group.clone(),
        units: config.app_units,
        containers: None,
    };
    let containers =
        Containers { socket: config.docker_socket.clone(), packages: config.docker_packages.clone() };
    let docker = ProcessRuntime { containers: Some(containers), ..process.clone() };
    Ok(vec![Arc::new(process), Arc::new(docker)])
}

/// The work of the child `follow`.
pub(crate) fn follow(app: &str, database: Option<&str>) -> anyhow::Result<()> {
    let _span = tracing::info_span!("follow", app, database).entered();
    anyhow::ensure!(backup::child::main(), "the follower of {app} ended badly");
    Ok(())
}

/// The work of the child `sqlite`: its last line says what it did.
#[expect(clippy::print_stdout, reason = "the agent reads it")]
pub(crate) fn sqlite(
    way: crate::Way,
    (data, mark, backups): (&Path, &Path, Option<&Path>),
    id: &str,
    patterns: &[String],
) -> anyhow::Result<()> {
    let (count, bytes) = match way {
        crate::Way::Mark => sqlite::mark(data, mark, patterns)?,
        crate::Way::Unmark => sqlite::unmark(data, mark, patterns)?,
        crate::Way::Swap => sqlite::swap(data, mark, patterns, id)?,
        crate::Way::Unswap => sqlite::unswap(data, mark, patterns, id)?,
        crate::Way::Prune => sqlite::prune(data, patterns)?,
        crate::Way::Compare => {
            let rows = sqlite::compare(data, mark, patterns, &mut |line| println!("{line}"))?;
            println!("{rows}");
            return Ok(());
        }
        crate::Way::Schema => {
            println!("{}", sqlite::schema_changed(data, mark, patterns)?);
            return Ok(());
        }
    };
    let positions = backups.map_or_else(String::new, backup::child::positions);
    println!("{count} databases, {bytes} bytes{positions}");
    Ok(())
}
