//! The sockets: connecting, and whether a path still leads to the one we are connected to.

use std::{io, os::unix::fs::MetadataExt, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::Loss;
use crate::discover::{Address, Endpoints};

/// A connection to one of the sockets.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl Socket for UnixStream {}
impl Socket for TcpStream {}

/// Connects within `within`.
pub(super) async fn connect(address: &Address, within: Duration) -> Result<Box<dyn Socket>, Loss> {
    let attempt = async {
        Ok::<Box<dyn Socket>, io::Error>(match address {
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    };
    match timeout(within, attempt).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed("connect to", address, &error)),
        Err(_) => Err(failed("connect to", address, &io::ErrorKind::TimedOut.into())),
    }
}

pub(super) fn failed(what: &'static str, address: &Address, error: &io::Error) -> Loss {
    Loss::Io { what, address: address.to_string(), kind: error.kind() }
}

/// What stands at the paths of both sockets. A new minion makes new sockets under the same names; inode
/// numbers are used again at once, so the time of change counts too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity([Option<(u64, u64, i64, i64)>; 2]);

impl Identity {
    /// One small system call a socket, on a file system in memory: not worth a thread.
    pub(super) fn of(endpoints: &Endpoints) -> Self {
        let identity = |address: &Address| match address {
            Address::Tcp(_) => None,
            Address::Unix(path) => std::fs::metadata(path)
                .ok()
                .map(|file| (file.dev(), file.ino(), file.ctime(), file.ctime_nsec())),
        };
        Self([identity(&endpoints.publish), identity(&endpoints.pull)])
    }
}
