//! The Gateway API: it is served as soon as its definitions are there.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt;
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use crate::world::{World, ask, connect_anyway, connect_tls, full, get, send, until};

pub(crate) const API: &str = "/apis/gateway.networking.k8s.io/v1";

pub(crate) async fn post(world: &World, path: &str, object: &Value) {
    let request = Request::post(path).header("content-type", "application/json").body(object.to_string().into_bytes()).unwrap();
    world.fake.client().request::<Value>(request).await.unwrap();
}

/// The definitions, as the API server has them when it serves them.
pub(crate) async fn install(world: &World) {
    let kinds = ["gatewayclasses", "gateways", "listenersets", "referencegrants", "backendtlspolicies"];
    for plural in kinds.into_iter().chain(["httproutes", "grpcroutes", "tlsroutes", "tcproutes", "udproutes"]) {
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.gateway.networking.k8s.io")},
            "spec": {"versions": [{"name": "v1", "served": true}, {"name": "v1beta1", "served": true}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]}});
        post(world, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).await;
    }
}

pub(crate) async fn gateway(world: &World, listeners: Value) {
    let gateway = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "g", "namespace": "a"},
        "spec": {"gatewayClassName": "knarr", "listeners": listeners}});
    post(world, &format!("{API}/namespaces/a/gateways"), &gateway).await;
}

pub(crate) async fn route(world: &World, name: &str, hosts: &[&str], rules: Value) {
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name, "namespace": "a"},
        "spec": {"parentRefs": [{"name": "g"}], "hostnames": hosts, "rules": rules}});
    post(world, &format!("{API}/namespaces/a/httproutes"), &route).await;
}

/// The status of an object, once it is as wanted.
pub(crate) async fn status(world: &World, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let client = world.fake.client();
    let asking = async {
        loop {
            let object: Value = client.request(Request::get(format!("{API}{path}")).body(Vec::new()).unwrap()).await.unwrap();
            if wanted(&object["status"]) {
                return object["status"].clone();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.expect("the wanted status in time")
}

/// Definitions and classes come with whoever serves Gateways: the ports of ingress are others' until there is one for it.
#[tokio::test]
async fn ports_are_left_to_others_until_a_gateway_is_ours() {
    let world = World::new();
    let other = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "other", "namespace": "a"},
        "spec": {"gatewayClassName": "other", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}});
    post(&world, &format!("{API}/namespaces/a/gateways"), &other).await;
    let handle = world.begin(world.options());
    install(&world).await;
    let accepted = |status: &Value| status["conditions"][0]["status"] == "True";
    status(&world, "/gatewayclasses/knarr", accepted).await;
    // One more round of everything: ports would have been opened in it.
    let class = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "second"},
        "spec": {"controllerName": "knarr.io/gateway"}});
    post(&world, &format!("{API}/gatewayclasses"), &class).await;
    status(&world, "/gatewayclasses/second", accepted).await;
    assert!(handle.http().now_or_never().is_none());
    gateway(&world, json!([{"name": "http", "port": 80, "protocol": "HTTP"}])).await;
    assert!(handle.http().await.is_some());
}

/// "The wildcard character will match any number of characters and dots to the left" (GatewaySpec, listeners): such a listener's certificate is shown for all of them.
#[tokio::test]
async fn the_certificate_of_a_wildcard_is_for_names_of_any_depth() {
    let world = World::new();
    world.certificate("cert", "a.b.example");
    let https = world.start_with(ingress::Options { http_port: 0, https_port: 0, ..world.options() }).https().await.unwrap();
    install(&world).await;
    let secret = json!({"certificateRefs": [{"name": "cert"}]});
    gateway(&world, json!([{"name": "https", "port": 0, "protocol": "HTTPS", "hostname": "*.example", "tls": secret}])).await;
    // The certificate follows the listener.
    let shown = async { while connect_tls(&world, https, "a.b.example", "http/1.1").await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), shown).await.expect("the listener's certificate");
}

