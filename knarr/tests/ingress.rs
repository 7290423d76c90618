//! The way in from outside: the example shop over HTTP and HTTPS, and pods that come and go under load.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base::tls::{Authority, Request};
use serde_json::json;
use testing::pebble::{Pebble, PebbleOptions};
use testing::{Cluster, eventually, machine};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/ingress/shop.yaml");

/// An answer: status, head, body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn talk(mut stream: impl Read + Write, host: &str, path: &str, more: &str) -> std::io::Result<Answer> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("not an HTTP answer"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((machine::ADDRESS, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

fn http(host: &str, path: &str) -> std::io::Result<Answer> {
    talk(connect(80)?, host, path, "")
}

fn https(authority: &Authority, host: &str, path: &str, more: &str) -> std::io::Result<Answer> {
    let config = base::tls::client(authority.bundle(), None).unwrap();
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    talk(rustls::StreamOwned::new(connection, connect(443)?), host, path, more)
}

/// A Secret with a certificate for the host.
fn certificate(authority: &Authority, name: &str, host: &str) -> String {
    let identity = authority.issue(&Request::Server { name: host.into(), sans: vec![host.into()] }).unwrap();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": identity.certificate, "tls.key": identity.key}})
    .to_string()
}

#[test]
fn the_example_shop() {
    let c = Cluster::start(KNARR);
    let authority = Authority::in_memory("test").unwrap();
    assert_eq!(c.k("get ingressclass -o jsonpath={.items[*].metadata.name}"), "knarr");
    c.k("create namespace shop");
    c.k_with("apply -f -", &certificate(&authority, "shop-example", "shop.example"));
    c.k(&format!("apply -f {SHOP}"));
    c.k("-n shop rollout status deployment/front deployment/cart --timeout=60s");
    c.k("-n shop wait --for=jsonpath={.status.loadBalancer.ingress[0].ip}=192.168.77.1 ingress/shop --timeout=30s");

    let redirect =
        eventually("the front has its host", || http("shop.example", "/x?y=1").ok().filter(|answer| answer.status == 308));
    assert_eq!(redirect.header("location"), Some("https://shop.example/x?y=1"));
    let front =
        eventually("the front serves", || https(&authority, "shop.example", "/", "").ok().filter(|answer| answer.status == 200));
    let words: Vec<&str> = front.body.split_whitespace().collect();
    assert_eq!((words[0], words[2], words[3]), ("front", "https", machine::ADDRESS), "{}", front.body);
    assert_eq!(http("other.example", "/").unwrap().status, 404);

    // The cart's sessions stay with their pod, and its paths are rewritten.
    let cart = eventually("the cart serves", || {
        https(&authority, "shop.example", "/cart/items?a=1", "").ok().filter(|answer| answer.status == 200)
    });
    assert!(cart.body.starts_with("cart cart-") && cart.body.ends_with(" /items?a=1\n"), "{}", cart.body);
    let cookie = cart.header("set-cookie").unwrap();
    assert!(cookie.starts_with("cart-session=") && cookie.ends_with("; Path=/cart; Secure; HttpOnly"), "{cookie}");
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    for _ in 0..10 {
        assert_eq!(https(&authority, "shop.example", "/cart/items?a=1", &cookie).unwrap().body, cart.body);
    }
    let pods = || https(&authority, "shop.example", "/cart", "").unwrap().body;
    eventually("both pods serve carts", || (pods() != pods()).then_some(()));

    // What has no effect is told.
    c.k("-n shop annotate ingress shop nginx.ingress.kubernetes.io/configuration-snippet=x");
    c.told("-n shop --field-selector reason=UnsupportedAnnotation", &["configuration-snippet"]);

    pods_come_and_go(&c);
    // Ingress itself has the ports of the Service that leads to it: that is no program which keeps them from it.
    assert_eq!(c.k("get events -A --field-selector reason=PortAlreadyAllocated -o name"), "");
}

