//! APIs that other servers serve: real servers, over TLS, to which requests are forwarded.

mod hostile;

use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::https::{Https, Reply, streamed, whole};
use crate::server::{Server, admin, ask, grant, namespace, serve};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// What the other server was asked: method, path and query, the user's headers, and who vouches for them.
#[derive(Clone, Debug, Default)]
struct Asked {
    line: String,
    user: Vec<String>,
    proxy: String,
    body: String,
    audit_id: String,
}

/// A server of `wardle.example.com/v1`.
struct Wardle {
    https: Https,
    asked: Arc<Mutex<Vec<Asked>>>,
}

async fn answer(request: Request<hyper::body::Incoming>, proxy: String, asked: Arc<Mutex<Vec<Asked>>>) -> Reply {
    let line = format!("{} {}", request.method(), request.uri());
    let mut user: Vec<String> = request
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-remote-") || name.as_str() == "authorization")
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    user.sort();
    let audit_id = request.headers().get("audit-id").map(|id| id.to_str().unwrap().to_owned()).unwrap_or_default();
    let path = request.uri().path().to_owned();
    let watch = request.uri().query().is_some_and(|query| query.contains("watch"));
    let body = String::from_utf8(request.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    asked.lock().push(Asked { line, user, proxy, body, audit_id });
    let json = |code: u16, body: Value| whole(code, body.to_string());
    match path.as_str() {
        "/apis/wardle.example.com/v1" => json(
            200,
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1",
            "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["create", "get", "list", "watch"]},
                {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]}]}),
        ),
        "/openapi/v2" => json(
            200,
            json!({"swagger": "2.0", "definitions": {"com.example.wardle.v1.Flunder": {"type": "object"}},
            "paths": {"/apis/wardle.example.com/v1/flunders": {"get": {"responses": {"200": {
                "schema": {"$ref": "#/definitions/com.example.wardle.v1.Flunder"}}}}}, "/api/v1/pods": {"get": {"x": "theirs"}}}}),
        ),
        "/openapi/v3/apis/wardle.example.com/v1" => json(200, json!({"openapi": "3.0.0", "info": {"title": "wardle"}})),
        _ if watch => {
            let event = Bytes::from_static(b"{\"type\":\"BOOKMARK\",\"object\":{}}\n");
            streamed(futures::stream::once(async move { event }).chain(futures::stream::pending()))
        }
        _ => json(201, json!({"kind": "Flunder", "apiVersion": "wardle.example.com/v1", "metadata": {"name": "f"}})),
    }
}

impl Wardle {
    /// Listens with a certificate for `api.ns.svc`. `front_proxy` vouches for whoever forwards requests.
    async fn start(front_proxy: &str, port: u16) -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let seen = asked.clone();
        let https = Https::start("api.ns.svc", Some(front_proxy), port, move |request, proxy| {
            Box::pin(answer(request, proxy, seen.clone()))
        });
        Self { https: https.await, asked }
    }

    fn last(&self) -> Asked {
        self.asked.lock().last().cloned().unwrap_or_default()
    }
}