/// A listener for any host with a certificate for each.
#[tokio::test]
async fn of_several_certificates_the_one_with_the_name_is_shown() {
    let world = World::new();
    world.certificate("one", "a.example");
    world.certificate("two", "b.example");
    let https = world.start_with(ingress::Options { http_port: 0, https_port: 0, ..world.options() }).https().await.unwrap();
    install(&world).await;
    let secrets = json!({"certificateRefs": [{"name": "one"}, {"name": "two"}]});
    gateway(&world, json!([{"name": "https", "port": 0, "protocol": "HTTPS", "tls": secrets}])).await;
    for name in ["a.example", "b.example"] {
        let shown = async { while connect_tls(&world, https, name, "http/1.1").await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(60), shown).await.expect("the certificate with the name");
    }
}

/// The controllers of two Gateways write the status of their route at once: neither takes away what the other has said.
#[tokio::test]
async fn what_other_controllers_say_of_a_route_stays() {
    let world = World::new();
    let _handle = world.start_with(world.options());
    install(&world).await;
    gateway(&world, json!([{"name": "http", "port": 80, "protocol": "HTTP"}])).await;
    let client = world.fake.client();
    let theirs = json!({"parentRef": {"name": "other"}, "controllerName": "example.com/other", "conditions": []});
    let names: Vec<String> = (0..20).map(|number| format!("r{number}")).collect();
    for name in &names {
        route(&world, name, &[], json!([{}])).await;
        let path = format!("{API}/namespaces/a/httproutes/{name}");
        loop {
            let mut object: Value = client.request(Request::get(&path).body(Vec::new()).unwrap()).await.unwrap();
            let mut parents = object["status"]["parents"].as_array().cloned().unwrap_or_default();
            parents.push(theirs.clone());
            object["status"] = json!({"parents": parents});
            let put = Request::put(format!("{path}/status")).header("content-type", "application/json");
            if client.request::<Value>(put.body(object.to_string().into_bytes()).unwrap()).await.is_ok() {
                break;
            }
        }
    }
    for name in &names {
        let both = |status: &Value| {
            let parents = status["parents"].as_array();
            parents.is_some_and(|parents| parents.len() == 2 && parents.contains(&theirs))
        };
        status(&world, &format!("/namespaces/a/httproutes/{name}"), both).await;
    }
}

/// HTTPRouteHTTPSListenerDetectMisdirectedRequests of the conformance tests.
#[tokio::test]
async fn requests_for_another_listener_are_turned_away() {
    let world = World::new();
    world.service("one", &[world.backend("one").await]);
    world.certificate("cert", "example.org");
    world.simple("ingress.example", "one", &[]);
    let handle = world.start_with(ingress::Options { http_port: 0, https_port: 0, ..world.options() });
    let (http, https) = (handle.http().await.unwrap(), handle.https().await.unwrap());
    install(&world).await;
    let listener = |name: &str, host: Option<&str>| {
        let tls = json!({"certificateRefs": [{"name": "cert"}]});
        json!({"name": name, "port": 0, "protocol": "HTTPS", "hostname": host, "tls": tls})
    };
    let listeners = [
        listener("any", None),
        listener("second", Some("second-example.org")),
        listener("wildcard", Some("*.wildcard.org")),
        listener("fourth", Some("fourth-example.wildcard.org")),
        json!({"name": "http", "port": 0, "protocol": "HTTP"}),
    ];
    gateway(&world, json!(listeners)).await;
    let hosts = ["example.org", "second-example.org", "third-example.wildcard.org", "fourth-example.wildcard.org"];
    route(&world, "r", &hosts, json!([{"backendRefs": [{"name": "one", "port": 80}]}])).await;
    until(http, || get("example.org", "/"), |answer| answer.status == 200).await;
    let check = async |named: &str, host: &str, expected: u16| {
        let answer = send(connect_anyway(https, named).await, get(host, "/").body(full("")).unwrap()).await;
        assert_eq!(answer.status, expected, "{named} {host}");
    };
    check("example.org", "example.org", 200).await;
    check("example.org", "second-example.org", 421).await;
    check("example.org", "unknown-example.org", 404).await;
    check("second-example.org", "second-example.org", 200).await;
    check("second-example.org", "example.org", 421).await;
    check("second-example.org", "unknown-example.org", 421).await;
    check("third-example.wildcard.org", "third-example.wildcard.org", 200).await;
    check("third-example.wildcard.org", "fourth-example.wildcard.org", 421).await;
    check("third-example.wildcard.org", "fifth-example.wildcard.org", 404).await;
    check("fourth-example.wildcard.org", "fourth-example.wildcard.org", 200).await;
    check("unknown-example.org", "example.org", 200).await;
    // Ingresses know no listeners, and who names no host has come to none.
    check("second-example.org", "ingress.example", 200).await;
    check("127.0.0.1", "second-example.org", 200).await;
    let plain = ask(http, get("second-example.org", "/")).await;
    assert_eq!(plain.status, 200);
}

