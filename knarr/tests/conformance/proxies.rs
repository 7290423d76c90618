//! Pods and services through the API server's proxy.

use http::Method;
use serde_json::json;
use testing::{Cluster, eventually};

use super::network::{in_slices, service};
use super::{KNARR, NGINX, core, create, pod, run};

/// Conformance: [sig-network] Proxy version v1 A set of valid responses are returned for both pod and service Proxy [Conformance]
/// Conformance: [sig-network] Proxy version v1 A set of valid responses are returned for both pod and service ProxyWithPath [Conformance]
#[test]
fn proxies() {
    let c = Cluster::start(KNARR);
    let answer = r#"server { listen 80; location / { default_type application/json; return 200 '{"Body":"foo","Method":"$request_method"}'; } }"#;
    let config =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": {"default.conf": answer}});
    create(&c, &core("configmaps"), &config);
    let container = json!({"image": NGINX, "command": ["nginx"], "readinessProbe": {"tcpSocket": {"port": 80}},
        "volumeMounts": [{"name": "v", "mountPath": "/etc/nginx/conf.d"}]});
    let mut object = pod("porter", "", &container, &json!({"volumes": [{"name": "v", "configMap": {"name": "config"}}]}));
    object["metadata"]["labels"] = json!({"app": "porter"});
    run(&c, &object);
    create(&c, &core("services"), &service("porter", &json!({"selector": {"app": "porter"}, "ports": [{"port": 80}]})));
    eventually("the service has its endpoint", || (in_slices(&c, "porter").len() == 1).then_some(()));
    for kind in ["pods", "services"] {
        let path = format!("{}/porter/proxy", core(kind));
        for method in [Method::DELETE, Method::OPTIONS, Method::PATCH, Method::POST, Method::PUT, Method::GET, Method::HEAD] {
            let reads = [Method::GET, Method::HEAD].contains(&method);
            let answer = c.api().send(method.clone(), &format!("{path}?method={method}"), "application/json", "");
            assert_eq!(answer.status, if reads { 301 } else { 200 }, "{method} {path}: {answer:?}");
            let below = c.api().send(method.clone(), &format!("{path}/some/path/with/{method}"), "application/json", "");
            assert_eq!(below.status, 200, "{method} {path}: {below:?}");
            let bodies = [Some(below).filter(|_| method != Method::HEAD), Some(answer).filter(|_| !reads)];
            for answer in bodies.into_iter().flatten() {
                assert_eq!(answer.json(), json!({"Body": "foo", "Method": method.as_str()}), "{path}");
            }
        }
    }
}

/// Pages of each port: with a link that has to lead back through the proxy, or plain.
const PAGES: &[(u16, &str, &str)] = &[
    (80, "", "<a href=\"/rewriteme\">test</a>"),
    (1080, "", "<a href=\"/rewriteme\">test</a>"),
    (160, "", "foo"),
    (162, "", "bar"),
    (443, "ssl", "<a href=\"/tlsrewriteme\">test</a>"),
    (460, "ssl", "tls baz"),
    (462, "ssl", "tls qux"),
];

/// Conformance: [sig-network] Proxy version v1 should proxy through a service and a pod [Conformance]
#[test]
fn ports_and_schemes() {
    let c = Cluster::start(KNARR);
    let request = base::tls::Request::Server { name: "porter".into(), sans: vec!["porter".into()] };
    let identity = base::tls::Authority::in_memory("porter-ca").unwrap().issue(&request).unwrap();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": identity.certificate, "tls.key": identity.key}});
    create(&c, &core("secrets"), &secret);
    let servers: Vec<_> = PAGES
        .iter()
        .map(|(port, tls, page)| {
            let keys = if tls.is_empty() { "" } else { "ssl_certificate /tls/tls.crt; ssl_certificate_key /tls/tls.key;" };
            format!("server {{ listen {port} {tls}; {keys} default_type text/html; location / {{ return 200 '{page}'; }} }}")
        })
        .collect();
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": {"default.conf": servers.join("\n")}});
    create(&c, &core("configmaps"), &config);
    let ports = [("", 80), ("dest1", 160), ("dest2", 162), ("tlsdest1", 460), ("tlsdest2", 462)];
    let ports = ports.map(|(name, port)| json!({"name": name, "containerPort": port}));
    let container = json!({"image": NGINX, "command": ["nginx"], "readinessProbe": {"tcpSocket": {"port": 80}}, "ports": ports,
        "volumeMounts": [{"name": "v", "mountPath": "/etc/nginx/conf.d"}, {"name": "tls", "mountPath": "/tls"}]});
    let volumes = json!([{"name": "v", "configMap": {"name": "config"}}, {"name": "tls", "secret": {"secretName": "tls"}}]);
    let mut object = pod("porter", "", &container, &json!({"volumes": volumes}));
    object["metadata"]["labels"] = json!({"app": "porter"});
    run(&c, &object);
    let ports = json!([
        {"name": "portname1", "port": 80, "targetPort": "dest1"}, {"name": "portname2", "port": 81, "targetPort": 162},
        {"name": "tlsportname1", "port": 443, "targetPort": "tlsdest1"}, {"name": "tlsportname2", "port": 444, "targetPort": 462},
    ]);
    create(&c, &core("services"), &service("porter", &json!({"selector": {"app": "porter"}, "ports": ports})));
    eventually("the service has its endpoint", || (in_slices(&c, "porter").len() == 1).then_some(()));
    let link = "<a href=\"PROXY/rewriteme\">test</a>";
    for (way, expected) in [
        ("services/porter:portname1", "foo"),
        ("services/http:porter:portname1", "foo"),
        ("services/porter:portname2", "bar"),
        ("services/http:porter:portname2", "bar"),
        ("services/https:porter:tlsportname1", "tls baz"),
        ("services/https:porter:tlsportname2", "tls qux"),
        ("pods/porter", link),
        ("pods/porter:1080", link),
        ("pods/http:porter:1080", link),
        ("pods/porter:160", "foo"),
        ("pods/http:porter:160", "foo"),
        ("pods/porter:162", "bar"),
        ("pods/http:porter:162", "bar"),
        ("pods/https:porter:443", "<a href=\"PROXY/tlsrewriteme\">test</a>"),
        ("pods/https:porter:460", "tls baz"),
        ("pods/https:porter:462", "tls qux"),
    ] {
        let path = format!("{}/proxy", core(way));
        let answer = c.api().get(&format!("{path}/"));
        let page = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!((answer.status, page), (200, expected.replace("PROXY", &path)), "{way}");
    }
}
