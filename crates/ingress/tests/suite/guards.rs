//! What a request must pass.

use http::{Request, StatusCode};
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

use crate::world::{World, ask, get, nobody};

/// The password is s3cret.
const PASSWORDS: &str = "jane:$apr1$abcdefgh$M2T3erDstkD7SsE2QQnfH0\n";
/// jane and joe with that password.
const JANE: &str = "Basic amFuZTpzM2NyZXQ=";
const JOE: &str = "Basic am9lOnMzY3JldA==";

#[tokio::test]
async fn passwords() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.secret("passwords", "Opaque", &[("auth", PASSWORDS)]);
    let basic = [("auth-type", "basic"), ("auth-secret", "passwords"), ("auth-realm", "the ship")];
    world.simple("a.example", "web", &basic);
    world.simple("missing.example", "web", &[("auth-type", "basic"), ("auth-secret", "none")]);
    let either = [&basic[..], &[("satisfy", "any"), ("whitelist-source-range", "127.0.0.0/8")]].concat();
    world.simple("either.example", "web", &either);
    let address = world.start().await;
    let refused = ask(address, get("a.example", "/")).await;
    assert_eq!((refused.status.as_u16(), refused.header("www-authenticate")), (401, "Basic realm=\"the ship\""));
    let with =
        async |credentials: &str| ask(address, get("a.example", "/").header("authorization", credentials)).await.status.as_u16();
    assert_eq!((with(JANE).await, with(JOE).await, with(JANE).await), (200, 401, 200));
    assert_eq!(ask(address, get("missing.example", "/").header("authorization", JANE)).await.status, 503);
    assert_eq!(ask(address, get("either.example", "/")).await.status, 200);
    // Another password holds without another start.
    world.secret("passwords", "Opaque", &[("auth", "joe:{PLAIN}s3cret")]);
    crate::world::until(address, || get("a.example", "/").header("authorization", JOE), |answer| answer.status == 200).await;
    assert_eq!(with(JANE).await, 401);
}

#[tokio::test]
async fn somebody_else_says_who_may_pass() {
    let world = World::new();
    let backend = world.backend("web").await;
    world.service("web", &[backend]);
    let url = "http://web.a.svc.cluster.local/auth";
    world.simple("a.example", "web", &[("auth-url", url), ("auth-response-headers", "X-User, X-Saw")]);
    world.simple("signin.example", "web", &[("auth-url", url), ("auth-signin", "https://login.example/start")]);
    world.service("dead", &[nobody().await]);
    world.simple("dead.example", "web", &[("auth-url", "http://dead.a.svc/auth")]);
    let address = world.start().await;
    let with =
        async |host: &str, word: &str| ask(address, get(host, "/x?y=1").header("x-word", word).header("x-user", "root")).await;
    let seen = with("a.example", "good").await.seen();
    assert_eq!((&seen["headers"]["x-user"], &seen["headers"]["x-saw"]), (&"jane".into(), &"http://a.example/x?y=1".into()));
    // A client neither takes that away nor says it in other words.
    let other = get("a.example", "/x").header("x-word", "good").header("connection", "x-user, x-saw").header("x_user", "root");
    let seen = ask(address, other).await.seen();
    assert_eq!((&seen["headers"]["x-user"], &seen["headers"]["x-saw"]), (&"jane".into(), &"http://a.example/x".into()));
    assert_eq!(seen["headers"].get("x_user"), None);
    assert_eq!(with("a.example", "bad").await.status, 403);
    let unknown = with("a.example", "").await;
    assert_eq!((unknown.status.as_u16(), unknown.header("www-authenticate")), (401, "Word"));
    let signin = with("signin.example", "").await;
    let location = "https://login.example/start?rd=http%3A%2F%2Fsignin.example%2Fx%3Fy%3D1";
    assert_eq!((signin.status.as_u16(), signin.header("location")), (302, location));
    assert_eq!(with("dead.example", "good").await.status, 500);
}

/// `auth-always-set-cookie` of ingress-nginx: "By default, the cookie will be set only if an upstream reports with the code 200, 201, 204, 206, 301, 302, 303, 304, 307,
/// or 308." So sessions are renewed by whoever is asked.
#[tokio::test]
async fn cookies_of_who_is_asked_reach_the_client() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    let url = ("auth-url", "http://web.a.svc.cluster.local/auth");
    world.simple("a.example", "web", &[url]);
    world.simple("always.example", "web", &[url, ("auth-always-set-cookie", "true")]);
    let address = world.start().await;
    let cookies = async |host: &str, path: &str, word: &str| {
        let answer = ask(address, get(host, path).header("x-word", word).header("x-renewed", "s=2")).await;
        let cookies = answer.headers.get_all("set-cookie").into_iter().map(|cookie| cookie.to_str().unwrap().to_owned());
        (answer.status.as_u16(), cookies.collect::<Vec<_>>())
    };
    assert_eq!(cookies("a.example", "/", "good").await, (200, vec!["s=2".to_owned(), "seen=1".to_owned()]));
    assert_eq!(cookies("a.example", "/unavailable", "good").await, (503, Vec::new()));
    assert_eq!(cookies("always.example", "/unavailable", "good").await, (503, vec!["s=2".to_owned(), "seen=1".to_owned()]));
}

