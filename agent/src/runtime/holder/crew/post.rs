//! A background worker: started, and started again with growing pauses when it ends.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::{Crew, board::Board, program};
use crate::{
    runtime::holder::{
        pauses::{Pauses, WELL},
        protocol::Post,
    },
    sys::{
        clock,
        exec::{self, Until},
        proc,
    },
};

/// Keeps one background worker running until it has to end.
pub(super) struct Keeper {
    pub(super) crew: Arc<Crew>,
    pub(super) post: Post,
    pub(super) board: Arc<Board>,
    pub(super) until: Until,
}

impl Keeper {
    pub(super) async fn keep(mut self) {
        let label = label(&self.post);
        let mut pauses = Pauses::default();
        while self.until.borrow().is_none() {
            let begun = Instant::now();
            let ended =
                self.once(&label).await.unwrap_or_else(|error| format!("could not be started: {error}"));
            let goes_on = self.until.borrow().is_none();
            let ran = begun.elapsed();
            let pause = pauses.after(ran);
            tracing::info!(worker = label, ended, goes_on, "BackgroundWorkerEnded");
            if goes_on && let Ok(mut pen) = self.board.log() {
                pen.line(&label, &format!("it {ended}; next start in {} ms", pause.as_millis()));
            }
            self.board.post(&self.post.name, self.post.number, |post| {
                post.pid = None;
                post.ended = Some(ended);
                post.restarts += u32::from(goes_on);
                post.brief = if ran < WELL { post.brief + 1 } else { 0 };
            });
            if goes_on {
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = self.until.changed() => {}
                }
            }
        }
        let Post { name, number, .. } = &self.post;
        self.board
            .change(|state| state.background.retain(|post| (&post.name, &post.number) != (name, number)));
    }

    /// Runs it to its end; how that was.
    async fn once(&mut self, label: &str) -> Result<String, String> {
        let mut pen = self.board.log()?;
        let program = program(&self.crew, &self.post.command)?;
        let followed = exec::follow(&program).map_err(|error| crate::host::chain(&error))?;
        let pid = followed.pid();
        self.board.post(&self.post.name, self.post.number, |post| {
            post.pid = pid;
            post.started = pid.and_then(proc::process).map_or(0, |process| process.started);
            post.since = clock::now_ms();
        });
        tracing::info!(worker = label, pid, "BackgroundWorkerStarted");
        let mut hear = |line: &str| pen.line(label, line);
        let status = followed.to_its_end(&mut self.until, &mut hear).await;
        status.map(exec::ending).map_err(|error| error.to_string())
    }
}

/// How its lines are marked.
fn label(post: &Post) -> String {
    format!("{}.{}", post.name, post.number)
}
