//! A bus like Salt's, small enough to be ill in every way that the tests need.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use salt_wire::{
    Address, Endpoints, Framing,
    frame::{Parser, framed},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::{broadcast, watch},
    task::JoinSet,
};

/// What ails the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    /// Reads what is written, publishes nothing.
    Deaf,
    /// Reads nothing.
    Stuck,
}

pub(crate) struct Server {
    _tasks: JoinSet<()>,
    shared: Shared,
}

#[derive(Clone)]
struct Shared {
    publish: Framing,
    pull: Framing,
    events: broadcast::Sender<Vec<u8>>,
    health: watch::Sender<Health>,
    /// How often something was written that a real server would complain about.
    garbage: Arc<AtomicUsize>,
}

impl Shared {
    fn new(publish: Framing, pull: Framing, health: Health) -> Self {
        let (events, _) = broadcast::channel(10_000);
        Self { publish, pull, events, health: watch::channel(health).0, garbage: Arc::default() }
    }
}

impl Server {
    /// A master's bus in `folder`.
    pub(crate) fn start(folder: &Path, publish: Framing, pull: Framing, health: Health) -> Self {
        Self::at(&Endpoints::of_master(folder), publish, pull, health)
    }

    /// Takes the places of the sockets over, as a new minion does.
    pub(crate) fn at(endpoints: &Endpoints, publish: Framing, pull: Framing, health: Health) -> Self {
        let shared = Shared::new(publish, pull, health);
        let listen = |address: &Address| {
            let Address::Unix(path) = address else { panic!("no path: {address}") };
            // The first server finds nothing to remove.
            let _ = std::fs::remove_file(path);
            UnixListener::bind(path).unwrap()
        };
        let (publish, pull) = (listen(&endpoints.publish), listen(&endpoints.pull));
        let mut tasks = JoinSet::new();
        let (state, ends) = (shared.clone(), shared.clone());
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = publish.accept().await {
                clients.spawn(subscriber(client, state.clone()));
            }
        });
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = pull.accept().await {
                clients.spawn(writer(client, ends.clone()));
            }
        });
        Self { _tasks: tasks, shared }
    }

    /// The same on loopback ports.
    pub(crate) async fn on_tcp(publish: Framing, pull: Framing) -> (Self, Endpoints) {
        let shared = Shared::new(publish, pull, Health::Well);
        let publish = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pull = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoints = Endpoints {
            publish: Address::Tcp(publish.local_addr().unwrap()),
            pull: Address::Tcp(pull.local_addr().unwrap()),
        };
        let mut tasks = JoinSet::new();
        let (state, ends) = (shared.clone(), shared.clone());
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = publish.accept().await {
                clients.spawn(subscriber(client, state.clone()));
            }
        });
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = pull.accept().await {
                clients.spawn(writer(client, ends.clone()));
            }
        });
        (Self { _tasks: tasks, shared }, endpoints)
    }

    pub(crate) fn set(&self, health: Health) {
        self.shared.health.send_replace(health);
    }

    /// Sends these very bytes to every subscriber.
    pub(crate) fn publish(&self, bytes: &[u8]) {
        // Without subscribers there is nobody to tell.
        let _ = self.shared.events.send(bytes.to_vec());
    }

    pub(crate) fn garbage(&self) -> usize {
        self.shared.garbage.load(Ordering::SeqCst)
    }
}

async fn subscriber(mut client: impl AsyncWrite + Unpin, shared: Shared) {
    let mut events = shared.events.subscribe();
    while let Ok(bytes) = events.recv().await {
        if client.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Reads as Salt does: in its own framing, whatever comes.
async fn writer(mut client: impl AsyncRead + Unpin, shared: Shared) {
    let mut health = shared.health.subscribe();
    let mut buffer = Vec::new();
    loop {
        if health.wait_for(|health| *health != Health::Stuck).await.is_err() {
            return;
        }
        let mut bytes = [0; 4096];
        match client.read(&mut bytes).await {
            Ok(count) if count > 0 => buffer.extend(&bytes[..count]),
            _ => return,
        }
        let mut taken = 0;
        match shared.pull {
            Framing::Prefixed => {
                while let Some((length, rest)) = buffer[taken..].split_first_chunk::<4>() {
                    let length = u32::from_be_bytes(*length) as usize;
                    let Some(payload) = rest.get(..length) else { break };
                    repeat(payload, &shared);
                    taken += 4 + length;
                }
            }
            Framing::Bare => {
                if buffer[0] < 0x80 {
                    shared.garbage.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                let mut parser = Parser::new(usize::MAX);
                parser.feed(&buffer);
                while let Ok(Some(payload)) = parser.next_frame() {
                    repeat(&payload, &shared);
                    taken += payload.len();
                }
            }
        }
        buffer.drain(..taken);
    }
}

fn repeat(payload: &[u8], shared: &Shared) {
    if *shared.health.borrow() == Health::Well {
        // As above: perhaps nobody listens.
        let _ = shared.events.send(framed(payload, shared.publish).to_vec());
    }
}
