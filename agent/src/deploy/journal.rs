//! The deployment with its record: what happens is written down before it counts.

use std::sync::Arc;

use flipside_api::Failure;

use crate::{
    app::deployment::{Deployment, Event, Next},
    records::Records,
    sys::clock,
};

/// A deployment and its record.
pub(super) struct Journal {
    records: Arc<dyn Records>,
    id: String,
    state: Deployment,
}

impl Journal {
    pub(super) fn new(records: Arc<dyn Records>, id: String, state: Deployment) -> Self {
        Self { records, id, state }
    }

    /// What comes next.
    pub(super) fn todo(&self) -> Next {
        self.state.todo()
    }

    /// Writes down what happens, and lets it count.
    ///
    /// # Errors
    /// When it cannot be written down; then it does not count.
    pub(super) async fn note(&mut self, event: Event, message: &str) -> Result<(), Failure> {
        let next = self
            .state
            .clone()
            .next(event)
            .map_err(|error| crate::host::fault("the deploy lost its way", &error))?;
        self.records.record(&self.id, event, clock::now_ms(), message.to_owned()).await?;
        self.state = next;
        Ok(())
    }

    /// The same on the way back, where nothing may hold us up: what cannot be written down counts all the same.
    pub(super) async fn note_anyway(&mut self, event: Event, message: &str) {
        if let Err(failure) = self.note(event, message).await {
            tracing::error!(id = self.id, ?event, error = failure.message, "JournalWriteFailed");
            if let Ok(next) = self.state.clone().next(event) {
                self.state = next;
            }
        }
    }
}
