//! The engine's side of the shim's socket.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::protocol::{Event, Failure, HEAD, Kind, Reply, Request, decode_head, encode_json};
use crate::api::{Error, Result};

/// A connection to a shim.
pub(crate) struct Client(pub(crate) UnixStream);

impl Client {
    /// Connects to the shim of the sandbox directory `dir`.
    pub(crate) async fn connect(dir: &Path) -> io::Result<Self> {
        // Through the descriptor of the directory: socket addresses are short.
        let opened = std::fs::File::open(dir)?;
        let path = format!("/proc/self/fd/{}/shim.sock", opened.as_raw_fd());
        Ok(Self(UnixStream::connect(path).await?))
    }

    /// Sends a request and waits for its reply.
    pub(crate) async fn call(&mut self, request: &Request) -> Result<()> {
        let gone = |error: io::Error| Error::Internal(format!("the pod's shim does not answer: {error}"));
        self.0.write_all(&encode_json(Kind::Request, request)).await.map_err(gone)?;
        let (kind, payload) = read_frame(&mut self.0).await.map_err(gone)?;
        if kind != Kind::Reply {
            return Err(Error::Internal(format!("the pod's shim answered with {kind:?}")));
        }
        match serde_json::from_slice(&payload) {
            Ok(Reply::Ok) => Ok(()),
            Ok(Reply::Error { kind: Failure::Start, message }) => Err(Error::Start(message)),
            Ok(Reply::Error { kind: Failure::Create, message }) => Err(Error::Create(message)),
            Ok(Reply::Error { kind: Failure::NotFound, message }) => Err(Error::NotFound(message)),
            Ok(Reply::Error { kind: Failure::Other, message }) => Err(Error::Internal(message)),
            Err(error) => Err(Error::Internal(format!("the pod's shim answered nonsense: {error}"))),
        }
    }

    /// The next event of a watch; an error when the shim is gone.
    pub(crate) async fn event(&mut self) -> io::Result<Event> {
        loop {
            let (kind, payload) = read_frame(&mut self.0).await?;
            if kind == Kind::Event {
                return Ok(serde_json::from_slice(&payload)?);
            }
        }
    }
}

/// One request to the shim of `dir` on a connection of its own, answered within `limit`.
pub(crate) async fn call(dir: &Path, request: &Request, limit: Duration) -> Result<()> {
    let ask = async {
        let gone = |error| Error::Internal(format!("the pod's shim is gone: {error}"));
        Client::connect(dir).await.map_err(gone)?.call(request).await
    };
    let late = |_| Error::Timeout(format!("the pod's shim did not answer within {limit:?}"));
    tokio::time::timeout(limit, ask).await.map_err(late)?
}

/// Reads one frame.
pub(crate) async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<(Kind, Vec<u8>)> {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    let (kind, length) = decode_head(&head).map_err(io::Error::other)?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok((kind, payload))
}
