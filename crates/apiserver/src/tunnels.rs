//! Ways to nodes that this server cannot dial, such as those behind address translation: an agent opens a connection to the API and
//! keeps it, and the server opens streams on it, to the agent's kubelet and to the pods of its node.
//!
//! The connection begins as an upgrade of `GET /knarr/tunnel`, with the certificate of the node. From then on it carries HTTP/2 with
//! the roles turned round: a stream is a CONNECT request of the server, to an address and a port. The agent decides what may be
//! reached. Where a node has no tunnel, such as that of the server's own process, its addresses are dialled. A node whose tunnel has
//! ended is most likely gone, and what is asked of it fails soon; its pods may still be there, so it is dialled all the same.

mod accept;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Names of nodes as users begin with it.
pub(crate) const NODE: &str = "system:node:";
/// Where a tunnel begins.
pub const PATH: &str = "/knarr/tunnel";
/// What a tunnel upgrades to.
pub const PROTOCOL: &str = "knarr-tunnel";

/// Time to connect by a tunnel. The way to the agent and its connection to its own node take milliseconds.
const ANSWER: Duration = Duration::from_secs(5);
/// Time to dial an address of a node whose tunnel has ended: the kernel asks a second time after one second.
const LOST: Duration = Duration::from_secs(2);
/// Of what an agent says when it refuses.
const REASON: usize = 1 << 10;

/// Both directions of a connection, whatever carries it.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A connection to a node or a pod.
pub(crate) type Stream = Box<dyn Duplex>;

/// Opens streams on a tunnel.
type Sender = SendRequest<Empty<Bytes>>;

/// The newest tunnel of a node, and its number.
enum Tunnel {
    Open(u64, Sender),
    Ended,
}

/// Tunnels by the names of their nodes, of which there are as many as have ever joined while the server runs.
#[derive(Default)]
pub(crate) struct Tunnels {
    of: Mutex<HashMap<String, Tunnel>>,
    count: AtomicU64,
}

impl Tunnels {
    /// Connects to an address: by the tunnel of the node where it is, if there is one.
    pub(crate) async fn connect(&self, node: Option<&str>, host: &str, port: u16) -> io::Result<Stream> {
        let most = match node.and_then(|node| self.of.lock().get(node).map(Tunnel::sender)) {
            Some(Some(sender)) => return within(ANSWER, through(sender, host, port)).await,
            Some(None) => LOST,
            None => Duration::MAX,
        };
        let stream = within(most, TcpStream::connect((host, port))).await?;
        // Without them, it is only slower. What is sent may wait for a container that does not read.
        let _ = base::sockets::keep_alive(&stream);
        Ok(Box::new(stream))
    }

    /// Takes the place of an older tunnel of the node, whose agent has come again.
    fn opened(&self, node: &str, sender: Sender) -> u64 {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.of.lock().insert(node.to_owned(), Tunnel::Open(number, sender));
        number
    }

    fn closed(&self, node: &str, number: u64) {
        if let Some(tunnel) = self.of.lock().get_mut(node)
            && matches!(tunnel, Tunnel::Open(newest, _) if *newest == number)
        {
            *tunnel = Tunnel::Ended;
        }
    }
}

impl Tunnel {
    fn sender(&self) -> Option<Sender> {
        match self {
            Self::Open(_, sender) => Some(sender.clone()),
            Self::Ended => None,
        }
    }
}

async fn within<T>(most: Duration, connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    // The words of Go's network, which clients know.
    tokio::time::timeout(most, connecting).await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")))
}

async fn through(mut tunnel: Sender, host: &str, port: u16) -> io::Result<Stream> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let request = Request::builder().method(Method::CONNECT).uri(authority).body(Empty::new()).map_err(io::Error::other)?;
    let mut response = tunnel.send_request(request).await.map_err(io::Error::other)?;
    if response.status() == StatusCode::OK {
        let stream = hyper::upgrade::on(&mut response).await.map_err(io::Error::other)?;
        return Ok(Box::new(TokioIo::new(stream)));
    }
    let reason = Limited::new(response.into_body(), REASON).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Err(io::Error::other(String::from_utf8_lossy(&reason).into_owned()))
}
