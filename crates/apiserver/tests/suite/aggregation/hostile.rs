//! Servers of aggregated APIs that hang, answer garbage or without an end, redirect, close, lie, or lead back: what the others serve
//! stays as it is, and the condition says why.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tower::Service as _;

use super::*;
use crate::custom::{define, definition};
use crate::https::{Reply, streamed, whole, without_end};

/// Registers a server that answers every request in this way: `NAME.example.com`, by the service `ns/NAME`.
async fn hostile(server: &Server, name: &str, answer: impl Fn(&str) -> Option<Reply> + Clone + Send + Sync + 'static) -> Https {
    let https = Https::start(&format!("{name}.ns.svc"), None, 0, move |request, _| {
        let answer = answer(request.uri().path());
        Box::pin(async move {
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    })
    .await;
    register_as(server, name, &format!("{name}.example.com"), https.port, trusting(&https)).await;
    https
}

fn list(name: &str) -> String {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{name}.example.com/v1"), "resources": [
        {"name": "things", "singularName": "thing", "namespaced": false, "kind": "Thing", "verbs": ["get"]}]})
    .to_string()
}

/// The versions of a group as aggregated discovery tells them.
async fn discovered(server: &Server, group: &str) -> Value {
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let groups = admin(&server.api, &format!("GET /apis\naccept: {v2}")).await.json();
    let found = groups["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == group);
    found.unwrap_or_else(|| panic!("{group} is not there"))["versions"].clone()
}

async fn is_told(server: &Server, name: &str, status: &str, expected: &str) {
    let condition = condition_of(server, &format!("{name}.example.com"), |condition| condition["status"] == status).await;
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains(expected), "{name}: {message}");
    let reason = if status == "True" { "Passed" } else { "FailedDiscoveryCheck" };
    assert_eq!(condition["reason"], reason, "{name}");
    let versions = discovered(server, &format!("{name}.example.com")).await;
    assert_eq!((&versions[0]["freshness"], &versions[0]["resources"]), (&json!("Stale"), &json!([])), "{name}");
}

