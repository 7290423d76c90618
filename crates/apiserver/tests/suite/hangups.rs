//! Clients that hang up, at each stage of their requests: nothing of a request stays, and the audit log says that it was there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apiserver::{Api, AuditOptions, Identity, LogOptions, authn};
use base::metrics::samples::samples;
use base::metrics::{Format, Page};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use registry::User;
use serde_json::{Value, json};
use tower::Service as _;

use crate::fairness;
use crate::https::Https;
use crate::server::{Server, admin, config_map, grant, populated_namespace, serve_with};
use crate::webhooks::{Hooks, MUTATING, Reply, VALIDATING, allow, register, send};

const MAPS: &str = "/api/v1/namespaces/n/configmaps";

/// What counts requests that are there.
const GAUGES: [&str; 5] = [
    "apiserver_longrunning_requests",
    "apiserver_flowcontrol_current_executing_requests",
    "apiserver_flowcontrol_current_executing_seats",
    "apiserver_flowcontrol_current_inqueue_requests",
    "knarr_budget_used",
];

/// Those that are not zero.
fn left() -> Vec<String> {
    let page = Page::Server.encode(Format::Text);
    let found = samples(&page).filter(|sample| GAUGES.contains(&sample.name) && sample.value != 0.0);
    found.map(|sample| format!("{} {:?}", sample.name, sample.label("budget"))).collect()
}

/// Something happens some time.
async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

/// A request of somebody from outside, who hangs up when `now` holds, and before there is an answer.
async fn hang_up(api: &Api, user: Option<&User>, request: Request<UnsyncBoxBody<Bytes, std::io::Error>>, now: impl Fn() -> bool) {
    if let Some(status) = answered(api, user, request, now).await {
        panic!("it is answered {status}");
    }
}

/// The status of the answer to a request, when there is one before `now` holds, at which the client hangs up.
async fn answered(
    api: &Api,
    user: Option<&User>,
    request: Request<UnsyncBoxBody<Bytes, std::io::Error>>,
    now: impl Fn() -> bool,
) -> Option<StatusCode> {
    let mut request = request;
    if let Some(user) = user {
        request.extensions_mut().insert(Identity::User(Arc::new(user.clone())));
    }
    tokio::select! {
        biased;
        answer = api.clone().call(request) => Some(answer.unwrap().status()),
        () = until(now) => None,
    }
}

fn request(head: &str, body: Option<&Value>) -> Request<UnsyncBoxBody<Bytes, std::io::Error>> {
    let (method, path) = head.split_once(' ').unwrap();
    let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    Request::builder().method(method).uri(path).body(Full::new(body).map_err(|never| match never {}).boxed_unsync()).unwrap()
}

/// What the audit log tells of the last of so many requests that were answered nothing.
async fn told(path: &Path, count: usize) -> Value {
    loop {
        let text = std::fs::read_to_string(path).unwrap();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut closed: Vec<Value> =
            events.filter(|event| event["responseStatus"]["message"] == "Connection closed early").collect();
        if closed.len() >= count {
            assert_eq!(closed.len(), count, "{closed:?}");
            return closed.swap_remove(count - 1);
        }
        tokio::task::yield_now().await;
    }
}

/// Somebody over TLS who takes requests and never answers; the second value counts them.
async fn silent(server: Option<&Server>, name: &str) -> (Https, Arc<AtomicUsize>) {
    let count: Arc<AtomicUsize> = Arc::default();
    let counted = count.clone();
    let handler = move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::pending().boxed() as crate::https::Answering
    };
    let https = match server {
        Some(server) => Https::start_again(server.authority.clone(), name, None, 0, handler).await,
        None => Https::start(name, None, 0, handler).await,
    };
    (https, count)
}