#[tokio::test]
async fn routes_are_served_with_their_conditions() {
    let world = World::new();
    world.service("one", &[world.backend("one").await]);
    world.service("two", &[world.backend("two").await]);
    world.simple("ingress.example", "one", &[]);
    world.certificate("cert", "a.example");
    // Listeners name the ports that clients see: here those that the options say.
    let handle = world.start_with(ingress::Options { http_port: 0, https_port: 0, ..world.options() });
    let (http, https) = (handle.http().await.unwrap(), handle.https().await.unwrap());
    install(&world).await;
    let secret = json!({"certificateRefs": [{"name": "cert"}]});
    gateway(
        &world,
        json!([
            {"name": "http", "port": 0, "protocol": "HTTP"},
            {"name": "https", "port": 0, "protocol": "HTTPS", "hostname": "a.example", "tls": secret},
        ]),
    )
    .await;
    let backend = |name: &str| json!([{"name": name, "port": 80}]);
    let rules = json!([
        {"matches": [{"path": {"value": "/api"}}], "backendRefs": backend("two"),
            "filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": "inner.example", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v1"}}},
                {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-set", "value": "1"}], "remove": ["x-gone"]}},
                {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "x-added", "value": "2"}]}}]},
        {"matches": [{"headers": [{"name": "x-version", "value": "two"}]}], "backendRefs": backend("two")},
        {"matches": [{"path": {"type": "Exact", "value": "/old"}}],
            "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "new.example", "port": 80, "statusCode": 301}}]},
        {"matches": [{"path": {"value": "/split"}}], "backendRefs": [{"name": "one", "port": 80}, {"name": "two", "port": 80}]},
        {"matches": [{"path": {"value": "/nobody"}}], "backendRefs": [{"name": "missing", "port": 80}]},
        {"backendRefs": backend("one")},
    ]);
    route(&world, "r", &["a.example"], rules).await;
    let plain = until(http, || get("a.example", "/"), |answer| answer.status == 200).await;
    assert_eq!(plain.seen()["name"], "one");
    let api = ask(http, get("a.example", "/api/x?y=1").header("x-gone", "1")).await;
    let seen = api.seen();
    assert_eq!(
        (&seen["name"], &seen["path"], &seen["headers"]["host"]),
        (&json!("two"), &json!("/v1/x?y=1"), &json!("inner.example"))
    );
    assert_eq!((&seen["headers"]["x-set"], seen["headers"].get("x-gone"), api.header("x-added")), (&json!("1"), None, "2"));
    assert_eq!(ask(http, get("a.example", "/").header("x-version", "two")).await.seen()["name"], "two");
    let redirect = ask(http, get("a.example", "/old?x")).await;
    assert_eq!((redirect.status.as_u16(), redirect.header("location")), (301, "http://new.example/old?x"));
    let mut names = BTreeSet::new();
    for _ in 0..40 {
        names.insert(ask(http, get("a.example", "/split")).await.seen()["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(names.len(), 2);
    assert_eq!(ask(http, get("a.example", "/nobody")).await.status, 500);
    assert_eq!(ask(http, get("b.example", "/")).await.status, 404);
    assert_eq!(ask(http, get("ingress.example", "/")).await.seen()["name"], "one");

    let listeners = |status: &Value| status.pointer("/listeners/1/conditions/2/status") == Some(&json!("True"));
    let found = status(&world, "/namespaces/a/gateways/g", listeners).await;
    assert_eq!((&found["addresses"][0]["value"], &found["listeners"][0]["attachedRoutes"]), (&json!("192.0.2.10"), &json!(1)));
    let stream = loop {
        // The certificate follows the listener.
        if let Ok(stream) = connect_tls(&world, https, "a.example", "http/1.1").await {
            break stream;
        }
    };
    assert_eq!(send(stream, get("a.example", "/").body(full("")).unwrap()).await.seen()["name"], "one");
    let unresolved = |status: &Value| status.pointer("/parents/0/conditions/1/reason") == Some(&json!("BackendNotFound"));
    let parents = status(&world, "/namespaces/a/httproutes/r", unresolved).await["parents"].clone();
    assert_eq!(
        (&parents[0]["controllerName"], &parents[0]["conditions"][0]["status"]),
        (&json!("knarr.io/gateway"), &json!("True"))
    );
    assert!(parents[0]["conditions"][0]["lastTransitionTime"].is_string());

    let methods = json!([{"matches": [{"method": {"service": "a.Ship", "method": "Sail"}}], "backendRefs": backend("two")},
        {"matches": [{"method": {"service": "a.None"}}], "backendRefs": backend("missing")}]);
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute", "metadata": {"name": "r", "namespace": "a"},
        "spec": {"parentRefs": [{"name": "g"}], "hostnames": ["grpc.example"], "rules": methods}});
    post(&world, &format!("{API}/namespaces/a/grpcroutes"), &route).await;
    let sailed = until(http, || get("grpc.example", "/a.Ship/Sail"), |answer| answer.status == 200).await.seen();
    assert_eq!((&sailed["name"], &sailed["version"]), (&json!("two"), &json!("HTTP/2.0")));
    assert_eq!(ask(http, get("grpc.example", "/a.Ship/Row")).await.status, 404);
    // GRPCRouteAllBackendsWeightZero of the conformance tests wants the status Unavailable, which 503 is to clients of gRPC.
    assert_eq!(ask(http, get("grpc.example", "/a.None/Any")).await.status, 503);
}