/// Requests go on while pods are added, replaced and removed, and every one is answered.
fn pods_come_and_go(c: &Cluster) {
    let rule = json!({"host": "front.example", "http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "front", "port": {"number": 80}}}}]}});
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "plain", "namespace": "shop"},
        "spec": {"rules": [rule]}});
    c.k_with("apply -f -", &ingress.to_string());
    assert_eq!(c.k("-n shop get ingress plain -o jsonpath={.spec.ingressClassName}"), "knarr", "the default class");
    eventually("the front has another host", || http("front.example", "/").ok().filter(|answer| answer.status == 200));
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut failed = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        asked.fetch_add(1, Ordering::Relaxed);
                        match http("front.example", "/") {
                            Ok(answer) if answer.status == 200 => {}
                            Ok(answer) => failed.push(answer.head),
                            Err(error) => failed.push(error.to_string()),
                        }
                    }
                    failed
                })
            })
            .collect();
        c.k("-n shop scale deployment front --replicas=3");
        c.k("-n shop rollout status deployment/front --timeout=60s");
        c.k("-n shop rollout restart deployment/front");
        c.k("-n shop rollout status deployment/front --timeout=60s");
        c.k("-n shop scale deployment front --replicas=1");
        eventually("one pod is left", || (c.k("-n shop get pods -l app=front -o name").lines().count() == 1).then_some(()));
        done.store(true, Ordering::Relaxed);
        let failed: Vec<String> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        assert_eq!(failed, [""; 0], "of {}", asked.load(Ordering::Relaxed));
    });
    assert!(asked.into_inner() > 50);
}

/// A definition without a schema: the objects are what matters here.
fn definition(plural: &str, kind: &str, version: &str, scope: &str) -> serde_json::Value {
    let names = json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind});
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.gateway.networking.k8s.io"),
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/1"}},
        "spec": {"group": "gateway.networking.k8s.io", "scope": scope, "names": names,
            "versions": [{"name": version, "served": true, "storage": true, "schema": schema, "subresources": {"status": {}}}]}})
}

/// Installs the Gateway API with these kinds beside Gateways and their classes.
fn install_gateways(c: &Cluster, kinds: &[(&str, &str, &str)]) {
    c.k_with("apply -f -", &definition("gatewayclasses", "GatewayClass", "v1", "Cluster").to_string());
    for (plural, kind, version) in [&[("gateways", "Gateway", "v1")], kinds].concat() {
        c.k_with("apply -f -", &definition(plural, kind, version, "Namespaced").to_string());
    }
    let all = kinds.iter().map(|(plural, ..)| format!(",{plural}")).collect::<String>();
    let get = format!("gateways,gatewayclasses{all}");
    eventually("gateways are served", || (c.try_kubectl(&["get", &get]).code == Some(0)).then_some(()));
}

/// Makes an object of the Gateway API.
fn gateway_object(c: &Cluster, kind: &str, name: &str, spec: serde_json::Value) {
    let object = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    c.k_with("apply -f -", &object.to_string());
}

#[test]
fn gateways_are_served_where_they_are_installed() {
    let c = Cluster::start(KNARR);
    install_gateways(&c, &[("httproutes", "HTTPRoute", "v1"), ("referencegrants", "ReferenceGrant", "v1beta1")]);
    c.k("create deployment web --image=127.0.0.1:5000/nginx:1.27");
    c.k("expose deployment web --port 80");
    let listener = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    gateway_object(&c, "Gateway", "front", json!({"gatewayClassName": "knarr", "listeners": [listener]}));
    let rule = json!({"backendRefs": [{"name": "web", "port": 80}]});
    let route = json!({"parentRefs": [{"name": "front"}], "hostnames": ["web.example"], "rules": [rule]});
    gateway_object(&c, "HTTPRoute", "web", route);
    c.k("wait --for=condition=Programmed gateway/front --timeout=30s");
    c.k("wait --for=condition=Accepted gatewayclass/knarr --timeout=30s");
    c.k("rollout status deployment/web --timeout=60s");
    let page = eventually("the route serves", || http("web.example", "/").ok().filter(|answer| answer.status == 200));
    assert_eq!(page.body, "<h1>Welcome to nginx!</h1>\n");
    let accepted = "get httproute web -o jsonpath={.status.parents[0].conditions[*].status}";
    eventually("the route is accepted", || (c.k(accepted) == "True True").then_some(()));
}

