//! What comes in, as its reader sees it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::Loss;
use crate::{event::Event, frame::Framing};

/// Something to know about the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// An event that was asked for.
    Event(Event),
    /// The bus is there, and has answered. Events before this moment may have been missed.
    Connected {
        /// Counts connections. A reader that was away sees only the latest.
        session: u64,
        /// What the writing socket takes.
        framing: Framing,
    },
    /// The bus is gone, or could not be reached. Another attempt follows without further ado.
    Lost(Loss),
    /// So many events were dropped, because nobody took them in time.
    Missed(u64),
}

/// The events that were asked for, and news of the connection. Dropping it ends the connection.
#[derive(Debug)]
pub struct EventStream {
    receiver: Receiver,
    _task: JoinSet<()>,
}

impl EventStream {
    pub(super) fn new(receiver: Receiver, task: JoinSet<()>) -> Self {
        Self { receiver, _task: task }
    }

    /// The next thing that came in. May be dropped and called again without a loss.
    ///
    /// Never `None` while the runtime lives.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.receiver.next().await
    }
}

/// The latest state of the connection.
type Status = Option<Incoming>;

#[derive(Debug)]
struct Shared {
    bytes: AtomicUsize,
    missed: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Sender {
    events: mpsc::UnboundedSender<Event>,
    status: watch::Sender<Status>,
    shared: Arc<Shared>,
    limit: usize,
}

#[derive(Debug)]
pub(super) struct Receiver {
    events: mpsc::UnboundedReceiver<Event>,
    status: watch::Receiver<Status>,
    shared: Arc<Shared>,
}

/// A channel whose events take at most `limit` bytes; the channel itself needs no bound of its own.
pub(super) fn channel(limit: usize) -> (Sender, Receiver) {
    let (events, event_receiver) = mpsc::unbounded_channel();
    let (status, status_receiver) = watch::channel(None);
    let shared = Arc::new(Shared { bytes: AtomicUsize::new(0), missed: AtomicU64::new(0) });
    (
        Sender { events, status, shared: shared.clone(), limit },
        Receiver { events: event_receiver, status: status_receiver, shared },
    )
}

fn size(event: &Event) -> usize {
    // What a queued event costs beside its text.
    event.tag().len() + event.packed().len() + 256
}

impl Sender {
    /// Queues the event, or counts it as missed: a slow reader must not make us a slow subscriber, for whom
    /// Salt buffers without end.
    pub(super) fn event(&self, event: Event) {
        let size = size(&event);
        // Only this side adds, so the sum cannot pass the limit in between.
        if self.shared.bytes.load(Ordering::Acquire) + size > self.limit {
            self.shared.missed.fetch_add(1, Ordering::AcqRel);
            return;
        }
        self.shared.bytes.fetch_add(size, Ordering::AcqRel);
        // Without a receiver this task is about to end.
        let _ = self.events.send(event);
    }

    /// Tells the state, unless it is the one last told: an hour of refused connections is one piece of news.
    pub(super) fn status(&self, status: Incoming) {
        self.status.send_if_modified(|last| {
            let news = last.as_ref() != Some(&status);
            *last = Some(status);
            news
        });
    }
}

impl Receiver {
    async fn next(&mut self) -> Option<Incoming> {
        loop {
            tokio::select! {
                biased;
                Ok(()) = self.status.changed() => {
                    if let Some(status) = self.status.borrow_and_update().clone() {
                        return Some(status);
                    }
                }
                // The notice comes as soon as the reader is back, before what it then reads.
                () = std::future::ready(()), if self.shared.missed.load(Ordering::Acquire) > 0 => {
                    return Some(Incoming::Missed(self.shared.missed.swap(0, Ordering::AcqRel)));
                }
                event = self.events.recv() => {
                    let event = event?;
                    self.shared.bytes.fetch_sub(size(&event), Ordering::AcqRel);
                    return Some(Incoming::Event(event));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::encode;

    fn event(tag: &str) -> Event {
        Event::parse(&encode(tag, &std::collections::BTreeMap::from([("n", 1)]), 100).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_the_rest_goes_on() {
        let (sender, mut receiver) = channel(2 * size(&event("a")));
        for tag in ["a", "b", "c", "d"] {
            sender.event(event(tag));
        }
        assert_eq!(receiver.next().await, Some(Incoming::Missed(2)));
        assert!(matches!(receiver.next().await, Some(Incoming::Event(event)) if event.tag() == "a"));
        sender.event(event("e"));
        for expected in ["b", "e"] {
            assert!(matches!(receiver.next().await, Some(Incoming::Event(event)) if event.tag() == expected));
        }
    }

    #[tokio::test]
    async fn only_the_latest_state_is_told() {
        let (sender, mut receiver) = channel(1000);
        sender.event(event("a"));
        sender.status(Incoming::Lost(Loss::Closed));
        sender.status(Incoming::Connected { session: 2, framing: Framing::Bare });
        let connected = Incoming::Connected { session: 2, framing: Framing::Bare };
        assert_eq!(receiver.next().await, Some(connected));
        assert!(matches!(receiver.next().await, Some(Incoming::Event(_))));
        drop(sender);
        assert_eq!(receiver.next().await, None);
    }
}