#[tokio::test]
async fn tls_routes_lead_connections_on() {
    let (inner, world) = (World::new(), World::new());
    inner.service("web", &[inner.backend("inner").await]);
    inner.certificate("cert", "a.example");
    let tls = json!([{"hosts": ["a.example"], "secretName": "cert"}]);
    inner.ingress("own", &[], &json!({"tls": tls, "rules": [crate::world::rule("a.example", "/", "Prefix", "web")]}));
    let (_, behind) = inner.start_tls().await;
    world.service("behind", &[behind]);
    let handle = world.start_with(world.options());
    let https = handle.https().await.unwrap();
    install(&world).await;
    gateway(
        &world,
        json!([{"name": "tls", "port": 0, "protocol": "TLS", "hostname": "*.example", "tls": {"mode": "Passthrough"}}]),
    )
    .await;
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute", "metadata": {"name": "t", "namespace": "a"},
        "spec": {"parentRefs": [{"name": "g"}], "hostnames": ["a.example"], "rules": [{"backendRefs": [{"name": "behind", "port": 80}]}]}});
    post(&world, &format!("{API}/namespaces/a/tlsroutes"), &route).await;
    let accepted = |status: &Value| status["parents"][0]["conditions"][0]["status"] == "True";
    status(&world, "/namespaces/a/tlsroutes/t", accepted).await;
    let connected = async {
        loop {
            if let Ok(stream) = connect_tls(&inner, https, "a.example", "http/1.1").await {
                return send(stream, get("a.example", "/x").body(full("")).unwrap()).await.seen();
            }
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(60), connected).await.expect("a connection in time");
    assert_eq!(seen["name"], "inner");
}

