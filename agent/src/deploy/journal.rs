//! The deployment with its record: what happens is written down before it counts.

use std::{collections::VecDeque, sync::Arc};

use flipside_api::Failure;

use crate::{
    app::deployment::{Deployment, Event, Next, Step},
    records::{RecordError, Records},
    sys::clock,
};

/// A deployment and its record.
pub(super) struct Journal {
    records: Arc<dyn Records>,
    id: String,
    state: Deployment,
    /// What counts already and is not written down yet: a full disk must not hold up the way back.
    unwritten: VecDeque<(Event, i64, String)>,
}

impl Journal {
    pub(super) fn new(records: Arc<dyn Records>, id: String, state: Deployment) -> Self {
        Self { records, id, state, unwritten: VecDeque::new() }
    }

    /// What comes next.
    pub(super) fn todo(&self) -> Next {
        self.state.todo()
    }

    /// Whether nothing is undone any more, whatever becomes of the agent.
    pub(super) fn is_past_return(&self) -> bool {
        self.state.is_past_return()
    }

    /// Adds a step that turned out to be needed.
    pub(super) fn need(&mut self, step: Step) {
        self.state.need(step);
    }

    /// Writes down what happens, and lets it count.
    ///
    /// # Errors
    /// When it cannot be written down; then it does not count.
    pub(super) async fn note(&mut self, event: Event, message: &str) -> Result<(), Failure> {
        let next = self.after(event)?;
        self.catch_up().await?;
        self.records.record(&self.id, event, clock::now_ms(), message.to_owned()).await?;
        self.state = next;
        Ok(())
    }

    /// The same on the way back, where nothing may hold us up: it counts, and is written down when that can be.
    pub(super) async fn note_anyway(&mut self, event: Event, message: &str) {
        match self.after(event) {
            Ok(next) => self.state = next,
            Err(failure) => return tracing::error!(id = self.id, error = failure.message, "JournalAstray"),
        }
        self.unwritten.push_back((event, clock::now_ms(), message.to_owned()));
        if let Err(error) = self.catch_up().await {
            tracing::error!(id = self.id, ?event, %error, "JournalWriteFailed");
        }
    }

    /// Writes down what was not yet, in order: a record with a gap would make no sense to who reads it.
    async fn catch_up(&mut self) -> Result<(), RecordError> {
        while let Some((event, at, message)) = self.unwritten.front() {
            self.records.record(&self.id, *event, *at, message.clone()).await?;
            self.unwritten.pop_front();
        }
        Ok(())
    }

    fn after(&self, event: Event) -> Result<Deployment, Failure> {
        let next = self.state.clone().next(event);
        next.map_err(|error| crate::host::fault("the deploy lost its way", &error))
    }
}
