//! Services on the real kernel: pods, host and an outside client connect through the table that the proxy keeps.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use client::Informers;
use client::fake::Fake;
use common::{Netns, isolate, sh, tcp, udp};
use k8s_openapi::api::core::v1::{Event, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use network::{Options, PodNetwork, proxy};
use serde_json::{Value, json};

const NODE: &str = "n1";

struct Cluster {
    fake: Fake,
    runtime: tokio::runtime::Runtime,
    /// None once its process has ended.
    network: Option<PodNetwork>,
    tasks: Tasks,
    directory: tempfile::TempDir,
    outside: Netns,
}

impl Cluster {
    fn start() -> Self {
        Self::start_with(|_| ())
    }

    fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let fake = Fake::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let outside = Netns::new();
        // An uplink, so that there is an outside.
        sh(&format!("ip link add up0 type veth peer name eth0 netns {}", outside.path().display()));
        sh("ip addr add 192.0.2.1/24 dev up0; ip link set up0 up");
        outside.run(|| sh("ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up; ip route add default via 192.0.2.1"));
        let mut options = options(directory.path());
        change(&mut options);
        let network = runtime.block_on(PodNetwork::start(options)).unwrap();
        let (tasks, _) = Tasks::root();
        let cluster = Self { fake, runtime, network: Some(network.clone()), tasks, directory, outside };
        cluster.proxy(&network, &cluster.tasks);
        cluster
    }

    fn proxy(&self, network: &PodNetwork, tasks: &Tasks) {
        let _context = self.runtime.enter();
        let readiness = Readiness::default();
        let options = proxy::Options {
            node_name: NODE.to_owned(),
            node_client: self.fake.client(),
            pod_cidrs: network.options().pod_cidrs.clone(),
            inner_cidrs: ["10.42.0.0/16", "10.43.0.0/16"].map(|cidr| cidr.parse().unwrap()).to_vec(),
            listen: proxy::Listen::default(),
        };
        let informers = Informers::new(self.fake.client(), tasks.clone());
        let run = proxy::run(options, informers, network.table().clone(), readiness.gate("proxy"), tasks.clone());
        tasks.spawn_until_cancelled("proxy", OnFailure::Log, async { run.await.map(|_| ()) });
        self.runtime.block_on(readiness.wait(&["proxy"]));
    }

    /// A pod that serves its name on port 8080.
    fn pod(&self, name: &'static str) -> (Netns, IpAddr) {
        let netns = Netns::new();
        let address = self
            .runtime
            .block_on(self.network.as_ref().unwrap().attach(name, &netns.path(), &network::Attachment::default()))
            .unwrap()[0];
        netns.serve(address, 8080, name);
        (netns, address)
    }

    fn service(&self, name: &str, ip: &str, extra: Value, endpoints: &[IpAddr]) {
        let ports = json!([
            {"name": "tcp", "port": 80, "nodePort": extra.get("nodePort")},
            {"name": "udp", "port": 53, "protocol": "UDP"}
        ]);
        let mut spec = json!({"clusterIP": ip, "ports": ports});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec.as_object_mut().unwrap().remove("nodePort");
        let metadata = json!({"namespace": "a", "name": name});
        self.fake.put::<Service>(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
        self.endpoints(name, endpoints);
    }

    /// Lets the load balancer of a service be at `ip`.
    fn balance(&self, name: &str, spec: Value, ip: &str) {
        let metadata = json!({"namespace": "a", "name": name});
        let status = json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
        let service = json!({"metadata": metadata, "spec": spec, "status": status});
        self.fake.put::<Service>(&serde_json::from_value(service).unwrap());
    }

    fn endpoints(&self, name: &str, endpoints: &[IpAddr]) {
        self.slice(name, endpoints.iter().map(|ip| json!({"addresses": [ip], "nodeName": NODE})).collect());
    }

    fn slice(&self, name: &str, endpoints: Value) {
        let metadata = json!({"namespace": "a", "name": name, "labels": {"kubernetes.io/service-name": name}});
        let ports = json!([{"name": "tcp", "port": 8080}, {"name": "udp", "port": 8080, "protocol": "UDP"}]);
        let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        self.fake.put::<EndpointSlice>(&serde_json::from_value(slice).unwrap());
    }
}

fn options(directory: &std::path::Path) -> Options {
    let mut options = Options::new(directory, vec!["10.42.0.0/24".parse().unwrap()], vec!["10.43.0.0/16".parse().unwrap()]);
    options.cluster_cidrs = vec!["10.42.0.0/16".parse().unwrap()];
    options.local_addresses = vec!["10.43.0.53".parse().unwrap()];
    options.reserved_ports = vec![(network::Protocol::Tcp, 10250)];
    options
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Tries until `condition` holds; each attempt waits for the network itself.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
    }
}

