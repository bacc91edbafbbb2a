//! The socket that the agent talks to a holder on. One request a connection, one connection at a time, each with
//! a deadline: an agent that dies in the middle of a line holds nobody up.

use std::{fs, os::fd::OwnedFd, path::Path, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::{
    HoldError, failed,
    instance::House,
    listener::bound,
    protocol::{Answer, Ask, LONGEST},
};

const DEADLINE: Duration = Duration::from_secs(2);

/// The control socket.
pub(super) struct Door {
    listener: UnixListener,
}

impl Door {
    pub(super) fn open(run: &Path) -> Result<Self, HoldError> {
        let (new, path) = (run.join("holder.sock.new"), run.join("holder.sock"));
        let fd: OwnedFd = bound(&new, 0o600, None, 16)?;
        let listener = std::os::unix::net::UnixListener::from(fd);
        listener.set_nonblocking(true).map_err(failed("listen at", &path))?;
        let listener = UnixListener::from_std(listener).map_err(failed("listen at", &path))?;
        fs::rename(&new, &path).map_err(failed("rename a socket to", &path))?;
        Ok(Self { listener })
    }

    /// Serves until told to quit; returns how long the instances may take.
    pub(super) async fn serve(&self, house: &mut House) -> Duration {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of descriptors, for now.
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            if let Ok(Some(deadline)) = timeout(DEADLINE, answer(stream, house)).await {
                return deadline;
            }
        }
    }
}

/// Answers one request; `Some` when it was to quit.
async fn answer(mut stream: UnixStream, house: &mut House) -> Option<Duration> {
    let uid = stream.peer_cred().ok()?.uid();
    if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
        return None;
    }
    let mut line = Vec::new();
    let (read, mut write) = stream.split();
    BufReader::new(read.take(LONGEST)).read_until(b'\n', &mut line).await.ok()?;
    let mut quit = None;
    let error = match serde_json::from_slice::<Ask>(&line) {
        Ok(Ask::Quit { within }) => {
            quit = Some(Duration::from_secs(within));
            None
        }
        Ok(ask) => house.heed(ask).err(),
        Err(error) => Some(format!("not understood: {error}")),
    };
    let mut text = serde_json::to_vec(&Answer { error, state: house.state() }).ok()?;
    text.push(b'\n');
    // Whoever asked may be gone; what it asked for is done all the same.
    let _ = write.write_all(&text).await;
    quit
}
