//! One connection after the other, each from its probe to whatever ends it.

use std::{collections::BTreeMap, future::pending, io, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::{Instant, interval, sleep, sleep_until, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{
    Incoming, Loss, Options, order,
    outbox::{Outgoing, Queue, Unheard},
    pace::Pace,
    replies::Replies,
    stream::Sender,
    transport::{Identity, Socket, connect, failed},
};
use crate::{
    discover::{Address, Endpoints},
    event::{self, Event, encode},
    frame::{Framing, Parser, framed},
};

/// Connects for ever. Ends only by being dropped.
pub(super) async fn run(
    endpoints: Endpoints,
    options: Arc<Options>,
    queue: Queue,
    sender: Sender,
    replies: Replies,
) {
    let pace = Pace::new(options.rate, options.burst);
    let mut link = Link { endpoints, options, queue, sender, replies, pace, framing: None, session: 0 };
    let (shortest, longest) = link.options.back_off;
    let mut pause = shortest;
    loop {
        let begin = Instant::now();
        let identity = Identity::of(&link.endpoints);
        let loss = link.session(&identity).await;
        debug!(%loss, "bus lost");
        link.sender.status(Incoming::Lost(loss));
        if begin.elapsed() > link.options.echo_timeout + link.options.probe_wait {
            pause = shortest;
        }
        // With jitter, so that many agents do not return at once to a host that is short of breath.
        let jittered = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        link.wait(jittered, &identity).await;
        pause = (pause * 2).min(longest);
    }
}

/// What outlives a connection.
struct Link {
    endpoints: Endpoints,
    options: Arc<Options>,
    queue: Queue,
    sender: Sender,
    replies: Replies,
    pace: Pace,
    /// What the writing socket took last.
    framing: Option<Framing>,
    session: u64,
}

impl Link {
    /// Connects, and serves the connection until it is lost.
    async fn session(&mut self, identity: &Identity) -> Loss {
        let Self { endpoints, options, queue, sender, replies, pace, framing, session } = self;
        let publish = match connect(&endpoints.publish, options.echo_timeout).await {
            Ok(publish) => publish,
            Err(loss) => return loss,
        };
        let unheard = Unheard::default();
        let ear = Ear { address: &endpoints.publish, options, sender, replies, unheard: &unheard };
        let talk = async {
            let mouth = match probe(&endpoints.pull, options, *framing, &unheard).await {
                Ok(mouth) => mouth,
                Err(loss) => return loss,
            };
            *framing = Some(mouth.framing);
            *session += 1;
            sender.status(Incoming::Connected { session: *session, framing: mouth.framing });
            mouth.write(queue, pace).await
        };
        tokio::select! {
            loss = ear.listen(publish) => loss,
            loss = talk => loss,
            () = replaced(endpoints, identity, options.watch_every) => Loss::Replaced,
        }
    }

    /// Pauses, but not after the sockets have been made anew.
    async fn wait(&self, pause: Duration, identity: &Identity) {
        tokio::select! {
            () = sleep(pause) => {}
            () = replaced(&self.endpoints, identity, self.options.watch_every) => {}
        }
    }
}

/// Waits until the sockets' paths lead elsewhere.
async fn replaced(endpoints: &Endpoints, identity: &Identity, every: Duration) {
    if matches!((&endpoints.publish, &endpoints.pull), (Address::Tcp(_), Address::Tcp(_))) {
        return pending().await;
    }
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if Identity::of(endpoints) != *identity {
            return;
        }
    }
}

/// The reading half.
struct Ear<'a> {
    address: &'a Address,
    options: &'a Options,
    sender: &'a Sender,
    replies: &'a Replies,
    unheard: &'a Unheard,
}

/// So often may a stream be mended before we begin a new one.
const MAX_DAMAGES: u32 = 8;
const READ: usize = 32 << 10;

impl Ear<'_> {
    async fn listen(&self, mut publish: Box<dyn Socket>) -> Loss {
        let mut parser = Parser::new(self.options.max_frame);
        let mut damages = 0;
        loop {
            parser.buffer().reserve(READ);
            match publish.read_buf(parser.buffer()).await {
                Ok(0) => return Loss::Closed,
                Ok(_) => {}
                Err(error) => return failed("read", self.address, &error),
            }
            loop {
                match parser.next_frame() {
                    Ok(Some(payload)) => self.hear(&payload),
                    Ok(None) => break,
                    Err(error) => {
                        damages += 1;
                        if damages > MAX_DAMAGES {
                            return Loss::Damaged(error);
                        }
                        let skipped = parser.resync();
                        warn!(address = %self.address, %error, skipped, "damage on the bus");
                    }
                }
            }
        }
    }

    fn hear(&self, payload: &Bytes) {
        // Other software's broken events are not our concern.
        let Ok(body) = event::body(payload) else { return };
        let Ok((tag, _)) = event::split(body) else { return };
        self.unheard.heard(body);
        let expected = self.replies.is_expected(tag);
        if !expected && !self.options.prefixes.iter().any(|prefix| tag.starts_with(prefix.as_str())) {
            return;
        }
        // A copy: a small event that waits must not hold on to the whole read buffer.
        let Ok(event) = Event::parse(&Bytes::copy_from_slice(payload)) else { return };
        if expected {
            self.replies.deliver(event);
        } else {
            self.sender.event(event);
        }
    }
}

