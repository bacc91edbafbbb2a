//! Answers of the master, on their way back over the minion's bus.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::oneshot;

use crate::event::Event;

/// The tag of an answer begins so; the id of the question follows.
const PREFIX: &str = "__master_req_channel_return/";

/// The questions that wait for an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Replies(Arc<Mutex<HashMap<String, oneshot::Sender<Event>>>>);

impl Replies {
    /// A new question.
    pub(super) fn expect(&self) -> Waiting {
        let id = format!("{:032x}", rand::random::<u128>());
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), sender);
        Waiting { id, receiver, replies: self.clone() }
    }

    /// Whether an event with this tag is an answer that somebody waits for.
    pub(super) fn is_expected(&self, tag: &str) -> bool {
        let Some(id) = tag.strip_prefix(PREFIX) else { return false };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Hands an answer to whoever waits for it.
    pub(super) fn deliver(&self, event: Event) {
        let Some(id) = event.tag().strip_prefix(PREFIX) else { return };
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(sender) = sender {
            // The one who asked may have given up just now.
            let _ = sender.send(event);
        }
    }
}

/// A question that waits; dropping it forgets it.
#[derive(Debug)]
pub(super) struct Waiting {
    id: String,
    receiver: oneshot::Receiver<Event>,
    replies: Replies,
}

impl Waiting {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) async fn reply(mut self) -> Option<Event> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.replies.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
