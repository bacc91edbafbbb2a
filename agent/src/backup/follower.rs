//! One follower of one database: a child that is kept alive, heard, asked and ended.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use flipside_api::{AppSpec, Code, Failure};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::{
    job::{Ask, Report, Said, Task},
    place::Place,
    record::{LAST_WORDS, Register, end},
};
use crate::{
    host::{chain, fault},
    sys::{exec, proc},
};

/// Between an end and the next start.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

type Answer = oneshot::Sender<Result<String, String>>;

/// What is known of a follower.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// What it said last.
    pub(super) report: Report,
    /// Whether it runs.
    pub(super) runs: bool,
    /// Why it ended last; empty while it runs well.
    pub(super) problem: String,
}

/// A follower, for others.
#[derive(Clone)]
pub(super) struct Follower {
    pub(super) spec: AppSpec,
    seen: Arc<Mutex<Seen>>,
    asks: mpsc::Sender<Answer>,
    stop: CancellationToken,
    ended: CancellationToken,
}

/// The part of a follower that keeps its child.
pub(super) struct Keeper {
    place: Arc<Place>,
    register: Register,
    database: String,
    shared: Follower,
    asked: mpsc::Receiver<Answer>,
    /// Those who wait, each with its number.
    waiting: Vec<(u64, Answer)>,
    number: u64,
}

impl Follower {
    /// A follower that [`Keeper::keep`] brings to life.
    pub(super) fn new(
        place: &Arc<Place>,
        register: &Register,
        spec: AppSpec,
        database: &str,
    ) -> (Self, Keeper) {
        let (asks, asked) = mpsc::channel(8);
        let follower = Self {
            spec,
            seen: Arc::default(),
            asks,
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let keeper = Keeper {
            place: Arc::clone(place),
            register: register.clone(),
            database: database.to_owned(),
            shared: follower.clone(),
            asked,
            waiting: Vec::new(),
            number: 0,
        };
        (follower, keeper)
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, runs: bool, problem: &str) {
        let mut seen = self.lock();
        (seen.runs, seen.problem) = (runs, problem.to_owned());
    }

    /// Has all that is committed stored; its position.
    pub(super) async fn backup(&self) -> Result<String, String> {
        let (answer, heard) = oneshot::channel();
        let gone = || {
            let problem = self.seen().problem;
            if problem.is_empty() { "the follower ended meanwhile".to_owned() } else { problem }
        };
        self.asks.send(answer).await.map_err(|_| gone())?;
        heard.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Tells it to end; [`Self::ended`] waits for it.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Keeper {
    /// Keeps the child until it is stopped.
    pub(super) async fn keep(mut self) {
        let _ended = self.shared.ended.clone().drop_guard();
        let mut pause = FIRST_PAUSE;
        while !self.shared.stop.is_cancelled() {
            let begun = Instant::now();
            let problem = match self.once().await {
                Ok(problem) => problem,
                Err(failure) => failure.message,
            };
            self.waiting.clear();
            self.shared.set(false, &problem);
            if self.shared.stop.is_cancelled() {
                break;
            }
            tracing::warn!(app = %self.shared.spec.app, database = self.database, problem, "FollowerEnded");
            if begun.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            let until = tokio::time::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            tokio::pin!(until);
            loop {
                tokio::select! {
                    () = &mut until => break,
                    () = self.shared.stop.cancelled() => break,
                    Some(answer) = self.asked.recv() => drop(answer.send(Err(problem.clone()))),
                }
            }
        }
    }

    /// One life of the child; why it ended.
    async fn once(&mut self) -> Result<String, Failure> {
        let spec = self.shared.spec.clone();
        let mut record = self.register.get(&spec.app, &self.database);
        end(&record).await;
        let task = Task::Follow {
            database: self.database.clone(),
            recipients: self.place.config.recipients.clone(),
            rpo_ms: u64::from(self.place.config.rpo) * 1000,
        };
        let (program, line) = self.place.child(&spec, None, task)?;
        let mut child = exec::converse(&program).map_err(|error| fault("cannot start a follower", &error))?;
        let lost = || Failure::new(Code::Host, "the follower ended before it began");
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(lost());
        };
        // On record before it has its job: an agent that is killed in between leaves nobody who follows unseen.
        record.pid = child.id().unwrap_or(0);
        record.started = proc::process(record.pid).map_or(0, |process| process.started);
        self.register.put(&record).map_err(|error| Failure::new(Code::Host, error))?;
        input.write_all(&zeroize::Zeroizing::new(line)).await.map_err(|_| lost())?;
        self.shared.set(true, "");
        let problem = self.converse(&mut child, input, BufReader::new(output).lines()).await;
        let _ = child.wait().await;
        Ok(problem)
    }

    async fn converse(
        &mut self,
        child: &mut Child,
        mut input: ChildStdin,
        mut output: Lines<BufReader<ChildStdout>>,
    ) -> String {
        let mut problem = String::new();
        let stop = self.shared.stop.clone();
        let mut told = false;
        let last = tokio::time::sleep(Duration::MAX);
        tokio::pin!(last);
        loop {
            tokio::select! {
                line = output.next_line() => match line {
                    Ok(Some(line)) => self.hear(&line, &mut problem),
                    Ok(None) => break,
                    Err(error) => { problem = chain(&error); break; }
                },
                Some(answer) = self.asked.recv(), if !told => {
                    self.number += 1;
                    self.waiting.push((self.number, answer));
                    send(&mut input, &Ask::Backup(self.number)).await;
                }
                () = stop.cancelled(), if !told => {
                    told = true;
                    send(&mut input, &Ask::Stop).await;
                    last.as_mut().reset(tokio::time::Instant::now() + LAST_WORDS);
                }
                () = &mut last => {
                    tracing::warn!(app = %self.shared.spec.app, database = self.database, "FollowerKilled");
                    let _ = child.start_kill();
                    break;
                }
            }
        }
        if problem.is_empty() { "it ended without a word".to_owned() } else { problem }
    }

    fn hear(&mut self, line: &str, problem: &mut String) {
        match serde_json::from_str(line) {
            Ok(Said::Report(report)) => self.shared.lock().report = report,
            Ok(Said::Position(number, position)) => {
                if let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == number) {
                    let _ = self.waiting.swap_remove(at).1.send(position);
                }
            }
            Ok(Said::Failed { message, .. }) => *problem = message,
            Ok(Said::Progress(_) | Said::Done(_)) => {}
            Err(error) => tracing::warn!(%error, "FollowerNotUnderstood"),
        }
    }
}

/// A child that is gone hears nothing, and its output's end says so.
async fn send(input: &mut ChildStdin, ask: &Ask) {
    if let Ok(mut line) = serde_json::to_vec(ask) {
        line.push(b'\n');
        let _ = input.write_all(&line).await;
    }
}