/// The writing half, once it is known what it takes.
struct Mouth<'a> {
    address: &'a Address,
    options: &'a Options,
    unheard: &'a Unheard,
    socket: Box<dyn Socket>,
    framing: Framing,
}

/// Finds the framing: writes an echo in one, then on another connection in the other, and takes the one that is
/// heard. Both stay open meanwhile: on a slow host the first may be heard late.
async fn probe<'a>(
    address: &'a Address,
    options: &'a Options,
    known: Option<Framing>,
    unheard: &'a Unheard,
) -> Result<Mouth<'a>, Loss> {
    let open = async |framing| {
        let socket = connect(address, options.echo_timeout).await?;
        let mut mouth = Mouth { address, options, unheard, socket, framing };
        let receipt = mouth.echo().await?;
        Ok::<_, Loss>((mouth, receipt))
    };
    let [first, second] = order(known);
    let (first, mut receipt) = open(first).await?;
    if let Ok(Ok(())) = timeout(options.probe_wait, &mut receipt).await {
        return Ok(first);
    }
    let (second, second_receipt) = open(second).await?;
    let heard = async {
        tokio::select! {
            Ok(()) = receipt => Some(first),
            Ok(()) = second_receipt => Some(second),
            else => None,
        }
    };
    timeout(options.echo_timeout, heard).await.ok().flatten().ok_or(Loss::Deaf)
}

impl Mouth<'_> {
    /// Writes what is fired, and an echo now and then, until one of them fails.
    async fn write(mut self, queue: &mut Queue, pace: &mut Pace) -> Loss {
        let mut echo: Option<(oneshot::Receiver<()>, Instant)> = None;
        let mut next_echo = Instant::now() + self.options.echo_every;
        loop {
            let result = tokio::select! {
                biased;
                heard = hear_echo(&mut echo), if echo.is_some() => {
                    echo = None;
                    next_echo = Instant::now() + self.options.echo_every;
                    if heard { Ok(()) } else { Err(Loss::Deaf) }
                }
                // Past the queue: a long one must not look like deafness.
                () = sleep_until(next_echo), if echo.is_none() => self.echo().await.map(|receipt| {
                    echo = Some((receipt, Instant::now() + self.options.echo_timeout));
                }),
                outgoing = next(queue, pace) => self.send(outgoing).await,
            };
            if let Err(loss) = result {
                return loss;
            }
        }
    }

    /// Writes an event that says nothing, to be heard.
    async fn echo(&mut self) -> Result<oneshot::Receiver<()>, Loss> {
        let tag = format!("{}/{:016x}", self.options.echo_tag, rand::random::<u64>());
        let nothing: BTreeMap<String, ()> = BTreeMap::new();
        // An echo tag that is no tag would make us deaf for ever: then any tag is better.
        let payload = encode(&tag, &nothing, self.options.max_event)
            .or_else(|_| encode(&format!("salt-wire/{:016x}", rand::random::<u64>()), &nothing, 64))
            .map_err(|_| Loss::Deaf)?;
        let (outgoing, receipt) = Outgoing::new(payload);
        self.send(outgoing).await?;
        Ok(receipt)
    }

    async fn send(&mut self, outgoing: Outgoing) -> Result<(), Loss> {
        let frame = framed(&outgoing.payload, self.framing);
        self.unheard.add(outgoing);
        match timeout(self.options.echo_timeout, self.socket.write_all(&frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Err(Loss::Closed),
            Ok(Err(error)) => Err(failed("write to", self.address, &error)),
            Err(_) => Err(Loss::Stuck),
        }
    }
}

/// The next event that somebody still waits for, when its turn has come.
async fn next(queue: &mut Queue, pace: &mut Pace) -> Outgoing {
    // The permit first: an event once taken from the queue must not be lost in a pause.
    pace.take().await;
    loop {
        match queue.recv().await {
            Some(outgoing) if outgoing.is_withdrawn() => {}
            Some(outgoing) => return outgoing,
            // Every handle is gone; we go on listening.
            None => pending().await,
        }
    }
}

async fn hear_echo(echo: &mut Option<(oneshot::Receiver<()>, Instant)>) -> bool {
    match echo {
        Some((receipt, deadline)) => matches!(timeout_at(*deadline, receipt).await, Ok(Ok(()))),
        None => pending().await,
    }
}