/// The names that answer in 40 connections.
fn answers(netns: Option<&Netns>, address: &str) -> BTreeSet<String> {
    let address = at(address);
    let ask = move || (0..40).map(|_| tcp(address).unwrap().split(' ').next().unwrap().to_owned()).collect();
    netns.map_or_else(ask, |netns| netns.run(ask))
}

/// The UDP flows that the kernel tracks to an address, as it lists them.
fn tracked(address: &str) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
    let flows = table.lines().filter(|line| line.contains(" udp ") && line.contains(&format!("dst={address} ")));
    flows.map(str::to_owned).collect()
}

fn both() -> BTreeSet<String> {
    ["a", "b"].map(str::to_owned).into()
}

#[test]
fn everyone_reaches_a_service() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let ((a, a_ip), (_b, b_ip), (c, c_ip)) = (cluster.pod("a"), cluster.pod("b"), cluster.pod("c"));
    cluster.service("web", "10.43.0.7", json!({"nodePort": 30080, "externalIPs": ["192.0.2.77"]}), &[a_ip, b_ip]);
    until("the service appears", || tcp(at("10.43.0.7:80")).is_ok());
    assert_eq!(answers(None, "10.43.0.7:80"), both(), "the host");
    assert_eq!(answers(Some(&c), "10.43.0.7:80"), both(), "another pod");
    assert_eq!(answers(Some(&a), "10.43.0.7:80"), both(), "an endpoint, itself included");
    assert!(c.run(|| tcp(at("10.43.0.7:80"))).unwrap().ends_with(&c_ip.to_string()), "pods see each other's address");
    for address in ["127.0.0.1:30080", "10.42.0.1:30080", "192.0.2.1:30080"] {
        assert_eq!(answers(None, address), both(), "the host at {address}");
    }
    assert_eq!(answers(Some(&c), "192.0.2.1:30080"), both());
    assert_eq!(answers(Some(&a), "192.0.2.1:30080"), both());
    assert_eq!(answers(Some(&cluster.outside), "192.0.2.1:30080"), both());
    cluster.outside.run(|| sh("ip route add 192.0.2.77 via 192.0.2.1"));
    assert_eq!(answers(Some(&cluster.outside), "192.0.2.77:80"), both());
    assert!(cluster.outside.run(|| tcp(at("192.0.2.1:30080"))).unwrap().ends_with("10.42.0.1"), "masqueraded");

    for refused in ["10.43.0.7:81", "10.43.9.9:80"] {
        assert_eq!(tcp(at(refused)), Err(ErrorKind::ConnectionRefused), "the host at {refused}");
        assert_eq!(c.run(move || tcp(at(refused))), Err(ErrorKind::ConnectionRefused), "a pod at {refused}");
    }
    cluster.endpoints("web", &[]);
    until("the endpoints go", || tcp(at("10.43.0.7:80")).is_err());
    assert_eq!(c.run(|| tcp(at("10.43.0.7:80"))), Err(ErrorKind::ConnectionRefused));
    assert_eq!(cluster.outside.run(|| tcp(at("192.0.2.1:30080"))), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn affinity_and_local_policies() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let ((_a, a_ip), (_b, b_ip), (c, _)) = (cluster.pod("a"), cluster.pod("b"), cluster.pod("c"));
    let sticky = json!({"sessionAffinity": "ClientIP", "nodePort": 30081, "externalTrafficPolicy": "Local"});
    cluster.service("sticky", "10.43.0.8", sticky, &[a_ip, b_ip]);
    until("the service appears", || tcp(at("10.43.0.8:80")).is_ok());
    let chosen = answers(Some(&c), "10.43.0.8:80");
    assert_eq!(chosen.len(), 1, "one client, one endpoint");
    let (gone, left) = if chosen.contains("a") { ("a", b_ip) } else { ("b", a_ip) };
    cluster.endpoints("sticky", &[left]);
    until("affinity moves", || !answers(Some(&c), "10.43.0.8:80").contains(gone));
    cluster.endpoints("sticky", &[a_ip, b_ip]);
    cluster.service("marker", "10.43.0.9", json!({}), &[a_ip]);
    until("both are back", || tcp(at("10.43.0.9:80")).is_ok());
    assert!(!answers(Some(&c), "10.43.0.8:80").contains(gone), "affinity stays where it moved");
    let seen = cluster.outside.run(|| tcp(at("192.0.2.1:30081"))).unwrap();
    assert!(seen.ends_with("192.0.2.2"), "policy Local keeps the client's address: {seen}");
}