/// A back end with a policy is asked over TLS, and only if it shows the certificate that the policy asks for; also after a change.
#[tokio::test]
async fn back_ends_are_verified() {
    let world = World::new();
    world.service("web", &[world.tls_backend("web", "web.example").await]);
    let handle = world.start_with(world.options());
    let http = handle.http().await.unwrap();
    install(&world).await;
    gateway(&world, json!([{"name": "http", "port": 0, "protocol": "HTTP"}])).await;
    route(&world, "r", &["a.example"], json!([{"backendRefs": [{"name": "web", "port": 80}]}])).await;
    // Plain HTTP is not what it speaks.
    until(http, || get("a.example", "/"), |answer| answer.status == 502).await;
    let map = |bundle: &str| {
        let map = json!({"metadata": {"namespace": "a", "name": "roots"}, "data": {"ca.crt": bundle}});
        world.fake.put::<ConfigMap>(&serde_json::from_value(map).unwrap());
    };
    map(world.authority.bundle());
    let policy = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy",
        "metadata": {"name": "p", "namespace": "a"}, "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "roots"}], "hostname": "web.example"}}});
    post(&world, &format!("{API}/namespaces/a/backendtlspolicies"), &policy).await;
    let answer = until(http, || get("a.example", "/"), |answer| answer.status == 200).await;
    assert_eq!(answer.seen()["name"], "web");
    let path = "/namespaces/a/backendtlspolicies/p";
    let accepted = |status: &str| {
        let status = status.to_owned();
        move |value: &Value| value["ancestors"][0]["conditions"][0]["status"] == status.as_str()
    };
    let told = status(&world, path, accepted("True")).await;
    assert_eq!(told["ancestors"][0]["ancestorRef"]["name"], "g");
    // Another authority: the certificate is good no more.
    map(base::tls::Authority::in_memory("other").unwrap().bundle());
    until(http, || get("a.example", "/"), |answer| answer.status == 502).await;
    // None at all: there is nobody who could be asked.
    map("");
    until(http, || get("a.example", "/"), |answer| answer.status == 500).await;
    status(&world, path, accepted("False")).await;
    map(world.authority.bundle());
    until(http, || get("a.example", "/"), |answer| answer.status == 200).await;
}

/// Clients of a Gateway have to show a certificate of the authority that it names, on the hosts of its listeners for HTTPS.
#[tokio::test]
async fn clients_of_gateways_prove_who_they_are() {
    let world = World::new();
    world.service("web", &[world.backend("web").await]);
    world.certificate("cert", "a.example");
    let staff = base::tls::Authority::in_memory("staff").unwrap();
    let map = json!({"metadata": {"namespace": "a", "name": "staff"}, "data": {"ca.crt": staff.bundle()}});
    world.fake.put::<ConfigMap>(&serde_json::from_value(map).unwrap());
    let handle = world.start_with(world.options());
    let (http, https) = (handle.http().await.unwrap(), handle.https().await.unwrap());
    install(&world).await;
    let validation = json!({"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "staff"}]});
    let gateway = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "g", "namespace": "a"},
        "spec": {"gatewayClassName": "knarr", "tls": {"frontend": {"default": {"validation": validation}}}, "listeners": [
            {"name": "http", "port": 0, "protocol": "HTTP"},
            {"name": "https", "port": 0, "protocol": "HTTPS", "hostname": "a.example", "tls": {"certificateRefs": [{"name": "cert"}]}}]}});
    post(&world, &format!("{API}/namespaces/a/gateways"), &gateway).await;
    route(&world, "r", &["a.example"], json!([{"backendRefs": [{"name": "web", "port": 80}]}])).await;
    // Plain HTTP has another listener, which asks for nothing.
    until(http, || get("a.example", "/"), |answer| answer.status == 200).await;
    let issue =
        |by: &base::tls::Authority| by.issue(&base::tls::Request::Client { user: "anna".into(), groups: Vec::new() }).unwrap();
    let (anna, stranger) = (issue(&staff), issue(&world.authority));
    let asked = async |identity| crate::clients::asked(&world, https, ("a.example", "a.example"), identity).await;
    let good = async {
        while asked(Some(&anna)).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), good).await.expect("the authority is known in time");
    assert_eq!(asked(Some(&anna)).await.seen()["headers"]["ssl-client-verify"], "SUCCESS");
    assert_eq!(asked(None).await.status, 400);
    assert_eq!(asked(Some(&stranger)).await.status, 400);
}
