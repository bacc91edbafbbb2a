//! The local API: a UNIX socket for the Salt module and the command line.
//!
//! Whoever connects proved by it that the socket's mode lets them; the peer's credentials are checked and logged
//! all the same. Frames are capped, a request must come whole within seconds, a peer that does not read is left,
//! and none of that ends a command: those belong to the router.

use std::{
    ffi::CString,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use flipside_api::{Code, Command, Failure, Outcome, Progress, Reply, Request, Run, State, VERSION, codec};
use futures_util::{SinkExt, StreamExt};
use nix::unistd::{Gid, Group, User, getgrouplist};
use serde::Deserialize;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::{codec::Framed, codec::LengthDelimitedCodec, sync::CancellationToken, task::TaskTracker};

use super::streams;
use crate::{progress::Subscription, router::Router, sys::exec::Streams};

/// How long a whole request may take to arrive.
const REQUEST: Duration = Duration::from_secs(10);
/// How long a peer may take to read one frame.
const SEND: Duration = Duration::from_secs(10);
/// How many peers are served at once.
const CONNECTIONS: usize = 128;

type Frames = Framed<UnixStream, LengthDelimitedCodec>;

/// A socket that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Something else has its name.
    #[error("{} is there and is no socket", .0.display())]
    Occupied(PathBuf),
    /// The group does not exist.
    #[error("socket_group: there is no group {0:?}")]
    NoGroup(String),
    /// The system refused.
    #[error("cannot listen on {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The socket, and who may use it beside root and ourselves.
#[derive(Debug)]
pub struct Inlet {
    listener: UnixListener,
    group: Option<Gid>,
}

impl Inlet {
    /// Listens on `path`. The caller holds the instance's lock, so a socket that is there is a dead one's.
    ///
    /// # Errors
    /// When the path is taken, the group unknown, or the system refuses.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, ListenError> {
        let io = |source| ListenError::Io { path: path.to_owned(), source };
        let group = group
            .map(|name| match Group::from_name(name) {
                Ok(Some(group)) => Ok(group.gid),
                _ => Err(ListenError::NoGroup(name.to_owned())),
            })
            .transpose()?;
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path).map_err(io)?,
            Ok(_) => return Err(ListenError::Occupied(path.to_owned())),
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        if let Some(gid) = group {
            std::os::unix::fs::chown(path, None, Some(gid.as_raw())).map_err(io)?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(io)?;
        Ok(Self { listener, group })
    }

    /// Serves until `stop`; then the connections end as their commands do.
    pub async fn serve(self, router: Arc<Router>, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let free = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors: what is running will give some back.
                    tracing::warn!(%error, "ApiAcceptFailed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (router, free, group) = (Arc::clone(&router), Arc::clone(&free), self.group);
            connections.spawn(async move {
                let mut frames = Framed::new(stream, codec::framing());
                let refused = match free.try_acquire() {
                    Err(_) => {
                        Some(Failure::new(Code::Busy, "too many connections").hint("ask again in a while"))
                    }
                    Ok(_slot) => match admit(frames.get_ref(), group) {
                        Ok(uid) => return converse(&mut frames, uid, &router).await,
                        Err(failure) => Some(failure),
                    },
                };
                if let Some(failure) = refused {
                    answer(&mut frames, &refusal(failure)).await;
                }
            });
        }
        connections.close();
        connections.wait().await;
    }
}

/// The user of a peer that may ask.
fn admit(stream: &UnixStream, group: Option<Gid>) -> Result<u32, Failure> {
    let peer = stream
        .peer_cred()
        .map_err(|error| Failure::new(Code::Gate, format!("the peer's credentials are unknown: {error}")))?;
    let own = nix::unistd::geteuid().as_raw();
    let allowed = peer.uid() == 0
        || peer.uid() == own
        || group
            .is_some_and(|group| peer.gid() == group.as_raw() || is_member(peer.uid(), peer.gid(), group));
    tracing::debug!(uid = peer.uid(), pid = ?peer.pid(), allowed, "ApiPeerConnected");
    if allowed {
        return Ok(peer.uid());
    }
    tracing::warn!(uid = peer.uid(), "ApiPeerRefused");
    Err(Failure::new(Code::Gate, format!("user {} may not ask this agent", peer.uid()))
        .hint("ask as root, or as a member of the socket_group of agent.toml"))
}

