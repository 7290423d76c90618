//! The TLS listener.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::budgets::connections::{Connections, Limits, Place};
use base::budgets::descriptors;
use base::listen::{Listener, canonical};
use base::patience::{self, Patient, Times};
use base::tasks::{OnFailure, Tasks};
use base::tls::{self, Verifier};
use base::unread::{self, Lent};
use http::Response;
use http::header::ACCEPT_ENCODING;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::authn::Identity;
use crate::tunnels::NODE;
use crate::wire::Wire;
use crate::{Api, Body, metrics};

/// Most connections at once.
const MAX_CONNECTIONS: usize = 16_384;
/// How long an answer may wait for a client that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests may go on once the server ends.
const DRAIN: Duration = Duration::from_secs(8);
/// Streams of one HTTP/2 connection at once (upstream's default).
const MAX_STREAMS: u32 = 250;
const MAX_HEADER_BYTES: u32 = 64 << 10;
/// Headers of a request over HTTP/1.1. Who asks for others, as proxies before clusters do, has one for each of their groups, and a directory has
/// hundreds for a user.
const MAX_HEADERS: usize = 1000;
/// Bytes of one answer over HTTP/2 that may wait for a client that reads slowly; each of its streams has as many.
const SEND_BUFFER: usize = 64 << 10;
/// Why a certificate that was good at the handshake is refused.
const ENDED: &str = "the certificate has ended since the connection began";

/// Marks the answer to a request whose sender has proved no identity. HTTP/2 is costly to serve, and open to abuse: it goes
/// on only for those who have one, as upstream's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unauthenticated;

/// Marks the answer to a request whose certificate has ended since its connection began: a new connection shows the newer one.
#[derive(Clone, Copy, Debug)]
struct Outlived;

/// Accepts connections until the tasks are cancelled; each connection is a task of its own.
pub async fn serve(
    listener: Listener,
    config: Arc<ServerConfig>,
    verifier: Arc<Verifier>,
    api: Api,
    tasks: Tasks,
) -> Result<(), Infallible> {
    let acceptor = TlsAcceptor::from(config);
    let all = descriptors::share(descriptors::limit(), descriptors::percent::API, MAX_CONNECTIONS);
    let connections = Connections::new("apiserver_connections", Limits::of(all));
    let end = tasks.token();
    while let Some((stream, peer, place)) = connections.accept(&listener, &end).await {
        begin((stream, peer), acceptor.clone(), verifier.clone(), api.clone(), tasks.clone(), place);
    }
    Ok(())
}

/// Begins a connection's task. No async function: what those do is compiled where they are awaited, here in another crate, which is
/// built for size.
fn begin(
    (stream, peer): (TcpStream, SocketAddr),
    acceptor: TlsAcceptor,
    verifier: Arc<Verifier>,
    api: Api,
    tasks: Tasks,
    place: Place,
) {
    let (connection, place) = (tasks.clone(), Arc::new(place));
    tasks.spawn("api connection", OnFailure::Log, async move {
        let ended = place.ended().clone();
        ended.run_until_cancelled(converse(stream, peer, acceptor, verifier, api, (connection, place))).await;
        Ok::<_, Infallible>(())
    });
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    verifier: Arc<Verifier>,
    api: Api,
    (tasks, place): (Tasks, Arc<Place>),
) {
    // On one machine copying is cheaper than compressing.
    let local = stream.local_addr().is_ok_and(|own| canonical(own).ip() == peer.ip());
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls::accept(&acceptor, stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            metrics::load::handshake_failed();
            return tracing::debug!(%peer, %error, "TLS handshake failed");
        }
        Err(_) => {
            metrics::load::handshake_failed();
            return tracing::debug!(%peer, "TLS handshake timed out");
        }
    };
    let peer_identity = verifier.peer(stream.get_ref().1.peer_certificates());
    let credential = peer_identity.credential().cloned().map(Arc::new);
    let identity = Identity::of_peer(peer_identity);
    if let Some(user) = identity.as_ref().and_then(Identity::name) {
        if !place.prove(&user) {
            return tracing::debug!(%peer, %user, "the user has too many connections");
        }
        // Nodes read always. What is asked of one by its tunnel fails soon when it has gone.
        if user.starts_with(NODE) {
            let _ = base::sockets::keep_alive_and_time_out(stream.get_ref().0);
        }
    }
    let answer = move |mut request: http::Request<Lent>| {
        let has_ended = credential.as_ref().is_some_and(|credential| credential.has_ended(Timestamp::now()));
        let extensions = request.extensions_mut();
        extensions.insert(place.clone());
        if has_ended {
            extensions.insert(Identity::Invalid(ENDED.into()));
        } else if let Some(identity) = &identity {
            extensions.insert(identity.clone());
        }
        if let Some(credential) = credential.as_ref().filter(|_| !has_ended) {
            extensions.insert(credential.clone());
            metrics::identity::certified(credential.expiry);
        }
        if local {
            request.headers_mut().remove(ACCEPT_ENCODING);
        }
        let answer = api.answer(request);
        async move {
            let mut response = answer.await?;
            if has_ended {
                response.extensions_mut().insert(Outlived);
            }
            Ok(response)
        }
    };
    if let Err(why) = hold(stream, answer, HEADER_TIMEOUT, tasks.token()).await {
        tracing::debug!(%peer, why, "connection ended");
    }
}

