//! Network policies on the real kernel: pods, the node and an outside client connect through the table that policies keep.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use client::fake::Fake;
use client::{Informers, Key};
use common::{Netns, isolate, sh, tcp, udp};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use network::nft::table::Holder;
use network::policy::{self, Policies, Starting};
use network::{Options, PodNetwork};
use serde_json::{Value, json};

const NODE: &str = "n1";
/// Longer than any packet of these namespaces takes, shorter than the kernel's patience.
const SILENCE: Duration = Duration::from_millis(300);

struct Cluster {
    fake: Fake,
    runtime: tokio::runtime::Runtime,
    network: PodNetwork,
    policies: Policies,
    outside: Netns,
    _tasks: Tasks,
    _directory: tempfile::TempDir,
}

struct PodOf {
    netns: Netns,
    addresses: Vec<IpAddr>,
}

impl Cluster {
    fn start() -> Self {
        let fake = Fake::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let outside = Netns::new();
        sh(&format!("ip link add up0 type veth peer name eth0 netns {}", outside.path().display()));
        sh("ip addr add 192.0.2.1/24 dev up0; ip link set up0 up");
        outside.run(|| sh("ip addr add 192.0.2.2/24 dev eth0; ip addr add 192.0.2.3/24 dev eth0; ip link set eth0 up"));
        outside.run(|| sh("ip route add default via 192.0.2.1"));
        let cidrs = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap()).to_vec();
        let mut options =
            Options::new(directory.path(), cidrs(["10.42.0.0/24", "fd42::/64"]), cidrs(["10.43.0.0/16", "fd43::/112"]));
        options.holders = vec![Holder::Policies];
        options.local_addresses = vec!["10.43.0.10".parse().unwrap()];
        let config = options.config();
        let network = runtime.block_on(PodNetwork::start(options)).unwrap();
        let (tasks, _) = Tasks::root();
        let (policies, admissions) = Policies::channel();
        let readiness = Readiness::default();
        {
            let _context = runtime.enter();
            let dns = vec!["10.43.0.10".parse().unwrap()];
            let events = client::events::Recorder::new(fake.client(), "test", NODE, &tasks);
            let (node_name, backend) = (NODE.to_owned(), network::Backend::default());
            let node_ip = Some("192.0.2.1".parse().unwrap());
            let options = policy::Options { node_name, dns, config, node_ip, backend, events };
            let informers = Informers::new(fake.client(), tasks.clone());
            let run = policy::run(options, informers, network.table().clone(), admissions, readiness.gate("policies"));
            tasks.spawn_until_cancelled("policies", OnFailure::Log, async { run.await.map(|_| ()) });
        }
        runtime.block_on(readiness.wait(&["policies"]));
        let cluster = Self { fake, runtime, network, policies, outside, _tasks: tasks, _directory: directory };
        for namespace in ["x", "y", "kube-system"] {
            cluster.namespace(namespace, json!({"ns": namespace}));
        }
        cluster
    }

    fn namespace(&self, name: &str, labels: Value) {
        self.fake.put::<Namespace>(&serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap());
    }

    /// Says what the API knows of a pod.
    fn show(&self, namespace: &str, name: &str, addresses: &[IpAddr]) {
        self.label(namespace, name, json!({"pod": name}), addresses);
    }

    fn label(&self, namespace: &str, name: &str, labels: Value, addresses: &[IpAddr]) {
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let metadata = json!({"namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"), "labels": labels});
        let ports = json!([{"name": "web", "containerPort": 8080}]);
        let spec = json!({"nodeName": NODE, "containers": [{"name": "c", "ports": ports}]});
        let pod = json!({"metadata": metadata, "spec": spec, "status": {"podIPs": ips}});
        self.fake.put::<Pod>(&serde_json::from_value(pod).unwrap());
    }

    /// A pod that serves its name on ports 8080 to 8082, as the kubelet starts it: the API does not have its addresses yet.
    fn begin(&self, namespace: &str, name: &'static str) -> PodOf {
        self.show(namespace, name, &[]);
        let netns = Netns::new();
        let sandbox = format!("{namespace}-{name}");
        let addresses =
            self.runtime.block_on(self.network.attach(&sandbox, &netns.path(), &network::Attachment::default())).unwrap();
        let key = Key::namespaced(namespace, name);
        let starting = Starting { key, uid: sandbox, addresses: addresses.clone() };
        self.runtime.block_on(self.policies.admit(starting)).unwrap();
        for address in &addresses {
            for port in 8080..8083 {
                netns.serve(*address, port, name);
            }
        }
        PodOf { netns, addresses }
    }

    fn pod(&self, namespace: &str, name: &'static str) -> PodOf {
        let pod = self.begin(namespace, name);
        self.show(namespace, name, &pod.addresses);
        pod
    }

    fn policy(&self, name: &str, spec: Value) {
        let policy = json!({"metadata": {"namespace": "x", "name": name}, "spec": spec});
        self.fake.put::<NetworkPolicy>(&serde_json::from_value(policy).unwrap());
    }

    fn without(&self, name: &str) {
        let _context = self.runtime.enter();
        let api: client::Api<NetworkPolicy> = client::Api::namespaced(self.fake.client(), "x");
        self.runtime.block_on(api.delete(name, &client::kube::api::DeleteParams::default())).unwrap();
    }
}

