//! Where requests go, and what back ends see of them.

use std::collections::BTreeSet;

use http::Request;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, ask, connect_tls, full, get, nobody, rule, send, until};

#[tokio::test]
async fn hosts_paths_and_headers() {
    let world = World::new();
    world.service("one", &[world.backend("one").await]);
    world.service("two", &[world.backend("two").await]);
    let rules = [
        rule("a.example", "/", "Prefix", "one"),
        rule("a.example", "/two", "Prefix", "two"),
        rule("*.b.example", "/", "Prefix", "two"),
    ];
    world.ingress("i", &[("x-forwarded-prefix", "/p"), ("upstream-vhost", "inner.example")], &json!({"rules": rules}));
    let address = world.start().await;
    let seen = ask(
        address,
        get("A.example:8080", "/x?y=1")
            .header("x-forwarded-for", "192.0.2.9")
            .header("connection", "x-secret")
            .header("x-secret", "1"),
    )
    .await
    .seen();
    assert_eq!((&seen["name"], &seen["path"], &seen["version"]), (&json!("one"), &json!("/x?y=1"), &json!("HTTP/1.1")));
    let headers = &seen["headers"];
    let expected = [
        ("host", "inner.example"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "A.example:8080"),
        ("x-original-forwarded-for", "192.0.2.9"),
        ("x-forwarded-prefix", "/p"),
    ];
    for (name, value) in expected {
        assert_eq!(headers[name], value, "{name} in {headers}");
    }
    assert!(headers.get("x-secret").is_none() && headers["x-request-id"].as_str().unwrap().len() == 32);
    let name = async |host: &str, path: &str| {
        let answer = ask(address, get(host, path)).await;
        if answer.status == 200 { answer.seen()["name"].as_str().unwrap().to_owned() } else { answer.status.as_str().to_owned() }
    };
    assert_eq!(name("a.example", "/two/x").await, "two");
    assert_eq!(name("a.example", "/twox").await, "one");
    assert_eq!(name("a.example", "/%74wo").await, "two");
    assert_eq!(name("x.b.example", "/").await, "two");
    assert_eq!(name("b.example", "/").await, "404");
    assert_eq!(name("a.example", "/../x").await, "400");
}

/// "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a Host header field" (RFC 9112, 3.2). Those of
/// HTTP/1.0 go to the rule without host, as they go to nginx's default server: health checks of old load balancers have none.
#[tokio::test]
async fn requests_without_host() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.service("all", &[world.backend("all").await]);
    world.simple("a.example", "web", &[]);
    let mut every = rule("", "/", "Prefix", "all");
    every.as_object_mut().unwrap().remove("host");
    let address = world.start().await;
    let raw = async |request: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{request}\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(raw("GET / HTTP/1.0").await.starts_with("HTTP/1.0 404"), "no rule is without host yet");
    world.ingress("every", &[], &json!({"rules": [every]}));
    until(address, || get("other.example", "/"), |answer| answer.status == 200).await;
    let answer = raw("GET / HTTP/1.0").await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let seen: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((&seen["name"], &seen["headers"]["x-forwarded-host"]), (&json!("all"), &seen["headers"]["host"]));
    assert!(seen["headers"]["host"].as_str().unwrap().starts_with("127.0.0.1"), "{seen}");
    assert!(raw("GET / HTTP/1.1").await.starts_with("HTTP/1.1 400"));
    assert!(raw("GET / HTTP/1.0\r\nhost: a.example").await.contains("\"name\":\"web\""));
}

#[tokio::test]
async fn without_endpoints_and_without_answers() {
    let world = World::new();
    world.service("empty", &[]);
    world.service("dead", &[nobody().await]);
    world.service("spare", &[world.backend("spare").await]);
    world.service("silent", &[world.backend("silent").await]);
    world.simple("empty.example", "empty", &[]);
    world.simple("missing.example", "missing", &[]);
    world.simple("dead.example", "dead", &[]);
    world.simple("spare.example", "empty", &[("default-backend", "spare")]);
    world.simple("silent.example", "silent", &[("proxy-read-timeout", "1")]);
    let address = world.start().await;
    let status = async |host: &str, path: &str| ask(address, get(host, path)).await.status.as_u16();
    assert_eq!(status("empty.example", "/").await, 503);
    assert_eq!(status("missing.example", "/").await, 503);
    assert_eq!(status("dead.example", "/").await, 502);
    assert_eq!(status("spare.example", "/").await, 200);
    assert_eq!(status("silent.example", "/silent").await, 504);
    // It answers again: not always within the second, on a busy machine.
    until(address, || get("silent.example", "/"), |answer| answer.status == 200).await;
}

