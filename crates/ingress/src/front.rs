//! The doors: listeners, handshakes, and one task for each connection.
//!
//! Whoever connects is nobody until a whole request has come: those who hold connections open without one make room for others.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::budgets::connections::{Connections, Limits, Place};
use base::budgets::descriptors;
use base::listen::Listener;
use base::patience::{self, Patient, Times};
use base::tasks::{OnFailure, Tasks};
use base::unread;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};
use tokio_util::sync::CancellationToken;

use crate::gateway::{Door, Entrance};
use crate::guard::clients::{Chain, Shown};
use crate::handshakes::{Handshakes, Spoken};
use crate::headers::Peer;
use crate::hello::{Hello, Replayed};
use crate::proxy::Proxy;
use crate::proxy_protocol;
use crate::{metrics, passthrough};

/// Most connections at once. Those to back ends are bounded with the requests that need them.
const MAX_CONNECTIONS: usize = 32_768;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the head of each request, and between two of them.
const HEAD: Duration = Duration::from_secs(60);
/// How long an answer may wait for a client that does not read.
const WRITE: Duration = Duration::from_secs(60);
/// How long requests may go on when the process ends.
const DRAIN: Duration = Duration::from_millis(2500);
const MAX_STREAMS: u32 = 128;
/// Bytes of a request's body that are under way while nobody reads it. A connection has as much for each, so that one does not keep the others waiting.
const WINDOW: u32 = 128 << 10;
const MAX_HEAD: usize = 64 << 10;
/// Header lines of a request at most: hyper takes 100 unless it is told, nginx counts bytes, as `MAX_HEAD` does here.
const MAX_HEADERS: usize = 1000;
/// Bytes of one answer over HTTP/2 that may wait for a client that reads slowly; each of its streams has as many.
const SEND_BUFFER: usize = 64 << 10;
/// What a client is told that has too much under way already.
const TOO_MUCH: &str = "too many requests and connections are under way";
/// How often a port is tried that somebody else has: nothing tells when it is free.
const RETRY: Duration = Duration::from_secs(2);

/// What all doors share.
pub(crate) struct Front {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) handshakes: Handshakes,
    /// How TLS is spoken at the port of ingress.
    pub(crate) spoken: Arc<Spoken>,
    pub(crate) tasks: Tasks,
    pub(crate) connections: Connections,
    pub(crate) proxy_protocol: bool,
}

/// The budget of connections, of the descriptors that the process has.
pub(crate) fn connections() -> Connections {
    let all = descriptors::share(descriptors::limit(), descriptors::percent::INGRESS, MAX_CONNECTIONS);
    // Many clients may stand behind one address; one of them does not get all.
    let most = (all * 3 / 4).max(1);
    Connections::new("ingress_connections", Limits { all, unproven: most, unproven_of_peer: most, of_user: most })
}