/// A pod `p` on a node whose kubelet takes requests and never answers; the second value counts them.
async fn node_and_pod(server: &Server) -> (Https, Arc<AtomicUsize>) {
    let (kubelet, asked) = silent(Some(server), "127.0.0.1").await;
    let status = json!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}}});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}, "status": status});
    send(&server.api, 201, "POST /api/v1/nodes", &node).await;
    let spec = json!({"nodeName": "node", "containers": [{"name": "c", "image": "i"}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    send(&server.api, 201, "POST /api/v1/namespaces/n/pods", &pod).await;
    (kubelet, asked)
}

#[tokio::test]
async fn nothing_stays_of_a_request_whose_client_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, path) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    let rules =
        "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived, ResponseStarted], rules: [{level: Request}]}";
    std::fs::write(&policy, rules).unwrap();
    let log = LogOptions { path: path.clone(), ..LogOptions::default() };
    let (tokens, tokens_asked) = silent(None, "localhost").await;
    let file = tokens.kubeconfig(dir.path());
    let server = serve_with(|options| {
        options.audit = Some(AuditOptions { policy, log: Some(log), webhook: None });
        options.authentication.webhook =
            Some(apiserver::authn::webhook::Options { file, version: "v1".into(), ttl: Duration::from_secs(60) });
    });
    let server = server.await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let jane = authn::user("jane", Vec::new());
    let rules = json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps", "pods", "pods/log"]}]);
    grant(api, "jane", rules, &format!("GET {MAPS}")).await;
    let mut count = 0;
    let mut gone = async |what: &str| {
        count += 1;
        let event = told(&path, count).await;
        while !left().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!((&event["stage"], &event["responseStatus"]["code"]), (&json!("ResponseComplete"), &json!(200)), "{what}");
        event
    };

    // Before it is known who asks there is nothing to tell.
    let mut unknown = request("GET /version", None);
    unknown.headers_mut().insert(http::header::AUTHORIZATION, "Bearer x".parse().unwrap());
    hang_up(api, None, unknown, || tokens_asked.load(Ordering::Relaxed) == 1).await;
    until(|| left().is_empty()).await;

    // While the body comes.
    let pieces = futures::stream::iter([Ok(http_body::Frame::data(Bytes::from_static(b"{")))]).chain(futures::stream::pending());
    let polled = AtomicUsize::new(0);
    let upload = Request::post(MAPS).body(StreamBody::new(pieces).boxed_unsync()).unwrap();
    hang_up(api, Some(&jane), upload, || polled.fetch_add(1, Ordering::Relaxed) > 2).await;
    assert_eq!(gone("a body").await["user"]["username"], "jane");

    // In a webhook, before and after the object is what it will be.
    let hooks = Hooks::serve(&server.tasks, |path, question| match question["name"] == path[1..] {
        true => Reply::Hang,
        false => allow(),
    });
    let hooks = hooks.await;
    for (kind, name) in [(MUTATING, "mutating"), (VALIDATING, "validating")] {
        let hook = hooks.hook(name, &["CREATE"], &["configmaps"], json!({"timeoutSeconds": 30}));
        register(api, kind, name, &[hook]).await;
    }
    for name in ["mutating", "validating"] {
        let path = format!("/{name}");
        let asked = || hooks.asked.lock().iter().any(|question| question["path"] == *path && question["name"] == name);
        hang_up(api, Some(&jane), request(&format!("POST {MAPS}"), Some(&config_map(name))), asked).await;
        let event = gone(name).await;
        assert_eq!((&event["objectRef"]["name"], &event["requestObject"]["data"]), (&json!(name), &json!({"a": "b"})));
        assert_eq!(admin(api, &format!("GET {MAPS}/{name}")).await.code, 404);
    }

    // While it is written, which happens all the same. On a busy machine the store may be quicker than the first look at the request.
    loop {
        send(api, 201, &format!("POST {MAPS}"), &config_map("written")).await;
        let delete = request(&format!("DELETE {MAPS}/written"), None);
        if answered(api, Some(&jane), delete, || true).await.is_none() {
            break;
        }
    }
    while admin(api, &format!("GET {MAPS}/written")).await.code != 404 {
        tokio::task::yield_now().await;
    }
    assert_eq!(gone("a write").await["verb"], "delete");

    // In the queue for a seat.
    let queuing = json!({"queues": 4, "handSize": 1, "queueLengthLimit": 10});
    let none = fairness::level("joe", 0, json!({"type": "Queue", "queuing": queuing}));
    fairness::create(api, "prioritylevelconfigurations", &none).await;
    fairness::create(api, "flowschemas", &fairness::schema_of("joe", "joe", "joe")).await;
    let joe = authn::user("joe", Vec::new());
    fairness::belongs(api, &joe, "/version?timeout=40ms", "joe").await;
    let waits = || left().iter().any(|gauge| gauge.starts_with("apiserver_flowcontrol_current_inqueue_requests"));
    hang_up(api, Some(&joe), request("GET /version", None), waits).await;
    assert_eq!(gone("a queue").await["user"]["username"], "joe");

    // At a node that does not answer.
    let (_kubelet, kubelet_asked) = node_and_pod(&server).await;
    let follow = request("GET /api/v1/namespaces/n/pods/p/log?follow=true", None);
    hang_up(api, Some(&jane), follow, || kubelet_asked.load(Ordering::Relaxed) == 1).await;
    assert_eq!(gone("a log").await["objectRef"]["subresource"], "log");
}

/// Whoever opens connections to a pod or a node by the server has so many at once, of which each costs descriptors of the one process.
#[tokio::test]
async fn a_user_has_so_many_connections_to_others() {
    // 15 % of them are for such connections (`descriptors::percent::STREAMS`), and of that a quarter for each user.
    base::budgets::descriptors::lower(400);
    const OF_USER: usize = 15;
    let server = serve_with(|_| {}).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let rules = json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["pods", "pods/log", "configmaps"]}]);
    grant(api, "jane", rules.clone(), &format!("GET {MAPS}")).await;
    grant(api, "joe", rules, &format!("GET {MAPS}")).await;
    let (jane, joe) = (authn::user("jane", Vec::new()), authn::user("joe", Vec::new()));
    let (_kubelet, asked) = node_and_pod(&server).await;
    let follow = |user: &User| {
        let mut request = request("GET /api/v1/namespaces/n/pods/p/log?follow=true", None);
        request.extensions_mut().insert(Identity::User(Arc::new(user.clone())));
        api.clone().call(request)
    };
    let mut open: Vec<_> = (0..OF_USER).map(|_| follow(&jane)).collect();
    until_asked(&mut open, || asked.load(Ordering::Relaxed) == OF_USER).await;
    let refused = follow(&jane).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    open.push(follow(&joe));
    until_asked(&mut open, || asked.load(Ordering::Relaxed) == OF_USER + 1).await;
    drop(open);
    let mut again = vec![follow(&jane)];
    until_asked(&mut again, || asked.load(Ordering::Relaxed) == OF_USER + 2).await;
}

/// Goes on with requests that are answered nothing.
async fn until_asked<F: Future + Unpin>(open: &mut [F], what: impl Fn() -> bool) {
    let all = futures::future::select_all(open.iter_mut());
    tokio::select! {
        _ = all => panic!("one is answered"),
        () = until(what) => {}
    }
}
