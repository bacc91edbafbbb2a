//! Descriptors that a peer sends for the program that it asks for.
//!
//! The peer waits for the agent's word before it sends them, so nothing of them is in the buffer of frames.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use flipside_api::{Code, Failure, Streams as Asked};
use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use tokio::{io::Interest, net::UnixStream, time::timeout};

use crate::sys::exec::Streams;

/// How long the peer may take to send them.
const PATIENCE: Duration = Duration::from_secs(10);

/// The descriptors that go with `asked`.
///
/// # Errors
/// When they do not come, or are not as many as there must be.
pub(super) async fn receive(stream: &UnixStream, asked: &Asked) -> Result<Streams, Failure> {
    let come = stream.async_io(Interest::READABLE, || take(stream.as_raw_fd()));
    let descriptors = match timeout(PATIENCE, come).await {
        Ok(Ok(descriptors)) => descriptors,
        Ok(Err(error)) => return Err(wrong(&format!("cannot be received: {error}"))),
        Err(_) => return Err(wrong("did not come in time")),
    };
    let count = descriptors.len();
    let streams = match asked {
        Asked::Three => <[OwnedFd; 3]>::try_from(descriptors).ok().map(Streams::Three),
        Asked::Terminal { .. } => {
            <[OwnedFd; 1]>::try_from(descriptors).ok().map(|[fd]| Streams::Terminal(fd))
        }
    };
    streams.ok_or_else(|| wrong(&format!("are {count}, which is not what was announced")))
}

fn wrong(how: &str) -> Failure {
    Failure::new(Code::Usage, format!("the program's streams {how}"))
}

/// One message with descriptors, if one is there.
fn take(socket: RawFd) -> io::Result<Vec<OwnedFd>> {
    let mut byte = [0; 1];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([RawFd; 3]);
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            // SAFETY: the kernel has just made them for us, and nobody else knows of them.
            descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    if message.bytes == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(descriptors) }
}