#[test]
fn udp_follows_its_endpoint_and_a_restart_keeps_serving() {
    if !isolate() {
        return;
    }
    let mut cluster = Cluster::start();
    let ((_a, a_ip), (_b, b_ip), (c, _)) = (cluster.pod("a"), cluster.pod("b"), cluster.pod("c"));
    cluster.service("dns", "10.43.0.10", json!({}), &[a_ip]);
    until("the service appears", || tcp(at("10.43.0.10:80")).is_ok());
    let socket = c.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    assert!(udp(&socket, at("10.43.0.10:53")).unwrap().starts_with("a "));
    cluster.endpoints("dns", &[b_ip]);
    let reaches = |name: &str| until(name, || udp(&socket, at("10.43.0.10:53")).is_ok_and(|text| text.starts_with(name)));
    reaches("b ");
    // Services without endpoints keep none (kubernetes/kubernetes#139628).
    cluster.endpoints("dns", &[]);
    until("nobody answers, and nothing is sent to who did", || {
        udp(&socket, at("10.43.0.10:53")).is_err() && tracked("10.43.0.10").is_empty()
    });
    cluster.endpoints("dns", &[b_ip]);
    reaches("b ");
    // Who terminates and serves keeps its clients, and gets no new ones.
    cluster.slice(
        "dns",
        json!([{"addresses": [a_ip]}, {"addresses": [b_ip],
        "conditions": {"ready": false, "serving": true, "terminating": true}}]),
    );
    until("new clients get the other", || answers(Some(&c), "10.43.0.10:80") == ["a".to_owned()].into());
    assert!(udp(&socket, at("10.43.0.10:53")).unwrap().starts_with("b "));
    cluster.endpoints("dns", &[a_ip]);
    reaches("a ");

    // A new process: the old table serves until the new proxy knows all services.
    cluster.runtime.block_on(cluster.tasks.drain(Duration::from_secs(5)));
    cluster.network = None;
    let network = cluster.runtime.block_on(PodNetwork::start(options(cluster.directory.path()))).unwrap();
    assert!(tcp(at("10.43.0.10:80")).is_ok());
    assert!(udp(&socket, at("10.43.0.10:53")).unwrap().starts_with("a "), "the old way is what there is");
    // What has changed meanwhile is found out.
    cluster.endpoints("dns", &[b_ip]);
    let (tasks, _) = Tasks::root();
    cluster.proxy(&network, &tasks);
    assert!(tcp(at("10.43.0.10:80")).is_ok());
    reaches("b ");
    // Somebody flushes the rules: the next change puts everything back.
    network::nft::table::delete(&network.options().table).unwrap();
    assert!(tcp(at("10.43.0.10:80")).is_err());
    cluster.service("other", "10.43.0.11", json!({}), &[a_ip]);
    until("both are back", || tcp(at("10.43.0.10:80")).is_ok() && tcp(at("10.43.0.11:80")).is_ok());
}