/// Serves one connection to its end. `first` is the time for the first request, and for the headers of each. The error says why it
/// did not end well.
async fn hold<I, A, F>(stream: I, answer: A, first: Duration, end: CancellationToken) -> Result<(), String>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(http::Request<Lent>) -> F,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    // One token for both reasons to leave, and of this connection alone: asking a token takes its lock.
    let (asked, leave) = (CancellationToken::new(), end.child_token());
    let streams = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request: http::Request<Incoming>| {
        asked.cancel();
        let (leave, streams, is_http2) = (leave.clone(), streams.clone(), request.version() == http::Version::HTTP_2);
        let (request, rest) = unread::lend(request);
        let answer = answer(request);
        async move {
            let mut response = answer.await?;
            rest.settle(&mut response).await;
            let is_unauthenticated = response.extensions().get::<Unauthenticated>().is_some();
            if is_http2 && is_unauthenticated || response.extensions().get::<Outlived>().is_some() {
                leave.cancel();
            }
            let is_stream = matches!(response.body(), Body::Stream(_) | Body::Proxied(_));
            if is_stream || response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                streams.store(true, Ordering::Relaxed);
            }
            Ok::<_, Infallible>(response.map(Wire))
        }
    });
    let builder = builder(first);
    let stream = Patient::new(stream, WRITE_TIMEOUT, streams.clone());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let times = Times { first, drain: DRAIN };
    patience::hold(connection, times, &asked, &leave, |connection| connection.graceful_shutdown()).await
}