#[tokio::test]
async fn redirects_and_rewrites() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.simple("root.example", "web", &[("app-root", "/app")]);
    world.simple(
        "gone.example",
        "web",
        &[("permanent-redirect", "https://new.example$request_uri"), ("permanent-redirect-code", "308")],
    );
    world.simple("temp.example", "web", &[("temporal-redirect", "https://other.example/")]);
    world.simple("forced.example", "web", &[("force-ssl-redirect", "true")]);
    let all =
        [("permanent-redirect", "https://new.example/"), ("temporal-redirect", "https://other.example/"), ("app-root", "/app")];
    world.simple("all.example", "web", &[&all[..], &[("force-ssl-redirect", "true")]].concat());
    world.simple("www.other.example", "web", &[("from-to-www-redirect", "true")]);
    let rewritten = rule("rewrite.example", "/app(/|$)(.*)", "ImplementationSpecific", "web");
    world.ingress("rewrite", &[("rewrite-target", "/$2")], &json!({"rules": [rewritten]}));
    let mut options = world.options();
    options.https_port = 8443;
    let proxy_only = ingress_http(&world, options).await;
    let location = async |host: &str, path: &str| {
        let answer = ask(proxy_only, get(host, path)).await;
        (answer.status.as_u16(), answer.header("location").to_owned())
    };
    assert_eq!(location("root.example", "/").await, (302, "/app".to_owned()));
    assert_eq!(location("root.example", "/x").await, (200, String::new()));
    assert_eq!(location("gone.example", "/x?y").await, (308, "https://new.example/x?y".to_owned()));
    assert_eq!(location("temp.example", "/x").await, (302, "https://other.example/".to_owned()));
    assert_eq!(location("forced.example", "/x?y").await, (308, "https://forced.example:8443/x?y".to_owned()));
    assert_eq!(location("all.example", "/x").await, (302, "https://other.example/".to_owned()));
    assert_eq!(location("all.example", "/").await, (308, "https://all.example:8443/".to_owned()));
    assert_eq!(location("other.example", "/x?y").await, (308, "http://www.other.example/x?y".to_owned()));
    assert_eq!(location("www.other.example", "/x").await, (200, String::new()));
    let path = ask(proxy_only, get("rewrite.example", "/app/x/y?z=1")).await.seen()["path"].clone();
    assert_eq!(path, "/x/y?z=1");
}

async fn ingress_http(world: &World, options: ingress::Options) -> std::net::SocketAddr {
    world.start_with(options).http().await.unwrap()
}

#[tokio::test]
async fn tls_by_name_with_redirect_and_reload() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.certificate("cert", "a.example");
    let spec = json!({"tls": [{"hosts": ["a.example"], "secretName": "cert"}], "rules": [rule("a.example", "/", "Prefix", "web"), rule("b.example", "/", "Prefix", "web")]});
    world.ingress("i", &[], &spec);
    let (http, https) = world.start_tls().await;
    assert_eq!(ask(http, get("a.example", "/")).await.status, 308);
    assert_eq!(ask(http, get("b.example", "/")).await.status, 200);
    let stream = connect_tls(&world, https, "a.example", "http/1.1").await.unwrap();
    let first = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let seen = send(stream, get("a.example", "/").body(full("")).unwrap()).await.seen();
    assert_eq!(seen["headers"]["x-forwarded-proto"], "https");
    // For a host without a certificate one is shown that nobody trusts.
    assert!(connect_tls(&world, https, "b.example", "http/1.1").await.is_err());
    world.certificate("cert", "a.example");
    loop {
        let stream = connect_tls(&world, https, "a.example", "http/1.1").await.unwrap();
        if stream.get_ref().1.peer_certificates().unwrap()[0] != first {
            break;
        }
    }
}

