//! `flipside-agent`: reads as the boot order.

mod boot;

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use flipside_agent::{
    backup::{Backups, NoBackups, Stored},
    config::Config,
    db::Db,
    host::Host,
    inlets::{api::Inlet, bus},
    router::Router,
    runtime::{
        assets::Assets,
        docker::start,
        holder::{self, HoldArgs},
    },
    secrets::Keyring,
    sys::clock,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a graceful stop waits for running commands. What is not done by then is finished or undone at the
/// next start.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// The daemon beside the salt-minion.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The configuration.
    #[arg(long, default_value = "/etc/flipside/agent.toml")]
    config: PathBuf,
    /// Where to write the process id, once the API answers.
    #[arg(long)]
    pid_file: Option<PathBuf>,
    #[command(subcommand)]
    child: Option<Child>,
}

/// What the agent starts of itself.
#[derive(Debug, Subcommand)]
enum Child {
    /// Holds the listener of an app and runs what serves it.
    #[command(hide = true)]
    Hold(HoldArgs),
    /// Starts a container for a holder, and ends.
    #[command(hide = true)]
    Contain {
        /// What to start, in JSON.
        job: String,
    },
    /// Follows an app's databases with backups, as the app's user; its job comes through its input.
    #[command(hide = true)]
    Follow {
        /// The app, for those who list processes.
        #[arg(long)]
        app: String,
        /// The database, for the same.
        #[arg(long)]
        database: Option<String>,
    },
    /// Copies an app's databases, as the app's user.
    #[command(hide = true)]
    Sqlite {
        /// Which way: into the mark or back.
        way: Way,
        /// The app's data folder.
        #[arg(long)]
        data: PathBuf,
        /// The folder of the copies.
        #[arg(long)]
        mark: PathBuf,
        /// The folder where their followers remember.
        #[arg(long)]
        backups: Option<PathBuf>,
        /// The deployment for which databases are replaced.
        #[arg(long, default_value = "")]
        id: String,
        /// Names or globs of databases in the data folder.
        patterns: Vec<String>,
    },
}

/// What is done with databases.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Way {
    Mark,
    Unmark,
    Compare,
    Schema,
    Swap,
    Unswap,
    Prune,
}

fn main() -> ExitCode {
    flipside_backup::memory::give_back();
    let args = Args::parse();
    boot::trace();
    let ended = match &args.child {
        None => daemon(&args),
        Some(Child::Hold(hold)) => holder::main(hold).map_err(anyhow::Error::new),
        Some(Child::Contain { job }) => return start::main(job),
        Some(Child::Follow { app, database }) => boot::follow(app, database.as_deref()),
        Some(Child::Sqlite { way, data, mark, backups, id, patterns }) => {
            boot::sqlite(*way, (data, mark, backups.as_deref()), id, patterns)
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        // The agent that asked says it in its own error.
        Err(error) if matches!(args.child, Some(Child::Sqlite { .. })) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "AgentFailed");
            ExitCode::FAILURE
        }
    }
}

fn daemon(args: &Args) -> anyhow::Result<()> {
    #[cfg(feature = "faults")]
    flipside_agent::deploy::check_fault().map_err(anyhow::Error::msg)?;
    let config = Config::load(&args.config)?;
    boot::folders(&config)?;
    let _instance = boot::only_instance(&config.state_dir)?;
    boot::sweep(&config);
    let keyring = Keyring::open(&config.state_dir.join("identity"))?;
    let db = Db::open(&config.state_dir.join("agent.db"))?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve(args, config, keyring, db))
}

async fn serve(args: &Args, config: Config, keyring: Keyring, db: Db) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let stop = CancellationToken::new();
    let inlet = Inlet::bind(&config.socket, config.socket_group.as_deref())?;
    let assets = Assets::write(&config.state_dir)?;
    let program = std::env::current_exe().context("cannot find the agent's own program")?;
    let runtimes = boot::runtimes(&config, &program, &assets)?;
    let (records, started) = (Arc::new(db.clone()), clock::now_ms());
    let host = Arc::new(Host { config, records, db, keyring, runtimes, assets, program, started });
    let stored = Stored::new(&host);
    let backups: Arc<dyn Backups> = match &stored {
        Some(stored) => Arc::clone(stored) as _,
        None => Arc::new(NoBackups),
    };
    let router = Router::new(Arc::clone(&host), backups, stop.clone());
    router.resume().await.map_err(|failure| anyhow::anyhow!(failure.message))?;
    let api = inlet.serve(Arc::clone(&router), stop.clone());
    boot::pid_file(args.pid_file.as_deref())?;
    tracing::info!(id = host.config.id, socket = %host.config.socket.display(), "AgentStarted");
    let bus = bus::serve(Arc::clone(&host), Arc::clone(&router), stop.clone());
    let following = async {
        if let Some(stored) = &stored {
            stored.run(stop.clone()).await;
        }
    };
    let served = async {
        let (herald, (), (), ()) = tokio::join!(bus, api, router.keep(), following);
        router.drain().await;
        if let Some(herald) = herald {
            herald.drain().await;
        }
    };
    tokio::pin!(served);
    tokio::select! {
        () = &mut served => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    tracing::info!("AgentStopping");
    if tokio::time::timeout(LAST_WORDS, served).await.is_err() {
        tracing::warn!("AgentStoppedWithCommandsRunning");
    }
    Ok(())
}
