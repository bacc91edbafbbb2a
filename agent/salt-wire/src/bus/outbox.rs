//! Events on their way out: those that wait to be written, then those that wait to be heard.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::event::body;

/// Whether an event has been given to the socket.
#[derive(Debug, Clone, Default)]
pub(super) struct Written(Arc<AtomicBool>);

impl Written {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// An event to write.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) payload: Bytes,
    /// What the bus repeats of it, whatever it does to the map around it.
    body: Bytes,
    receipt: oneshot::Sender<()>,
    written: Written,
    /// Its share of the queue, given back when it has been heard or given up; echoes have none.
    _room: Option<OwnedSemaphorePermit>,
}

impl Outgoing {
    pub(super) fn new(payload: Bytes) -> (Self, oneshot::Receiver<()>) {
        let body = body(&payload).map_or_else(|_| payload.clone(), |body| payload.slice_ref(body));
        let (receipt, receiver) = oneshot::channel();
        (Self { payload, body, receipt, written: Written::default(), _room: None }, receiver)
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.receipt.is_closed()
    }
}

/// Why an event was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Undelivered {
    Full,
    Closed,
}

/// Where events are put.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    sender: mpsc::UnboundedSender<Outgoing>,
    room: Arc<Semaphore>,
}

/// Where they come out.
pub(super) type Queue = mpsc::UnboundedReceiver<Outgoing>;

/// The room that even the smallest event takes, in bytes: it costs memory beside its own.
const LEAST: usize = 512;

/// A queue of at most so many bytes: the channel itself needs no bound, as each event holds its room.
pub(super) fn new(bytes: usize) -> (Outbox, Queue) {
    let (sender, queue) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
    (Outbox { sender, room }, queue)
}

impl Outbox {
    pub(super) fn push(&self, payload: Bytes) -> Result<(oneshot::Receiver<()>, Written), Undelivered> {
        let size = u32::try_from(payload.len().max(LEAST)).map_err(|_| Undelivered::Full)?;
        let room = self.room.clone().try_acquire_many_owned(size).map_err(|_| Undelivered::Full)?;
        let (outgoing, receiver) = Outgoing::new(payload);
        let written = outgoing.written.clone();
        let outgoing = Outgoing { _room: Some(room), ..outgoing };
        self.sender.send(outgoing).map_err(|_| Undelivered::Closed)?;
        Ok((receiver, written))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Events that were written in this session and not heard yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unheard(Mutex<VecDeque<Outgoing>>);

impl Unheard {
    pub(super) fn add(&self, outgoing: Outgoing) {
        outgoing.written.set();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody waits for any more makes room, oldest first.
        while all.front().is_some_and(Outgoing::is_withdrawn) {
            all.pop_front();
        }
        all.push_back(outgoing);
    }

    /// Was this body one of ours? The bus repeats bodies byte by byte and in order, so it is the first or
    /// follows events that the bus has lost.
    pub(super) fn heard(&self, body: &[u8]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|outgoing| outgoing.body == body)
            && let Some(outgoing) = all.remove(at)
        {
            // The one who waited may have given up just now.
            let _ = outgoing.receipt.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_in_bytes_until_events_are_heard() {
        let (outbox, mut queue) = new(2000);
        let (first, _) = outbox.push(Bytes::from(vec![1; 1000])).unwrap();
        let (_second, _) = outbox.push(Bytes::from_static(b"small")).unwrap();
        assert_eq!(outbox.push(Bytes::from_static(b"small")).unwrap_err(), Undelivered::Full);
        let unheard = Unheard::default();
        unheard.add(queue.try_recv().unwrap());
        assert_eq!(outbox.push(Bytes::from_static(b"small")).unwrap_err(), Undelivered::Full);
        unheard.heard(&[1; 1000]);
        assert_eq!(first.blocking_recv(), Ok(()));
        outbox.push(Bytes::from_static(b"small")).unwrap();
        drop(queue);
        assert_eq!(outbox.push(Bytes::from_static(b"small")).unwrap_err(), Undelivered::Closed);
    }

    #[test]
    fn what_is_heard_out_of_order_or_withdrawn_is_found() {
        let (outbox, mut queue) = new(10_000);
        let unheard = Unheard::default();
        let mut push = |byte| {
            let pushed = outbox.push(Bytes::from(vec![byte])).unwrap();
            unheard.add(queue.try_recv().unwrap());
            pushed
        };
        let ((withdrawn, _), (lost, written), (mut heard, _)) = (push(1), push(2), push(3));
        assert!(written.is_set());
        unheard.heard(&[3]);
        assert_eq!(heard.try_recv(), Ok(()));
        drop(withdrawn);
        let _last = push(4);
        assert_eq!(unheard.0.lock().unwrap().len(), 2);
        drop(unheard);
        lost.blocking_recv().unwrap_err();
    }
}
