//! A server over TLS, which the API server calls.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::tasks::{OnFailure, Tasks};
use base::tls::{Authority, Peer, Request as Identity, Resolver, Verifier};
use base64::Engine as _;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;

/// What is answered, some time.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Reply> + Send>>;
pub(crate) type Reply = Response<BoxBody<Bytes, Infallible>>;

/// A piece of an answer without an end.
const PIECE: usize = 64 << 10;

/// An answer with this body.
pub(crate) fn whole(code: u16, body: impl Into<Bytes>) -> Reply {
    let response = Response::builder().status(code).header("content-type", "application/json");
    response.body(BodyExt::boxed(Full::from(body.into()))).unwrap()
}

/// An answer whose body comes in pieces.
pub(crate) fn streamed(frames: impl Stream<Item = Bytes> + Send + 'static) -> Reply {
    let frames = frames.map(|data| Ok::<_, Infallible>(http_body::Frame::data(data)));
    let body = StreamBody::new(SyncStream(Mutex::new(Box::pin(frames))));
    Response::builder().header("content-type", "application/json").body(BodyExt::boxed(body)).unwrap()
}

/// An answer without an end; `sent` counts its bytes.
pub(crate) fn without_end(sent: Arc<AtomicUsize>) -> Reply {
    let piece = Bytes::from(vec![b' '; PIECE]);
    streamed(futures::stream::repeat_with(move || {
        sent.fetch_add(PIECE, Ordering::Relaxed);
        piece.clone()
    }))
}

type Frames = Pin<Box<dyn Stream<Item = Result<http_body::Frame<Bytes>, Infallible>> + Send>>;
/// A stream that may be shared, as boxed bodies must.
struct SyncStream(Mutex<Frames>);

impl Stream for SyncStream {
    type Item = Result<http_body::Frame<Bytes>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        self.0.lock().as_mut().poll_next(cx)
    }
}

/// A server that ends with its tasks.
pub(crate) struct Https {
    pub(crate) port: u16,
    /// Who vouches for it.
    pub(crate) authority: Arc<Authority>,
    pub(crate) tasks: Tasks,
    /// Connections so far.
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Https {
    /// Listens with a certificate for `name`. `trusted` vouches for clients, whose name is told with each request.
    pub(crate) async fn start(
        name: &str,
        trusted: Option<&str>,
        port: u16,
        handler: impl Fn(Request<Incoming>, String) -> Answering + Send + Sync + 'static,
    ) -> Self {
        Self::start_again(Arc::new(Authority::in_memory("its-ca").unwrap()), name, trusted, port, handler).await
    }

    /// The same with a certificate by this authority, such as that of one that has ended.
    pub(crate) async fn start_again(
        authority: Arc<Authority>,
        name: &str,
        trusted: Option<&str>,
        port: u16,
        handler: impl Fn(Request<Incoming>, String) -> Answering + Send + Sync + 'static,
    ) -> Self {
        let identity = Identity::Server { name: name.into(), sans: vec![name.into()] };
        let resolver = Resolver::memory(authority.clone(), identity).unwrap();
        let verifier = trusted.map(|trusted| Verifier::new(trusted).unwrap());
        let acceptor = tokio_rustls::TlsAcceptor::from(base::tls::server(resolver, verifier.clone()).unwrap());
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tasks, _failures) = Tasks::root();
        let (connections, handler) = (tasks.clone(), Arc::new(handler));
        let count: Arc<AtomicUsize> = Arc::default();
        let counted = count.clone();
        tasks.spawn_until_cancelled("https", OnFailure::Log, async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (acceptor, handler, verifier) = (acceptor.clone(), handler.clone(), verifier.clone());
                connections.spawn_until_cancelled("connection", OnFailure::Log, async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return Ok::<_, Infallible>(()) };
                    let client = match verifier.map(|verifier| verifier.peer(stream.get_ref().1.peer_certificates())) {
                        Some(Peer::User { name, .. }) => name,
                        _ => String::new(),
                    };
                    let service = hyper::service::service_fn(move |request| {
                        let answering = handler(request, client.clone());
                        async move { Ok::<_, Infallible>(answering.await) }
                    });
                    // How a client ends is its own affair.
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    Ok(())
                });
            }
            Ok::<_, Infallible>(())
        });
        Self { port, authority, tasks, connections: count }
    }
    /// Writes a kubeconfig that leads to it, with the token `secret`.
    pub(crate) fn kubeconfig(&self, directory: &Path) -> PathBuf {
        let bundle = base64::engine::general_purpose::STANDARD.encode(self.authority.bundle());
        let cluster = json!({"server": format!("https://localhost:{}/review", self.port), "certificate-authority-data": bundle});
        let config = json!({"kind": "Config", "apiVersion": "v1", "current-context": "hook",
            "contexts": [{"name": "hook", "context": {"cluster": "hook", "user": "apiserver"}}],
            "clusters": [{"name": "hook", "cluster": cluster}],
            "users": [{"name": "apiserver", "user": {"token": "secret"}}]});
        let path = directory.join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}