#[test]
fn the_node_serves_its_own_service_address() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let (c, _) = cluster.pod("c");
    let server = UdpSocket::bind("10.43.0.53:53").unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = server.recv_from(&mut buffer) {
            server.send_to(b"dns", peer).unwrap();
        }
    });
    let ask = || udp(&UdpSocket::bind("0.0.0.0:0").unwrap(), at("10.43.0.53:53"));
    // A Service object for the address changes nothing, whether or not it has endpoints.
    for name in ["before", "kube-dns"] {
        assert_eq!(c.run(ask), Ok("dns".to_owned()), "a pod");
        assert_eq!(ask(), Ok("dns".to_owned()), "the host");
        cluster.service(name, "10.43.0.53", json!({}), &[]);
        cluster.service("marker", "10.43.0.54", json!({}), &[c_address(&cluster)]);
        until("the change is programmed", || tcp(at("10.43.0.54:80")).is_ok());
    }
    assert_eq!(c.run(ask), Ok("dns".to_owned()));
}

/// The address of the pod "c".
fn c_address(cluster: &Cluster) -> IpAddr {
    cluster.network.as_ref().unwrap().leases()["c"].addresses[0]
}

#[test]
fn a_load_balancer_serves_whom_it_should() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let ((_a, a_ip), (c, _)) = (cluster.pod("a"), cluster.pod("c"));
    let spec = |ranges: &[&str]| {
        json!({"type": "LoadBalancer", "clusterIP": "10.43.0.7", "loadBalancerSourceRanges": ranges,
               "ports": [{"name": "tcp", "port": 80}]})
    };
    cluster.endpoints("web", &[a_ip]);
    let outside = || cluster.outside.run(|| tcp(at("192.0.2.1:80")));
    cluster.balance("web", spec(&[]), "192.0.2.1");
    until("everybody is served", || outside().is_ok());
    // The outside is at 192.0.2.2.
    cluster.balance("web", spec(&["198.51.100.0/24", "10.42.0.0/24"]), "192.0.2.1");
    until("strangers are not served", || outside() == Err(ErrorKind::TimedOut));
    assert!(c.run(|| tcp(at("192.0.2.1:80"))).is_ok(), "pods are");
    assert!(tcp(at("10.43.0.7:80")).is_ok(), "the cluster's address is not restricted");
    cluster.balance("web", spec(&["198.51.100.0/24", "192.0.2.0/28", "192.0.2.2/32"]), "192.0.2.1");
    until("a range that has the client", || outside().is_ok());
    cluster.balance("web", spec(&["192.0.2.3/32"]), "192.0.2.1");
    until("its neighbour is not the client", || outside() == Err(ErrorKind::TimedOut));
}

#[test]
fn a_firewall_that_forwards_nothing_is_noticed() {
    if !isolate() {
        return;
    }
    assert!(!network::nft::host::drops_forwarded(network::nft::Family::V4).unwrap());
    sh("nft add table ip filter");
    sh("nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'");
    assert!(network::nft::host::drops_forwarded(network::nft::Family::V4).unwrap());
    sh("nft 'chain ip filter FORWARD { policy accept; }'");
    assert!(!network::nft::host::drops_forwarded(network::nft::Family::V4).unwrap());
}

