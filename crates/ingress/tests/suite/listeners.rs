//! Listeners of Gateways for HTTP, HTTPS and TLS at other ports than those of ingress, and ListenerSets.

use std::net::SocketAddr;
use std::time::Duration;

use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gateway::{API, gateway, install, post, route, status};
use crate::ports::{free, free_after};
use crate::world::{World, ask, connect_anyway, connect_tls, full, get, rule, send, until};

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Whether so many listeners are there, and all of them are served.
fn programmed(status: &Value, count: usize) -> bool {
    let listeners = status["listeners"].as_array().map_or(&[][..], Vec::as_slice);
    listeners.len() == count && listeners.iter().all(|listener| listener["conditions"][2]["status"] == "True")
}

fn backends(name: &str) -> Value {
    json!([{"backendRefs": [{"name": name, "port": 80}]}])
}

/// GatewayWithAttachedRoutesWithPort8080 of the conformance tests: a listener for HTTP at any port, with routes of its own, which opens and closes
/// without disturbing anybody.
#[tokio::test]
async fn http_at_any_port() {
    let world = World::new();
    world.service("one", &[world.backend("one").await]);
    world.service("two", &[world.backend("two").await]);
    world.simple("ingress.example", "one", &[]);
    let handle = world.start_with(world.options());
    let http = handle.http().await.unwrap();
    install(&world).await;
    let (first, second) = (free(), free_after(5_000));
    let listener = |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "HTTP"});
    gateway(&world, json!([listener("web", 0), listener("first", first), listener("second", second)])).await;
    let object = |name: &str, section: &str, service: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name, "namespace": "a"},
            "spec": {"parentRefs": [{"name": "g", "sectionName": section}], "hostnames": ["a.example"], "rules": backends(service)}})
    };
    for (name, section, service) in [("r", "first", "one"), ("s", "second", "two")] {
        post(&world, &format!("{API}/namespaces/a/httproutes"), &object(name, section, service)).await;
    }
    status(&world, "/namespaces/a/gateways/g", |status| programmed(status, 3)).await;
    let mut ports = handle.ports();
    ports.wait_for(|ports| ports.len() == 2).await.unwrap();
    let seen = until(at(first), || get("a.example", "/"), |answer| answer.status == 200).await.seen();
    assert_eq!((&seen["name"], &seen["headers"]["x-forwarded-port"]), (&json!("one"), &json!(first.to_string())));
    assert_eq!(until(at(second), || get("a.example", "/"), |answer| answer.status == 200).await.seen()["name"], "two");
    // Each port has its own routes, and Ingresses have none of them.
    assert_eq!(ask(http, get("a.example", "/")).await.status, 404);
    assert_eq!(ask(at(first), get("ingress.example", "/")).await.status, 404);
    assert_eq!(ask(http, get("ingress.example", "/")).await.seen()["name"], "one");
    // A connection under way goes on while another port closes and its own does.
    let mut kept = TcpStream::connect(at(first)).await.unwrap();
    asks(&mut kept).await;
    change(&world, json!([listener("web", 0), listener("first", first)])).await;
    ports.wait_for(|ports| ports.len() == 1).await.unwrap();
    closed(second).await;
    asks(&mut kept).await;
    change(&world, json!([listener("web", 0)])).await;
    closed(first).await;
    // The connection lives, and has come to no route any more.
    kept.write_all(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    kept.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 404");
}

/// Gives the Gateway other listeners.
async fn change(world: &World, listeners: Value) {
    let patch = json!({"spec": {"listeners": listeners}}).to_string().into_bytes();
    let request = Request::patch(format!("{API}/namespaces/a/gateways/g")).header("content-type", "application/merge-patch+json");
    world.fake.client().request::<Value>(request.body(patch).unwrap()).await.unwrap();
}

/// Asks over a connection that is kept, and reads the answer to its end.
async fn asks(stream: &mut TcpStream) {
    stream.write_all(b"GET /unavailable HTTP/1.1\r\nhost: a.example\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\none") {
        let mut buffer = [0; 256];
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "{:?}", String::from_utf8_lossy(&answer));
        answer.extend(&buffer[..length]);
    }
}

async fn closed(port: u16) {
    let closing = async { while TcpStream::connect(at(port)).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), closing).await.expect("the port closes");
}