/// Whether a connection is made; what a policy forbids is met by silence.
fn connects(from: &Netns, to: SocketAddr) -> bool {
    from.run(move || match TcpStream::connect_timeout(&to, SILENCE) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{to}");
            false
        }
    })
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
    }
}

/// Waits until the answers of all pairs of addresses are as expected, for both families and by port.
fn expect(what: &str, from: &PodOf, to: &PodOf, ports: [bool; 3]) {
    let now = || {
        (8080..8083)
            .zip(ports)
            .all(|(port, expected)| to.addresses.iter().all(|address| connects(&from.netns, (*address, port).into()) == expected))
    };
    until(what, now);
}

#[test]
fn policies_isolate_pods_and_let_go_of_them() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let (a, b, c) = (cluster.pod("x", "a"), cluster.pod("x", "b"), cluster.pod("y", "c"));
    expect("without policies", &b, &a, [true; 3]);
    // A connection that exists, before there is a policy.
    let (address, port) = (a.addresses[0], 9000);
    let listener = a.netns.run(move || TcpListener::bind((address, port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).is_ok_and(|length| length > 0) && stream.write_all(&byte).is_ok() {}
        }
    });
    let mut open = c.netns.run(move || TcpStream::connect((address, port)).unwrap());
    open.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let echo = |open: &mut TcpStream| open.write_all(b"!").and_then(|()| open.read_exact(&mut [0])).is_ok();
    assert!(echo(&mut open));
    open.set_read_timeout(Some(SILENCE)).unwrap();

    cluster.policy("deny", json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Ingress"]}));
    expect("nobody gets in", &b, &a, [false; 3]);
    assert!(!echo(&mut open), "a connection that exists is cut");
    expect("what the pod itself connects to answers", &a, &b, [true; 3]);
    let host = Netns::current();
    assert!(a.addresses.iter().all(|address| connects(&host, (*address, 8080).into())), "the node of the pod gets in");
    assert!(connects(&a.netns, (a.addresses[0], 8080).into()), "a pod reaches itself");

    let from = |peers: Value, ports: Value| json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": peers, "ports": ports}]});
    cluster
        .policy("allow", from(json!([{"podSelector": {"matchLabels": {"pod": "b"}}}]), json!([{"port": 8081, "endPort": 8082}])));
    expect("a range of ports", &b, &a, [false, true, true]);
    expect("others stay outside", &c, &a, [false; 3]);
    cluster.policy("allow", from(json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]), json!([{"port": "web"}])));
    expect("another namespace, a named port", &c, &a, [true, false, false]);
    expect("no longer", &b, &a, [false; 3]);
    cluster.namespace("y", json!({"ns": "other"}));
    expect("the namespace is another", &c, &a, [false; 3]);
    cluster.namespace("x", json!({"ns": "y"}));
    expect("and this one is it", &b, &a, [true, false, false]);
    // A label makes the pod one that no policy selects.
    cluster.label("x", "a", json!({"pod": "z"}), &a.addresses);
    expect("a pod of another label", &c, &a, [true; 3]);
    cluster.show("x", "a", &a.addresses);
    expect("and again", &c, &a, [false; 3]);
    // The table is lost: it comes back with the next change.
    network::nft::table::delete("knarr").unwrap();
    assert!(connects(&c.netns, (a.addresses[0], 8080).into()));
    cluster.namespace("x", json!({"ns": "x"}));
    expect("the table is back", &c, &a, [false; 3]);
    cluster.without("allow");
    cluster.without("deny");
    expect("all is as before", &c, &a, [true; 3]);
    let left = sh("nft list table ip knarr; nft list table ip6 knarr");
    assert!(!left.contains("policy-ingress") && !left.contains("isolated") && !left.contains("peers"), "{left}");
}

