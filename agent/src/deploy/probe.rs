//! One GET over HTTP, as far as a health check needs it.

use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use crate::app::health::Answer;

/// The most bytes of a body that are looked at.
const BODY: usize = 1 << 20;

/// No answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// Nobody listens.
    #[error("cannot be asked: no connection to {at}: {reason}")]
    Connect {
        /// Where.
        at: String,
        /// Why.
        reason: String,
    },
    /// The question cannot be put.
    #[error("cannot be asked: {0}")]
    Request(String),
    /// The answer broke off.
    #[error("broke off its answer: {0}")]
    Answer(String),
}

/// Asks `base`, such as `http://127.0.0.1:80`, for `path` of `host`.
pub(crate) async fn get(base: &str, host: &str, path: &str, https: bool) -> Result<Answer, ProbeError> {
    let at = base.strip_prefix("http://").unwrap_or(base);
    let stream = TcpStream::connect(at)
        .await
        .map_err(|error| ProbeError::Connect { at: at.to_owned(), reason: error.to_string() })?;
    let broken = |error: hyper::Error| ProbeError::Answer(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut tasks = JoinSet::new();
    // Its errors come out of the request as well.
    tasks.spawn(async move { drop(connection.await) });
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "flipside-health")
        .header("X-Forwarded-Proto", if https { "https" } else { "http" })
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| ProbeError::Request(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status().as_u16();
    let location = response.headers().get(header::LOCATION);
    let location = location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(chunk) = frame.map_err(broken)?.data_ref() {
            bytes.extend_from_slice(&chunk[..chunk.len().min(BODY - bytes.len())]);
        }
        if bytes.len() >= BODY {
            break;
        }
    }
    Ok(Answer { status, location, body: bytes })
}
