#![allow(clippy::unwrap_used)]
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use base::tasks::OnFailure;
use base::tls::{Authority, Request as Identity};
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use registry::Context;
use rustls::ServerConfig;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpListener;

use super::*;
use crate::testing::{Opened, open};

/// A body of zeros without an end.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(&[0; 4096])))))
    }
}

async fn answer(request: Request<hyper::body::Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/hang" => std::future::pending().await,
        "/endless" => Response::new(BodyExt::boxed(Endless)),
        "/redirect" => {
            let response = Response::builder().status(StatusCode::FOUND).header("location", "/echo");
            response.body(BodyExt::boxed(Full::default())).unwrap()
        }
        "/close" => {
            let response = Response::builder().header("connection", "close");
            response.body(BodyExt::boxed(Full::default())).unwrap()
        }
        _ => {
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let said = format!("{path} {host} {}", String::from_utf8_lossy(&body));
            Response::new(BodyExt::boxed(Full::from(said)))
        }
    })
}

struct World {
    opened: Opened,
    remotes: Remotes,
    authority: Arc<Authority>,
    /// Where the server listens.
    port: u16,
    /// Connections that it has accepted.
    accepted: Arc<AtomicUsize>,
}

/// A server on a free port with this configuration, and the number of connections that it has accepted.
async fn serve(config: Arc<ServerConfig>, tasks: &Tasks) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, accepted) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let (own, count) = (tasks.clone(), accepted.clone());
    tasks.spawn_until_cancelled("server", OnFailure::Log, async move {
        loop {
            let stream = listener.accept().await?.0;
            let acceptor = tokio_rustls::TlsAcceptor::from(config.clone());
            count.fetch_add(1, Ordering::SeqCst);
            own.spawn_until_cancelled("connection", OnFailure::Log, async move {
                // A client that does not believe the certificate ends it.
                if let Ok(stream) = acceptor.accept(stream).await {
                    let service = hyper::service::service_fn(answer);
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                }
                Ok::<_, Infallible>(())
            });
        }
        #[allow(unreachable_code)]
        Ok::<_, std::io::Error>(())
    });
    (port, accepted)
}

async fn world() -> World {
    let opened = open().await;
    let authority = Arc::new(Authority::in_memory("hooks").unwrap());
    let names = vec!["127.0.0.1".to_owned(), "hook.ns.svc".to_owned()];
    let identity = Resolver::memory(authority.clone(), Identity::Server { name: "hook".into(), sans: names }).unwrap();
    let (port, accepted) = serve(base::tls::server(identity, None).unwrap(), &opened.tasks).await;
    World { remotes: Remotes::new(opened.tasks.child(), Default::default()), opened, authority, port, accepted }
}

fn encoded(bundle: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(bundle)
}

impl World {
    fn target(&self, path: &str) -> Target {
        let url = format!("https://127.0.0.1:{}{path}", self.port);
        Target::of_client_config(&json!({"url": url, "caBundle": encoded(self.authority.bundle())})).unwrap()
    }

    /// What the target answers in time and 100,000 bytes: status and body, or the error.
    async fn call(&self, target: &Target) -> String {
        let endpoint = self.remotes.endpoint(target);
        self.call_endpoint(&endpoint).await
    }

    async fn call_endpoint(&self, endpoint: &Endpoint) -> String {
        let request = Request::post(endpoint.target().path.as_str()).body(Full::from("question")).unwrap();
        // Who hangs is seen soon; others have the time of a slow machine.
        let time = Duration::from_secs(if endpoint.target().path == "/hang" { 1 } else { 60 });
        let limits = Limits { time, bytes: 100_000 };
        match endpoint.call(&self.opened.registry, request, limits).await {
            Ok(response) => format!("{} {}", response.status().as_u16(), String::from_utf8_lossy(response.body())),
            Err(error) => error.to_string(),
        }
    }

    async fn create(&self, group: &str, plural: &str, object: Value) {
        let resource = self.opened.registry.resource(group, "v1", plural).unwrap();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        self.opened.registry.create(&Context::default(), &resource, &namespace, None, object).await.unwrap();
    }
}

#[tokio::test]
async fn connections_are_kept_and_shared() {
    let world = world().await;
    let target = world.target("/echo");
    let endpoint = world.remotes.endpoint(&target);
    assert!(Arc::ptr_eq(&endpoint, &world.remotes.endpoint(&target)));
    for _ in 0..3 {
        assert_eq!(world.call_endpoint(&endpoint).await, format!("200 /echo 127.0.0.1:{} question", world.port));
    }
    assert_eq!(world.accepted.load(Ordering::SeqCst), 1);
    // A connection that its server has closed is replaced.
    let closing = world.remotes.endpoint(&world.target("/close"));
    assert_eq!((world.call_endpoint(&closing).await, world.call_endpoint(&closing).await), ("200 ".into(), "200 ".into()));
    assert_eq!(world.accepted.load(Ordering::SeqCst), 3);
    drop(endpoint);
    assert!(world.remotes.endpoints.lock()[&target].upgrade().is_none());
}

#[tokio::test]
async fn servers_are_not_trusted() {
    let world = world().await;
    let started = Instant::now();
    assert_eq!(world.call(&world.target("/hang")).await, "context deadline exceeded");
    assert_eq!(world.call(&world.target("/endless")).await, "the response body is larger than 100000 bytes");
    assert_eq!(world.call(&world.target("/redirect")).await, "302 ");
    assert!(started.elapsed() < Duration::from_secs(60));
    let nobody = Target { place: Place::Host { host: "127.0.0.1".into(), port: 1 }, ..world.target("/") };
    assert_eq!(world.call(&nobody).await, "dial tcp 127.0.0.1:1: connect: connection refused");
}

