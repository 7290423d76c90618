//! Names, services of every type, endpoints, and the ways in from outside.

use serde_json::{Value, json};
use testing::{Cluster, eventually, machine};

use super::{KNARR, core, create, delete, exec, patch, pod, run};

pub(super) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// Serves its name over HTTP on two ports, and answers whatever comes over UDP with its address.
const SERVER: &str = r#"mkdir /www; hostname > /www/name; httpd -p 8081 -h /www; httpd -p 8080 -h /www
exec perl -MSocket -e '
socket(S, PF_INET, SOCK_DGRAM, 17) and bind(S, sockaddr_in(8080, INADDR_ANY)) or die $!;
while (my $from = recv(S, my $data, 1500, 0)) { send(S, $ENV{IP}, 0, $from) }'"#;

/// Asks over UDP from inside of a pod.
const ASK: &str = "perl -MIO::Socket::INET -e 'alarm 30; my $s = IO::Socket::INET->new(Proto => q(udp), PeerAddr => q(PEER)); \
    $s->send(1); $s->recv(my $data, 99); print $data'";

/// The node's perl, which every Debian has: busybox knows no UDP.
fn with_perl(mut pod: Value) -> Value {
    let directories = ["usr", "lib", "lib64"];
    let mounts = directories.map(|name| json!({"name": name, "mountPath": format!("/{name}"), "readOnly": true}));
    let volumes = directories.map(|name| json!({"name": name, "hostPath": {"path": format!("/{name}")}}));
    let container = &mut pod["spec"]["containers"][0];
    container["volumeMounts"] = json!(mounts);
    let mut env = container["env"].as_array().cloned().unwrap_or_default();
    env.push(json!({"name": "PATH", "value": "/bin:/usr/bin"}));
    container["env"] = json!(env);
    pod["spec"]["volumes"] = json!(volumes);
    pod
}

/// A pod `name` with the label `app`, ready when it serves.
pub(super) fn server(c: &Cluster, name: &str, app: &str, extra: &Value) {
    let container = json!({
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {"tcpSocket": {"port": 8080}},
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "other", "containerPort": 8081}]});
    let mut object = with_perl(pod(name, SERVER, &container, extra));
    object["metadata"]["labels"] = json!({"app": app});
    run(c, &object);
}

pub(super) fn address(c: &Cluster, pod: &str) -> String {
    c.api().object(&format!("{}/{pod}", core("pods")))["status"]["podIP"].as_str().unwrap().to_owned()
}

pub(super) fn client(c: &Cluster) {
    run(c, &pod("client", "exec sleep 100000", &json!({}), &json!({})));
}