/// Upstream's `remote_available_controller.go` looks at the status of the answer to `GET /apis/GROUP/VERSION`, and says in the
/// condition what is wrong with it; KEP-3352: a group version whose resources cannot be had is "Stale".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_says_nothing_of_the_others() {
    let server = serve().await;
    namespace(&server.api, "ns").await;
    let sent: Arc<AtomicUsize> = Arc::default();
    let asked: Arc<AtomicUsize> = Arc::default();
    let (endless, count) = (sent.clone(), asked.clone());
    let _hangs = hostile(&server, "hangs", move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        None
    })
    .await;
    while asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // While that one is waited for, and as many that one after the other takes a minute, another one is found at once.
    let mut waited = Vec::new();
    for number in 0..12 {
        waited.push(hostile(&server, &format!("waited{number}"), |_| None).await);
    }
    let started = Instant::now();
    let _good = hostile(&server, "good", |path| {
        Some(whole(200, if path == "/apis/good.example.com/v1" { list("good") } else { "{}".into() }))
    })
    .await;
    let condition = condition_of(&server, "good.example.com", |condition| condition["status"] == "True").await;
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(condition["message"], "all checks passed");

    let first = || futures::stream::once(async { Bytes::from_static(b"{\"kind\":\"APIResourceList\",") });
    let _body = hostile(&server, "body", move |_| Some(streamed(first().chain(futures::stream::pending())))).await;
    let _garbage = hostile(&server, "garbage", |_| Some(whole(200, "<html>"))).await;
    let _nested = hostile(&server, "nested", |_| Some(whole(200, "[".repeat(900_000)))).await;
    let _other = hostile(&server, "other", |_| Some(whole(200, r#"{"resources": [{"name": 5}]}"#))).await;
    let _endless = hostile(&server, "endless", move |_| Some(without_end(endless.clone()))).await;
    let _refuses = hostile(&server, "refuses", |_| Some(whole(403, "{}"))).await;
    let to = format!("https://localhost:{}/apis/good.example.com/v1", _good.port);
    let _redirects = hostile(&server, "redirects", move |_| {
        let mut reply = whole(302, "");
        reply.headers_mut().insert("location", to.parse().unwrap());
        Some(reply)
    })
    .await;
    let closing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closing.local_addr().unwrap().port();
    server.tasks.spawn_until_cancelled("closes", base::tasks::OnFailure::Log, async move {
        while closing.accept().await.is_ok() {}
        Ok::<_, Infallible>(())
    });
    register_as(&server, "closes", "closes.example.com", port, json!({"insecureSkipTLSVerify": true})).await;

    is_told(&server, "hangs", "False", "context deadline exceeded").await;
    is_told(&server, "body", "True", "but its resources cannot be read: context deadline exceeded").await;
    is_told(&server, "garbage", "True", "but its resources cannot be read: json parse error: invalid character '<'").await;
    is_told(&server, "nested", "True", "exceeded max depth").await;
    is_told(&server, "other", "True", "a resource without a name or a kind").await;
    is_told(&server, "endless", "True", "the response body is larger than 1048576 bytes").await;
    is_told(&server, "refuses", "False", "bad status from https://refuses.ns.svc:").await;
    is_told(&server, "redirects", "False", "/apis/redirects.example.com/v1: 302").await;
    is_told(&server, "closes", "False", "failing or missing response from https://closes.ns.svc:").await;
    // What was read of the answer without an end, its list and its document, is what may be read.
    assert!(sent.load(Ordering::Relaxed) < 64 << 20, "{}", sent.load(Ordering::Relaxed));

    // All of the others are as they were.
    let good = discovered(&server, "good.example.com").await;
    assert_eq!((&good[0]["freshness"], &good[0]["resources"][0]["resource"]), (&json!("Current"), &json!("things")));
    assert_eq!(discovered(&server, "apps").await[0]["freshness"], "Current");
    let groups = admin(&server.api, "GET /apis").await.json();
    let names: Vec<&str> = groups["groups"].as_array().unwrap().iter().filter_map(|group| group["name"].as_str()).collect();
    assert!(["good.example.com", "hangs.example.com", "apps"].iter().all(|name| names.contains(name)), "{names:?}");
    for document in ["/openapi/v2", "/openapi/v3", "/openapi/v3/apis/apps/v1", "/apis/apps/v1", "/apis/garbage.example.com"] {
        assert_eq!(admin(&server.api, &format!("GET {document}")).await.code, 200, "{document}");
    }
    // Who is not available is not asked; the others are, and what they say is passed on as it is.
    for (name, code) in [("hangs", 503), ("closes", 503), ("redirects", 503), ("garbage", 200), ("good", 200)] {
        let answer = admin(&server.api, &format!("GET /apis/{name}.example.com/v1/things")).await;
        assert_eq!(answer.code, code, "{name}: {:?}", answer.body);
    }
}

/// Requests for objects: a server that hangs costs a request its own time and no other, and one that answers without an end is read
/// no faster than the client reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_objects() {
    let server = serve().await;
    namespace(&server.api, "ns").await;
    let sent: Arc<AtomicUsize> = Arc::default();
    let endless = sent.clone();
    let _https = hostile(&server, "hostile", move |path| match path.rsplit('/').next().unwrap() {
        "v1" => Some(whole(200, list("hostile"))),
        "hang" => None,
        "endless" => Some(without_end(endless.clone())),
        "redirect" => {
            let mut reply = whole(307, "");
            reply.headers_mut().insert("location", "https://127.0.0.1/api/v1/secrets".parse().unwrap());
            Some(reply)
        }
        "garbage" => Some(whole(200, "\0<html>")),
        _ => Some(whole(404, "{}")),
    })
    .await;
    condition_of(&server, "hostile.example.com", |condition| condition["status"] == "True").await;
    let of = |name: &str| format!("GET /apis/hostile.example.com/v1/things/{name}");
    assert_eq!(admin(&server.api, &format!("{}?timeout=1s", of("hang"))).await.code, 504);
    assert_eq!(admin(&server.api, &of("redirect")).await.code, 502);
    let garbage = admin(&server.api, &of("garbage")).await;
    assert_eq!((garbage.code, &garbage.body[..]), (200, &b"\0<html>"[..]));

    let user = registry::User { name: "admin".into(), groups: vec!["system:masters".into()], ..registry::User::default() };
    let request = Request::get("/apis/hostile.example.com/v1/things/endless").body(Full::<Bytes>::default()).unwrap();
    let answer = server.api.as_user(user).call(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let (mut body, mut read) = (answer.into_body(), 0);
    while read < 64 << 20 {
        read += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
        let ahead = sent.load(Ordering::Relaxed).saturating_sub(read);
        assert!(ahead < 32 << 20, "{ahead} bytes are on their way");
    }
    drop(body);
    assert_eq!(admin(&server.api, "GET /api/v1/namespaces/ns").await.code, 200);
}

/// Users who have sent large objects to a server that does not answer are in nobody's way who writes a large one here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_that_are_waited_for() {
    let server = serve().await;
    namespace(&server.api, "ns").await;
    let asked: Arc<AtomicUsize> = Arc::default();
    let count = asked.clone();
    let _https = hostile(&server, "slow", move |path| match path.rsplit('/').next().unwrap() {
        "v1" => Some(whole(200, list("slow"))),
        "things" => {
            count.fetch_add(1, Ordering::SeqCst);
            None
        }
        _ => Some(whole(404, "{}")),
    })
    .await;
    condition_of(&server, "slow.example.com", |condition| condition["status"] == "True").await;
    let text = "x".repeat(200_000);
    // More than are worked on at once.
    let places = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let waiting = (0..2 * places).map(|number| {
        let user =
            registry::User { name: format!("user-{number}"), groups: vec!["system:masters".into()], ..registry::User::default() };
        let request = Request::post("/apis/slow.example.com/v1/things").body(Full::from(text.clone())).unwrap();
        server.api.as_user(user).call(request)
    });
    let here = async {
        while asked.load(Ordering::SeqCst) < places {
            tokio::task::yield_now().await;
        }
        let object = json!({"metadata": {"name": "large"}, "data": {"text": text}});
        admin(&server.api, &format!("POST /api/v1/namespaces/ns/configmaps\n\n{object}")).await.code
    };
    tokio::select! {
        code = here => assert_eq!(code, 201),
        _ = futures::future::join_all(waiting) => panic!("the slow server has answered"),
    }
}

/// A document that tells of what others serve, or tells nonsense, changes nothing of theirs.
#[tokio::test]
async fn documents_that_lie() {
    let server = serve().await;
    namespace(&server.api, "ns").await;
    define(&server.api, &definition("foos", "Foo", json!({"type": "object", "description": "ours"}))).await;
    let before = admin(&server.api, "GET /openapi/v2").await.json();
    let to = |name: &str| json!({"schema": {"$ref": format!("#/definitions/{name}")}});
    let (pod, foo) = ("io.k8s.api.core.v1.Pod", "com.example.v1.Foo");
    assert!(before["definitions"][foo].is_object());
    let own = json!({"get": {"responses": {"200": to(pod), "201": to(foo), "202": to("Own"), "203": to("Nonsense")}}});
    let document = json!({"swagger": "2.0",
        "paths": {"/apis/liar.example.com/v1/things": own, "/api/v1/pods": own, "/apis/apps/v1/deployments": own,
            "/apis/liar.example.com/v1/nonsense": [5]},
        "definitions": {pod: {"type": "string"}, foo: {"type": "string"}, "Own": {"type": "string"}, "Nonsense": 5, "Other": {}}});
    let _https = hostile(&server, "liar", move |path| {
        Some(whole(200, if path == "/openapi/v2" { document.to_string() } else { list("liar") }))
    })
    .await;
    let path = "/apis/liar.example.com/v1/things";
    let mut tag = String::new();
    let text = loop {
        let answer = admin(&server.api, &format!("GET /openapi/v2\nif-none-match: {tag}")).await;
        answer.headers["etag"].to_str().unwrap().clone_into(&mut tag);
        if answer.code == 200 && std::str::from_utf8(&answer.body).unwrap().contains(&format!("\"{path}\"")) {
            break answer.body;
        }
        tokio::task::yield_now().await;
    };
    let after: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(after.to_string().len(), text.len(), "a name is there twice");
    for (key, added) in [("paths", vec![path]), ("definitions", vec!["Own"])] {
        let mut expected = before[key].as_object().unwrap().clone();
        // The group itself has a document, as each has.
        expected.extend(
            after[key]
                .as_object()
                .unwrap()
                .iter()
                .filter(|(name, _)| *name == "/apis/liar.example.com/")
                .map(|(name, item)| (name.clone(), item.clone())),
        );
        expected.extend(added.iter().map(|name| ((*name).to_owned(), after[key][*name].clone())));
        assert!(*after[key].as_object().unwrap() == expected, "{key}");
    }
    assert_eq!(after["definitions"]["Own"], json!({"type": "string"}));
    let protobuf = "GET /openapi/v2\naccept: application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    assert_eq!(admin(&server.api, protobuf).await.code, 200);
}

/// Lets who has not said who they are do everything.
async fn let_in_everybody(server: &Server) {
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "system:anonymous", "apiGroup": "rbac.authorization.k8s.io"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(admin(&server.api, &format!("POST {bindings}\n\n{binding}")).await.code, 201);
    while ask(&server.api, "", "GET /api/v1/namespaces/ns").await.code != 200 {
        tokio::task::yield_now().await;
    }
}

/// An APIService that leads to the API server itself: it is never available, whoever may do everything.
#[tokio::test]
async fn its_own_server() {
    let server = serve().await;
    namespace(&server.api, "ns").await;
    let_in_everybody(&server).await;
    register_as(&server, "own", "own.example.com", server.address.port(), json!({"insecureSkipTLSVerify": true})).await;
    is_told(&server, "own", "False", "bad status from https://own.ns.svc:").await;
    assert_eq!(admin(&server.api, "GET /apis/own.example.com/v1/things").await.code, 503);
}

/// Asks the API server over TLS, as nobody.
async fn ask_back(address: SocketAddr, path: String) -> Option<Reply> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?.dangerous();
    let config = builder.with_custom_certificate_verifier(Arc::new(base::tls::Unverified::default())).with_no_client_auth();
    let stream = TcpStream::connect(address).await.ok()?;
    let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").ok()?, stream).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(path).header("host", "localhost").body(Full::<Bytes>::default()).ok()?;
    let answer = async {
        let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
        Some(whole(parts.status.as_u16(), body.collect().await.ok()?.to_bytes()))
    };
    tokio::select! {
        answer = answer => answer,
        _ = connection => None,
    }
}

