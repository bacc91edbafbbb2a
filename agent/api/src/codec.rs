//! Frames of the local API: a big-endian `u32` length, then one msgpack map with named fields.

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::LengthDelimitedCodec;

/// The largest frame either side accepts, in bytes. A spec with its overlay and environment is some 50 kB.
pub const MAX_FRAME: usize = 4 << 20;

/// A frame that could not be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The peer declared or we built a frame over [`MAX_FRAME`].
    #[error("a frame of {0} bytes; the most is {MAX_FRAME}")]
    TooLarge(usize),
    /// The bytes are no such message.
    #[error("not understood: {0}")]
    Malformed(String),
    /// The peer closed in the middle of a frame.
    #[error("the other side closed in the middle of a frame")]
    Truncated,
    /// The socket failed.
    #[error("the socket failed")]
    Io(#[source] std::io::Error),
}

/// The framing, for `tokio_util::codec::Framed`.
pub fn framing() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec()
}

/// A message as the payload of a frame.
///
/// # Errors
/// When it is too large.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = rmp_serde::to_vec_named(message).map_err(|error| CodecError::Malformed(error.to_string()))?;
    if bytes.len() > MAX_FRAME { Err(CodecError::TooLarge(bytes.len())) } else { Ok(bytes) }
}

/// The message in a frame's payload. Nothing may follow it.
///
/// # Errors
/// When the bytes are no such message.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
    let mut rest = payload;
    let message =
        rmp_serde::from_read(&mut rest).map_err(|error| CodecError::Malformed(error.to_string()))?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(CodecError::Malformed(format!("{} bytes too many", rest.len())))
    }
}

/// Writes one frame.
///
/// # Errors
/// When the message is too large or the socket fails.
pub async fn send<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> Result<(), CodecError> {
    let payload = encode(message)?;
    let length = u32::try_from(payload.len()).map_err(|_| CodecError::TooLarge(payload.len()))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(payload);
    to.write_all(&frame).await.map_err(CodecError::Io)
}

/// Reads one frame; `None` when the peer has closed between frames.
///
/// # Errors
/// When the frame is too large, cut short or not understood.
pub async fn receive<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Option<T>, CodecError> {
    let mut length = [0; 4];
    let got = from.read(&mut length).await.map_err(CodecError::Io)?;
    if got == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[got..]).await.map_err(cut_short)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(CodecError::TooLarge(length));
    }
    // Grown as the bytes come: a declared length costs the peer as much as it costs us.
    let mut payload = Vec::new();
    let read = from.take(length as u64).read_to_end(&mut payload).await.map_err(CodecError::Io)?;
    if read < length {
        return Err(CodecError::Truncated);
    }
    decode(&payload).map(Some)
}

fn cut_short(error: std::io::Error) -> CodecError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        CodecError::Truncated
    } else {
        CodecError::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Command, Outcome, Reply, Request, State, Who};

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_message_comes_back_as_it_went() {
        run(async {
            let request =
                Request::new(Who { via: "cli".into(), user: "ann".into(), ..Who::default() }, Command::Ping);
            let mut wire = Vec::new();
            send(&mut wire, &request).await.unwrap();
            send(&mut wire, &request).await.unwrap();
            let mut wire = wire.as_slice();
            assert_eq!(receive::<Request>(&mut wire).await.unwrap(), Some(request.clone()));
            assert_eq!(receive::<Request>(&mut wire).await.unwrap(), Some(request));
            assert_eq!(receive::<Request>(&mut wire).await.unwrap(), None);
        });
    }

    #[test]
    fn an_outcome_with_data_comes_back() {
        let mut outcome = Outcome::answer(serde_json::json!({"a": [1, "x", null, 1.5]}));
        outcome.state = State::RolledBack;
        let reply = Reply::Outcome(Box::new(outcome));
        assert_eq!(decode::<Reply>(&encode(&reply).unwrap()).unwrap(), reply);
    }

    #[test]
    fn giants_and_stumps_are_refused() {
        run(async {
            let giant = [0xff, 0xff, 0xff, 0xff, 0];
            assert!(matches!(receive::<Request>(&mut giant.as_slice()).await, Err(CodecError::TooLarge(_))));
            for stump in [&[0, 0][..], &[0, 0, 0, 9, 1, 2]] {
                let mut from = stump;
                assert!(matches!(receive::<Request>(&mut from).await, Err(CodecError::Truncated)));
            }
        });
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Reply>(&bytes);
        }
    }
}