/// Opens a door, however long it takes: `taken` learns each time another reason why it cannot be. Of the addresses of its port `closed` have
/// no listener yet.
pub(crate) async fn open(
    address: SocketAddr,
    closed: &AtomicUsize,
    taken: &(dyn Fn(SocketAddr, &std::io::Error) + Sync),
) -> Listener {
    let mut last = None;
    loop {
        match Listener::bind(address) {
            Ok(listener) => {
                tracing::info!(%address, "ingress listens");
                metrics::listening(address.port(), closed.fetch_sub(1, Ordering::Relaxed) == 1);
                return listener;
            }
            Err(error) => {
                metrics::listening(address.port(), false);
                if last.replace(error.kind()) != Some(error.kind()) {
                    tracing::warn!(%address, %error, "ingress cannot listen and goes on trying; --disable ingress or another port ends this");
                    taken(address, &error);
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Where a connection has come.
#[derive(Clone)]
pub(crate) struct At {
    pub(crate) entrance: Entrance,
    /// The port, as clients see it.
    pub(crate) port: u16,
    /// How TLS is spoken; none over plain HTTP.
    pub(crate) tls: Option<Arc<Spoken>>,
}

impl Front {
    /// Accepts connections at a port of ingress until the tasks are cancelled. Over TLS if `tls`.
    pub(crate) async fn serve(self: Arc<Self>, listener: Listener, port: u16, tls: bool) {
        let end = self.tasks.token();
        let at = At { entrance: Entrance::Ingress, port, tls: tls.then(|| self.spoken.clone()) };
        while let Some((stream, peer, place)) = self.connections.accept(&listener, &end).await {
            self.take(stream, peer, place, at.clone());
        }
    }

    /// Serves a connection in the background.
    pub(crate) fn take(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Place, at: At) {
        let front = self.clone();
        self.tasks.spawn("ingress connection", OnFailure::Log, async move {
            let ended = place.ended().clone();
            let (tls, port, entrance) = (at.tls.is_some(), at.port, at.entrance);
            // A connection that has none any more ends when it is read.
            let local = stream.local_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |local| local.ip());
            let (shown, named) = (Shown::NotAsked, String::new());
            let peer = Peer { address: peer.ip(), tls, port, entrance, shown, named, local };
            if let Some(Err(why)) = ended.run_until_cancelled(front.converse(stream, peer, place, at.tls)).await {
                tracing::trace!(why, "connection ended");
            }
            Ok::<_, Infallible>(())
        });
    }

    async fn converse(
        &self,
        mut stream: TcpStream,
        mut peer: Peer,
        place: Place,
        tls: Option<Arc<Spoken>>,
    ) -> Result<(), String> {
        if self.proxy_protocol {
            let header = tokio::time::timeout(HANDSHAKE, proxy_protocol::read(&mut stream)).await;
            let source = header.map_err(|_| "no PROXY protocol header in time")?.map_err(|error| error.to_string())?;
            peer.address = source.map_or(peer.address, |source| source.ip());
        }
        let Some(spoken) = tls else { return self.hold(stream, peer, place).await };
        let late = |_| "no handshake in time";
        let text = |error: std::io::Error| error.to_string();
        let (passes, ends) = {
            let table = self.proxy.table.load();
            (table.passes_any(peer.entrance), table.ends_any(peer.entrance))
        };
        if !passes && ends {
            let shaken = tokio::time::timeout(HANDSHAKE, self.shake_hands(stream, peer.entrance, &spoken)).await;
            let (stream, shown, named) = shaken.map_err(late)?.map_err(text)?;
            return self.hold(stream, Peer { shown, named, ..peer }, place).await;
        }
        let hello = tokio::time::timeout(HANDSHAKE, Hello::read(&mut stream)).await.map_err(late)?.map_err(text)?;
        let led = self.proxy.table.load().passes(peer.entrance, &hello.name).map(|(route, door)| (route.clone(), door));
        if let Some((route, door)) = led {
            let end = self.tasks.token();
            // It needs a connection to a back end, as a request does.
            let underway = self.proxy.underway.enter(peer.address).ok_or(TOO_MUCH)?;
            let leading = async {
                if door == Door::Passthrough {
                    place.prove(&peer.address.to_string());
                    return passthrough::forward(route, hello, stream).await;
                }
                let shaking = TlsAcceptor::from(spoken.bare.clone()).accept(Replayed::new(hello.bytes, stream));
                let stream = tokio::time::timeout(HANDSHAKE, shaking).await.map_err(late)?.map_err(text)?;
                place.prove(&peer.address.to_string());
                passthrough::forward_carried(route, stream).await
            };
            let led = end.run_until_cancelled(leading).await.unwrap_or(Ok(()));
            drop(underway);
            return led;
        }
        if !ends {
            return Err(format!("TLS for {} ends nowhere at this port", hello.name));
        }
        let stream = Replayed::new(hello.bytes, stream);
        let shaken = tokio::time::timeout(HANDSHAKE, self.shake_hands(stream, peer.entrance, &spoken)).await;
        let (stream, shown, named) = shaken.map_err(late)?.map_err(text)?;
        self.hold(stream, Peer { shown, named, ..peer }, place).await
    }

    /// The name in the client's first message decides whether it is asked for a certificate.
    async fn shake_hands<I>(
        &self,
        stream: I,
        entrance: Entrance,
        spoken: &Spoken,
    ) -> std::io::Result<(TlsStream<I>, Shown, String)>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let name = start.client_hello().server_name().unwrap_or_default().to_ascii_lowercase();
        let asks = self.proxy.table.load().asks(entrance, &name);
        let stream = start.into_stream(if asks { spoken.asking.clone() } else { spoken.plain.clone() }).await?;
        let shown = match stream.get_ref().1.peer_certificates() {
            Some(chain) if asks => Shown::Chain(Arc::new(Chain::new(chain.to_vec()))),
            _ if asks => Shown::Nothing,
            _ => Shown::NotAsked,
        };
        Ok((stream, shown, name))
    }

    /// Serves one connection to its end. The error says why it did not end well.
    async fn hold<I>(&self, stream: I, peer: Peer, place: Place) -> Result<(), String>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (asked, end) = (CancellationToken::new(), self.tasks.token());
        let shared = Arc::new((self.proxy.clone(), peer, place));
        let service = service_fn(|request: Request<Incoming>| {
            let (shared, first) = (shared.clone(), !asked.is_cancelled());
            if first {
                asked.cancel();
            }
            async move {
                let (proxy, peer, place) = &*shared;
                if first {
                    // Whoever has too many connections already keeps this one as long as there is room.
                    place.prove(&peer.address.to_string());
                }
                let (request, rest) = unread::lend(request);
                let mut answer = proxy.answer(peer, request).await;
                rest.settle(&mut answer).await;
                Ok::<_, Infallible>(answer)
            }
        });
        let exempt = Arc::default();
        let builder = builder();
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(Patient::new(stream, WRITE, exempt)), service);
        let times = Times { first: HEAD, drain: DRAIN };
        patience::hold(connection, times, &asked, &end, |connection| connection.graceful_shutdown()).await
    }
}

/// HTTP/1.1 and HTTP/2, with bounds.
fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(MAX_STREAMS * WINDOW)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