/// A request that is under way.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A server that asks the API server for what it is asked for: the time of the first request ends them all, and others are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_leads_back() {
    let server = serve().await;
    namespace(&server.api, "ns").await;
    let_in_everybody(&server).await;
    let (address, all, under_way) = (server.address, Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (counted, left) = (all.clone(), under_way.clone());
    let https = Https::start("loops.ns.svc", None, 0, move |request, _| {
        let path = request.uri().to_string();
        if path.ends_with("/v1") {
            return Box::pin(async { whole(200, list("loops")) });
        }
        counted.fetch_add(1, Ordering::SeqCst);
        left.fetch_add(1, Ordering::SeqCst);
        let guard = UnderWay(left.clone());
        Box::pin(async move {
            let _guard = guard;
            ask_back(address, path).await.unwrap_or_else(|| whole(502, "{}"))
        })
    })
    .await;
    register_as(&server, "loops", "loops.example.com", https.port, trusting(&https)).await;
    condition_of(&server, "loops.example.com", |condition| condition["status"] == "True").await;
    let others = async {
        while all.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        admin(&server.api, "GET /api/v1/namespaces/ns").await.code
    };
    let looping = admin(&server.api, "GET /apis/loops.example.com/v1/things?timeout=2s");
    let (answer, code) = tokio::join!(looping, others);
    assert!(matches!(answer.code, 429 | 502..=504), "{} {:?}", answer.code, answer.body);
    assert_eq!(code, 200);
    while under_way.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
}
