//! A scheduled command: waited for, run, and never run twice at once.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::{Crew, board::Board, program};
use crate::{
    app::timetable::{Due, Timetable},
    runtime::holder::protocol::{LastRun, RunState, Timed},
    sys::{
        clock,
        exec::{self, Until},
        proc,
    },
};

/// The longest sleep: a clock that was put forward is noticed after it.
const LOOK: Duration = Duration::from_secs(15);

/// The crew's scheduled commands with their times, by the clock of this host.
pub(super) fn timetables(crew: &Crew) -> Result<Vec<(Timed, Timetable)>, String> {
    let zone = TimeZone::system();
    let with_times = |timed: &Timed| {
        let timetable = Timetable::parse(&timed.cron, zone.clone());
        timetable
            .map(|timetable| (timed.clone(), timetable))
            .map_err(|error| format!("{}: {error}", timed.name))
    };
    crew.schedule.iter().map(with_times).collect()
}

/// Waits for the times of one scheduled command.
pub(super) struct Clock {
    pub(super) crew: Arc<Crew>,
    pub(super) timed: Timed,
    pub(super) timetable: Timetable,
    pub(super) board: Arc<Board>,
    pub(super) until: Until,
    pub(super) tasks: TaskTracker,
}

impl Clock {
    pub(super) async fn tick(self) {
        loop {
            let seen = self.board.show().schedule.into_iter().find(|known| known.name == self.timed.name);
            let seen = seen.and_then(|known| Timestamp::from_millisecond(known.seen).ok());
            let now = Timestamp::now();
            let Some((due, upto)) = self.timetable.due(seen.unwrap_or(now), now) else { return };
            let next = match due {
                Due::At(next) => next,
                Due::Now(_) | Due::Missed(_) => self.timetable.after(upto).unwrap_or(Timestamp::MAX),
            };
            let begins = self.board.timed(&self.timed.name, |known| {
                let free = known.running.is_none();
                let is_due = matches!(due, Due::Now(_));
                (known.seen, known.next) = (upto.as_millisecond(), Some(next.as_millisecond()));
                known.skipped += u32::from(is_due && !free);
                if is_due && free {
                    let (since, release) = (clock::now_ms(), self.crew.release.clone());
                    known.running = Some(RunState { since, release, ..RunState::default() });
                }
                is_due.then_some(free)
            });
            match (due, begins.flatten()) {
                (_, Some(true)) => drop(self.tasks.spawn(self.run())),
                (_, Some(false)) => self.say("the run before has not ended: this time is passed over"),
                (Due::Missed(time), _) => self.say(&format!("{time} was missed, and is not made up for")),
                _ => {}
            }
            let pause = Duration::try_from(next.duration_since(Timestamp::now())).unwrap_or_default();
            sleep(pause.min(LOOK)).await;
        }
    }

    /// A run, to its end.
    fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let (crew, timed) = (Arc::clone(&self.crew), self.timed.clone());
        let (board, mut until) = (Arc::clone(&self.board), self.until.clone());
        async move {
            let at = clock::now_ms();
            let (code, ended) = match once(&crew, &timed, &board, &mut until).await {
                Ok(status) => (status.code(), exec::ending(status)),
                Err(error) => (None, format!("could not be started: {error}")),
            };
            let well = code == Some(0);
            tracing::info!(schedule = timed.name, ended, "ScheduledRunEnded");
            if !well && let Ok(mut pen) = board.log() {
                pen.line(&timed.name, &format!("it {ended}"));
            }
            let ms = u64::try_from(clock::now_ms() - at).unwrap_or(0);
            let problem = (!well).then_some(ended);
            board.timed(&timed.name, |known| {
                known.running = None;
                known.last = Some(LastRun { at, ms, release: crew.release.clone(), code, problem });
            });
        }
    }

    fn say(&self, text: &str) {
        if let Ok(mut pen) = self.board.log() {
            pen.line(&self.timed.name, text);
        }
    }
}

async fn once(
    crew: &Crew,
    timed: &Timed,
    board: &Board,
    until: &mut Until,
) -> Result<std::process::ExitStatus, String> {
    let mut pen = board.log()?;
    let followed =
        exec::follow(&program(crew, &timed.command)?).map_err(|error| crate::host::chain(&error))?;
    let pid = followed.pid();
    board.timed(&timed.name, |known| {
        if let Some(run) = &mut known.running {
            (run.pid, run.started) = (pid, pid.and_then(proc::process).map_or(0, |process| process.started));
        }
    });
    tracing::info!(schedule = timed.name, pid, "ScheduledRunStarted");
    let mut hear = |line: &str| pen.line(&timed.name, line);
    followed.to_its_end(until, &mut hear).await.map_err(|error| error.to_string())
}