#[test]
fn nobody_takes_what_is_not_his() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let ((_a, a_ip), (c, _)) = (cluster.pod("a"), cluster.pod("c"));
    cluster.service("web", "10.43.0.7", json!({}), &[a_ip]);
    until("the service appears", || tcp(at("10.43.0.7:80")).is_ok());
    // A pod that says that its host ports are at the service's address, at an address outside, and at the kubelet's port.
    let evil = Netns::new();
    let port = |host_ip: &str, host_port| network::HostPort {
        protocol: network::Protocol::Tcp,
        container_port: 8080,
        host_port,
        host_ip: Some(host_ip.parse().unwrap()),
    };
    let ports = [port("10.43.0.7", 80), port("192.0.2.2", 80), port("192.0.2.1", 10250), port("192.0.2.1", 8081)];
    let evil_ip = cluster
        .runtime
        .block_on(cluster.network.as_ref().unwrap().attach(
            "evil",
            &evil.path(),
            &network::Attachment { ports: ports.to_vec(), ..Default::default() },
        ))
        .unwrap()[0];
    evil.serve(evil_ip, 8080, "evil");
    let refused: Vec<String> = cluster.network.as_ref().unwrap().refused("evil").iter().map(ToString::to_string).collect();
    let reserved = ["port 80/TCP of 10.43.0.7", "port 10250/TCP of 192.0.2.1"];
    assert_eq!(refused, reserved.map(|place| format!("{place} is reserved for the cluster itself")));
    Netns::current().serve([192, 0, 2, 1].into(), 10250, "kubelet");
    Netns::current().serve([192, 0, 2, 1].into(), 8443, "program");
    cluster.outside.serve([192, 0, 2, 2].into(), 80, "outside");
    // And services that do the same, named before and after the other.
    for name in ["aaa", "zzz"] {
        let ports = [80, 10250, 8443, 8081].map(|port| json!({"name": "tcp", "port": port}));
        let extra = json!({"externalIPs": ["10.43.0.7", "192.0.2.1"], "externalTrafficPolicy": "Local", "ports": ports});
        cluster.service(name, &format!("10.43.0.{}", name.as_bytes()[0]), extra, &[evil_ip]);
    }
    until("what may be claimed is served", || {
        tcp(at("192.0.2.1:8081")).is_ok() && tcp(at("192.0.2.1:80")).is_ok() && tcp(at("10.43.0.122:80")).is_ok()
    });
    for (address, expected) in
        [("10.43.0.7:80", "a"), ("192.0.2.2:80", "outside"), ("192.0.2.1:10250", "kubelet"), ("192.0.2.1:8443", "program")]
    {
        assert_eq!(answers(Some(&c), address), [expected.to_owned()].into(), "a pod at {address}");
        assert_eq!(answers(None, address), [expected.to_owned()].into(), "the host at {address}");
    }
    // They are told.
    for (service, text) in [
        ("aaa", "node n1: port 8443/TCP of 192.0.2.1 is in use by a program of the host"),
        ("aaa", "node n1: port 8081/TCP of 192.0.2.1 is taken by the host port of a pod"),
        ("zzz", "node n1: port 80/TCP of 192.0.2.1 is taken by service a/aaa"),
        ("zzz", "node n1: port 10250/TCP of 192.0.2.1 is reserved for the cluster itself"),
    ] {
        let told =
            |event: &Event| event.involved_object.name.as_deref() == Some(service) && event.message.as_deref() == Some(text);
        cluster.runtime.block_on(cluster.fake.until::<Event>(|events| events.iter().any(told)));
    }
    cluster.outside.run(|| sh("ip route add 10.43.0.0/16 via 192.0.2.1"));
    assert_eq!(answers(Some(&cluster.outside), "10.43.0.7:80"), ["a".to_owned()].into(), "a client outside");
    assert_eq!(answers(Some(&cluster.outside), "192.0.2.1:8081"), ["evil".to_owned()].into(), "a host port of the node");
}

