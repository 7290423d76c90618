//! The TLS listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use base::tls::Verifier;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::Api;
use crate::authn::Identity;

/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 16_384;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests may go on once the server ends.
const DRAIN: Duration = Duration::from_secs(8);
/// Streams of one HTTP/2 connection at once (upstream's default).
const MAX_STREAMS: u32 = 250;
const MAX_HEADER_BYTES: u32 = 64 << 10;

/// Accepts connections until the tasks are cancelled; each connection is a task of its own.
pub async fn serve(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    verifier: Arc<Verifier>,
    api: Api,
    tasks: Tasks,
) -> Result<(), std::convert::Infallible> {
    let acceptor = TlsAcceptor::from(config);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let end = tasks.token();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let Some((permit, accepted)) = end.run_until_cancelled(accepted).await else { return Ok(()) };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: connections that end free some.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, verifier, api, connection) = (acceptor.clone(), verifier.clone(), api.clone(), tasks.clone());
        tasks.spawn("api connection", OnFailure::Log, async move {
            let _permit = permit;
            converse(stream, peer, acceptor, verifier, api, connection).await;
            Ok::<_, std::convert::Infallible>(())
        });
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, verifier: Arc<Verifier>, api: Api, tasks: Tasks) {
    let end = tasks.token();
    // Small answers go out at once; a socket that refuses the option works all the same.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "TLS handshake timed out"),
    };
    let identity = Identity::of_peer(verifier.peer(stream.get_ref().1.peer_certificates()));
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
        api.answer(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN, connection).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