/// The authority that other servers believe, as they learn it.
async fn front_proxy(server: &Server) -> String {
    loop {
        let map = admin(&server.api, "GET /api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await;
        if map.code == 200 {
            let data = &map.json()["data"];
            assert_eq!(data["requestheader-allowed-names"], "[\"front-proxy-client\"]");
            assert_eq!(data["client-ca-file"], server.authority.bundle());
            return data["requestheader-client-ca-file"].as_str().unwrap().to_owned();
        }
        tokio::task::yield_now().await;
    }
}

/// Upstream: `cluster_authentication_trust_controller.go`.
#[tokio::test]
async fn what_other_servers_need_to_know_comes_back() {
    let server = serve().await;
    let before = front_proxy(&server).await;
    let deleted = admin(&server.api, "DELETE /api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await;
    assert_eq!(deleted.code, 200);
    assert_eq!(front_proxy(&server).await, before);
    assert!(server.tasks.drain(std::time::Duration::from_secs(60)).await);
}

/// Makes the service `ns/NAME`, which leads to a port of this machine, and the APIService `v1.GROUP`, whose other fields are `trust`.
async fn register_as(server: &Server, name: &str, group: &str, port: u16, trust: Value) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "ExternalName", "externalName": "localhost"}});
    assert_eq!(admin(&server.api, &format!("POST /api/v1/namespaces/ns/services\n\n{service}")).await.code, 201);
    let mut api = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": format!("v1.{group}")},
        "spec": {"group": group, "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": "ns", "name": name, "port": port}}});
    api["spec"].as_object_mut().unwrap().extend(trust.as_object().unwrap().clone());
    let made = admin(&server.api, &format!("POST {SERVICES}\n\n{api}")).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
}

/// What an APIService says of the certificate of a server.
fn trusting(https: &Https) -> Value {
    json!({"caBundle": base64::engine::general_purpose::STANDARD.encode(https.authority.bundle())})
}

async fn register(server: &Server, wardle: &Wardle) {
    namespace(&server.api, "ns").await;
    register_as(server, "api", "wardle.example.com", wardle.https.port, trusting(&wardle.https)).await;
}

/// Waits for a condition `Available`.
async fn available(server: &Server, status: &str) -> Value {
    condition_of(server, "wardle.example.com", |condition| condition["status"] == status).await
}

/// Waits until the condition `Available` of the APIService `v1.GROUP` is as it should be.
async fn condition_of(server: &Server, group: &str, reached: impl Fn(&Value) -> bool) -> Value {
    loop {
        let api = admin(&server.api, &format!("GET {SERVICES}/v1.{group}")).await.json();
        let condition = api["status"]["conditions"][0].clone();
        if condition["type"] == "Available" && reached(&condition) {
            return condition;
        }
        tokio::task::yield_now().await;
    }
}

async fn started() -> (Server, Wardle) {
    let server = serve().await;
    let wardle = Wardle::start(&front_proxy(&server).await, 0).await;
    register(&server, &wardle).await;
    let condition = available(&server, "True").await;
    assert_eq!((&condition["reason"], &condition["message"]), (&json!("Passed"), &json!("all checks passed")));
    (server, wardle)
}

