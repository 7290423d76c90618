//! What the tests share.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::readiness::Readiness;
use base::tasks::{Failures, OnFailure, Tasks};
use base::tls::{Authority, Request as Issue};
use bytes::Bytes;
use client::fake::Fake;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use ingress::{Handle, Options, Service};
use k8s_openapi::api::core::v1::{Secret, Service as ApiService};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub(crate) type BoxBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// A cluster with ingress.
pub(crate) struct World {
    pub(crate) fake: Fake,
    pub(crate) tasks: Tasks,
    pub(crate) authority: Authority,
    pub(crate) readiness: Readiness,
    directory: tempfile::TempDir,
    _failures: Failures,
}

/// An answer with its whole body.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// What a back end said that it saw.
    pub(crate) fn seen(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{} {:?}", self.status, self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let (tasks, failures) = Tasks::root();
        let (fake, authority) = (Fake::default(), Authority::in_memory("test").unwrap());
        let class = json!({"metadata": {"name": "knarr"}, "spec": {"controller": "knarr.io/ingress"}});
        fake.put::<IngressClass>(&serde_json::from_value(class).unwrap());
        let directory = tempfile::tempdir().unwrap();
        Self { fake, tasks, authority, readiness: Readiness::default(), directory, _failures: failures }
    }

    /// The same cluster, for ingress that starts once more.
    pub(crate) fn again(&self) -> Self {
        Self { fake: self.fake.clone(), ..Self::new() }
    }

    /// A file with these authorities (PEM).
    pub(crate) fn authorities(&self, bundle: &str) -> std::path::PathBuf {
        let path = self.directory.path().join("authorities.pem");
        std::fs::write(&path, bundle).unwrap();
        path
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            client: self.fake.client(),
            listen: vec![[127, 0, 0, 1].into()],
            http_port: 0,
            https_port: 0,
            addresses: vec![[192, 0, 2, 10].into()],
            nodes_lead_here: true,
            own: Vec::new(),
            reserved: Default::default(),
            ranges: Vec::new(),
            domain: "cluster.local".into(),
            proxy_protocol: false,
            at_once: None,
            trusted: Vec::new(),
            access_log: false,
            acme_issuers: Default::default(),
            acme_authorities: None,
        }
    }

    pub(crate) fn start_with(&self, options: Options) -> Handle {
        // Without anything to serve the doors stay closed.
        if self.fake.all::<Ingress>().is_empty() {
            self.simple("door.example", "none", &[]);
        }
        self.begin(options)
    }

    /// Starts ingress with what is there.
    pub(crate) fn begin(&self, options: Options) -> Handle {
        Service::build(options, self.tasks.child()).unwrap().start(self.readiness.gate("ingress"))
    }

    pub(crate) async fn start(&self) -> SocketAddr {
        self.start_with(self.options()).http().await.unwrap()
    }

    pub(crate) async fn start_tls(&self) -> (SocketAddr, SocketAddr) {
        let handle = self.start_with(self.options());
        (handle.http().await.unwrap(), handle.https().await.unwrap())
    }

    /// An Ingress with one host and one path for everything.
    pub(crate) fn simple(&self, host: &str, service: &str, annotations: &[(&str, &str)]) {
        self.ingress(host, annotations, &json!({"rules": [rule(host, "/", "Prefix", service)]}));
    }

    pub(crate) fn ingress(&self, name: &str, annotations: &[(&str, &str)], spec: &Value) {
        let named = annotations.iter().map(|(name, value)| (format!("nginx.ingress.kubernetes.io/{name}"), (*value).to_owned()));
        let annotations: BTreeMap<String, String> = named.collect();
        let mut spec = spec.clone();
        spec["ingressClassName"] = json!("knarr");
        let metadata = json!({"namespace": "a", "name": name, "uid": name, "annotations": annotations});
        self.fake.put::<Ingress>(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
    }

    /// A Service with these endpoints behind its port 80.
    pub(crate) fn service(&self, name: &str, endpoints: &[SocketAddr]) {
        self.service_of(name, &json!({"ports": [{"name": "web", "port": 80}]}), endpoints);
    }

    pub(crate) fn service_of(&self, name: &str, spec: &Value, endpoints: &[SocketAddr]) {
        let metadata = json!({"namespace": "a", "name": name});
        self.fake.put::<ApiService>(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
        self.endpoints(name, endpoints);
    }

    /// Other endpoints, one slice for each of some places, as each has a port of its own.
    pub(crate) fn endpoints(&self, service: &str, endpoints: &[SocketAddr]) {
        for place in 0..4 {
            let list: Vec<Value> = endpoints.get(place).iter().map(|at| json!({"addresses": [at.ip()]})).collect();
            let port = endpoints.get(place).map_or(1, SocketAddr::port);
            let metadata = json!({"namespace": "a", "name": format!("{service}-{place}"), "labels": {"kubernetes.io/service-name": service}});
            let slice =
                json!({"metadata": metadata, "addressType": "IPv4", "ports": [{"name": "web", "port": port}], "endpoints": list});
            self.fake.put::<EndpointSlice>(&serde_json::from_value(slice).unwrap());
        }
    }

    /// A Secret with a certificate for a host, signed by the test's authority.
    pub(crate) fn certificate(&self, name: &str, host: &str) {
        let identity = self.authority.issue(&Issue::Server { name: host.into(), sans: vec![host.into()] }).unwrap();
        self.secret(name, "kubernetes.io/tls", &[("tls.crt", &identity.certificate), ("tls.key", &identity.key)]);
    }

    pub(crate) fn secret(&self, name: &str, kind: &str, data: &[(&str, &str)]) {
        let bytes = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
        let mut secret = Secret { type_: Some(kind.to_owned()), ..Secret::default() };
        secret.metadata.name = Some(name.to_owned());
        secret.metadata.namespace = Some("a".to_owned());
        secret.data = Some(data.iter().map(|(key, value)| ((*key).to_owned(), bytes(value))).collect());
        self.fake.put(&secret);
    }

    /// Starts a back end that tells what it saw, under this name.
    pub(crate) async fn backend(&self, name: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = self.tasks.clone();
        self.tasks.spawn_until_cancelled("back end", OnFailure::Log, async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tasks.spawn_until_cancelled("connection of a back end", OnFailure::Log, serve(stream, name));
            }
            #[allow(unreachable_code)]
            Ok::<_, Infallible>(())
        });
        address
    }

    /// Starts a back end that notes path and body of each request, and answers with the next of these statuses, in the end with 200.
    pub(crate) async fn noting(&self, statuses: &'static [u16]) -> (SocketAddr, mpsc::UnboundedReceiver<(String, Bytes)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, tasks) = (listener.local_addr().unwrap(), self.tasks.clone());
        let ((noted, notes), next) = (mpsc::unbounded_channel(), Arc::new(AtomicUsize::new(0)));
        self.tasks.spawn_until_cancelled("back end", OnFailure::Log, async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (noted, next) = (noted.clone(), next.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (noted, next) = (noted.clone(), next.clone());
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                        noted.send((path, body)).unwrap();
                        let status = statuses.get(next.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or(200);
                        Ok::<_, Infallible>(Response::builder().status(status).body(full("noted")).unwrap())
                    }
                });
                tasks.spawn_until_cancelled("connection of a back end", OnFailure::Log, async move {
                    // A connection that breaks is a test's own doing.
                    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                    Ok::<_, Infallible>(())
                });
            }
            #[allow(unreachable_code)]
            Ok::<_, Infallible>(())
        });
        (address, notes)
    }

    /// The same over TLS, with a certificate of the world's authority for this host.
    pub(crate) async fn tls_backend(&self, name: &'static str, host: &str) -> SocketAddr {
        let identity = self.authority.issue(&Issue::Server { name: host.into(), sans: vec![host.into()] }).unwrap();
        let certified = rustls::sign::SingleCertAndKey::from((*identity.certified().unwrap()).clone());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(certified));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, tasks) = (listener.local_addr().unwrap(), self.tasks.clone());
        self.tasks.spawn_until_cancelled("back end", OnFailure::Log, async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let accepted = acceptor.accept(stream);
                tasks.spawn_until_cancelled("connection of a back end", OnFailure::Log, async move {
                    // Who does not trust the certificate breaks off.
                    if let Ok(stream) = accepted.await {
                        let _ = serve(stream, name).await;
                    }
                    Ok::<_, Infallible>(())
                });
            }
            #[allow(unreachable_code)]
            Ok::<_, Infallible>(())
        });
        address
    }
}

