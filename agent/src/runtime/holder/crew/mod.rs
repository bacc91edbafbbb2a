//! What runs beside the web workers of an app: background workers, and commands at their times.
//!
//! A crew is employed as a whole and dismissed as a whole; nothing of the next one begins while a background
//! worker of the last still runs. Runs of schedules may go on through that, and are known by their names, so that
//! no schedule ever runs twice at once. All of it is left on disk, for the successor of a holder that is killed.

mod board;
mod post;
mod timed;

use std::{path::PathBuf, sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

use board::Board;
pub(crate) use board::left;

use super::{
    HoldArgs,
    protocol::{Crew, CrewState, LastRun},
};
use crate::{
    app::env,
    sys::{
        clock,
        exec::{self, Program},
        proc,
    },
};

/// How long what a killed holder left behind is given to end gently.
const LEFT: Duration = Duration::from_secs(10);

/// What an app's holder runs beside the instances.
pub(super) struct Crews {
    board: Arc<Board>,
    /// When background workers have to end.
    posts: watch::Sender<Option<Instant>>,
    /// When runs of schedules have to.
    runs: watch::Sender<Option<Instant>>,
    /// Each waits for the next time of a schedule.
    clocks: JoinSet<()>,
    tasks: TaskTracker,
}

impl Crews {
    /// Nobody yet; what a killed holder left behind is ended.
    pub(super) fn new(args: &HoldArgs) -> Self {
        let (board, left) = Board::open(&args.run, &args.log);
        let (board, tasks) = (Arc::new(board), TaskTracker::new());
        for process in left {
            let board = Arc::clone(&board);
            tasks.spawn(async move {
                end_left(process).await;
                board.forget(process);
            });
        }
        let (posts, runs) = (watch::Sender::new(None), watch::Sender::new(None));
        Self { board, posts, runs, clocks: JoinSet::new(), tasks }
    }

    pub(super) fn state(&self) -> CrewState {
        self.board.show()
    }

    /// Begins with these; asked again for the same, nothing happens.
    pub(super) fn employ(&mut self, crew: Crew) -> Result<(), String> {
        let now = self.board.show();
        if now.tag.as_ref() == Some(&crew.tag) {
            return Ok(());
        }
        if now.tag.is_some() || !now.background.is_empty() {
            return Err("others still run beside the web workers: dismiss them first".to_owned());
        }
        if self.runs.borrow().is_some() && now.schedule.iter().any(|timed| timed.running.is_some()) {
            return Err("a scheduled command is still being ended".to_owned());
        }
        let timetables = timed::timetables(&crew)?;
        self.posts.send_replace(None);
        self.runs.send_replace(None);
        self.board.employ(&crew);
        let crew = Arc::new(crew);
        for post in crew.background.clone() {
            let keeper = post::Keeper {
                crew: Arc::clone(&crew),
                post,
                board: Arc::clone(&self.board),
                until: self.posts.subscribe(),
            };
            self.tasks.spawn(keeper.keep());
        }
        for (timed, timetable) in timetables {
            let clock = timed::Clock {
                crew: Arc::clone(&crew),
                timed,
                timetable,
                board: Arc::clone(&self.board),
                until: self.runs.subscribe(),
                tasks: self.tasks.clone(),
            };
            self.clocks.spawn(clock.tick());
        }
        Ok(())
    }

    /// No run begins any more, and background workers end within `within`; with `runs` those that go on as well.
    pub(super) fn dismiss(&mut self, within: Duration, runs: bool) {
        self.clocks = JoinSet::new();
        self.board.dismiss();
        exec::retire(&self.posts, within);
        if runs {
            exec::retire(&self.runs, within);
        }
    }

    /// Waits until all have ended.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The program of a command, with the environment of now.
fn program(crew: &Crew, command: &[String]) -> Result<Program, String> {
    let file = crew.env_file.display();
    let text = std::fs::read_to_string(&crew.env_file).map_err(|error| format!("{file}: {error}"))?;
    Ok(Program {
        argv: command.to_vec(),
        env: env::from_file(&text).map_err(|problem| format!("{file}: {problem}"))?,
        cwd: crew.cwd.clone(),
        account: crew.account.clone(),
        stdin: None,
        timeout: Duration::MAX,
        tail: 0,
    })
}

/// Ends a process that its holder left behind, with its group.
pub(crate) async fn end_left((pid, started): (u32, u64)) {
    let killed = Instant::now() + LEFT;
    proc::signal(pid, Signal::SIGTERM);
    while proc::runs(pid, started) && Instant::now() < killed {
        sleep(Duration::from_millis(50)).await;
    }
    // With all that is left of its group, whether it ended by itself or not.
    proc::kill_group(pid);
    tracing::warn!(pid, "LeftoverEnded");
}

/// What is told of a run that nobody could follow to its end.
fn lost(at: i64, release: &str) -> LastRun {
    let problem = Some("its end was not seen: the app's holder was killed".to_owned());
    let ms = u64::try_from(clock::now_ms() - at).unwrap_or(0);
    LastRun { at, ms, release: release.to_owned(), code: None, problem }
}

/// Where the state of a crew lies in an app's folder of sockets.
fn file(run: &std::path::Path) -> PathBuf {
    run.join("crew.json")
}