/// What upstream's sample-apiserver proves: requests, their users, discovery and OpenAPI of another server's group, and its end.
///
/// Conformance: [sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator [LinuxOnly] [Conformance]
#[tokio::test]
async fn requests_are_forwarded() {
    let (server, wardle) = started().await;
    let api = &server.api;
    let rules = json!([{"verbs": ["create", "get"], "apiGroups": ["wardle.example.com"], "resources": ["flunders"]}]);
    grant(api, "jane", rules, "GET /apis/wardle.example.com/v1/namespaces/ns/flunders/f").await;
    let path = "/apis/wardle.example.com/v1/namespaces/ns/flunders";
    let body = json!({"kind": "Flunder", "metadata": {"name": "f"}});
    let request = format!("POST {path}?fieldManager=m%2Fn\nx-remote-user: root\nauthorization: Bearer x\n\n{body}");
    let made = ask(api, "jane", &request).await;
    assert_eq!((made.code, &made.json()["kind"]), (201, &json!("Flunder")), "{:?}", made.body);
    let asked = wardle.last();
    assert_eq!(asked.line, format!("POST {path}?fieldManager=m%2Fn"));
    assert_eq!(asked.user, ["x-remote-group: system:authenticated", "x-remote-user: jane"]);
    assert_eq!((asked.proxy.as_str(), asked.body.as_str()), ("front-proxy-client", body.to_string().as_str()));
    // Both know the request by the same name, and so does who asks (`WithAuditInit`, `NewRequestForProxy`).
    assert_eq!((made.headers["audit-id"].to_str().unwrap(), asked.audit_id.len()), (asked.audit_id.as_str(), 36));
    // Who may not is refused here, and the other server is not asked.
    let before = wardle.asked.lock().len();
    let refused = ask(api, "jane", &format!("DELETE {path}/f")).await;
    assert_eq!((refused.code, wardle.asked.lock().len()), (403, before));
    // Discovery, in each of its forms.
    let list = admin(api, "GET /apis/wardle.example.com/v1").await.json();
    assert_eq!(list["resources"][0]["name"], "flunders");
    let group = admin(api, "GET /apis/wardle.example.com").await.json();
    assert_eq!(
        (&group["kind"], &group["preferredVersion"]["groupVersion"]),
        (&json!("APIGroup"), &json!("wardle.example.com/v1"))
    );
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let groups = admin(api, &format!("GET /apis\naccept: {v2}")).await.json();
    let items = groups["items"].as_array().unwrap();
    let own = items.iter().find(|group| group["metadata"]["name"] == "wardle.example.com").unwrap();
    let version = &own["versions"][0];
    assert_eq!((&version["freshness"], &version["resources"][0]["resource"]), (&json!("Current"), &json!("flunders")));
    assert_eq!(version["resources"][0]["subresources"][0]["subresource"], "status");
    // OpenAPI: its own paths are added, ours stay ours.
    let document = loop {
        let document = admin(api, "GET /openapi/v2").await.json();
        if document["paths"].get("/apis/wardle.example.com/v1/flunders").is_some() {
            break document;
        }
        tokio::task::yield_now().await;
    };
    assert!(document["paths"]["/apis/wardle.example.com/v1/flunders"].is_object());
    assert!(document["definitions"]["com.example.wardle.v1.Flunder"].is_object());
    assert_ne!(document["paths"]["/api/v1/pods"]["get"]["x"], "theirs");
    let index = admin(api, "GET /openapi/v3").await.json();
    let url = index["paths"]["apis/wardle.example.com/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert_eq!(admin(api, &format!("GET {url}")).await.json()["info"]["title"], "wardle");
    // It ends with its APIService.
    assert_eq!(admin(api, &format!("DELETE {SERVICES}/v1.wardle.example.com")).await.code, 200);
    while admin(api, &format!("GET {path}/f")).await.code != 404 {
        tokio::task::yield_now().await;
    }
    assert_eq!(admin(api, "GET /apis/wardle.example.com").await.code, 404);
}

#[tokio::test]
async fn watches_are_passed_on_as_they_come() {
    use tower::Service as _;
    let (server, _wardle) = started().await;
    let mut api = server.api.as_user(registry::User {
        name: "admin".into(),
        groups: vec!["system:masters".into()],
        ..registry::User::default()
    });
    let request = Request::get("/apis/wardle.example.com/v1/flunders?watch=true").body(Full::<Bytes>::default()).unwrap();
    let mut body = api.call(request).await.unwrap().into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&frame[..], b"{\"type\":\"BOOKMARK\",\"object\":{}}\n");
}