/// Something that repeats what it is told: over TCP a pod, over UDP a program of the machine, which is an endpoint by its address.
const ECHO: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec:
  nodeName: n2
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: '127.0.0.1:5000/busybox:1.36', command: [nc, -ll, -p, '9000', -e, cat]}]
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{port: 90, targetPort: 9000}]}
---
apiVersion: v1
kind: Service
metadata: {name: logs}
spec: {ports: [{name: udp, port: 90, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: logs, labels: {kubernetes.io/service-name: logs}}
addressType: IPv4
ports: [{name: udp, port: 9000, protocol: UDP}]
endpoints: [{addresses: [192.168.77.1]}]
"#;

/// Listeners for TCP and UDP have ports of their own, at which every node leads to the one where ingress runs.
#[test]
fn ports_of_gateways_are_open_on_every_node() {
    let c = Cluster::start_nodes(KNARR, 2);
    install_gateways(&c, &[("tcproutes", "TCPRoute", "v1"), ("udproutes", "UDPRoute", "v1")]);
    c.k_with("apply -f -", ECHO);
    let listeners = json!([{"name": "db", "port": 5432, "protocol": "TCP"}, {"name": "log", "port": 514, "protocol": "UDP"},
        {"name": "api", "port": 6443, "protocol": "TCP"}]);
    gateway_object(&c, "Gateway", "front", json!({"gatewayClassName": "knarr", "listeners": listeners}));
    for (kind, listener, service) in [("TCPRoute", "db", "echo"), ("UDPRoute", "log", "logs")] {
        let rules = json!([{"backendRefs": [{"name": service, "port": 90}]}]);
        gateway_object(&c, kind, listener, json!({"parentRefs": [{"name": "front", "sectionName": listener}], "rules": rules}));
    }
    c.k("wait --for=condition=Ready pod/echo --timeout=60s");
    let logs = UdpSocket::bind((machine::ADDRESS, 9000)).unwrap();
    std::thread::spawn(move || {
        let mut said = [0; 64];
        while let Ok((length, peer)) = logs.recv_from(&mut said) {
            logs.send_to(&said[..length], peer).unwrap();
        }
    });
    let at = |node: u8, port: u16| SocketAddr::from(([192, 168, 77, node], port));
    let tcp = |node: u8| {
        let mut stream = TcpStream::connect(at(node, 5432)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"hello").ok()?;
        let mut said = [0; 5];
        stream.read_exact(&mut said).ok()?;
        (&said == b"hello").then_some(())
    };
    let udp = |node: u8| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        socket.connect(at(node, 514)).unwrap();
        socket.send(b"hello").ok()?;
        let mut said = [0; 64];
        let length = socket.recv(&mut said).ok()?;
        (&said[..length] == b"hello").then_some(())
    };
    for node in [1, 2] {
        eventually(&format!("TCP by n{node}"), || tcp(node));
        eventually(&format!("UDP by n{node}"), || udp(node));
    }
    let reason =
        |listener: u8| c.k(&format!("get gateway front -o jsonpath={{.status.listeners[{listener}].conditions[0].reason}}"));
    eventually("listeners are told", || {
        ([reason(0), reason(1), reason(2)] == ["Accepted", "Accepted", "PortUnavailable"]).then_some(())
    });
    // Who comes later waits for the port.
    c.k_with(
        "apply -f -",
        &ECHO
            .replace("name: echo}\nspec: {", "name: late}\nspec: {type: LoadBalancer, ")
            .replace("port: 90, target", "port: 5432, target"),
    );
    let taken = "5432/TCP of the nodes is taken by service kube-system/knarr-ingress-tcp-5432";
    c.told("--field-selector reason=SyncLoadBalancerFailed", &[taken]);
    c.k("wait service/late --for=condition=LoadBalancerPortsError --timeout=30s");
    let message = c.k("get service late -o jsonpath={.status.conditions[0].message}");
    assert!(message.contains(taken), "{message}");
    c.k("delete service late");
    c.k("delete gateway front");
    for node in [1, 2] {
        eventually(&format!("the port is closed on n{node}"), || {
            let refused = TcpStream::connect_timeout(&at(node, 5432), Duration::from_secs(5))
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
            refused.then_some(())
        });
    }
    eventually("no Service is left of it", || {
        c.k("get services,endpointslices -n kube-system -l ingress.knarr.io/gateway-port -o name").is_empty().then_some(())
    });
}

/// Listeners for HTTP at other ports than those of ingress, a Gateway's and a ListenerSet's, are reached by every node; a port that somebody has stays his.
#[test]
fn http_of_gateways_is_at_any_port_of_every_node() {
    let c = Cluster::start_nodes(KNARR, 2);
    install_gateways(&c, &[("httproutes", "HTTPRoute", "v1"), ("listenersets", "ListenerSet", "v1")]);
    c.k("create deployment web --image=127.0.0.1:5000/nginx:1.27");
    c.k("expose deployment web --port 80");
    c.k("expose deployment web --name early --type LoadBalancer --port 8088 --target-port 80");
    c.k("wait --for=jsonpath={.status.loadBalancer.ingress} service/early --timeout=30s");
    let http = |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "HTTP"});
    let listeners = json!([http("web", 8080), http("kubelet", 10250), http("api", 6443), http("early", 8088)]);
    let spec = json!({"gatewayClassName": "knarr", "allowedListeners": {"namespaces": {"from": "Same"}}, "listeners": listeners});
    gateway_object(&c, "Gateway", "front", spec);
    gateway_object(&c, "ListenerSet", "more", json!({"parentRef": {"name": "front"}, "listeners": [http("more", 8090)]}));
    let parents = json!([{"name": "front", "sectionName": "web"}, {"name": "more", "kind": "ListenerSet"}]);
    let rule = json!({"backendRefs": [{"name": "web", "port": 80}]});
    gateway_object(&c, "HTTPRoute", "web", json!({"parentRefs": parents, "rules": [rule]}));
    c.k("rollout status deployment/web --timeout=60s");
    for (node, port) in [(1, 8080), (2, 8080), (1, 8090), (2, 8090)] {
        let at = SocketAddr::from(([192, 168, 77, node], port));
        let page = || talk(TcpStream::connect(at).ok()?, "any.example", "/", "").ok().filter(|answer| answer.status == 200);
        let page = eventually(&format!("HTTP at port {port} by n{node}"), page);
        assert_eq!(page.body, "<h1>Welcome to nginx!</h1>\n");
    }
    let told = |of: &str, kind: &str, field: &str| {
        c.k(&format!("get {of} -o jsonpath={{.status.listeners[*].conditions[?(@.type==\"{kind}\")].{field}}}"))
    };
    eventually("listeners are told", || {
        let expected = "Accepted PortUnavailable PortUnavailable PortUnavailable";
        (told("gateway/front", "Accepted", "reason") == expected).then_some(())
    });
    eventually("the ports are open", || (told("listenerset/more", "Programmed", "status") == "True").then_some(()));
    c.k("wait --for=condition=Programmed listenerset/more --timeout=30s");
    assert_eq!(c.k("get gateway/front -o jsonpath={.status.attachedListenerSets}"), "1");
    // A port closes with its listener, and no Service is left of it.
    c.k("delete listenerset more");
    eventually("only the Gateway's own port is left", || {
        let services = "get services -n kube-system -l ingress.knarr.io/gateway-port -o name";
        (c.k(services).trim() == "service/knarr-ingress-tcp-8080").then_some(())
    });
}