#[tokio::test]
async fn addresses_rates_and_what_is_closed() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.simple("outside.example", "web", &[("whitelist-source-range", "192.0.2.0/24")]);
    world.simple("denied.example", "web", &[("denylist-source-range", "127.0.0.0/8")]);
    world.simple("slow.example", "web", &[("limit-rpm", "2"), ("limit-burst-multiplier", "1")]);
    world.simple("closed.example", "web", &[("auth-snippet", "deny all;")]);
    world.simple("wrong.example", "web", &[("whitelist-source-range", "nowhere")]);
    let address = world.start().await;
    let status = async |host: &str| ask(address, get(host, "/")).await.status.as_u16();
    assert_eq!((status("outside.example").await, status("denied.example").await), (403, 403));
    let mut limited = Vec::new();
    for _ in 0..5 {
        limited.push(status("slow.example").await);
    }
    assert_eq!(limited, [200, 200, 200, 503, 503]);
    assert_eq!((status("closed.example").await, status("wrong.example").await), (503, 503));
    // What a client says of itself is no address.
    let spoofed = get("outside.example", "/").header("x-forwarded-for", "192.0.2.1").header("x-real-ip", "192.0.2.1");
    assert_eq!(ask(address, spoofed).await.status, 403);
}

#[tokio::test]
async fn cross_origin_requests() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.simple("a.example", "web", &[("enable-cors", "true"), ("cors-allow-origin", "https://app.example")]);
    let address = world.start().await;
    let preflight = Request::options("/").header("host", "a.example").header("origin", "https://app.example");
    let preflight = ask(address, preflight.header("access-control-request-method", "PUT")).await;
    let allowed = "https://app.example";
    assert_eq!((preflight.status.as_u16(), preflight.header("access-control-allow-origin")), (204, allowed));
    let answer = ask(address, get("a.example", "/").header("origin", "https://app.example")).await;
    assert_eq!((answer.seen()["name"].as_str(), answer.header("access-control-allow-origin")), (Some("web"), allowed));
    let other = ask(address, get("a.example", "/").header("origin", "https://other.example")).await;
    assert_eq!(other.header("access-control-allow-origin"), "");
}

/// What is refused of an Ingress is not to be had by a broader path of another one.
#[tokio::test]
async fn refused_paths_are_closed() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.simple("a.example", "web", &[]);
    let path = |path: &str, backend: &Value| json!({"path": path, "pathType": "ImplementationSpecific", "backend": backend});
    let (web, bucket) = (
        json!({"service": {"name": "web", "port": {"number": 80}}}),
        json!({"resource": {"apiGroup": "storage.example", "kind": "Bucket", "name": "b"}}),
    );
    let put = |name: &str, annotations: Value, spec: Value| {
        let metadata = json!({"namespace": "other", "name": name, "annotations": annotations});
        let mut ingress = json!({"metadata": metadata, "spec": spec});
        ingress["spec"]["ingressClassName"] = json!("knarr");
        world.fake.put::<Ingress>(&serde_json::from_value(ingress).unwrap());
    };
    let rules = |host: &str, paths: &[Value]| json!([{"host": host, "http": {"paths": paths}}]);
    put("bucket", json!({}), json!({"rules": rules("a.example", &[path("/bucket", &bucket)])}));
    let regex = json!({"nginx.ingress.kubernetes.io/use-regex": "true"});
    put("wrong", regex, json!({"rules": rules("a.example", &[path("/wrong/(", &web)])}));
    put("large", json!({}), json!({"rules": rules("a.example", &[path("/large", &web)]), "tls": vec![json!({}); 20_000]}));
    let address = world.start().await;
    for (path, expected) in [("/bucket", 503), ("/wrong/x", 503), ("/large", 503), ("/wrong", 200), ("/x", 200)] {
        assert_eq!(ask(address, get("a.example", path)).await.status, expected, "{path}");
    }
}

/// What a path guards is not to be had by a broader one of another Ingress, also where there is no room for its regular expression.
#[tokio::test]
async fn a_path_without_room_is_closed() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.simple("a.example", "web", &[]);
    // One of them has to wait for room on any machine.
    let path = |number: usize| {
        json!({"path": format!("/{number}/\\w{{12}}"), "pathType": "ImplementationSpecific",
            "backend": {"service": {"name": "own", "port": {"number": 80}}}})
    };
    let annotations = json!({"nginx.ingress.kubernetes.io/use-regex": "true",
        "nginx.ingress.kubernetes.io/whitelist-source-range": "192.0.2.1/32"});
    let rules = json!([{"host": "a.example", "http": {"paths": (10..30).map(path).collect::<Vec<_>>()}}]);
    let guarded = json!({"metadata": {"namespace": "crowded", "name": "guarded", "annotations": annotations},
        "spec": {"ingressClassName": "knarr", "rules": rules}});
    world.fake.put::<Ingress>(&serde_json::from_value(guarded).unwrap());
    let address = world.start().await;
    let check = async |path: &str, expected: StatusCode| {
        assert_eq!(ask(address, get("a.example", path)).await.status, expected, "{path}");
    };
    check("/10/abcdefghijkl", StatusCode::FORBIDDEN).await;
    check("/10/x", StatusCode::OK).await;
    check("/29/abcdefghijkl", StatusCode::SERVICE_UNAVAILABLE).await;
    check("/29/x", StatusCode::SERVICE_UNAVAILABLE).await;
    check("/x", StatusCode::OK).await;
}