fn is_member(uid: u32, gid: u32, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(uid.into()) else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    getgrouplist(&name, Gid::from_raw(gid)).is_ok_and(|groups| groups.contains(&group))
}

/// One request after the other, each answered in full.
async fn converse(frames: &mut Frames, uid: u32, router: &Arc<Router>) {
    loop {
        let payload = match tokio::time::timeout(REQUEST, frames.next()).await {
            Ok(None) => return,
            Ok(Some(Ok(payload))) => payload,
            Ok(Some(Err(error))) => {
                return answer(frames, &refusal(usage(format!("not a frame of the API: {error}")))).await;
            }
            Err(_) => {
                let seconds = REQUEST.as_secs();
                return answer(frames, &refusal(usage(format!("no whole request within {seconds} s")))).await;
            }
        };
        match understand(&payload, uid) {
            Ok(request) => match descriptors(frames, &request).await {
                Ok(streams) => {
                    if !relay(frames, router.submit_with(request, streams)).await {
                        return;
                    }
                }
                Err(failure) => return answer(frames, &refusal(failure)).await,
            },
            Err(failure) => return answer(frames, &refusal(failure)).await,
        }
    }
}

/// The streams for the program that is asked for, where the peer brings them.
async fn descriptors(frames: &mut Frames, request: &Request) -> Result<Option<Streams>, Failure> {
    let Command::Run(Run { streams: Some(asked), .. }) = &request.command else { return Ok(None) };
    let ready = Progress { step: String::new(), event: "streams".into(), message: String::new(), ms: 0 };
    if !send(frames, &Reply::Progress(ready)).await {
        return Err(usage("the peer has left".to_owned()));
    }
    streams::receive(frames.get_ref(), asked).await.map(Some)
}

/// The request of the user `uid` in a payload; a version that is not ours is said before anything else is
/// complained about.
fn understand(payload: &[u8], uid: u32) -> Result<Request, Failure> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    if let Ok(Versioned { v }) = codec::decode::<Versioned>(payload) {
        let oldest = VERSION.saturating_sub(1).max(1);
        if v < oldest || v > VERSION {
            return Err(Failure::new(
                Code::Version,
                format!("the request is of version {v}; this agent speaks {oldest} to {VERSION}"),
            )
            .hint("install the same version of flipside on the host and on the master"));
        }
    }
    let mut request: Request =
        codec::decode(payload).map_err(|error| usage(format!("the request is not understood: {error}")))?;
    request.who.uid = Some(uid);
    Ok(request)
}

/// Passes on all that is heard; false when the peer is gone.
async fn relay(frames: &mut Frames, mut heard: Subscription) -> bool {
    loop {
        let reply = tokio::select! {
            reply = heard.next() => reply,
            // A peer says nothing while it waits: this is its end.
            _ = frames.next() => return false,
        };
        let Some(reply) = reply else { return true };
        if !send(frames, &reply).await {
            return false;
        }
    }
}

async fn send(frames: &mut Frames, reply: &Reply) -> bool {
    let payload = match codec::encode(reply) {
        Ok(payload) => payload,
        Err(error) => {
            let failure = Failure::new(Code::Host, format!("the answer cannot be sent: {error}"));
            match codec::encode(&refusal(failure)) {
                Ok(payload) => payload,
                Err(_) => return false,
            }
        }
    };
    let sent = tokio::time::timeout(SEND, frames.send(Bytes::from(payload))).await;
    matches!(sent, Ok(Ok(())))
}

async fn answer(frames: &mut Frames, reply: &Reply) {
    send(frames, reply).await;
}

fn usage(message: String) -> Failure {
    Failure::new(Code::Usage, message).hint("the contract is agent/api/schema.json")
}

fn refusal(failure: Failure) -> Reply {
    Reply::Outcome(Box::new(Outcome::bad(State::Refused, failure)))
}
