//! The agent's side of the talk with a holder.

use std::{io, path::Path, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

use crate::runtime::holder::protocol::{Answer, Ask, HolderState, LONGEST};

const DEADLINE: Duration = Duration::from_secs(5);

/// A holder that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// None runs.
    #[error("the app has no holder")]
    Absent,
    /// It does not answer.
    #[error("the app's holder does not answer")]
    Silent,
    /// The socket failed.
    #[error("cannot talk to the app's holder")]
    Io(#[source] io::Error),
    /// Its answer makes no sense.
    #[error("the app's holder answers nonsense")]
    Nonsense(#[source] serde_json::Error),
    /// It refused.
    #[error("the app's holder refused: {0}")]
    Refused(String),
}

/// Asks the holder of the app whose sockets lie in `run`.
///
/// # Errors
/// When there is none, or it refuses, or does not answer in five seconds.
pub(crate) async fn ask(run: &Path, ask: &Ask) -> Result<HolderState, ClientError> {
    timeout(DEADLINE, talk(run, ask)).await.unwrap_or(Err(ClientError::Silent))
}

async fn talk(run: &Path, ask: &Ask) -> Result<HolderState, ClientError> {
    let mut stream = UnixStream::connect(run.join("holder.sock")).await.map_err(io_error)?;
    let mut line = serde_json::to_vec(ask).map_err(ClientError::Nonsense)?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(io_error)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(LONGEST)).read_until(b'\n', &mut answer).await.map_err(io_error)?;
    if answer.is_empty() {
        // It was killed before it could answer.
        return Err(ClientError::Absent);
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(ClientError::Nonsense)?;
    match answer.error {
        Some(error) => Err(ClientError::Refused(error)),
        None => Ok(answer.state),
    }
}

/// A holder that was killed leaves its socket behind, and may have been killed in the middle of our talk.
fn io_error(error: io::Error) -> ClientError {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    match error.kind() {
        NotFound | ConnectionRefused | ConnectionReset | BrokenPipe => ClientError::Absent,
        _ => ClientError::Io(error),
    }
}
