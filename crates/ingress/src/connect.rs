//! Connections to endpoints: made, lent to one request, and given back.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::budgets::shares::Shares;
use base::budgets::{Meter, descriptors};
use base::tasks::{OnFailure, Tasks};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::RequestBody;
use crate::pool::{self, Keep, STREAMS, Several, Single, Stream, Streams};
use crate::upstream::Endpoint;

/// How long requests may go on when the process ends.
const DRAIN: Duration = Duration::from_secs(3);
/// Bytes of the headers of an answer over HTTP/2.
const MAX_HEADER_BYTES: u32 = 256 << 10;
/// Header lines of an answer at most: hyper takes 100 unless it is told, nginx and Go count bytes, as `BUFFER` does here.
const MAX_HEADERS: usize = 1000;
/// Bytes of one answer, its head included, or of one request over HTTP/2, that may wait until the other side goes on.
const BUFFER: usize = 64 << 10;
/// Bytes of an answer over HTTP/2 that are under way while its client does not read. The connection has as much for each, so that the others go on.
const WINDOW: u32 = 128 << 10;
/// Most connections that nobody uses and that are kept. Those that are used are bounded with the requests.
const MAX_KEPT: usize = 8192;

/// Why no connection could be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}", base::connection::dial(&.0.to_string(), .1))]
    Dial(SocketAddr, std::io::Error),
    #[error("{}", base::connection::why(.0))]
    Tls(std::io::Error),
    #[error("no connection in time")]
    Timeout,
    #[error("no connection: {}", base::connection::why(.0))]
    Handshake(#[from] hyper::Error),
}

/// What connections are made with.
#[derive(Clone)]
pub(crate) struct Connector {
    tasks: Tasks,
    kept: Shares<()>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

/// A connection for one request.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: Sender,
    endpoint: Arc<Endpoint>,
    /// Whether it was used before: then the other side may have closed it meanwhile.
    pub(crate) reused: bool,
}

#[derive(Debug)]
enum Sender {
    Http1(Single),
    Http2 {
        several: Several,
        /// The place on it, once that is taken.
        _stream: Option<Stream>,
    },
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The request was not sent, and is here again.
    Unsent(Box<Request<RequestBody>>, hyper::Error),
    /// It may have been sent.
    Broken(hyper::Error),
}

