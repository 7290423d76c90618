//! What the Gateway API calls extended or experimental: origins, retries, sessions, copies, changes by one back end.

use std::collections::BTreeSet;

use http::Request;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};

use crate::gateway::{gateway, install, route};
use crate::world::{World, ask, full, get, send, until};

/// A world with these rules for a.example; where it is served over HTTP. Its route has answered.
async fn served(world: &World, rules: Value) -> SocketAddr {
    let handle = world.start_with(ingress::Options { http_port: 0, https_port: 0, ..world.options() });
    let http = handle.http().await.unwrap();
    install(world).await;
    gateway(world, json!([{"name": "http", "port": 0, "protocol": "HTTP"}])).await;
    world.service("ready", &[world.backend("ready").await]);
    let mut rules = rules;
    let ready =
        json!({"matches": [{"path": {"type": "Exact", "value": "/ready"}}], "backendRefs": [{"name": "ready", "port": 80}]});
    rules.as_array_mut().unwrap().push(ready);
    route(world, "r", &["a.example"], rules).await;
    until(http, || get("a.example", "/ready"), |answer| answer.status == 200).await;
    http
}

/// HTTPRouteRetry (GEP-1731): "configuration for when to retry an HTTP request", with codes, attempts and a back-off.
#[tokio::test]
async fn requests_are_sent_again() {
    let world = World::new();
    let (flaky, mut notes) = world.noting(&[503, 500, 200, 503, 503, 503, 503]).await;
    world.service("flaky", &[flaky]);
    let rules = json!([{"retry": {"codes": [500, 503], "attempts": 2, "backoff": "1ms"}, "backendRefs": [{"name": "flaky", "port": 80}]}]);
    let http = served(&world, rules).await;
    assert_eq!(ask(http, get("a.example", "/")).await.status, 200);
    assert_eq!(ask(http, get("a.example", "/")).await.status, 503, "the first and two more");
    for _ in 0..6 {
        notes.recv().await.unwrap();
    }
    // What may have had its effect is not repeated.
    let post = Request::post("/").header("host", "a.example");
    assert_eq!(ask(http, post).await.status, 503);
}

/// HTTPRouteRetryWithTimeouts of the conformance tests: "any retry attempts which reach the configured BackendRequest timeout duration without a response SHOULD be
/// canceled", and the next one follows.
#[tokio::test]
async fn an_attempt_that_takes_too_long_is_followed_by_another() {
    let world = World::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.service("half", &[silent.local_addr().unwrap(), world.backend("good").await]);
    let backends = json!([{"name": "half", "port": 80}]);
    let timeouts = json!({"backendRequest": "3s"});
    let once = json!({"matches": [{"path": {"value": "/once"}}], "timeouts": timeouts, "backendRefs": backends});
    let http = served(&world, json!([once, {"retry": {"attempts": 1}, "timeouts": timeouts, "backendRefs": backends}])).await;
    for _ in 0..2 {
        assert_eq!(ask(http, get("a.example", "/")).await.status, 200);
    }
    let statuses = [ask(http, get("a.example", "/once")).await.status, ask(http, get("a.example", "/once")).await.status];
    assert!(statuses.iter().any(|status| *status == 504), "{statuses:?}");
}

/// HTTPURLRewriteFilter and HTTPRequestRedirectFilter: what was escaped stays so, since it means something else to some back ends.
#[tokio::test]
async fn escapes_of_paths_stay() {
    let world = World::new();
    world.service("one", &[world.backend("one").await]);
    let backends = json!([{"name": "one", "port": 80}]);
    let path = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"});
    let rewrite = json!({"type": "URLRewrite", "urlRewrite": {"path": path}});
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"hostname": "b.example", "port": 80, "path": path}});
    let at = |value: &str| json!([{"path": {"type": "PathPrefix", "value": value}}]);
    let rules = json!([
        {"matches": at("/git"), "filters": [rewrite], "backendRefs": backends},
        {"matches": at("/moved%20on"), "filters": [redirect]},
    ]);
    let http = served(&world, rules).await;
    let seen = ask(http, get("a.example", "/git/projects/group%2Fproject%3Fx?y=1")).await.seen()["path"].clone();
    assert_eq!(seen, "/new/projects/group%2Fproject%3Fx?y=1");
    let moved = ask(http, get("a.example", "/moved%20on/a%20b%3Fc?d=1")).await;
    assert_eq!((moved.status.as_u16(), moved.header("location")), (302, "http://b.example/new/a%20b%3Fc?d=1"));
}

