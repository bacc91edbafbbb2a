//! A connection to the bus that mends itself.
//!
//! One task owns the sockets. It connects, finds the framing by a probe, reads every event and keeps those
//! that were asked for, writes what is fired, paced, and sends itself an echo from time to time: a minion that
//! was killed and started again leaves the old socket open in its forked jobs, deaf and without an end. When
//! anything is amiss it says so in the stream, backs off and begins anew. Every queue has a bound in bytes;
//! what does not fit is refused at once (firing) or counted (receiving).

mod outbox;
mod pace;
mod replies;
mod session;
mod stream;
mod transport;

use std::{io, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{task::JoinSet, time::timeout};

pub use stream::{EventStream, Incoming};

use self::{
    outbox::{Outbox, Undelivered},
    replies::Replies,
};
use crate::{
    discover::Endpoints,
    event::{EncodeError, Event, MAX_EVENT_SIZE, encode},
    frame::{FrameError, Framing},
};

/// How a bus is listened to and written to. The defaults suit a minion.
#[derive(Debug, Clone)]
pub struct Options {
    /// Events whose tags begin with one of these are received. None: nothing is.
    pub prefixes: Vec<String>,
    /// The tag of our own echoes.
    pub echo_tag: String,
    /// Time between echoes.
    pub echo_every: Duration,
    /// How long an echo may take, and how long [`Bus::fire`] waits in all.
    pub echo_timeout: Duration,
    /// How long the probe waits for a bare event before it tries a prefixed one.
    pub probe_wait: Duration,
    /// How often the sockets' paths are looked at, to notice a replaced minion.
    pub watch_every: Duration,
    /// Events written in a second, at most. Salt cuts whoever makes it queue thousands.
    pub rate: u32,
    /// Events that may be written at once after a pause.
    pub burst: u32,
    /// Bytes of data that one event may have.
    pub max_event: usize,
    /// Bytes of a frame that is looked at; larger ones pass unseen.
    pub max_frame: usize,
    /// Bytes of events that wait for [`EventStream::next`], and of those that wait to be written.
    pub queue: usize,
    /// The shortest and the longest pause before connecting again.
    pub back_off: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefixes: Vec::new(),
            echo_tag: "salt-wire/echo".to_owned(),
            echo_every: Duration::from_secs(15),
            echo_timeout: Duration::from_secs(5),
            probe_wait: Duration::from_millis(500),
            watch_every: Duration::from_secs(1),
            rate: 200,
            burst: 100,
            max_event: MAX_EVENT_SIZE,
            max_frame: 2 * MAX_EVENT_SIZE,
            queue: 8 << 20,
            back_off: (Duration::from_millis(100), Duration::from_secs(10)),
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// A socket cannot be connected to, read or written.
    #[error("cannot {what} {address}: {kind}")]
    Io {
        /// `connect to`, `read` or `write to`.
        what: &'static str,
        /// Which socket.
        address: String,
        /// The error's kind.
        kind: io::ErrorKind,
    },
    /// The other side closed.
    #[error("the bus closed the connection")]
    Closed,
    /// The socket's path leads to another socket now, or nowhere.
    #[error("the bus was replaced")]
    Replaced,
    /// We did not hear our own echo.
    #[error("the bus does not answer: our own echo did not come back")]
    Deaf,
    /// The other side does not take what we write.
    #[error("the bus does not take what is written to it")]
    Stuck,
    /// The stream made no sense, again and again.
    #[error("the stream is damaged")]
    Damaged(#[source] FrameError),
}

/// An event that was not fired, or of which that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FireError {
    /// It is no event that Salt would accept.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Too much waits already.
    #[error("the queue of events to write is full")]
    Full,
    /// The bus was not there in time. The event was not written.
    #[error("the bus is not there: nothing was written in time")]
    Unsent,
    /// The event was written, but not heard back. It may have been published or not.
    #[error("the event was written but not heard back")]
    Unheard,
    /// The [`EventStream`] was dropped, and the connection with it.
    #[error("the connection was shut down")]
    Shutdown,
}

/// A question that the master did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It could not be asked.
    #[error("the minion could not be asked to ask the master")]
    Fire(#[from] FireError),
    /// The minion has tried, and the master did not answer it in time.
    #[error("the master does not answer the minion")]
    NoMaster,
    /// Nothing came back in time, as is the rule with Salt 3007.
    #[error("the minion gave no answer of the master's")]
    Silence,
}

/// A handle to fire events with. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Bus {
    outbox: Outbox,
    replies: Replies,
    options: Arc<Options>,
}