/// HTTP/1.1 and HTTP/2, with bounds. The flushing of pipelined answers stays off: it lifts the bound of what waits for a
/// client that reads slowly.
fn builder(patience: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience).max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::StreamExt;
    use http_body_util::Empty;
    use hyper::client::conn::http2;
    use std::sync::atomic::AtomicUsize;
    use tokio::io::AsyncWriteExt;

    async fn anonymous(_: http::Request<Lent>) -> Result<Response<Body>, Infallible> {
        let mut response = Response::new(Body::Empty);
        response.extensions_mut().insert(Unauthenticated);
        Ok(response)
    }

    #[tokio::test]
    async fn who_says_nothing_is_cut_off() {
        let check = async |sent: &[u8]| {
            let (mut client, server) = tokio::io::duplex(1 << 10);
            client.write_all(sent).await.unwrap();
            let served = hold(server, anonymous, Duration::from_millis(20), CancellationToken::new()).await;
            assert!(served.is_err(), "{sent:?}");
        };
        check(b"").await;
        check(b"GET / HT").await;
        check(b"GET / HTTP/1.1\r\nhost: x\r\na: b").await;
        check(b"PRI * HTTP/2.0\r\n").await;
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    }

    #[tokio::test]
    async fn malformed_requests_are_told_so() {
        use tokio::io::AsyncReadExt;
        let check = async |request: &str, expected: &str| {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            client.write_all(request.as_bytes()).await.unwrap();
            assert!(hold(server, anonymous, HEADER_TIMEOUT, CancellationToken::new()).await.is_err(), "{request}");
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(expected) && answer.matches("HTTP/1.1").count() == 1, "{request}: {answer}");
        };
        let head = "POST / HTTP/1.1\r\nhost: x\r\n";
        check(&format!("{head}transfer-encoding: other\r\n\r\n0\r\n\r\n"), "HTTP/1.1 400").await;
        check(&format!("{head}content-length: 5\r\ncontent-length: 6\r\n\r\nabcdef"), "HTTP/1.1 400").await;
        check(&format!("{head}{}\r\nrest", "a: b\r\n".repeat(MAX_HEADERS)), "HTTP/1.1 431").await;
        check(&format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\nrest", "a".repeat(100_000)), "HTTP/1.1 414").await;
    }

    /// As over HTTP/2, and from upstream: an upgrade, such as of a command in a pod, comes over HTTP/1.1 with all groups of whom it is for.
    #[tokio::test]
    async fn many_headers_are_taken() {
        use tokio::io::AsyncReadExt;
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let groups: String = (0..MAX_HEADERS - 2).map(|n| format!("impersonate-group: g{n}\r\n")).collect();
        client.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{groups}\r\n").as_bytes()).await.unwrap();
        let count = |request: http::Request<Lent>| {
            let count = request.headers().get_all("impersonate-group").iter().count();
            std::future::ready(Ok(Response::builder().header("count", count).body(Body::Empty).unwrap()))
        };
        hold(server, count, HEADER_TIMEOUT, CancellationToken::new()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("count: {}", MAX_HEADERS - 2)), "{answer}");
    }

    /// An answer that comes before the body is read says whether the connection goes on (as net/http's server does).
    #[tokio::test]
    async fn a_body_that_nobody_reads_spoils_no_request() {
        use tokio::io::AsyncReadExt;
        let check = async |length: usize, sent: usize, goes_on: bool| {
            let (client, server) = tokio::io::duplex(1 << 20);
            let (mut reader, mut writer) = tokio::io::split(client);
            let client = async {
                let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
                writer.write_all(head.as_bytes()).await.unwrap();
                // What comes later than its head is a second piece for the server.
                tokio::task::yield_now().await;
                writer.write_all(&vec![b'x'; sent]).await.unwrap();
                let mut answers = String::new();
                if goes_on {
                    writer.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
                }
                reader.read_to_string(&mut answers).await.unwrap();
                let first = answers.split("\r\n\r\n").next().unwrap();
                assert_eq!(first.contains("connection: close"), !goes_on, "{length}: {answers}");
                assert_eq!(answers.matches("HTTP/1.1 200").count(), 1 + usize::from(goes_on), "{length}: {answers}");
            };
            let (_, ()) = tokio::join!(hold(server, anonymous, HEADER_TIMEOUT, CancellationToken::new()), client);
        };
        check(5, 5, true).await;
        check(200_000, 200_000, true).await;
        check(300_000, 1, false).await;
        check(5, 1, false).await;
    }

    #[tokio::test]
    async fn http2_ends_with_an_unauthenticated_request() {
        let (client, server) = tokio::io::duplex(64 << 10);
        let request = async {
            let io = TokioIo::new(client);
            let (mut sender, connection) = http2::handshake::<_, _, Empty<bytes::Bytes>>(TokioExecutor::new(), io).await.unwrap();
            let ask = async {
                let request = http::Request::get("https://x/livez").body(Empty::new()).unwrap();
                sender.send_request(request).await.unwrap().status()
            };
            let (connected, status) = tokio::join!(connection, ask);
            assert_eq!((connected.is_ok(), status.as_u16()), (true, 200));
        };
        // Both end, though the client would keep the connection; that it was the first to close is no matter.
        let (_, ()) = tokio::join!(hold(server, anonymous, HEADER_TIMEOUT, CancellationToken::new()), request);
    }

    /// A stream that its client resets ends there and then, wherever its request is; the connection goes on.
    #[tokio::test]
    async fn a_request_ends_with_its_stream() {
        let (guard, held) = (Arc::new(()), Arc::new(tokio::sync::Notify::new()));
        let (weak, begun) = (Arc::downgrade(&guard), held.clone());
        let guard = parking_lot::Mutex::new(Some(guard));
        let answer = move |_: http::Request<Lent>| {
            let (guard, held) = (guard.lock().take(), held.clone());
            async move {
                if let Some(_guard) = guard {
                    held.notify_one();
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(Body::Empty))
            }
        };
        let (client, server) = tokio::io::duplex(64 << 10);
        let client = async {
            let io = TokioIo::new(client);
            let (mut sender, connection) = http2::handshake::<_, _, Empty<bytes::Bytes>>(TokioExecutor::new(), io).await.unwrap();
            let ask = async {
                let request = || http::Request::get("https://x/livez").body(Empty::new()).unwrap();
                tokio::select! {
                    _ = sender.send_request(request()) => panic!("it is answered"),
                    () = begun.notified() => {}
                }
                while weak.strong_count() > 0 {
                    tokio::task::yield_now().await;
                }
                sender.send_request(request()).await.unwrap().status().as_u16()
            };
            tokio::select! {
                _ = connection => panic!("the connection has ended"),
                status = ask => assert_eq!(status, 200),
            }
        };
        let end = CancellationToken::new();
        tokio::select! {
            _ = hold(server, answer, HEADER_TIMEOUT, end) => panic!("the connection has ended"),
            () = client => {}
        }
    }

    /// A watcher that does not read holds up its own stream, and no more than a bounded part of it waits in memory.
    #[tokio::test]
    async fn what_waits_for_a_client_is_bounded() {
        const PIECE: usize = 16 << 10;
        const PIECES: usize = 1000;
        static SENT: AtomicUsize = AtomicUsize::new(0);
        let answer = |_: http::Request<Lent>| {
            let pieces = futures::stream::iter(0..PIECES).map(|_| {
                SENT.fetch_add(PIECE, Ordering::Relaxed);
                Ok(bytes::Bytes::from_static(&[b'x'; PIECE]))
            });
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::Stream(pieces.boxed()))))
        };
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut connection = std::pin::pin!(hold(server, answer, HEADER_TIMEOUT, CancellationToken::new()));
        for _ in 0..PIECES {
            assert!(futures::poll!(connection.as_mut()).is_pending());
        }
        let sent = SENT.load(Ordering::Relaxed);
        assert!((PIECE..1 << 20).contains(&sent), "{sent} bytes are on their way");
    }
}