pub(crate) fn rule(host: &str, path: &str, kind: &str, service: &str) -> Value {
    let backend = json!({"service": {"name": service, "port": {"number": 80}}});
    json!({"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}})
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub(crate) async fn serve<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: I,
    name: &'static str,
) -> Result<(), Infallible> {
    let service = service_fn(move |request| async move { Ok::<_, Infallible>(behave(request, name).await) });
    // A connection that breaks is a test's own doing.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(TokioIo::new(stream), service).await;
    Ok(())
}

pub(crate) fn full(text: impl Into<Bytes>) -> BoxBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

async fn behave(mut request: Request<Incoming>, name: &'static str) -> Response<BoxBody> {
    match request.uri().path() {
        "/silent" => std::future::pending().await,
        "/echo" => {
            let status = StatusCode::OK;
            let body = request.into_body().map_err(std::io::Error::other).boxed_unsync();
            Response::builder().status(status).body(body).unwrap()
        }
        "/trickle" => {
            let first = futures::stream::once(async { Ok(Frame::data(Bytes::from_static(b"first"))) });
            let rest = futures::stream::pending();
            Response::new(StreamBody::new(futures::StreamExt::chain(first, rest)).boxed_unsync())
        }
        "/trailers" => {
            let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            let frames = [Ok(Frame::data(Bytes::from_static(b"message"))), Ok(Frame::trailers(trailers))];
            Response::new(StreamBody::new(futures::stream::iter(frames)).boxed_unsync())
        }
        "/upgrade" => {
            let upgrade = hyper::upgrade::on(&mut request);
            // The test that upgrades owns this connection and ends it.
            #[allow(clippy::disallowed_methods)]
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let (mut from, mut to) = tokio::io::split(&mut io);
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
            let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
            response.body(full("")).unwrap()
        }
        "/unavailable" => Response::builder().status(503).body(full(name)).unwrap(),
        "/auth" => authenticate(&request),
        _ => {
            let headers: BTreeMap<&str, &str> =
                request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())).collect();
            let (method, version) = (request.method().as_str(), format!("{:?}", request.version()));
            let host = request.uri().authority().map(|authority| authority.to_string());
            let seen = json!({"name": name, "method": method, "path": request.uri().path_and_query().unwrap().as_str(),
                "version": version, "authority": host, "headers": headers});
            Response::builder().header(header::CONTENT_TYPE, "application/json").body(full(seen.to_string())).unwrap()
        }
    }
}