impl Bus {
    /// Begins to connect, and goes on for as long as the stream lives. Must be called within a tokio runtime.
    ///
    /// Which framing the writing socket takes cannot be read off the reading one. So a bare event is written
    /// first and its echo waited for: a bus that wants a length prefix takes it for the beginning of a huge
    /// frame and waits silently, and nothing is harmed. Then, on a fresh connection, a prefixed one. What was
    /// found is tried first the next time. `Connected` is said only after an echo has come back.
    pub fn connect(endpoints: Endpoints, options: Options) -> (Self, EventStream) {
        let options = Arc::new(options);
        let (outbox, queue) = outbox::new(options.queue);
        let (sender, receiver) = stream::channel(options.queue);
        let mut task = JoinSet::new();
        let replies = Replies::default();
        task.spawn(session::run(endpoints, options.clone(), queue, sender, replies.clone()));
        (Self { outbox, replies, options }, EventStream::new(receiver, task))
    }

    /// Fires an event on this bus. `data` must serialize as a map.
    ///
    /// Returns once the bus has published the event: we heard it ourselves. While the bus is away the event
    /// waits for it, up to [`Options::echo_timeout`]; dropping the future withdraws an event that still waits.
    ///
    /// # Errors
    /// When the event was not heard in time, with whether it was written.
    pub async fn fire(&self, tag: &str, data: &impl Serialize) -> Result<(), FireError> {
        let payload = encode(tag, data, self.options.max_event)?;
        let (receipt, written) = self.outbox.push(payload).map_err(|error| match error {
            Undelivered::Full => FireError::Full,
            Undelivered::Closed => FireError::Shutdown,
        })?;
        match timeout(self.options.echo_timeout, receipt).await {
            Ok(Ok(())) => Ok(()),
            _ if written.is_set() => Err(FireError::Unheard),
            Ok(Err(_)) if self.outbox.is_closed() => Err(FireError::Shutdown),
            _ => Err(FireError::Unsent),
        }
    }

    /// Has the minion forward an event to its masters. There it appears under `tag`, and its data holds `id`
    /// (the minion's) and `data` (yours).
    ///
    /// Returns once the minion's bus has taken it. A minion that is not connected to a master drops it.
    ///
    /// # Errors
    /// As [`Bus::fire`].
    pub async fn fire_master(&self, tag: &str, data: &impl Serialize) -> Result<(), FireError> {
        // Salt needs all four keys, or the event is lost.
        let request = ToMaster::<_, ()> { tag: Some(tag), data: Some(data), events: None, pretag: None };
        self.fire(FIRE_MASTER, &request).await
    }

    /// The same for many events in one request, many times cheaper for minion and master. Each arrives with
    /// your data as it is, without the minion's id: put it in when you need it.
    ///
    /// # Errors
    /// As [`Bus::fire`]; the limit on an event's size is one for the whole batch.
    pub async fn fire_master_batch(&self, events: &[(String, impl Serialize)]) -> Result<(), FireError> {
        let events: Vec<_> = events.iter().map(|(tag, data)| InBatch { tag, data }).collect();
        if events.is_empty() {
            return Ok(());
        }
        let request = ToMaster::<(), _> { tag: None, data: None, events: Some(events), pretag: None };
        self.fire(FIRE_MASTER, &request).await
    }

    /// Has the minion send `load` to its master `master`, as its `master` option names it, over its own encrypted
    /// channel, and gives back the event that holds the answer under `ret`. Up to `within`; Salt's own time-out
    /// is some 30 s.
    ///
    /// # Errors
    /// When no answer of the master's came back.
    pub async fn ask_master(
        &self,
        master: &str,
        load: &impl Serialize,
        within: Duration,
    ) -> Result<Event, AskError> {
        let waiting = self.replies.expect();
        self.fire(&format!("{ASK}{}/{master}", waiting.id()), load).await?;
        let reply = timeout(within, waiting.reply()).await.ok().flatten().ok_or(AskError::Silence)?;
        let failed = reply.value().is_ok_and(|data| !data["error"].is_nil());
        if failed { Err(AskError::NoMaster) } else { Ok(reply) }
    }
}

const ASK: &str = "__master_req_channel_payload/";
const FIRE_MASTER: &str = "fire_master";

#[derive(Serialize)]
struct ToMaster<'a, D, E> {
    tag: Option<&'a str>,
    data: Option<D>,
    events: Option<E>,
    pretag: Option<&'a str>,
}

#[derive(Serialize)]
struct InBatch<'a, D> {
    tag: &'a str,
    data: &'a D,
}

/// The framing last found, as the one to try first.
fn order(known: Option<Framing>) -> [Framing; 2] {
    match known {
        Some(Framing::Prefixed) => [Framing::Prefixed, Framing::Bare],
        _ => [Framing::Bare, Framing::Prefixed],
    }
}