/// Upstream's `available_controller.go`: what is wrong is a reason, and requests are answered 503 meanwhile.
#[tokio::test]
async fn what_is_not_there_is_unavailable() {
    let (server, wardle) = started().await;
    let api = &server.api;
    // Requests one after the other share a connection.
    let first = wardle.https.connections.load(std::sync::atomic::Ordering::Relaxed);
    for _ in 0..20 {
        assert_eq!(admin(api, "GET /apis/wardle.example.com/v1/namespaces/ns/flunders/f").await.code, 201);
    }
    let all = wardle.https.connections.load(std::sync::atomic::Ordering::Relaxed);
    assert!(all < first + 5, "{} connections", all - first);
    wardle.https.tasks.token().cancel();
    let path = "/apis/wardle.example.com/v1/namespaces/ns/flunders/f";
    // The first request that fails is what makes it known.
    while admin(api, &format!("GET {path}")).await.code != 503 {
        tokio::task::yield_now().await;
    }
    let condition = available(&server, "False").await;
    assert_eq!(condition["reason"], "FailedDiscoveryCheck");
    let message = condition["message"].as_str().unwrap();
    let url = format!("https://api.ns.svc:{}/apis/wardle.example.com/v1", wardle.https.port);
    assert!(message.starts_with(&format!("failing or missing response from {url}: ")), "{message}");
    assert_eq!(admin(api, &format!("GET {path}")).await.body, "service unavailable\n");
    // It comes back by itself, with another certificate when the APIService says so.
    let back = Wardle::start(&front_proxy(&server).await, wardle.https.port).await;
    let bundle = base64::engine::general_purpose::STANDARD.encode(back.https.authority.bundle());
    let change = json!({"spec": {"caBundle": bundle}});
    let changed = format!("PATCH {SERVICES}/v1.wardle.example.com\ncontent-type: application/merge-patch+json\n\n{change}");
    assert_eq!(admin(api, &changed).await.code, 200);
    available(&server, "True").await;
    assert_eq!(admin(api, &format!("GET {path}")).await.code, 201);
    // Its service is what it is found by.
    assert_eq!(admin(api, "DELETE /api/v1/namespaces/ns/services/api").await.code, 200);
    let condition = available(&server, "False").await;
    assert_eq!(
        (&condition["reason"], &condition["message"]),
        (&json!("ServiceNotFound"), &json!("service/api in \"ns\" is not present"))
    );
    // What the alerts KubeAggregatedAPIDown and KubeAggregatedAPIErrors of kube-prometheus ask for.
    let page = base::metrics::Page::Server.encode(base::metrics::Format::Text);
    let value = |line: &str| page.lines().find_map(|found| found.strip_prefix(line)).map(str::trim);
    assert_eq!(value("aggregator_unavailable_apiservice{name=\"v1.wardle.example.com\"}"), Some("1"));
    assert_eq!(value("aggregator_unavailable_apiservice{name=\"v1.apps\"}"), Some("0"));
    for reason in ["FailedDiscoveryCheck", "ServiceNotFound"] {
        let line = format!("aggregator_unavailable_apiservice_total{{name=\"v1.wardle.example.com\",reason=\"{reason}\"}}");
        assert!(value(&line).is_some_and(|count| count != "0"), "{reason}");
    }
    let gone = format!("DELETE {SERVICES}/v1.wardle.example.com");
    assert_eq!(admin(api, &gone).await.code, 200);
    let told = || base::metrics::Page::Server.encode(base::metrics::Format::Text);
    while told().contains("aggregator_unavailable_apiservice{name=\"v1.wardle.example.com\"}") {
        tokio::task::yield_now().await;
    }
}

/// There is an APIService for each group version that is served here, those of custom resources included.
#[tokio::test]
async fn what_is_served_here_has_api_services() {
    let server = serve().await;
    let api = &server.api;
    let found = async |name: &str| admin(api, &format!("GET {SERVICES}/{name}")).await;
    while found("v1.apps").await.code != 200 {
        tokio::task::yield_now().await;
    }
    let apps = found("v1.apps").await.json();
    assert_eq!(apps["status"]["conditions"][0]["reason"], "Local");
    assert_eq!((&apps["spec"]["groupPriorityMinimum"], &apps["spec"]["versionPriority"]), (&json!(17_800), &json!(15)));
    assert_eq!(found("v1.").await.code, 200);
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(admin(api, &format!("POST {path}\n\n{definition}")).await.code, 201);
    while found("v1.example.com").await.code != 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(admin(api, &format!("DELETE {path}/foos.example.com")).await.code, 200);
    while found("v1.example.com").await.code != 404 {
        tokio::task::yield_now().await;
    }
}