/// HTTPS and TLS that is passed through at one port (GatewayHTTPSAndTLSPassthroughSamePort of the conformance tests), with certificates of that port.
#[tokio::test]
async fn https_and_tls_at_any_port() {
    let (inner, world) = (World::new(), World::new());
    inner.service("web", &[inner.backend("inner").await]);
    inner.certificate("cert", "abc.example.com");
    let tls = json!([{"hosts": ["abc.example.com"], "secretName": "cert"}]);
    inner.ingress("own", &[], &json!({"tls": tls, "rules": [rule("abc.example.com", "/", "Prefix", "web")]}));
    let (_, behind) = inner.start_tls().await;
    world.service("behind", &[behind]);
    world.service("one", &[world.backend("one").await]);
    world.certificate("cert", "other.example.com");
    let handle = world.start_with(world.options());
    let https = handle.https().await.unwrap();
    install(&world).await;
    let (both, passing) = (free(), free_after(5_000));
    let listeners = json!([
        {"name": "https", "port": both, "protocol": "HTTPS", "hostname": "*.example.com", "tls": {"certificateRefs": [{"name": "cert"}]}},
        {"name": "tls", "port": both, "protocol": "TLS", "hostname": "abc.example.com", "tls": {"mode": "Passthrough"}},
        {"name": "only", "port": passing, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
    ]);
    gateway(&world, listeners).await;
    route(&world, "r", &["other.example.com"], backends("one")).await;
    let object = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute", "metadata": {"name": "t", "namespace": "a"},
        "spec": {"parentRefs": [{"name": "g"}], "hostnames": ["abc.example.com"], "rules": backends("behind")}});
    post(&world, &format!("{API}/namespaces/a/tlsroutes"), &object).await;
    status(&world, "/namespaces/a/gateways/g", |status| programmed(status, 3)).await;
    let ends = connected(&world, both, "other.example.com").await;
    assert_eq!(send(ends, get("other.example.com", "/").body(full("")).unwrap()).await.seen()["name"], "one");
    for port in [both, passing] {
        let passed = connected(&inner, port, "abc.example.com").await;
        assert_eq!(send(passed, get("abc.example.com", "/").body(full("")).unwrap()).await.seen()["name"], "inner", "{port}");
    }
    // A name that is nobody's at a port where TLS ends nowhere: the connection ends before a handshake.
    assert!(connect_tls(&world, at(passing), "other.example.com", "http/1.1").await.is_err());
    // The port of ingress has none of it.
    assert!(connect_tls(&world, https, "other.example.com", "http/1.1").await.is_err(), "the certificate is another port's");
    let stranger = connect_anyway(https, "other.example.com").await;
    assert_eq!(send(stranger, get("other.example.com", "/").body(full("")).unwrap()).await.status, 404);
}

/// TLSRouteTerminateSimpleSameNamespace, TLSRouteMixedTerminationSameNamespace and BackendTLSPolicyTLSRouteTerminate of the conformance tests: what
/// TLS that ends here carries goes on as it is, or over TLS of its own with a policy.
#[tokio::test]
async fn tls_ends_here_for_tls_routes() {
    let world = World::new();
    world.service("one", &[world.backend("one").await]);
    world.service("secured", &[world.tls_backend("secured", "secured.example").await]);
    world.certificate("cert", "a.example.com");
    world.certificate("other", "b.example.com");
    let map = json!({"metadata": {"namespace": "a", "name": "roots"}, "data": {"ca.crt": world.authority.bundle()}});
    world.fake.put::<ConfigMap>(&serde_json::from_value(map).unwrap());
    world.start_with(world.options());
    install(&world).await;
    let port = free();
    let listener = |name: &str, host: &str, secret: &str| json!({"name": name, "port": port, "protocol": "TLS", "hostname": host, "tls": {"mode": "Terminate", "certificateRefs": [{"name": secret}]}});
    gateway(&world, json!([listener("a", "a.example.com", "cert"), listener("b", "b.example.com", "other")])).await;
    for (name, host, service) in [("a", "a.example.com", "one"), ("b", "b.example.com", "secured")] {
        let object = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute", "metadata": {"name": name, "namespace": "a"},
            "spec": {"parentRefs": [{"name": "g"}], "hostnames": [host], "rules": backends(service)}});
        post(&world, &format!("{API}/namespaces/a/tlsroutes"), &object).await;
    }
    status(&world, "/namespaces/a/gateways/g", |status| programmed(status, 2)).await;
    let stream = connected(&world, port, "a.example.com").await;
    assert_eq!(
        send(stream, get("any.example", "/").body(full("")).unwrap()).await.seen()["name"],
        "one",
        "nobody looks at the host"
    );
    let policy = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy",
        "metadata": {"name": "p", "namespace": "a"}, "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "secured"}],
            "validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "roots"}], "hostname": "secured.example"}}});
    post(&world, &format!("{API}/namespaces/a/backendtlspolicies"), &policy).await;
    let accepted = |status: &Value| status["ancestors"][0]["conditions"][0]["status"] == "True";
    status(&world, "/namespaces/a/backendtlspolicies/p", accepted).await;
    let stream = connected(&world, port, "b.example.com").await;
    assert_eq!(send(stream, get("any.example", "/").body(full("")).unwrap()).await.seen()["name"], "secured");
}