/// Whoever says `good` may pass.
fn authenticate(request: &Request<Incoming>) -> Response<BoxBody> {
    let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
    match header("x-word") {
        "good" => {
            let mut response = Response::builder().header("x-user", "jane").header("x-saw", header("x-original-url"));
            if request.headers().contains_key("x-renewed") {
                response = response.header("set-cookie", header("x-renewed")).header("set-cookie", "seen=1");
            }
            response.body(full("")).unwrap()
        }
        "bad" => Response::builder().status(403).body(full("")).unwrap(),
        _ => Response::builder().status(401).header("www-authenticate", "Word").body(full("")).unwrap(),
    }
}

/// Sends one request over a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: http::request::Builder) -> Answer {
    send(TcpStream::connect(address).await.unwrap(), request.body(full("")).unwrap()).await
}

pub(crate) fn get(host: &str, path: &str) -> http::request::Builder {
    Request::get(path).header("host", host)
}

pub(crate) async fn send<I>(stream: I, request: Request<BoxBody>) -> Answer
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut connection: Pin<Box<_>> = Box::pin(connection);
    let answer = async {
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

/// Asks again until the answer is as wanted.
pub(crate) async fn until(
    address: SocketAddr,
    request: impl Fn() -> http::request::Builder,
    wanted: impl Fn(&Answer) -> bool,
) -> Answer {
    let asking = async {
        loop {
            let answer = ask(address, request()).await;
            if wanted(&answer) {
                return answer;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.expect("the wanted answer in time")
}

/// A TLS connection for a host, whose certificate the test's authority has signed.
pub(crate) async fn connect_tls(
    world: &World,
    address: SocketAddr,
    host: &str,
    protocol: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut config = base::tls::client(world.authority.bundle(), None).unwrap();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).unwrap();
    let stream = TcpStream::connect(address).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// The same, whoever has signed its certificate.
pub(crate) async fn connect_anyway(address: SocketAddr, host: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = base::tls::client_of_anybody().unwrap();
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}