/// Other nodes' ports are reached as this node's: who took them here would cut off the pods of this node, or this node.
#[test]
fn nobody_takes_what_is_another_nodes() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start_with(|options| options.node_ip = Some([192, 0, 2, 1].into()));
    let ((_a, a_ip), (c, _)) = (cluster.pod("a"), cluster.pod("c"));
    let outside = &cluster.outside;
    let socket = |port| outside.run(move || UdpSocket::bind(("192.0.2.2", port)).unwrap());
    let (overlay, other) = (socket(8472), socket(8473));
    for (port, name) in [(6443, "api"), (10251, "kubelet")] {
        outside.serve([192, 0, 2, 2].into(), port, name);
    }
    // Somebody asks before it is known whose the address is.
    let ports = [("tcp", "TCP", 6443), ("tcp", "TCP", 10251), ("tcp", "TCP", 81), ("udp", "UDP", 8472)];
    let ports = ports.map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port}));
    cluster.service("evil", "10.43.0.66", json!({"externalIPs": ["192.0.2.2", "192.0.2.1"], "ports": ports}), &[a_ip]);
    until("the service is there", || tcp(at("192.0.2.2:81")).is_ok_and(|answer| answer.starts_with("a ")));
    let node: Node =
        serde_json::from_value(json!({"metadata": {"name": "n2"}, "spec": {"podCIDRs": ["10.42.7.0/24"]}, "status": {
        "addresses": [{"type": "InternalIP", "address": "192.0.2.2"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}}}}))
        .unwrap();
    let mut nodes = cluster.network.as_ref().unwrap().nodes(NODE).unwrap();
    cluster.runtime.block_on(nodes.update([&node].into_iter())).unwrap();
    let service = json!({"metadata": {"namespace": "default", "name": "kubernetes"},
        "spec": {"clusterIP": "10.43.0.1", "ports": [{"name": "https", "port": 443}]}});
    cluster.fake.put::<Service>(&serde_json::from_value(service).unwrap());
    let slice = json!({"metadata": {"namespace": "default", "name": "k", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.2"]}], "ports": [{"name": "https", "port": 6443}]});
    cluster.fake.put::<EndpointSlice>(&serde_json::from_value(slice).unwrap());
    until("the API is there", || tcp(at("10.43.0.1:443")).is_ok());
    for (address, expected) in [("192.0.2.2:6443", "api"), ("192.0.2.2:10251", "kubelet"), ("10.43.0.1:443", "api")] {
        assert_eq!(answers(Some(&c), address), [expected.to_owned()].into(), "a pod at {address}");
        assert_eq!(answers(None, address), [expected.to_owned()].into(), "the host at {address}");
    }
    // The packets of this node's pods to that node's.
    let sender = UdpSocket::bind("192.0.2.1:0").unwrap();
    for socket in [&overlay, &other] {
        sender.send_to(b"packet", socket.local_addr().unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(socket.recv(&mut [0; 64]).unwrap(), 6);
    }
    // What that node tells to have given to others is left to it, too, until it tells so no more. Nobody is told so here: that node does.
    let answer_at_81 =
        |expected: &'static str| until(expected, || tcp(at("192.0.2.2:81")).is_ok_and(|answer| answer.starts_with(expected)));
    outside.serve([192, 0, 2, 2].into(), 81, "outsider");
    answer_at_81("a ");
    let mut told = node.clone();
    told.metadata.annotations = Some([("knarr.io/taken-ports".to_owned(), "a/evil:81/TCP".to_owned())].into());
    cluster.runtime.block_on(nodes.update([&told].into_iter())).unwrap();
    assert_eq!(answers(Some(&c), "192.0.2.2:81"), ["outsider".to_owned()].into());
    assert_eq!(answers(Some(&c), "192.0.2.1:81").len(), 1, "the node's own address is served");
    cluster.runtime.block_on(nodes.update([&node].into_iter())).unwrap();
    answer_at_81("a ");
    // Who asks now is told.
    cluster.service("late", "10.43.0.67", json!({"externalIPs": ["192.0.2.2", "192.0.2.1"], "ports": ports}), &[a_ip]);
    for place in ["10251/TCP of 192.0.2.2", "6443/TCP of 192.0.2.2", "8472/UDP of 192.0.2.2", "8472/UDP of 192.0.2.1"] {
        let text = format!("node n1: port {place} is reserved for the cluster itself");
        let told = |event: &Event| event.message.as_deref() == Some(&text);
        cluster.runtime.block_on(cluster.fake.until::<Event>(|events| events.iter().any(told)));
    }
}

/// Datagrams go to the program that waits for them; when it ends, the port is the service's.
#[test]
fn programs_keep_their_udp_ports_while_they_run() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let (_a, a_ip) = cluster.pod("a");
    let program = UdpSocket::bind("0.0.0.0:5353").unwrap();
    // A program of the host that only asks somebody keeps no port from anybody.
    let client = UdpSocket::bind("0.0.0.0:5354").unwrap();
    client.connect("192.0.2.2:7").unwrap();
    let ports = [5353, 5354].map(|port| json!({"name": "udp", "protocol": "UDP", "port": port}));
    cluster.service("mdns", "10.43.0.20", json!({"externalIPs": ["192.0.2.1"], "ports": ports}), &[a_ip]);
    let told = |event: &Event| {
        event.message.as_deref() == Some("node n1: port 5353/UDP of 192.0.2.1 is in use by a program of the host")
    };
    cluster.runtime.block_on(cluster.fake.until::<Event>(|events| events.iter().any(told)));
    let ask =
        |port| cluster.outside.run(move || udp(&UdpSocket::bind("0.0.0.0:0").unwrap(), SocketAddr::from(([192, 0, 2, 1], port))));
    until("the service has the port of the client", || ask(5354).is_ok_and(|answer| answer.starts_with("a ")));
    // A client that keeps its port is tracked as one of the program.
    let socket = cluster.outside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let ask = || udp(&socket, at("192.0.2.1:5353"));
    assert!(ask().is_err());
    assert_eq!(program.recv(&mut [0; 8]).unwrap(), 1);
    drop(program);
    until("the service has the port", || ask().is_ok_and(|answer| answer.starts_with("a ")));
}

/// A Service is known before its EndpointSlices are, and a program of the host that it leads to listens already: nobody is told that
/// somebody else has the port. So it was at the first Ingress of a cluster, whose ports ingress has opened before the Service is made.
#[test]
fn who_leads_to_a_program_of_the_host_is_not_told_that_it_has_the_port() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let node = json!({"metadata": {"name": NODE}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    cluster.fake.put::<Node>(&serde_json::from_value(node).unwrap());
    let here = Netns::current();
    here.serve([192, 0, 2, 1].into(), 7810, "own");
    here.serve([192, 0, 2, 1].into(), 7811, "another's");
    let spec = |port| json!({"type": "LoadBalancer", "clusterIP": "10.43.0.40", "ports": [{"name": "tcp", "port": port}]});
    let endpoint = |ready: bool| {
        let slice = json!({"metadata": {"namespace": "a", "name": "own", "labels": {"kubernetes.io/service-name": "own"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": ready}}],
            "ports": [{"name": "tcp", "port": 7810}]});
        cluster.fake.put::<EndpointSlice>(&serde_json::from_value(slice).unwrap());
    };
    // Whoever is really kept from a port comes after it in each step, and is told: what there was to tell before has been told.
    let told_later = |name: &str| {
        cluster.service(name, "10.43.0.41", json!({"externalIPs": ["192.0.2.1"], "ports": [{"name": "tcp", "port": 7811}]}), &[]);
        let about = |event: &Event, name: &str| event.involved_object.name.as_deref() == Some(name);
        cluster.runtime.block_on(cluster.fake.until::<Event>(|events| {
            assert!(!events.iter().any(|event| about(event, "own")), "{events:?}");
            events.iter().any(|event| about(event, name))
        }));
    };
    cluster.balance("own", spec(7810), "192.0.2.1");
    told_later("first");
    endpoint(false);
    told_later("second");
    endpoint(true);
    told_later("third");
    assert_eq!(tcp(at("192.0.2.1:7810")).unwrap().split(' ').next(), Some("own"));
    let told = "a/first:7811/TCP,a/second:7811/TCP,a/third:7811/TCP";
    cluster.runtime.block_on(cluster.fake.until::<Node>(|nodes| {
        let annotations = nodes[0].metadata.annotations.as_ref();
        annotations.is_some_and(|all| all["knarr.io/taken-ports"] == told)
    }));
}

/// The controller hears which ports load balancers have not got, and where the status says so, nothing is redirected.
#[test]
fn a_node_tells_what_load_balancers_have_not_got() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let (_a, a_ip) = cluster.pod("a");
    let node = json!({"metadata": {"name": NODE}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    cluster.fake.put::<Node>(&serde_json::from_value(node).unwrap());
    let network = cluster.network.as_ref().unwrap();
    let port = network::HostPort { protocol: network::Protocol::Tcp, container_port: 8080, host_port: 7802, host_ip: None };
    let wanted = network::Attachment { ports: vec![port], ..Default::default() };
    let host_port = Netns::new();
    cluster.runtime.block_on(network.attach("host-port", &host_port.path(), &wanted)).unwrap();
    let program = std::net::TcpListener::bind("0.0.0.0:7801").unwrap();
    // A program of the host that the service leads to is no loss.
    Netns::current().serve([192, 0, 2, 1].into(), 7803, "back end");
    let ports = |numbers: &[u16]| numbers.iter().map(|port| json!({"name": "tcp", "port": port})).collect::<Value>();
    let spec = |ports| json!({"type": "LoadBalancer", "clusterIP": "10.43.0.30", "ports": ports});
    cluster.service("web", "10.43.0.30", spec(ports(&[7801, 7802, 7804])), &[a_ip]);
    cluster.service("front", "10.43.0.31", json!({"type": "LoadBalancer", "ports": [{"name": "own", "port": 7803}]}), &[]);
    let slice = json!({"metadata": {"namespace": "a", "name": "front", "labels": {"kubernetes.io/service-name": "front"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"name": "own", "port": 7803}]});
    cluster.fake.put::<EndpointSlice>(&serde_json::from_value(slice).unwrap());
    let told = |expected: Option<&str>| {
        let told = |node: &Node| node.metadata.annotations.as_ref().and_then(|all| all.get("knarr.io/taken-ports").cloned());
        cluster.runtime.block_on(cluster.fake.until::<Node>(|nodes| nodes.iter().all(|node| told(node).as_deref() == expected)));
    };
    told(Some("a/web:7801-7802/TCP"));
    for text in
        ["7801/TCP of 192.0.2.1 is in use by a program of the host", "7802/TCP of 192.0.2.1 is taken by the host port of a pod"]
    {
        let told = |event: &Event| event.message.as_deref() == Some(&format!("node n1: port {text}"));
        cluster.runtime.block_on(cluster.fake.until::<Event>(|events| events.iter().any(told)));
    }
    // What the controller makes of it, here and for the other node.
    cluster.outside.serve([192, 0, 2, 2].into(), 7802, "other");
    let error = |port| json!({"port": port, "protocol": "TCP", "error": "PortUnavailable"});
    let ingress = ["192.0.2.1", "192.0.2.2"]
        .map(|ip| json!({"ip": ip, "ports": [error(7801), error(7802), {"port": 7804, "protocol": "TCP"}]}));
    let service = json!({"metadata": {"namespace": "a", "name": "web"}, "spec": spec(ports(&[7801, 7802, 7804])),
        "status": {"loadBalancer": {"ingress": ingress}}});
    cluster.fake.put::<Service>(&serde_json::from_value(service).unwrap());
    until("the other port is served", || tcp(at("192.0.2.2:7804")).is_ok_and(|answer| answer.starts_with("a ")));
    assert_eq!(answers(None, "192.0.2.2:7802"), ["other".to_owned()].into());
    told(Some("a/web:7801-7802/TCP"));
    // External addresses of the node itself, and of no other.
    let spec = json!({"externalIPs": ["192.0.2.1", "192.0.2.2"], "ports": ports(&[7802, 7805])});
    cluster.service("external", "10.43.0.32", spec, &[a_ip]);
    told(Some("a/external:7802/TCP,a/web:7801-7802/TCP"));
    // Whoever writes the status of another implementation's load balancer takes no port that the node has given to others.
    let spec =
        json!({"type": "LoadBalancer", "loadBalancerClass": "a/b", "clusterIP": "10.43.0.33", "ports": ports(&[7802, 7805])});
    let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    let other = json!({"metadata": {"namespace": "a", "name": "other"}, "spec": spec, "status": status});
    cluster.service("external", "10.43.0.32", json!({"ports": ports(&[7802, 7805])}), &[a_ip]);
    cluster.fake.put::<Service>(&serde_json::from_value(other).unwrap());
    told(Some("a/other:7802/TCP,a/web:7801-7802/TCP"));
    let plain = json!({"clusterIP": "10.43.0.33", "ports": ports(&[7802, 7805])});
    let other = json!({"metadata": {"namespace": "a", "name": "other"}, "spec": plain});
    cluster.fake.put::<Service>(&serde_json::from_value(other).unwrap());
    told(Some("a/web:7801-7802/TCP"));
    drop(program);
    cluster.runtime.block_on(network.detach("host-port")).unwrap();
    told(None);
}