/// A connection over TLS, once the certificate is the host's.
async fn connected(world: &World, port: u16, host: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
    let connecting = async {
        loop {
            if let Ok(stream) = connect_tls(world, at(port), host, "http/1.1").await {
                return stream;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), connecting).await.expect("a connection in time")
}

/// A port that is for something else stays open: TCP after HTTP.
#[tokio::test]
async fn a_port_is_for_what_its_listener_says() {
    let world = World::new();
    world.service("one", &[world.backend("one").await]);
    world.start_with(world.options());
    install(&world).await;
    let port = free();
    gateway(&world, json!([{"name": "l", "port": port, "protocol": "HTTP"}])).await;
    until_status(port, 404).await;
    change(&world, json!([{"name": "l", "port": port, "protocol": "TCP"}])).await;
    let object = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute", "metadata": {"name": "r", "namespace": "a"},
        "spec": {"parentRefs": [{"name": "g"}], "rules": backends("one")}});
    post(&world, &format!("{API}/namespaces/a/tcproutes"), &object).await;
    // What the back end says to a host that no route has.
    until_status(port, 200).await;
}

/// Asks until the answer has this status, whether or not somebody is there.
async fn until_status(port: u16, wanted: u16) {
    let asking = async {
        loop {
            let Ok(mut stream) = TcpStream::connect(at(port)).await else { continue };
            let mut head = [0; 12];
            let sent = stream.write_all(b"GET / HTTP/1.1\r\nhost: any.example\r\nconnection: close\r\n\r\n").await;
            if sent.is_ok() && stream.read_exact(&mut head).await.is_ok() && head == *format!("HTTP/1.1 {wanted}").as_bytes() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.expect("the status in time");
}

/// ListenerSetHTTPRouting of the conformance tests: listeners of a ListenerSet are served beside those of its Gateway, and go with it.
#[tokio::test]
async fn listener_sets_add_listeners() {
    let world = World::new();
    world.service("one", &[world.backend("one").await]);
    let handle = world.start_with(world.options());
    let http = handle.http().await.unwrap();
    install(&world).await;
    let port = free();
    let gateway = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "g", "namespace": "a"},
        "spec": {"gatewayClassName": "knarr", "allowedListeners": {"namespaces": {"from": "Same"}},
            "listeners": [{"name": "http", "port": 0, "protocol": "HTTP", "hostname": "own.example"}]}});
    post(&world, &format!("{API}/namespaces/a/gateways"), &gateway).await;
    let set = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "ListenerSet", "metadata": {"name": "s", "namespace": "a"},
        "spec": {"parentRef": {"name": "g"}, "listeners": [
            {"name": "web", "port": 0, "protocol": "HTTP", "hostname": "set.example"}, {"name": "other", "port": port, "protocol": "HTTP"}]}});
    post(&world, &format!("{API}/namespaces/a/listenersets"), &set).await;
    let object = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "a"},
        "spec": {"parentRefs": [{"name": "s", "kind": "ListenerSet"}], "rules": backends("one")}});
    post(&world, &format!("{API}/namespaces/a/httproutes"), &object).await;
    until(http, || get("set.example", "/"), |answer| answer.status == 200).await;
    status(&world, "/namespaces/a/listenersets/s", |status| programmed(status, 2)).await;
    until(at(port), || get("any.example", "/"), |answer| answer.status == 200).await;
    assert_eq!(ask(http, get("own.example", "/")).await.status, 404, "the route's parent is the ListenerSet alone");
    let found = status(&world, "/namespaces/a/gateways/g", |status| status["attachedListenerSets"] == 1).await;
    assert_eq!(found["listeners"].as_array().unwrap().len(), 1);
    let accepted = |status: &Value| status["parents"][0]["conditions"][0]["status"] == "True";
    let told = status(&world, "/namespaces/a/httproutes/r", accepted).await;
    assert_eq!(told["parents"][0]["parentRef"]["kind"], "ListenerSet");
    let request = Request::delete(format!("{API}/namespaces/a/listenersets/s")).body(Vec::new()).unwrap();
    world.fake.client().request::<Value>(request).await.unwrap();
    closed(port).await;
    until(http, || get("set.example", "/"), |answer| answer.status == 404).await;
    status(&world, "/namespaces/a/gateways/g", |status| status["attachedListenerSets"] == 0).await;
}