impl Connector {
    pub(crate) fn new(tasks: Tasks, tls: ClientConfig) -> Self {
        let with = |protocol: &[u8]| {
            let mut config = tls.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        let kept = descriptors::share(descriptors::limit(), descriptors::percent::INGRESS_KEPT, MAX_KEPT);
        let kept = Shares::of(Some(Meter::new("ingress_kept_connections", kept)), kept, kept);
        Self { tasks, kept, http1: with(b"http/1.1"), http2: with(b"h2") }
    }

    /// A connection for one request: one that is there, unless `fresh`, or a new one.
    pub(crate) async fn lease(&self, endpoint: &Arc<Endpoint>, limit: Duration, fresh: bool) -> Result<Lease, Error> {
        let lease = |sender, reused| Lease { sender, endpoint: endpoint.clone(), reused };
        if endpoint.protocol.is_http2() {
            // All who wait for the one connection wait as long as each would for his own.
            let begun = Instant::now();
            let mut shared = tokio::time::timeout(limit, endpoint.pool.shared.lock()).await.map_err(|_| Error::Timeout)?;
            if let Some((several, stream)) = pool::with_room(&mut shared).filter(|_| !fresh) {
                return Ok(lease(Sender::Http2 { several, _stream: Some(stream) }, true));
            }
            let left = limit.saturating_sub(begun.elapsed());
            let Sender::Http2 { several, .. } = Box::pin(self.connect(endpoint, left)).await? else { return Err(Error::Timeout) };
            let _stream = several.streams.enter();
            // Where no more can be kept, this one is this request's alone.
            if several.keep.take() {
                shared.push(several.clone());
            }
            if several.sender.is_closed() {
                several.keep.free();
            }
            return Ok(lease(Sender::Http2 { several, _stream }, false));
        }
        if !fresh && let Some(single) = endpoint.pool.take().await {
            return Ok(lease(Sender::Http1(single), true));
        }
        // Boxed, for it is large and seldom needed: a request's future is moved several times.
        Ok(lease(Box::pin(self.connect(endpoint, limit)).await?, false))
    }

    async fn connect(&self, endpoint: &Endpoint, limit: Duration) -> Result<Sender, Error> {
        let dial = async {
            let connected = TcpStream::connect(endpoint.address).await;
            let stream = connected.map_err(|error| Error::Dial(endpoint.address, error))?;
            // A socket that refuses the options works all the same.
            let _ = base::sockets::keep_alive(&stream);
            if !endpoint.protocol.is_tls() {
                return self.handshake(stream, endpoint).await;
            }
            let named = endpoint.tls_name.clone().and_then(|name| ServerName::try_from(name).ok());
            let name = named.unwrap_or_else(|| ServerName::IpAddress(endpoint.address.ip().into()));
            let config = match (&endpoint.trust, endpoint.protocol.is_http2()) {
                (Some(trust), true) => &trust.http2,
                (Some(trust), false) => &trust.http1,
                (None, true) => &self.http2,
                (None, false) => &self.http1,
            };
            let stream = TlsConnector::from(config.clone()).connect(name, stream).await.map_err(Error::Tls)?;
            self.handshake(stream, endpoint).await
        };
        tokio::time::timeout(limit, dial).await.map_err(|_| Error::Timeout)?
    }

    async fn handshake<I>(&self, io: I, endpoint: &Endpoint) -> Result<Sender, Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(io);
        if endpoint.protocol.is_http2() {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).max_header_list_size(MAX_HEADER_BYTES).max_send_buf_size(BUFFER);
            // Told to be one until the other side says how many it takes: more would be refused where it takes fewer.
            builder.initial_max_send_streams(1);
            builder.initial_stream_window_size(WINDOW).initial_connection_window_size(STREAMS * WINDOW);
            builder.keep_alive_interval(Duration::from_secs(30)).keep_alive_timeout(Duration::from_secs(20));
            let (sender, connection) = builder.handshake(io).await?;
            let (streams, mut connection) = (Arc::new(Streams::new()), Box::pin(connection));
            let allowed = streams.clone();
            let driven = std::future::poll_fn(move |cx| {
                let polled = connection.as_mut().poll(cx);
                allowed.allow(connection.current_max_send_streams());
                polled
            });
            return Ok(Sender::Http2 { several: Several { sender, keep: self.drive(driven), streams }, _stream: None });
        }
        let (sender, connection) = http1::Builder::new().max_buf_size(BUFFER).max_headers(MAX_HEADERS).handshake(io).await?;
        let keep = self.drive(connection.with_upgrades());
        Ok(Sender::Http1(Single { sender, keep }))
    }

    /// Runs a connection until nobody needs it any more.
    fn drive(&self, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Keep {
        let (end, keep) = (self.tasks.token(), Keep::new(self.kept.clone()));
        let kept = keep.clone();
        self.tasks.spawn("connection to a back end", OnFailure::Log, async move {
            let late = async {
                end.cancelled().await;
                tokio::time::sleep(DRAIN).await;
            };
            tokio::select! {
                // How it ended is told to those who wait for answers.
                _ = connection => {}
                () = late => {}
            }
            kept.free();
            Ok::<_, Infallible>(())
        });
        keep
    }
}

impl Lease {
    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, Failed> {
        let failed = |mut error: hyper::client::conn::TrySendError<Request<RequestBody>>| match error.take_message() {
            Some(request) => Failed::Unsent(Box::new(request), error.into_error()),
            None => Failed::Broken(error.into_error()),
        };
        match &mut self.sender {
            Sender::Http1(single) => single.sender.try_send_request(request).await.map_err(failed),
            Sender::Http2 { several, .. } => several.sender.try_send_request(request).await.map_err(failed),
        }
    }

    /// The endpoint at its other end.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The answer is whole: the connection may be used again.
    pub(crate) fn give_back(self) {
        if let Sender::Http1(single) = self.sender {
            self.endpoint.pool.put(single);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the words by which people know them from upstream's logs.
    #[test]
    fn why_there_is_no_connection() {
        let check = |error: Error, expected: &str| assert_eq!(error.to_string(), expected);
        let system = std::io::Error::from_raw_os_error;
        let dial = |errno: i32| Error::Dial(SocketAddr::from(([10, 0, 0, 1], 80)), system(errno));
        check(dial(111), "dial tcp 10.0.0.1:80: connect: connection refused");
        check(dial(113), "dial tcp 10.0.0.1:80: connect: no route to host");
        check(Error::Tls(system(104)), "read: connection reset by peer");
    }
}
