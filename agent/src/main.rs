//! `flipside-agent`: reads as the boot order.

mod boot;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use flipside_agent::{
    backup::NoBackups,
    config::Config,
    db::Db,
    host::Host,
    inlets::{api::Inlet, bus},
    router::Router,
    runtime::{
        assets::Assets,
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
        /// Names or globs of databases in the data folder.
        patterns: Vec<String>,
    },
}

/// Which way databases are copied.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Way {
    Mark,
    Unmark,
}

fn main() -> ExitCode {
    let args = Args::parse();
    boot::trace();
    let ended = match &args.child {
        None => daemon(&args),
        Some(Child::Hold(hold)) => holder::main(hold).map_err(anyhow::Error::new),
        Some(Child::Sqlite { way, data, mark, patterns }) => boot::sqlite(*way, data, mark, patterns),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "AgentFailed");
            ExitCode::FAILURE
        }
    }
}

fn daemon(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    boot::folders(&config)?;
    let _instance = boot::only_instance(&config.state_dir)?;
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
    let router = Router::new(Arc::clone(&host), Arc::new(NoBackups), stop.clone());
    router.resume().await.map_err(|failure| anyhow::anyhow!(failure.message))?;
    let api = inlet.serve(Arc::clone(&router), stop.clone());
    boot::pid_file(args.pid_file.as_deref())?;
    tracing::info!(id = host.config.id, socket = %host.config.socket.display(), "AgentStarted");
    let bus = bus::serve(Arc::clone(&host), Arc::clone(&router), stop.clone());
    let served = async {
        let (herald, (), ()) = tokio::join!(bus, api, router.keep());
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