#[test]
fn a_pod_is_isolated_before_it_starts() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let a = cluster.pod("x", "a");
    cluster.policy("deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    let other = cluster.pod("y", "other");
    expect("the policy is in force", &other, &a, [false; 3]);
    let b = cluster.begin("x", "b");
    for address in &b.addresses {
        assert!(!connects(&other.netns, (*address, 8080).into()), "no packet gets in");
        assert!(!connects(&b.netns, (other.addresses[usize::from(address.is_ipv6())], 8080).into()), "or out");
    }
    let nobody = Starting { key: Key::namespaced("x", "unseen"), uid: "u".to_owned(), addresses: Vec::new() };
    let early = async { tokio::time::timeout(SILENCE, cluster.policies.admit(nobody)).await };
    assert!(cluster.runtime.block_on(early).is_err(), "a pod that the API does not have is not let in");
}

#[test]
fn egress_to_the_outside_and_to_cluster_dns() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let (a, b) = (cluster.pod("x", "a"), cluster.pod("y", "b"));
    for address in ["192.0.2.2", "192.0.2.3"] {
        cluster.outside.serve(address.parse().unwrap(), 8080, "outside");
    }
    let dns = UdpSocket::bind("10.43.0.10:53").unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = dns.recv_from(&mut buffer) {
            dns.send_to(b"answer", peer).unwrap();
        }
    });
    let resolves = || a.netns.run(|| udp(&UdpSocket::bind("0.0.0.0:0").unwrap(), "10.43.0.10:53".parse().unwrap())).is_ok();
    let outside = |last: u8| connects(&a.netns, ([192, 0, 2, last], 8080).into());
    assert!(resolves() && outside(2) && outside(3));
    let egress = |rules: Value| json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"], "egress": rules});
    cluster.policy("p", egress(json!([])));
    until("nothing gets out", || !outside(2));
    assert!(!outside(3) && !resolves() && !connects(&a.netns, (b.addresses[1], 8080).into()));
    assert!(tcp((a.addresses[0], 8080)).is_ok(), "what comes in is answered");
    assert!(
        b.netns
            .run({
                let to = a.addresses[0];
                move || tcp((to, 8080))
            })
            .is_ok()
    );
    let block = json!({"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.3/32"]}});
    cluster.policy("p", egress(json!([{"to": [block]}])));
    until("the block", || outside(2));
    assert!(!outside(3) && !resolves());
    let system = json!({"namespaceSelector": {"matchLabels": {"ns": "kube-system"}}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}});
    cluster.policy("dns", egress(json!([{"to": [system], "ports": [{"port": 53, "protocol": "UDP"}]}])));
    until("names are resolved", resolves);
    assert!(outside(2) && !outside(3));
    // From outside: only who is not excepted.
    let block = json!({"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.2/32"]}});
    cluster.policy("in", json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": [block]}]}));
    let to = a.addresses[0];
    let from = |last: u8| {
        cluster.outside.run(move || {
            let socket = UdpSocket::bind(SocketAddr::from(([192, 0, 2, last], 0))).unwrap();
            udp(&socket, (to, 8080).into()).is_ok()
        })
    };
    until("an excepted client", || !from(2));
    assert!(from(3));
    assert!(sh("nft list ruleset").contains("NetworkPolicy x/dns"));
}