#[tokio::test]
async fn sessions_stay_with_their_endpoint() {
    let world = World::new();
    let backends = [world.backend("one").await, world.backend("two").await, world.backend("three").await];
    world.service("web", &backends);
    for (host, mode) in [("balanced.example", "balanced"), ("persistent.example", "persistent")] {
        world.simple(
            host,
            "web",
            &[
                ("affinity", "cookie"),
                ("affinity-mode", mode),
                ("session-cookie-name", "route"),
                ("session-cookie-max-age", "60"),
            ],
        );
    }
    world.simple("hash.example", "web", &[("upstream-hash-by", "$http_x_user")]);
    world.simple("plain.example", "web", &[]);
    let address = world.start().await;
    for host in ["balanced.example", "persistent.example"] {
        let mut used = BTreeSet::new();
        for _ in 0..16 {
            let answer = ask(address, get(host, "/")).await;
            let name = answer.seen()["name"].clone();
            let cookie = answer.header("set-cookie");
            assert!(cookie.starts_with("route=") && cookie.ends_with("; Path=/; Max-Age=60; HttpOnly"), "{cookie}");
            let cookie = cookie.split(';').next().unwrap();
            for _ in 0..4 {
                let again = ask(address, get(host, "/").header("cookie", cookie)).await;
                assert_eq!((&again.seen()["name"], again.header("set-cookie")), (&name, ""), "{host}");
            }
            used.insert(name.as_str().unwrap().to_owned());
        }
        assert!(used.len() > 1, "{host}: {used:?}");
    }
    let mut by_user = BTreeSet::new();
    for user in 0..12 {
        let name = async || ask(address, get("hash.example", "/").header("x-user", user)).await.seen()["name"].clone();
        let first = name().await;
        assert_eq!(name().await, first);
        by_user.insert(first.as_str().unwrap().to_owned());
    }
    assert!(by_user.len() > 1);
    let mut turns = Vec::new();
    for _ in 0..6 {
        turns.push(ask(address, get("plain.example", "/")).await.seen()["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(turns[..3].iter().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(turns[..3], turns[3..]);
}

#[tokio::test]
async fn canaries() {
    let world = World::new();
    world.service("main", &[world.backend("main").await]);
    world.service("canary", &[world.backend("canary").await]);
    let spec = |service| json!({"rules": [rule("a.example", "/", "Prefix", service)]});
    world.ingress("main", &[("affinity", "cookie")], &spec("main"));
    world.ingress("canary", &[("canary", "true"), ("canary-by-header", "x-canary"), ("canary-weight", "0")], &spec("canary"));
    let address = world.start().await;
    let plain = ask(address, get("a.example", "/")).await;
    assert_eq!(plain.seen()["name"], "main");
    let taken = ask(address, get("a.example", "/").header("x-canary", "always")).await;
    assert_eq!(taken.seen()["name"], "canary");
    // A session stays with the canary.
    let cookie = taken.header("set-cookie").split(';').next().unwrap().to_owned();
    assert_eq!(ask(address, get("a.example", "/").header("cookie", &cookie)).await.seen()["name"], "canary");
}

#[tokio::test]
async fn status_and_events() {
    let world = World::new();
    world.simple("a.example", "web", &[("configuration-snippet", "return 200;")]);
    let address = world.start().await;
    assert_eq!(ask(address, Request::get("/").header("host", "a.example")).await.status, 503);
    let has_address = |ingresses: &[Ingress]| {
        ingresses.iter().any(|ingress| {
            let balancer = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.clone());
            balancer.is_some_and(|list| list[0].ip.as_deref() == Some("192.0.2.10"))
        })
    };
    world.fake.until::<Ingress>(has_address).await;
    let told = |events: &[Event]| {
        events.iter().any(|event| {
            event.reason.as_deref() == Some("UnsupportedAnnotation")
                && event.message.as_deref().is_some_and(|message| message.contains("configuration-snippet"))
                && event.involved_object.name.as_deref() == Some("a.example")
        })
    };
    world.fake.until::<Event>(told).await;
}