/// The server's own ingress has the rights that it takes, and issuers reach it at port 80.
/// ListenerConditionProgrammed, reason Pending: the listener is "not yet online and ready to accept client traffic". A host port comes before
/// a port of a Gateway on its node, and gives it back with its pod.
#[test]
fn listeners_tell_which_nodes_have_their_port_for_a_pod() {
    let c = Cluster::start_nodes(KNARR, 2);
    install_gateways(&c, &[("tcproutes", "TCPRoute", "v1")]);
    // Of each node a pod has one port.
    for (node, port) in [("n1", 7001), ("n2", 7002)] {
        let container = json!({"name": "main", "image": "127.0.0.1:5000/busybox:1.36", "command": ["nc", "-ll", "-p", "9000", "-e", "echo", "pod"],
            "ports": [{"containerPort": 9000, "hostPort": port}]});
        let spec = json!({"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("of-{port}")}, "spec": spec});
        c.k_with("apply -f -", &pod.to_string());
    }
    c.k("wait --for=condition=Ready pod/of-7001 pod/of-7002 --timeout=60s");
    let listeners = [7001, 7002, 7003].map(|port| json!({"name": format!("p{port}"), "port": port, "protocol": "TCP"}));
    gateway_object(&c, "Gateway", "front", json!({"gatewayClassName": "knarr", "listeners": listeners}));
    let programmed = |name: &str| {
        let condition = format!(
            "{{.status.listeners[?(@.name==\"{name}\")].conditions[?(@.type==\"Programmed\")]['status','reason','message']}}"
        );
        c.try_kubectl(&["get", "gateway", "front", "-o", &format!("jsonpath={condition}")]).stdout
    };
    let told = |name: &str, expected: &str| {
        eventually(&format!("{name} is told {expected}"), || (programmed(name).trim() == expected).then_some(()));
    };
    told("p7001", "False Pending node n1 has given port 7001/TCP to others");
    // Of the two nodes the first is the one whose address is in the Gateway's status.
    told("p7002", "True Programmed node n2 has given port 7002/TCP to others");
    told("p7003", "True Programmed");
    let says_pod = |address: &str, port: u16| {
        eventually(&format!("the pod answers at {address}:{port}"), || {
            let mut said = String::new();
            TcpStream::connect(format!("{address}:{port}")).ok()?.read_to_string(&mut said).ok()?;
            (said == "pod\n").then_some(())
        });
    };
    says_pod("192.168.77.1", 7001);
    says_pod("192.168.77.2", 7002);
    c.k("delete pod of-7001 of-7002");
    told("p7001", "True Programmed");
    told("p7002", "True Programmed");
}

/// Who refuses load balancers (a policy here; a quota or a webhook does the same) ends no server, which makes the Services that lead to ingress
/// when nobody refuses them any more.
#[test]
fn a_policy_against_load_balancers_ends_no_server() {
    let c = Cluster::start(KNARR);
    install_gateways(&c, &[("tcproutes", "TCPRoute", "v1")]);
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["services"]});
    let validation = json!({"expression": "object.spec.type != 'LoadBalancer'", "message": "no load balancers"});
    let spec = json!({"matchConstraints": {"resourceRules": [rule]}, "validations": [validation]});
    for (kind, spec) in [
        ("ValidatingAdmissionPolicy", spec),
        ("ValidatingAdmissionPolicyBinding", json!({"policyName": "none", "validationActions": ["Deny"]})),
    ] {
        let object =
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "none"}, "spec": spec});
        c.k_with("apply -f -", &object.to_string());
    }
    eventually("the policy holds", || {
        let tried = c.try_kubectl(&["create", "service", "loadbalancer", "tried", "--tcp=9999", "--dry-run=server"]);
        tried.stderr.contains("no load balancers").then_some(())
    });
    let listener = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol});
    let listeners = json!([listener("http", 80, "HTTP"), listener("a", 7001, "TCP"), listener("b", 7002, "TCP")]);
    gateway_object(&c, "Gateway", "front", json!({"gatewayClassName": "knarr", "listeners": listeners}));
    let refused = |name: &str| std::fs::read_to_string(c.log()).unwrap().contains(&format!("service {name}: "));
    eventually("the server is told", || (refused("of ingress") && refused("knarr-ingress-tcp-7001")).then_some(()));
    assert_eq!(http("any.example", "/").unwrap().status, 404, "ingress serves all the same");
    c.k("delete validatingadmissionpolicybinding none");
    for name in ["knarr-ingress", "knarr-ingress-tcp-7001", "knarr-ingress-tcp-7002"] {
        eventually(name, || (c.try_kubectl(&["-n", "kube-system", "get", "service", name]).code == Some(0)).then_some(()));
    }
}