/// A ClusterNetworkPolicy comes and goes with its definition, on the real kernel: what it passes returns from its chain to the NetworkPolicies.
#[test]
fn policies_of_the_cluster() {
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let post = |path: &str, object: Value| {
        let request = http::Request::post(path).header("content-type", "application/json").body(object.to_string().into_bytes());
        let _context = cluster.runtime.enter();
        cluster.runtime.block_on(cluster.fake.client().request::<Value>(request.unwrap())).unwrap();
    };
    let (a, b) = (cluster.pod("x", "a"), cluster.pod("y", "b"));
    expect("no policies", &b, &a, [true; 3]);
    post(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "clusternetworkpolicies.policy.networking.k8s.io"},
            "spec": {"versions": [{"name": "v1beta1", "served": true}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]}}),
    );
    let tcp = |port: u16| json!([{"tcp": {"destinationPort": {"number": port}}}]);
    let from = json!([{"namespaces": {"matchLabels": {"ns": "y"}}}]);
    post(
        "/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies",
        json!({"apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy", "metadata": {"name": "p"},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {"matchLabels": {"ns": "x"}}}, "ingress": [
                {"action": "Accept", "from": from, "protocols": tcp(8080)},
                {"action": "Pass", "from": from, "protocols": tcp(8081)},
                {"action": "Deny", "from": from}]}}),
    );
    expect("accepted, passed and denied", &b, &a, [true, true, false]);
    cluster.policy("nobody", json!({"podSelector": {}}));
    expect("what is passed is for the NetworkPolicy", &b, &a, [true, false, false]);
    cluster.without("nobody");
    expect("and passes without one", &b, &a, [true, true, false]);
}

/// A policy changes as fast as the machine allows: whom all of its versions let in gets in each time, and whom none lets in never.
#[test]
fn a_policy_that_changes_all_the_time() {
    const CHANGES: u16 = 300;
    if !isolate() {
        return;
    }
    let cluster = Cluster::start();
    let (a, b) = (cluster.pod("x", "a"), cluster.pod("y", "b"));
    let version = |number: u16| {
        let ports = |port| json!([{"port": port}]);
        let always = json!({"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}], "ports": ports(8080)});
        cluster.policy(
            "p",
            json!({"podSelector": {}, "ingress": [{"ports": ports(9000 + number)}, always, {"ports": ports(8081 - number % 2)}]}),
        );
    };
    version(0);
    expect("the first version", &b, &a, [true, true, false]);
    let [open, shut] = [8080, 8082].map(|port| SocketAddr::new(a.addresses[0], port));
    let (ends, ended) = std::sync::mpsc::channel::<()>();
    let never = b.netns.spawn(move || {
        let mut tries = 0;
        while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            assert!(TcpStream::connect_timeout(&shut, SILENCE).is_err(), "no version lets in");
            tries += 1;
        }
        tries
    });
    let started = Instant::now();
    for number in 1..=CHANGES {
        version(number);
        assert!(connects(&b.netns, open), "every version lets in: {number}");
    }
    println!("{} changes a second", f64::from(CHANGES) / started.elapsed().as_secs_f64());
    drop(ends);
    assert!(never.join().unwrap() > 0);
    version(1);
    expect("the last version", &b, &a, [true, false, false]);
}