pub(super) fn service(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

/// What the client gets from an address, once it gets anything.
fn fetch(c: &Cluster, from: &str) -> String {
    eventually(&format!("{from} answers"), || {
        let asked =
            c.try_kubectl(&["exec", "client", "--", "timeout", "2", "wget", "-q", "-O", "-", &format!("http://{from}/name")]);
        (asked.code == Some(0)).then(|| asked.stdout.trim().to_owned())
    })
}

/// Waits until nobody answers there.
fn silent(c: &Cluster, from: &str) {
    eventually(&format!("{from} is silent"), || {
        let asked =
            c.try_kubectl(&["exec", "client", "--", "timeout", "1", "wget", "-q", "-O", "-", &format!("http://{from}/name")]);
        (asked.code != Some(0)).then_some(())
    });
}

/// Which servers answer twenty questions of the client.
pub(super) fn answering(c: &Cluster, from: &str) -> Vec<String> {
    let script = format!("for i in $(seq 20); do timeout 2 wget -q -O - http://{from}/name; done | sort -u");
    exec(c, "client", &script).lines().map(str::to_owned).collect()
}

/// What a question about a name is answered with.
fn resolved(c: &Cluster, kind: &str, name: &str) -> String {
    let asked = c.try_kubectl(&["exec", "client", "--", "nslookup", &format!("-type={kind}"), name]);
    asked.stdout + &asked.stderr
}

/// Waits until a name has this in its answer.
fn resolves(c: &Cluster, kind: &str, name: &str, expected: &str) {
    eventually(&format!("{kind} {name} has {expected}"), || resolved(c, kind, name).contains(expected).then_some(()));
}

/// The name under which the names of an address are.
fn reversed(address: &str) -> String {
    let parts: Vec<_> = address.rsplit('.').collect();
    format!("{}.in-addr.arpa", parts.join("."))
}

/// Addresses in the slices of a service that are ready, sorted.
pub(super) fn in_slices(c: &Cluster, service: &str) -> Vec<String> {
    let list = c.api().object(&format!("{SLICES}?labelSelector=kubernetes.io/service-name%3D{service}"));
    let endpoints =
        list["items"].as_array().unwrap().iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let mut found: Vec<_> =
        ready.flat_map(|e| e["addresses"].as_array().unwrap()).map(|a| a.as_str().unwrap().to_owned()).collect();
    found.sort();
    found
}

/// Addresses in the Endpoints of a service, sorted; nothing when there is no such object.
pub(super) fn in_endpoints(c: &Cluster, service: &str) -> Option<Vec<String>> {
    let answer = c.api().get(&format!("{}/{service}", core("endpoints")));
    let object = (answer.status == 200).then(|| answer.json())?;
    let subsets = object["subsets"].as_array().into_iter().flatten();
    let mut found: Vec<_> = subsets
        .flat_map(|s| s["addresses"].as_array().into_iter().flatten())
        .map(|a| a["ip"].as_str().unwrap().to_owned())
        .collect();
    found.sort();
    Some(found)
}

/// Waits until both forms of a service's endpoints have these addresses.
pub(super) fn endpoints_are(c: &Cluster, service: &str, expected: &[&String]) {
    let mut expected: Vec<_> = expected.iter().map(|address| (*address).clone()).collect();
    expected.sort();
    eventually(&format!("{service} has {expected:?}"), || {
        (in_slices(c, service) == expected && in_endpoints(c, service).as_ref() == Some(&expected)).then_some(())
    });
}

/// Conformance: [sig-network] DNS should provide /etc/hosts entries for the cluster [Conformance]
/// Conformance: [sig-network] DNS should provide DNS for ExternalName services [Conformance]
/// Conformance: [sig-network] DNS should provide DNS for pods for Hostname [Conformance]
/// Conformance: [sig-network] DNS should provide DNS for pods for Subdomain [Conformance]
/// Conformance: [sig-network] DNS should provide DNS for services [Conformance]
/// Conformance: [sig-network] DNS should provide DNS for the cluster [Conformance]
/// Conformance: [sig-network] DNS should resolve DNS of partial qualified names for services [LinuxOnly] [Conformance]
/// Conformance: [sig-network] DNS should support configurable pod DNS nameservers [Conformance]
#[test]
fn names() {
    let c = Cluster::start(KNARR);
    let port = json!([{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]);
    let cluster_ip = create(&c, &core("services"), &service("front", &json!({"selector": {"app": "web"}, "ports": port})));
    let cluster_ip = cluster_ip["spec"]["clusterIP"].as_str().unwrap();
    create(&c, &core("services"), &service("inside", &json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": port})));
    create(&c, &core("services"), &service("outside", &json!({"type": "ExternalName", "externalName": "foo.example.com"})));
    server(&c, "web", "web", &json!({"hostname": "host", "subdomain": "inside"}));
    client(&c);
    let ip = address(&c, "web");
    resolves(&c, "a", "kubernetes.default.svc.cluster.local", "10.43.0.1");
    for name in ["front", "front.default", "front.default.svc", "front.default.svc.cluster.local"] {
        // Without a dot at its end a name goes through the search list of the pod, which nslookup does not do for every type.
        let whole = format!("{name}{}", &".default.svc.cluster.local"[name.len() - "front".len()..]);
        resolves(&c, "a", &whole, cluster_ip);
        assert_eq!(fetch(&c, name), "host", "{name}");
    }
    resolves(&c, "a", "inside.default.svc.cluster.local", &ip);
    resolves(&c, "a", "host.inside.default.svc.cluster.local", &ip);
    for name in ["front", "inside"] {
        resolves(&c, "srv", &format!("_http._tcp.{name}.default.svc.cluster.local"), ".default.svc.cluster.local");
    }
    resolves(&c, "ptr", &reversed(cluster_ip), "front.default.svc.cluster.local");
    resolves(&c, "ptr", &reversed(&ip), "host.inside.default.svc.cluster.local");
    assert_eq!(
        exec(&c, "web", "hostname; hostname -f; grep -c \"$IP.host.inside.default.svc.cluster.local.host$\" /etc/hosts"),
        "host\nhost.inside.default.svc.cluster.local\n1"
    );

    resolves(&c, "cname", "outside.default.svc.cluster.local", "foo.example.com");
    let outside = format!("{}/outside", core("services"));
    patch(&c, &outside, &json!({"spec": {"externalName": "bar.example.com"}}));
    resolves(&c, "cname", "outside.default.svc.cluster.local", "bar.example.com");
    let change = json!({"spec": {"type": "ClusterIP", "externalName": null, "clusterIP": "10.43.0.99", "ports": port}});
    patch(&c, &outside, &change);
    resolves(&c, "a", "outside.default.svc.cluster.local", "10.43.0.99");

    let config = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"]}});
    run(&c, &pod("configured", "exec sleep 100000", &json!({}), &config));
    assert_eq!(exec(&c, "configured", "cat /etc/resolv.conf"), "search resolv.conf.local\nnameserver 1.1.1.1");
}

/// Conformance: [sig-network] Services should be able to change the type from ClusterIP to ExternalName [Conformance]
/// Conformance: [sig-network] Services should be able to change the type from ExternalName to ClusterIP [Conformance]
/// Conformance: [sig-network] Services should be able to change the type from ExternalName to NodePort [Conformance]
/// Conformance: [sig-network] Services should be able to change the type from NodePort to ExternalName [Conformance]
/// Conformance: [sig-network] Services should be able to create a functioning NodePort service [Conformance]
/// Conformance: [sig-network] Services should serve a basic endpoint from pods [Conformance]
/// Conformance: [sig-network] Services should serve endpoints on same port and different protocols [Conformance]
/// Conformance: [sig-network] Services should serve multiport endpoints from pods [Conformance]
/// Conformance: [sig-network] Networking Granular Checks: Pods should function for intra-pod communication: http [NodeConformance] [Conformance]
/// Conformance: [sig-network] Networking Granular Checks: Pods should function for intra-pod communication: udp [NodeConformance] [Conformance]
/// Conformance: [sig-network] Networking Granular Checks: Pods should function for node-pod communication: http [LinuxOnly] [NodeConformance] [Conformance]
/// Conformance: [sig-network] Networking Granular Checks: Pods should function for node-pod communication: udp [LinuxOnly] [NodeConformance] [Conformance]
#[test]
fn services() {
    let c = Cluster::start(KNARR);
    client(&c);
    let services = core("services");
    let ports = json!([{"name": "one", "port": 80, "targetPort": "http"}, {"name": "two", "port": 81, "targetPort": "other"}]);
    let made = create(&c, &services, &service("front", &json!({"selector": {"app": "web"}, "ports": ports})));
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    endpoints_are(&c, "front", &[]);
    for name in ["web1", "web2"] {
        server(&c, name, "web", &json!({}));
    }
    let [first, second] = ["web1", "web2"].map(|name| address(&c, name));
    endpoints_are(&c, "front", &[&first, &second]);
    for port in [80, 81] {
        eventually("both answer", || (answering(&c, &format!("{ip}:{port}")) == ["web1", "web2"]).then_some(()));
    }
    pods_and_nodes(&c, &[(&first, "web1"), (&second, "web2")]);
    protocols(&c, &[first.clone(), second.clone()]);
    types(&c);
    delete(&c, &format!("{}/web1", core("pods")));
    endpoints_are(&c, "front", &[&second]);
    eventually("only one answers", || (answering(&c, &format!("{ip}:80")) == ["web2"]).then_some(()));
    delete(&c, &format!("{}/web2", core("pods")));
    endpoints_are(&c, "front", &[]);
    silent(&c, &format!("{ip}:80"));
}

/// What the node is answered over UDP.
fn ask(server: &str) -> Option<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    socket.send_to(b"x", server).ok()?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Pods reach pods, and the node reaches pods, over HTTP and UDP.
fn pods_and_nodes(c: &Cluster, pods: &[(&String, &str)]) {
    for (ip, name) in pods {
        assert_eq!(fetch(c, &format!("{ip}:8080")), *name);
        assert_eq!(testing::http::get(&format!("{ip}:8080"), "/name").unwrap().trim(), *name);
        assert_eq!(exec(c, "web1", &ASK.replace("PEER", &format!("{ip}:8080"))), **ip);
        eventually("the node asks over UDP", || (ask(&format!("{ip}:8080"))? == **ip).then_some(()));
    }
}

/// One port number for TCP and for UDP; each goes by itself.
fn protocols(c: &Cluster, servers: &[String]) {
    let tcp = json!({"name": "tcp", "port": 80, "targetPort": 8080, "protocol": "TCP"});
    let udp = json!({"name": "udp", "port": 80, "targetPort": 8080, "protocol": "UDP"});
    let path = format!("{}/both", core("services"));
    let made = create(c, &core("services"), &service("both", &json!({"selector": {"app": "web"}, "ports": [tcp, udp]})));
    let address = format!("{}:80", made["spec"]["clusterIP"].as_str().unwrap());
    let over_udp = || ask(&address).is_some_and(|ip| servers.contains(&ip));
    fetch(c, &address);
    eventually("UDP is answered", || over_udp().then_some(()));
    patch(c, &path, &json!({"spec": {"ports": [tcp]}}));
    eventually("UDP is silent", || (!over_udp()).then_some(()));
    fetch(c, &address);
    patch(c, &path, &json!({"spec": {"ports": [udp]}}));
    silent(c, &address);
    eventually("UDP is answered again", || over_udp().then_some(()));
}

/// A service becomes one of another type and back.
fn types(c: &Cluster) {
    let path = format!("{}/changing", core("services"));
    let outside = json!({"type": "ExternalName", "externalName": "front.default.svc.cluster.local", "clusterIP": null,
        "clusterIPs": null, "ports": null, "selector": null});
    create(c, &core("services"), &service("changing", &json!({"type": "ExternalName", "externalName": "somewhere.example.com"})));
    for kind in ["ClusterIP", "NodePort"] {
        let inside = json!({"type": kind, "externalName": null, "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
        let made = patch(c, &path, &json!({"spec": inside}));
        let ip = made["spec"]["clusterIP"].as_str().unwrap();
        resolves(c, "a", "changing.default.svc.cluster.local", ip);
        fetch(c, &format!("{ip}:80"));
        fetch(c, "changing");
        let node_port = &made["spec"]["ports"][0]["nodePort"];
        assert_eq!(node_port.is_u64(), kind == "NodePort", "{made}");
        if kind == "NodePort" {
            fetch(c, &format!("{}:{node_port}", machine::ADDRESS));
        }
        patch(c, &path, &json!({"spec": outside}));
        resolves(c, "cname", "changing.default.svc.cluster.local", "front.default.svc.cluster.local");
    }
}

/// Conformance: [sig-network] Services should be able to switch session affinity for NodePort service [LinuxOnly] [Conformance]
/// Conformance: [sig-network] Services should be able to switch session affinity for service with type clusterIP [LinuxOnly] [Conformance]
/// Conformance: [sig-network] Services should have session affinity work for NodePort service [LinuxOnly] [Conformance]
/// Conformance: [sig-network] Services should have session affinity work for service with type clusterIP [LinuxOnly] [Conformance]
#[test]
fn affinity() {
    let c = Cluster::start(KNARR);
    client(&c);
    for name in ["web1", "web2", "web3"] {
        server(&c, name, "web", &json!({}));
    }
    for kind in ["ClusterIP", "NodePort"] {
        let name = kind.to_lowercase();
        let spec = json!({"type": kind, "selector": {"app": "web"}, "sessionAffinity": "ClientIP",
            "ports": [{"port": 80, "targetPort": 8080}]});
        let made = create(&c, &core("services"), &service(&name, &spec));
        let mut ways = vec![format!("{}:80", made["spec"]["clusterIP"].as_str().unwrap())];
        ways.extend(made["spec"]["ports"][0]["nodePort"].as_u64().map(|port| format!("{}:{port}", machine::ADDRESS)));
        let servers = |expected: usize| {
            for way in &ways {
                eventually(&format!("{expected} answer at {way}"), || (answering(&c, way).len() == expected).then_some(()));
            }
        };
        ways.iter().for_each(|way| drop(fetch(&c, way)));
        servers(1);
        let path = format!("{}/{name}", core("services"));
        patch(&c, &path, &json!({"spec": {"sessionAffinity": "None"}}));
        servers(3);
        patch(&c, &path, &json!({"spec": {"sessionAffinity": "ClientIP"}}));
        servers(1);
    }
}

/// Conformance: [sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol [LinuxOnly] [Conformance]
#[test]
fn ports_of_the_node() {
    let c = Cluster::start(KNARR);
    client(&c);
    let port = 54323;
    for (name, ip, protocol) in
        [("pod1", "127.0.0.1", "TCP"), ("pod2", machine::ADDRESS, "TCP"), ("pod3", machine::ADDRESS, "UDP")]
    {
        let container = json!({"env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "ports": [{"containerPort": 8080, "hostPort": port, "hostIP": ip, "protocol": protocol}]});
        run(&c, &with_perl(pod(name, SERVER, &container, &json!({}))));
    }
    let get = |ip: &str| eventually(ip, || testing::http::get(&format!("{ip}:{port}"), "/name").ok()).trim().to_owned();
    assert_eq!((get("127.0.0.1"), get(machine::ADDRESS)), ("pod1".to_owned(), "pod2".to_owned()));
    let third = address(&c, "pod3");
    eventually("UDP", || (ask(&format!("{}:{port}", machine::ADDRESS))? == third).then_some(()));
}
