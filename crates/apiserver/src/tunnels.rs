//! Ways to nodes that this server cannot dial, such as those behind address translation: an agent opens a connection to the API and
//! keeps it, and the server opens streams on it, to the agent's kubelet and to the pods of its node.
//!
//! The connection begins as an upgrade of `GET /knarr/tunnel`, with the certificate of the node. From then on it carries HTTP/2 with
//! the roles turned round: a stream is a CONNECT request of the server, to an address and a port. The agent decides what may be
//! reached. Where a node has no tunnel, such as that of the server's own process, its addresses are dialled. A node whose tunnel has
//! ended is most likely gone, and what is asked of it fails soon; its pods may still be there, so it is dialled all the same.
//!
//! All that a server asks of a node goes by one connection, so nobody may stop it for others: the window of the connection has room for
//! what all streams hold whose readers stand still, and users' streams have places, of which some stay free for the server itself.

mod accept;

pub(crate) use accept::Way;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base::budgets::Meter;
use base::budgets::shares::{Share as Place, Shares};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http2::SendRequest;
use hyper::{client, server};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Names of nodes as users begin with it.
pub(crate) const NODE: &str = "system:node:";
/// Where a tunnel begins.
pub const PATH: &str = "/knarr/tunnel";
/// What a tunnel upgrades to.
pub const PROTOCOL: &str = "knarr-tunnel";

/// Silence after which the other side is asked whether it is there, and how long it has to answer.
const SILENCE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(10));
/// Streams of a tunnel at once, those that are users', and those of one user. The server's own, such as calls of webhooks and of metrics, have at
/// least what users leave.
const STREAMS: u32 = 1024;
const OF_USERS: usize = 768;
const OF_USER: usize = 256;
/// Bytes under way on a stream whose reader stands still. The connection has as much for each, so that the others go on.
const WINDOW: u32 = 128 << 10;

/// How agents serve their tunnels.
pub fn serving() -> server::conn::http2::Builder<TokioExecutor> {
    let mut builder = server::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(SILENCE.0).keep_alive_timeout(SILENCE.1);
    builder.max_concurrent_streams(STREAMS);
    builder.initial_stream_window_size(WINDOW).initial_connection_window_size(STREAMS * WINDOW);
    builder
}

/// How the server uses them.
fn calling() -> client::conn::http2::Builder<TokioExecutor> {
    let mut builder = client::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(SILENCE.0).keep_alive_timeout(SILENCE.1).keep_alive_while_idle(true);
    builder.initial_stream_window_size(WINDOW).initial_connection_window_size(STREAMS * WINDOW);
    builder
}

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
pub(crate) type Sender = SendRequest<Empty<Bytes>>;

/// The newest tunnel of a node, and its number.
enum Tunnel {
    Open(u64, Sender, Shares),
    Ended,
}

/// A user's stream by a tunnel, which has its place as long.
struct Placed<S> {
    stream: S,
    _place: Place,
}

/// Tunnels by the names of their nodes, of which there are as many as have ever joined while the server runs.
#[derive(Default)]
pub(crate) struct Tunnels {
    of: Mutex<HashMap<String, Tunnel>>,
    count: AtomicU64,
}

impl Tunnels {
    /// Connects to an address: by the tunnel of the node where it is, if there is one. The stream may be one of a user.
    ///
    /// # Errors
    /// [`io::ErrorKind::QuotaExceeded`] when the user has too many by that tunnel.
    pub(crate) async fn connect(&self, node: Option<&str>, host: &str, port: u16, user: Option<&str>) -> io::Result<Stream> {
        let place = self.place(node, user)?;
        let most = match node.and_then(|node| self.of.lock().get(node).map(Tunnel::sender)) {
            Some(Some(sender)) => {
                let stream = within(ANSWER, through(sender, host, port)).await?;
                return Ok(match place {
                    Some(place) => Box::new(Placed { stream, _place: place }),
                    None => stream,
                });
            }
            Some(None) => LOST,
            None => Duration::MAX,
        };
        let stream = within(most, TcpStream::connect((host, port))).await?;
        // Without them, it is only slower. What is sent may wait for a container that does not read.
        let _ = base::sockets::keep_alive(&stream);
        Ok(Box::new(stream))
    }

    /// A place for a stream of a user by the tunnel of a node. None where there is no tunnel, and for the server itself.
    ///
    /// # Errors
    /// As those of [`Tunnels::connect`].
    pub(crate) fn place(&self, node: Option<&str>, user: Option<&str>) -> io::Result<Option<Place>> {
        let (Some(node), Some(user)) = (node, user) else { return Ok(None) };
        let places = match self.of.lock().get(node) {
            Some(Tunnel::Open(_, _, places)) => places.clone(),
            _ => return Ok(None),
        };
        let crowded = || io::Error::new(io::ErrorKind::QuotaExceeded, "too many streams by the tunnel of the node");
        places.take(user).map(Some).ok_or_else(crowded)
    }

    /// Takes the place of an older tunnel of the node, whose agent has come again.
    pub(crate) fn opened(&self, node: &str, sender: Sender) -> u64 {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let places = Shares::of(Some(Meter::new("tunnel_streams_of_user", OF_USER)), OF_USER, OF_USERS);
        self.of.lock().insert(node.to_owned(), Tunnel::Open(number, sender, places));
        number
    }

    fn closed(&self, node: &str, number: u64) {
        if let Some(tunnel) = self.of.lock().get_mut(node)
            && matches!(tunnel, Tunnel::Open(newest, ..) if *newest == number)
        {
            *tunnel = Tunnel::Ended;
        }
    }
}

impl Tunnel {
    fn sender(&self) -> Option<Sender> {
        match self {
            Self::Open(_, sender, _) => Some(sender.clone()),
            Self::Ended => None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Placed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Placed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
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