#[tokio::test]
async fn only_whom_the_bundle_vouches_for_is_called() {
    let world = world().await;
    let stranger = Authority::in_memory("stranger").unwrap();
    let with = |bundle: Option<&str>, host: &str| Target {
        ca_bundle: bundle.map(str::to_owned),
        place: Place::Host { host: host.into(), port: world.port },
        ..world.target("/echo")
    };
    let unknown = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert_eq!(world.call(&with(Some(stranger.bundle()), "127.0.0.1")).await, unknown);
    let other_name = world.call(&with(Some(world.authority.bundle()), "localhost")).await;
    assert!(other_name.starts_with("tls: failed to verify certificate: x509: "), "{other_name}");
    assert_eq!(
        world.call(&with(Some("nonsense"), "127.0.0.1")).await.split(':').next(),
        Some("unable to load root certificates")
    );
    let unverified = Target { unverified: true, ..with(Some(stranger.bundle()), "127.0.0.1") };
    assert!(world.call(&unverified).await.starts_with("200 "));
}

/// `openssl req -x509` makes a certificate that is its own authority; it is in the bundle, so it is believed.
#[tokio::test]
async fn a_certificate_may_vouch_for_itself() {
    let world = world().await;
    let check = async |names: &[&str], expected: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let (port, _) = serve(Arc::new(config), &world.opened.tasks).await;
        let place = Place::Host { host: "127.0.0.1".into(), port };
        let target = Target { place, ca_bundle: Some(certificate.pem()), ..world.target("/echo") };
        let got = world.call(&target).await;
        assert!(got.starts_with(expected), "{got}");
    };
    check(&["127.0.0.1"], "200 ").await;
    check(&["127.0.0.2"], "tls: failed to verify certificate: x509: ").await;
}

#[tokio::test]
async fn services() {
    let world = world().await;
    let config = json!({"service": {"namespace": "ns", "name": "hook", "port": world.port, "path": "echo"},
        "caBundle": encoded(world.authority.bundle())});
    let target = Target::of_client_config(&config).unwrap();
    assert_eq!(target.url("timeout=5s"), format!("https://hook.ns.svc:{}/echo?timeout=5s", world.port));
    assert_eq!(world.call(&target).await, "service \"hook\" not found");
    let service = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "ns"}, "spec": spec});
    world.create("", "services", service("empty", json!({"ports": [{"port": 443}]}))).await;
    assert_eq!(
        world.call(&Target { path: "/".into(), ..Target::service("ns", "empty", 443) }).await,
        "no endpoints available for service \"empty\""
    );
    assert_eq!(world.call(&Target::service("ns", "empty", 80)).await, "no service port 80 found for service \"empty\"");
    // The name of the service is what the certificate has to be for, whatever is dialled.
    world.create("", "services", service("hook", json!({"type": "ExternalName", "externalName": "127.0.0.1.nip.invalid"}))).await;
    assert!(world.call(&target).await.starts_with("dial tcp: lookup 127.0.0.1.nip.invalid: "));
}

#[test]
fn client_configurations() {
    let check = |config: Value, expected: Result<&str, &str>| {
        let got = Target::of_client_config(&config).map(|target| target.url("")).map_err(|error| error.to_string());
        assert_eq!(got.as_deref().map_err(String::as_str), expected, "{config}");
    };
    check(json!({"url": "https://a.b"}), Ok("https://a.b:443/"));
    check(json!({"url": "https://[::1]:8443/c"}), Ok("https://[::1]:8443/c"));
    check(json!({"service": {"namespace": "n", "name": "s"}}), Ok("https://s.n.svc:443/"));
    check(json!({"service": {"namespace": "n", "name": "s", "port": 99, "path": "/p"}}), Ok("https://s.n.svc:99/p"));
    check(json!({"url": "http://a.b"}), Err("unparsable webhook URL \"http://a.b\": the scheme must be https"));
    check(json!({}), Err("webhook configuration must have either service or URL"));
    check(json!({"service": {"port": 70000}}), Err("invalid port 70000"));
    let unreadable = Target::of_client_config(&json!({"url": "https://a", "caBundle": "?"})).unwrap_err().to_string();
    assert!(unreadable.starts_with("unable to load root certificates: "), "{unreadable}");
}

/// Who never answers has no more of a tunnel than who does: a user's place is taken before anybody is dialled.
#[tokio::test]
async fn a_user_dials_no_more_than_places_allow() {
    let opened = open().await;
    let (near, _far) = tokio::io::duplex(1 << 16);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(near)).await.unwrap();
    let mut kept = tokio::task::JoinSet::new();
    kept.spawn(connection);
    let tunnels = Arc::new(Tunnels::default());
    tunnels.opened("n", sender);
    let target = Target::of_client_config(&json!({"url": "https://127.0.0.1:1/"})).unwrap();
    let endpoint = Remotes::new(opened.tasks.child(), tunnels).endpoint(&target);
    let address = || resolve::Address { node: Some("n".into()), host: "127.0.0.1".into(), port: 1 };
    let dial = |user| Box::pin(endpoint.dial_one_of(vec![address()], user));
    let mut dialling = Vec::new();
    let refused = loop {
        let mut one = dial(Some("jane"));
        match futures::poll!(&mut one) {
            std::task::Poll::Pending => dialling.push(one),
            std::task::Poll::Ready(answer) => break answer.err().unwrap(),
        }
        assert!(dialling.len() < 1000);
    };
    assert!(matches!(refused, Error::Streams(_)) && dialling.len() > 10, "{refused}");
    // Others have theirs, and so has the server itself.
    assert!(futures::poll!(dial(Some("joe"))).is_pending() && futures::poll!(dial(None)).is_pending());
    drop(dialling);
    assert!(futures::poll!(dial(Some("jane"))).is_pending());
}