/// HTTPRequestMirrorFilter: "Mirrored requests must be sent only to a single destination endpoint within this BackendRef".
#[tokio::test]
async fn copies_are_sent() {
    let world = World::new();
    let ((main, mut asked), (one, mut copies)) = (world.noting(&[]).await, world.noting(&[500]).await);
    world.service("main", &[main]);
    world.service("copies", &[one]);
    let mirror = |percent: u32| json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "copies", "port": 80}, "percent": percent}});
    let backend = json!([{"name": "main", "port": 80}]);
    let rules = json!([
        {"matches": [{"path": {"value": "/never"}}], "filters": [mirror(0)], "backendRefs": backend},
        {"filters": [mirror(100)], "backendRefs": backend},
    ]);
    let http = served(&world, rules).await;
    assert_eq!(ask(http, get("a.example", "/never")).await.body, "noted");
    let large = "x".repeat(200_000);
    let post = |text: &str| Request::post("/b").header("host", "a.example").body(full(text.to_owned())).unwrap();
    assert_eq!(send(TcpStream::connect(http).await.unwrap(), post(&large)).await.status, 200);
    assert_eq!(copies.recv().await.unwrap(), ("/b".to_owned(), large.clone().into()));
    assert_eq!(ask(http, get("a.example", "/a")).await.status, 200, "whatever the one with the copy says");
    assert_eq!(copies.recv().await.unwrap(), ("/a".to_owned(), "".into()));
    let paths: Vec<_> =
        [asked.recv().await, asked.recv().await, asked.recv().await].into_iter().map(|one| one.unwrap().0).collect();
    assert_eq!(paths, ["/never", "/b", "/a"]);
}

/// SessionPersistence (GEP-1619) of a rule whose traffic is split.
#[tokio::test]
async fn sessions_stay_with_their_back_end() {
    let world = World::new();
    world.service("one", &[world.backend("one").await, world.backend("two").await]);
    world.service("three", &[world.backend("three").await]);
    let backends = json!([{"name": "one", "port": 80}, {"name": "three", "port": 80}]);
    let rules = json!([
        {"matches": [{"path": {"value": "/other"}}], "sessionPersistence": {}, "backendRefs": backends},
        {"matches": [{"path": {"value": "/named"}}], "sessionPersistence": {"type": "Cookie", "cookie": {"name": "SX"}}, "backendRefs": backends},
        {"sessionPersistence": {"sessionName": "s"}, "backendRefs": backends},
    ]);
    let http = served(&world, rules).await;
    let mut names = BTreeSet::new();
    for _ in 0..60 {
        let first = ask(http, get("a.example", "/")).await;
        let cookie = first.header("set-cookie").to_owned();
        assert!(cookie.starts_with("s=") && !cookie.contains("Max-Age"), "{cookie}");
        let pair = cookie.split(';').next().unwrap().to_owned();
        let name = first.seen()["name"].clone();
        for _ in 0..3 {
            let again = ask(http, get("a.example", "/").header("cookie", &pair)).await;
            assert_eq!((&again.seen()["name"], again.header("set-cookie")), (&name, ""));
        }
        names.insert(name.as_str().unwrap().to_owned());
    }
    assert_eq!(names.len(), 3, "{names:?}");
    let other = ask(http, get("a.example", "/other")).await;
    assert!(other.header("set-cookie").starts_with("knarr-"), "a rule's own cookie: {}", other.header("set-cookie"));
    let named = ask(http, get("a.example", "/named")).await.header("set-cookie").to_owned();
    assert!(named.starts_with("SX=") && named.contains("; Path=/;"), "{named}");
}

/// HTTPCORSFilter: what a browser asks beforehand, and what answers say.
#[tokio::test]
async fn origins_are_told() {
    let world = World::new();
    world.service("one", &[world.backend("one").await]);
    let filter = json!({"type": "CORS", "cors": {"allowOrigins": ["https://*.b.example"], "allowMethods": ["*"], "allowCredentials": true, "maxAge": 60}});
    let changes = json!([
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-of", "value": "back end"}]}},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-from", "value": "back end"}]}},
    ]);
    let own =
        json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-of", "value": "rule"}]}}, filter]);
    let rules = json!([{"filters": own, "backendRefs": [{"name": "one", "port": 80, "filters": changes}]}]);
    let http = served(&world, rules).await;
    let asks = |origin: &str| {
        Request::options("/").header("host", "a.example").header("origin", origin).header("access-control-request-method", "PUT")
    };
    let allowed = ask(http, asks("https://x.b.example")).await;
    let told = |name: &str| allowed.header(&format!("access-control-{name}")).to_owned();
    assert_eq!(
        (allowed.status.as_u16(), told("allow-origin"), told("allow-methods"), told("allow-headers"), told("max-age")),
        (204, "https://x.b.example".into(), "PUT".into(), String::new(), "60".into())
    );
    let refused = ask(http, asks("https://evil.example")).await;
    assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-origin")), (204, ""));
    let plain = ask(http, get("a.example", "/").header("origin", "https://x.b.example")).await;
    assert_eq!((plain.header("access-control-allow-origin"), plain.header("x-from")), ("https://x.b.example", "back end"));
    assert_eq!(plain.seen()["headers"]["x-of"], "back end", "its own after the rule's");
}
