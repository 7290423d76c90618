//! A cluster of two families on two nodes: what upstream's tests of `[Feature:IPv6DualStack]` check, and what IPv6 needs besides.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use serde_json::{Value, json};
use testing::{Cluster, Outcome, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const OPTIONS: &[&str] = &[
    "--cluster-cidr",
    "10.42.0.0/16,fd42::/48",
    "--service-cidr",
    "10.43.0.0/16,fd43::/112",
    "--node-ip",
    "fd77::1",
    "--log-level",
    "info,network=debug",
];

/// A pod on each node that tells its name and its addresses, and a port of each node that leads to it.
const WEB: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: main
          image: 127.0.0.1:5000/busybox:1.36
          command: [sh, -c, "mkdir -p /www/cgi-bin; echo $NODE > /www/index.html; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' > /www/cgi-bin/client; chmod +x /www/cgi-bin/client; exec httpd -f -p 8080 -h /www"]
          ports: [{containerPort: 8080, hostPort: 8088}]
          env:
            - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
            - {name: PODS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
            - {name: HOSTS, valueFrom: {fieldRef: {fieldPath: status.hostIPs}}}
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
"#;

const NODES: [&str; 2] = ["n1", "n2"];

/// Node, name and addresses of a pod.
struct Web {
    node: String,
    name: String,
    ips: Vec<IpAddr>,
}

fn texts(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
}

fn start(options: &[&str]) -> Cluster {
    let mut c = Cluster::prepare(KNARR);
    c.add_host(2);
    c.start_server_with(&[OPTIONS, options].concat());
    let token = c.token_file();
    c.start_agent_with(2, &token, &["--node-name", "n2", "--node-ip", "192.168.77.2,fd77::2"]);
    c.wait_nodes(2);
    c
}

fn start_web(c: &Cluster) -> Vec<Web> {
    c.k_with("apply -f -", WEB);
    c.k("rollout status daemonset/web --timeout=60s");
    let list = c.api().object("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb");
    let pod = |pod: &Value| Web {
        node: pod["spec"]["nodeName"].as_str().unwrap().to_owned(),
        name: pod["metadata"]["name"].as_str().unwrap().to_owned(),
        ips: texts(&pod["status"]["podIPs"], "ip").iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    let mut pods: Vec<Web> = list["items"].as_array().unwrap().iter().map(pod).collect();
    pods.sort_by(|a, b| a.node.cmp(&b.node));
    assert_eq!(pods.iter().map(|pod| pod.node.as_str()).collect::<Vec<_>>(), NODES);
    pods
}

/// `http://ADDRESS:PORT/PATH`.
fn url(address: impl AsRef<str>, port: u16, path: &str) -> String {
    let address = address.as_ref();
    if address.contains(':') { format!("http://[{address}]:{port}/{path}") } else { format!("http://{address}:{port}/{path}") }
}

/// What a pod gets of a URL, once it gets anything: a node hears of what is new elsewhere a moment later.
fn answer(c: &Cluster, pod: &str, url: &str) -> String {
    eventually(&format!("{pod} gets {url}"), || Some(get(c, pod, url)).filter(|said| !said.is_empty()))
}

/// What a pod gets of a URL, empty when it gets nothing.
fn get(c: &Cluster, pod: &str, url: &str) -> String {
    c.try_kubectl(&["exec", pod, "--", "timeout", "5", "wget", "-q", "-O", "-", url]).stdout.trim().to_owned()
}

/// What a host gets of a URL.
fn fetch(c: &Cluster, host: u8, url: &str) -> String {
    Outcome::of(c.on_host(host, "timeout").args(["5", "busybox", "wget", "-q", "-O", "-", url])).stdout.trim().to_owned()
}

/// The address of a client, as httpd tells it.
fn client(said: &str) -> &str {
    let said = said.trim_start_matches('[').trim_end_matches(']');
    said.strip_prefix("::ffff:").unwrap_or(said)
}

/// The addresses that a name has for a pod.
fn resolve(c: &Cluster, pod: &str, kind: &str, name: &str) -> Vec<String> {
    let answer =
        c.try_kubectl(&["exec", pod, "--", "nslookup", &format!("-type={kind}"), &format!("{name}.default.svc.cluster.local.")]);
    let lines =
        answer.stdout.lines().skip_while(|line| !line.starts_with("Name:")).filter_map(|line| line.strip_prefix("Address: "));
    let mut addresses: Vec<String> = lines.map(|address| address.trim().to_owned()).collect();
    addresses.sort();
    addresses
}

#[test]
fn two_families_on_two_nodes() {
    let c = start(&[]);
    nodes_have_both(&c);
    let pods = start_web(&c);
    pods_have_both(&c, &pods);
    pods_of_one_node_stay_reachable(&c);
    services_of_each_policy(&c, &pods);
    a_service_grows_and_shrinks(&c, &pods);
    nodes_lead_in(&c, &pods);
    policies_hold(&c, &pods);
    outside_sees_the_node(&c, &pods);
    ingress_listens_on_both(&c);
}

/// Nodes on one link send packets of pods as they are, and a cluster may change its mind.
#[test]
fn routes_instead_of_vxlan() {
    let mut c = start(&["--pod-network", "host-gw"]);
    let pods = start_web(&c);
    pods_have_both(&c, &pods);
    assert_eq!(c.kubectl(&["exec", &pods[1].name, "--", "cat", "/sys/class/net/eth0/mtu"]).trim(), "1500");
    let ip = |c: &Cluster, line: &str| Outcome::of(c.on_host(2, "ip").args(line.split(' ')));
    let routes = |c: &Cluster| format!("{}{}", ip(c, "route").stdout, ip(c, "-6 route").stdout);
    let by_n1 = |c: &Cluster| ["via 192.168.77.1", "via fd77::1"].iter().all(|way| routes(c).contains(way));
    assert!(by_n1(&c), "{}", routes(&c));
    assert!(ip(&c, "link show knarr-vxlan").code != Some(0));
    nodes_lead_in(&c, &pods);
    let ranges: Vec<String> = routes(&c)
        .lines()
        .filter(|line| line.contains("via 192.168.77.1 ") || line.contains("via fd77::1 "))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(ranges.len(), 2, "{}", routes(&c));
    for range in &ranges {
        let deleted = ip(&c, &format!("route del {range}"));
        assert_eq!(deleted.code, Some(0), "{deleted:?}");
    }
    eventually("routes that somebody deletes come back", || by_n1(&c).then_some(()));
    // With a link its routes go; its address of IPv6 goes, too, and whoever has given it that gives it again.
    for line in ["link set node0 down", "link set node0 up", "address add fd77::2/64 dev node0 nodad"] {
        assert_eq!(ip(&c, line).code, Some(0), "{line}");
    }
    eventually("routes come back with their link", || by_n1(&c).then_some(()));
    pods_have_both(&c, &pods);

    c.kill_server();
    c.start_server_with(OPTIONS);
    eventually("the agent has changed over", || (ip(&c, "link show knarr-vxlan").code == Some(0) && !by_n1(&c)).then_some(()));
    // What only routes need of the links goes with them.
    eventually("the links are as they were", || {
        let setting = Outcome::of(c.on_host(2, "cat").arg("/proc/sys/net/ipv4/conf/node0/route_localnet"));
        (setting.stdout.trim() == "0").then_some(())
    });
    eventually("the nodes reach each other's pods again", || {
        let (from, to) = (&pods[1], &pods[0]);
        to.ips.iter().all(|ip| get(&c, &from.name, &url(ip.to_string(), 8080, "")) == to.node).then_some(())
    });
    // A device that somebody takes away comes back, too.
    assert_eq!(ip(&c, "link del knarr-vxlan").code, Some(0));
    eventually("the device comes back", || (ip(&c, "link show knarr-vxlan").code == Some(0)).then_some(()));
    pods_have_both(&c, &pods);
}

/// "should have ipv4 and ipv6 internal node ip", "should have ipv4 and ipv6 node podCIDRs"
fn nodes_have_both(c: &Cluster) {
    for (number, name) in NODES.iter().enumerate() {
        let node = c.api().object(&format!("/api/v1/nodes/{name}"));
        let ranges: Vec<ipnet::IpNet> =
            node["spec"]["podCIDRs"].as_array().unwrap().iter().map(|range| range.as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(
            ranges.iter().map(|range| (range.addr().is_ipv4(), range.prefix_len())).collect::<Vec<_>>(),
            [(true, 24), (false, 64)]
        );
        let addresses = node["status"]["addresses"].as_array().unwrap();
        let internal: Vec<&str> =
            addresses.iter().filter(|one| one["type"] == "InternalIP").map(|one| one["address"].as_str().unwrap()).collect();
        assert_eq!(internal, [format!("192.168.77.{}", number + 1), format!("fd77::{}", number + 1)]);
    }
    let ranges = c.k("get servicecidr kubernetes -o jsonpath={.spec.cidrs}");
    assert_eq!(ranges, r#"["10.43.0.0/16","fd43::/112"]"#);
    assert_eq!(c.k("get service kube-dns -n kube-system -o jsonpath={.spec.clusterIPs}"), r#"["10.43.0.10","fd43::a"]"#);
}

/// "should create pod, add ipv6 and ipv4 ip to pod ips", "should be able to reach pod on ipv4 and ipv6 ip"
fn pods_have_both(c: &Cluster, pods: &[Web]) {
    for from in pods {
        assert_eq!(from.ips.iter().map(IpAddr::is_ipv4).collect::<Vec<_>>(), [true, false]);
        let said = c.kubectl(&["exec", &from.name, "--", "sh", "-c", "echo $PODS $HOSTS"]);
        let number = &from.node[1..];
        assert_eq!(said.trim(), format!("{},{} 192.168.77.{number},fd77::{number}", from.ips[0], from.ips[1]));
        let hosts = c.kubectl(&["exec", &from.name, "--", "cat", "/etc/hosts"]);
        assert!(from.ips.iter().all(|ip| hosts.contains(&ip.to_string())), "{hosts}");
        for to in pods {
            for ip in &to.ips {
                assert_eq!(answer(c, &from.name, &url(ip.to_string(), 8080, "")), to.node, "{} to {ip}", from.node);
                let seen = answer(c, &from.name, &url(ip.to_string(), 8080, "cgi-bin/client"));
                let own = from.ips.iter().find(|own| own.is_ipv4() == ip.is_ipv4()).unwrap();
                assert_eq!(client(&seen), own.to_string());
            }
        }
    }
}

/// The node forwards between its own pods, and must not tell them that there is a shorter way: they would believe it and lose each other.
fn pods_of_one_node_stay_reachable(c: &Cluster) {
    let names = ["near-0", "near-1", "near-2"];
    for name in names {
        let overrides = r#"{"spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0}}"#;
        let command = ["--command", "--", "httpd", "-f", "-p", "8080", "-h", "/etc"];
        let run = ["run", name, "--image", "127.0.0.1:5000/busybox:1.36", "--overrides", overrides];
        c.kubectl(&[&run[..], &command].concat());
    }
    c.kubectl(&[&["wait", "--for=condition=Ready", "pod", "--timeout=60s"][..], &names].concat());
    let address = |name: &str| c.k(&format!("get pod {name} -o jsonpath={{.status.podIPs[1].ip}}"));
    let addresses = names.map(address);
    for (name, ip) in names.iter().zip(&addresses) {
        answer(c, name, &url(ip, 8080, "hostname"));
    }
    // A pod believes a redirect after the first answer.
    for round in 0..3 {
        for from in names {
            for (name, ip) in names.iter().zip(&addresses) {
                assert_eq!(get(c, from, &url(ip, 8080, "hostname")), *name, "{from} in round {round}");
            }
        }
    }
    c.kubectl(&[&["delete", "pod"][..], &names].concat());
}

/// A service with these fields in its spec, as it was made.
fn make(c: &Cluster, name: &str, more: &Value) -> Value {
    let mut spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    c.k_with("create -f - -o json", &object.to_string());
    c.api().object(&format!("/api/v1/namespaces/default/services/{name}"))
}

fn addresses(service: &Value) -> Vec<String> {
    service["spec"]["clusterIPs"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

/// A service has these families, an EndpointSlice of each with all pods, and is reached at each of its addresses.
fn check(c: &Cluster, service: &Value, families: &[&str], pods: &[Web]) {
    let name = service["metadata"]["name"].as_str().unwrap();
    assert_eq!(service["spec"]["ipFamilies"], json!(families), "{name}");
    let addresses = addresses(service);
    let family = |address: &String| if address.contains(':') { "IPv6" } else { "IPv4" };
    assert_eq!(addresses.iter().map(family).collect::<Vec<_>>(), families, "{name}");
    eventually(&format!("{name} has slices of its families"), || {
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{name}"
        );
        let slices = c.api().object(&path);
        let full = |slice: &&Value| slice["endpoints"].as_array().is_some_and(|all| all.len() == pods.len());
        let mut found: Vec<&str> =
            slices["items"].as_array()?.iter().filter(full).map(|slice| slice["addressType"].as_str().unwrap()).collect();
        found.sort();
        let mut wanted = families.to_vec();
        wanted.sort();
        (found == wanted).then_some(())
    });
    for pod in pods {
        for address in &addresses {
            eventually(&format!("{address} answers {}", pod.node), || {
                NODES.contains(&get(c, &pod.name, &url(address, 80, "")).as_str()).then_some(())
            });
        }
        for (kind, family) in [("A", "IPv4"), ("AAAA", "IPv6")] {
            let wanted: Vec<String> =
                addresses.iter().filter(|address| address.contains(':') == (family == "IPv6")).cloned().collect();
            eventually(&format!("{kind} {name} is {wanted:?}"), || (resolve(c, &pod.name, kind, name) == wanted).then_some(()));
        }
    }
}

/// "should create service with ipv4 cluster ip", "... ipv6 cluster ip", "... ipv4,v6 cluster ip", "... ipv6,v4 cluster ip"
fn services_of_each_policy(c: &Cluster, pods: &[Web]) {
    check(c, &make(c, "four", &json!({})), &["IPv4"], pods);
    check(c, &make(c, "six", &json!({"ipFamilies": ["IPv6"]})), &["IPv6"], pods);
    let both = make(c, "both", &json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}));
    check(c, &both, &["IPv4", "IPv6"], pods);
    let turned = make(c, "turned", &json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}));
    check(c, &turned, &["IPv6", "IPv4"], pods);
    // A headless one leads to the pods themselves, by both families.
    make(c, "headless", &json!({"clusterIP": "None", "ipFamilyPolicy": "RequireDualStack"}));
    for (kind, index) in [("A", 0), ("AAAA", 1)] {
        let mut wanted: Vec<String> = pods.iter().map(|pod| pod.ips[index].to_string()).collect();
        wanted.sort();
        eventually("the headless service resolves", || (resolve(c, &pods[0].name, kind, "headless") == wanted).then_some(()));
    }
}

fn a_service_grows_and_shrinks(c: &Cluster, pods: &[Web]) {
    let grown = |policy: &str| {
        let patch = json!({"spec": {"ipFamilyPolicy": policy}}).to_string();
        c.kubectl(&["patch", "service", "four", "-p", &patch]);
        c.api().object("/api/v1/namespaces/default/services/four")
    };
    let first = addresses(&c.api().object("/api/v1/namespaces/default/services/four"))[0].clone();
    let service = grown("PreferDualStack");
    assert_eq!(addresses(&service)[0], first);
    check(c, &service, &["IPv4", "IPv6"], pods);
    let second = addresses(&service)[1].clone();
    let service = grown("SingleStack");
    check(c, &service, &["IPv4"], pods);
    assert_eq!(addresses(&service), [first]);
    eventually("the second address is nobody's", || get(c, &pods[0].name, &url(&second, 80, "")).is_empty().then_some(()));
    // Somebody else may have it now.
    let service = make(c, "heir", &json!({"clusterIP": second, "ipFamilyPolicy": "SingleStack"}));
    check(c, &service, &["IPv6"], pods);
}

/// Node ports and host ports of both families.
fn nodes_lead_in(c: &Cluster, pods: &[Web]) {
    let ports = json!([{"port": 80, "targetPort": 8080, "nodePort": 30080}]);
    make(c, "nodes", &json!({"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "ports": ports}));
    // test/e2e/network/localhost_nodeports.go, "should proxy localhost NodePort traffic to backends across nodes".
    for node in NODES {
        eventually(&format!("{node} answers n2 at its own loopback"), || {
            (fetch(c, 2, &url("127.0.0.1", 30080, "")) == node).then_some(())
        });
    }
    for number in [1, 2] {
        for address in [format!("192.168.77.{number}"), format!("fd77::{number}")] {
            for port in [30080, 8088] {
                let from = 3 - number;
                if from == 2 {
                    eventually(&format!("{address}:{port} answers"), || {
                        NODES.contains(&fetch(c, from, &url(&address, port, "")).as_str()).then_some(())
                    });
                }
                eventually(&format!("{address}:{port} answers a pod"), || {
                    NODES.contains(&get(c, &pods[usize::from(from) - 1].name, &url(&address, port, "")).as_str()).then_some(())
                });
            }
        }
    }
}

/// A policy lets in one range of IPv6 with an exception, and so nobody by IPv4.
fn policies_hold(c: &Cluster, pods: &[Web]) {
    let (server, client) = (&pods[0], &pods[1]);
    let policy = |except: &[String]| {
        let block = json!({"cidr": "fd42::/48", "except": except});
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "six"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [{"ipBlock": block}]}]}})
    };
    let reached = |ip: &IpAddr| get(c, &client.name, &url(ip.to_string(), 8080, "")) == server.node;
    c.k_with("apply -f -", &policy(&[]).to_string());
    eventually("the policy holds for IPv4", || (!reached(&server.ips[0])).then_some(()));
    eventually("the range is let in", || reached(&server.ips[1]).then_some(()));
    c.k_with("apply -f -", &policy(&[format!("{}/128", client.ips[1])]).to_string());
    eventually("the exception holds", || (!reached(&server.ips[1])).then_some(()));
    c.k("delete networkpolicy six");
    eventually("without the policy both answer", || server.ips.iter().all(reached).then_some(()));
}

/// Pods are hidden behind their node's address where they leave the cluster.
fn outside_sees_the_node(c: &Cluster, pods: &[Web]) {
    // Host ports of the other node: its pod is reached through the node's address, which is outside of the cluster's ranges.
    let to = &pods[1];
    assert_eq!(to.node, "n2");
    for (address, seen) in [("192.168.77.2", "192.168.77.1"), ("fd77::2", "fd77::1")] {
        let said = answer(c, &pods[0].name, &url(address, 8088, "cgi-bin/client"));
        assert_eq!(client(&said), seen, "{address}");
    }
}

fn ingress_listens_on_both(c: &Cluster) {
    let backend = json!({"service": {"name": "six", "port": {"number": 80}}});
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
        "spec": {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}});
    c.k_with("apply -f -", &ingress.to_string());
    for address in ["192.168.77.1", "fd77::1"] {
        eventually(&format!("ingress answers at {address}"), || {
            NODES.contains(&fetch(c, 2, &url(address, 80, "")).as_str()).then_some(())
        });
    }
    eventually("the Ingress says where", || {
        let status = c.k("get ingress web -o jsonpath={.status.loadBalancer.ingress[*].ip}");
        (status == "192.168.77.1 fd77::1").then_some(())
    });
}