#[test]
fn certificates_come_by_acme() {
    let mut c = Cluster::prepare(KNARR);
    let authority = Authority::in_memory("pebble").unwrap();
    let options = PebbleOptions { authority: &authority, proofs: 80, validity: 3600 };
    let pebble = Pebble::start(&c.scratch().join("pebble"), &options);
    let listed = format!("pebble={}", pebble.url);
    c.start_server_with(&["--ingress-acme-ca", pebble.authority.to_str().unwrap(), "--ingress-acme-issuer", &listed]);
    c.kubectl(&["create", "deployment", "web", "--image", "127.0.0.1:5000/nginx:1.27"]);
    c.k("expose deployment web --port 80");
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "shop", "namespace": "default", "annotations": {"acme.knarr.io/issuer": "pebble"}},
        "spec": {"tls": [{"hosts": ["shop.example"], "secretName": "shop-tls"}], "rules": [{"host": "shop.example", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}});
    c.k_with("apply -f -", &ingress.to_string());
    c.k("wait --for=create secret/shop-tls --timeout=60s");
    assert_eq!(c.k("get secret shop-tls -o jsonpath={.type}"), "kubernetes.io/tls");
    c.told("--field-selector reason=CertificateIssued", &["default/shop-tls has a certificate for shop.example until"]);
    assert!(c.k("get secrets -n kube-system -o name").contains("secret/acme-account-"));
    // The certificate that the handshake shows is pebble's, which signs with an authority of its own making.
    c.k("rollout status deployment/web --timeout=60s");
    let shown = eventually("the certificate is shown", || {
        let config = base::tls::client_of_anybody().unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), "shop.example".try_into().unwrap()).unwrap();
        let mut stream = connect(443).ok()?;
        connection.complete_io(&mut stream).ok()?;
        let leaf = connection.peer_certificates()?.first()?.as_ref().to_vec();
        leaf.windows(6).any(|window| window == b"Pebble").then_some(leaf)
    });
    assert!(shown.windows(12).any(|window| window == b"shop.example"));
}
