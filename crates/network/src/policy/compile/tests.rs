//! The semantics of NetworkPolicy, as the compiled chains have them: [`kernel`] runs packets through what the table would hold.
#![allow(clippy::unwrap_used)]

mod cluster;
mod kernel;

use serde_json::{Value, json};

use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::*;
use kernel::{Packet, Side, admits};

/// A cluster of the shape that upstream's suite for NetworkPolicy uses: namespaces `x`, `y` and `z` with pods `a`, `b` and `c` each,
/// which serve 80 and 81 by TCP, UDP and SCTP. Those of `x` and `y` run on this node.
struct Cluster {
    state: State,
    contents: crate::nft::contents::Contents,
}

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: [&str; 3] = ["a", "b", "c"];

fn labels(pairs: &[(&str, &str)]) -> LabelMap {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Addresses end in the places of namespace and pod.
fn addresses(pod: &str) -> [IpAddr; 2] {
    let (namespace, name) = pod.split_once('/').unwrap();
    let place = |list: [&str; 3], one| list.iter().position(|other| *other == one).unwrap() as u8 + 1;
    let number = place(NAMESPACES, namespace) * 10 + place(PODS, name);
    [IpAddr::from([10, 42, 0, number]), format!("fd42::{number}").parse().unwrap()]
}

fn facts(pod: &str) -> Facts {
    let (namespace, name) = pod.split_once('/').unwrap();
    let named = |name: &str, protocol, port| (name.to_owned(), protocol, port);
    Facts {
        labels: labels(&[("pod", name)]),
        addresses: addresses(pod).to_vec(),
        ports: vec![
            named("serve-80", Protocol::Tcp, 80),
            named("serve-81", Protocol::Tcp, 81),
            named("serve-80-udp", Protocol::Udp, 80),
            // One name, another port in each namespace.
            named("web", Protocol::Tcp, if namespace == "x" { 80 } else { 81 }),
        ],
        local: namespace != "z",
    }
}

fn key(text: &str) -> Key {
    let (namespace, name) = text.split_once('/').unwrap();
    Key::namespaced(namespace, name)
}

impl Cluster {
    fn new() -> Self {
        let config =
            Config { bridge: "knarr0".to_owned(), service_cidrs: vec!["10.43.0.0/16".parse().unwrap()], ..Config::default() };
        let mut state = State::new(config, vec![Family::V4, Family::V6]);
        for namespace in NAMESPACES {
            state.set_namespace(namespace, Some(labels(&[("ns", namespace)])));
            for pod in PODS {
                let pod = format!("{namespace}/{pod}");
                state.set_pod(&key(&pod), Some(facts(&pod)));
            }
        }
        let dns = Facts {
            labels: labels(&[("k8s-app", "kube-dns")]),
            addresses: vec![[10, 43, 0, 10].into()],
            ports: vec![("dns".to_owned(), Protocol::Udp, 53)],
            local: false,
        };
        state.set_namespace("kube-system", Some(labels(&[("kubernetes.io/metadata.name", "kube-system")])));
        state.set_pod(&key("kube-system/dns"), Some(dns));
        Self { state, contents: Default::default() }
    }

    fn with(policies: &[Value]) -> Self {
        let mut cluster = Self::new();
        for (index, spec) in policies.iter().enumerate() {
            cluster.set(&format!("x/p{index}"), Some(spec.clone()));
        }
        cluster
    }

    fn set(&mut self, name: &str, spec: Option<Value>) {
        let policy = spec.map(|spec| {
            let metadata = json!({"namespace": key(name).ns(), "name": key(name).name});
            serde_json::from_value::<NetworkPolicy>(json!({"metadata": metadata, "spec": spec})).unwrap()
        });
        self.state.set_policy(&key(name), policy.as_ref().map(Spec::of));
    }

    /// Number of elements, chains and sets that the changes since the last call touch, of both families.
    fn commit(&mut self) -> (usize, usize, usize) {
        let deltas = self.contents.replace(self.state.changes(), &Default::default());
        let sum = |of: &dyn Fn(&crate::nft::contents::Delta) -> usize| deltas.values().map(of).sum::<usize>();
        let chains = sum(&|delta| delta.new_chains.len() + delta.changed_chains.len() + delta.gone_chains.len());
        (sum(&|delta| delta.len()), chains, sum(&|delta| delta.new_sets.len() + delta.gone_sets.len()))
    }

    fn passes(&mut self, from: &str, to: &str, protocol: Protocol, port: u16) -> bool {
        self.commit();
        let end = |text: &str| match text.split_once('/') {
            Some(_) => addresses(text),
            None => [text.parse().unwrap(), "fd99::99".parse().unwrap()],
        };
        let (from, to) = (end(from), end(to));
        let passes = |index: usize| {
            let packet = Packet { from: from[index], to: to[index], protocol: protocol.number(), port, side: Side::First };
            admits(&self.contents, packet)
        };
        let result = passes(0);
        if to[0] != IpAddr::from([10, 43, 0, 10]) {
            assert_eq!(passes(1), result, "the other family: {from:?} to {to:?} {port}");
        }
        result
    }

    /// The pods that reach `to`, of all nine.
    fn who_reaches(&mut self, to: &str, protocol: Protocol, port: u16) -> String {
        let all = NAMESPACES.iter().flat_map(|namespace| PODS.iter().map(move |pod| format!("{namespace}/{pod}")));
        all.filter(|from| self.passes(from, to, protocol, port)).collect::<Vec<_>>().join(" ")
    }

    fn whom_reaches(&mut self, from: &str, protocol: Protocol, port: u16) -> String {
        let all = NAMESPACES.iter().flat_map(|namespace| PODS.iter().map(move |pod| format!("{namespace}/{pod}")));
        all.filter(|to| self.passes(from, to, protocol, port)).collect::<Vec<_>>().join(" ")
    }
}

const ALL: &str = "x/a x/b x/c y/a y/b y/c z/a z/b z/c";

/// Who reaches x/a by TCP 80, with these policies in `x`.
fn check_ingress(policies: &[Value], expected: &str) {
    let mut cluster = Cluster::with(policies);
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), expected, "{policies:?}");
    // Pods that are not selected, or not in the namespace, are not concerned.
    assert_eq!(cluster.who_reaches("y/a", Protocol::Tcp, 80), ALL);
}

/// Whom x/a reaches by TCP 80, with these policies in `x`.
fn check_egress(policies: &[Value], expected: &str) {
    let mut cluster = Cluster::with(policies);
    assert_eq!(cluster.whom_reaches("x/a", Protocol::Tcp, 80), expected, "{policies:?}");
    assert_eq!(cluster.whom_reaches("y/a", Protocol::Tcp, 80), ALL);
}

fn ingress(rules: Value) -> Value {
    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Ingress"], "ingress": rules})
}

fn egress(rules: Value) -> Value {
    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"], "egress": rules})
}

fn namespace(name: &str) -> Value {
    json!({"matchLabels": {"ns": name}})
}

fn pod(name: &str) -> Value {
    json!({"matchLabels": {"pod": name}})
}

/// Upstream's suite: "should support a 'default-deny-ingress' policy", "should support allow-all policy", "should enforce policy
/// based on PodSelector / NamespaceSelector / any PodSelectors / PodSelector and NamespaceSelector / Multiple PodSelectors",
/// "should enforce multiple, stacked policies with overlapping podSelectors", "should enforce policy based on PodSelector with
/// MatchExpressions".
#[test]
fn whom_a_pod_lets_in() {
    check_ingress(&[ingress(json!([]))], "x/a");
    check_ingress(&[json!({"podSelector": {}})], "x/a");
    check_ingress(&[ingress(json!([{}]))], ALL);
    check_ingress(&[ingress(json!([{"from": []}]))], ALL);
    let from = |peers: Value| ingress(json!([{"from": peers}]));
    check_ingress(&[from(json!([{"podSelector": pod("b")}]))], "x/a x/b");
    check_ingress(&[from(json!([{"podSelector": {}}]))], "x/a x/b x/c");
    check_ingress(&[from(json!([{"namespaceSelector": namespace("y")}]))], "x/a y/a y/b y/c");
    check_ingress(&[from(json!([{"namespaceSelector": {}}]))], ALL);
    let both = json!({"namespaceSelector": namespace("y"), "podSelector": pod("b")});
    check_ingress(&[from(json!([both]))], "x/a y/b");
    let either = json!([{"namespaceSelector": namespace("y")}, {"podSelector": pod("b")}]);
    check_ingress(&[from(either)], "x/a x/b y/a y/b y/c");
    let expression = json!({"matchExpressions": [{"key": "pod", "operator": "NotIn", "values": ["b"]}]});
    check_ingress(&[from(json!([{"podSelector": expression, "namespaceSelector": {}}]))], "x/a x/c y/a y/c z/a z/c");
    // Policies add up.
    let (b, y) = (from(json!([{"podSelector": pod("b")}])), from(json!([{"namespaceSelector": namespace("y")}])));
    check_ingress(&[b.clone(), y, ingress(json!([]))], "x/a x/b y/a y/b y/c");
    check_ingress(&[b, ingress(json!([{}]))], ALL);
    // A policy about egress says nothing about ingress.
    assert_eq!(Cluster::with(&[egress(json!([]))]).who_reaches("x/a", Protocol::Tcp, 80), ALL);
}

/// Upstream's suite: "should enforce egress policy allowing traffic to a server in a different namespace based on PodSelector and
/// NamespaceSelector", "should deny egress from pods based on PodSelector", "should deny egress from all pods in a namespace".
#[test]
fn whom_a_pod_reaches() {
    check_egress(&[egress(json!([]))], "x/a");
    check_egress(&[json!({"podSelector": {}, "policyTypes": ["Egress"]})], "x/a");
    check_egress(&[egress(json!([{}]))], ALL);
    let to = |peers: Value| egress(json!([{"to": peers}]));
    check_egress(&[to(json!([{"podSelector": pod("b")}]))], "x/a x/b");
    check_egress(&[to(json!([{"namespaceSelector": namespace("z"), "podSelector": pod("b")}]))], "x/a z/b");
    assert_eq!(Cluster::with(&[ingress(json!([]))]).whom_reaches("x/a", Protocol::Tcp, 80), ALL);
    // Both ends must let a connection pass.
    let mut cluster = Cluster::with(&[to(json!([{"namespaceSelector": namespace("y")}]))]);
    cluster.set("y/p", Some(json!({"podSelector": pod("b"), "policyTypes": ["Ingress"]})));
    assert_eq!(cluster.whom_reaches("x/a", Protocol::Tcp, 80), "x/a y/a y/c");
}

/// Upstream's suite: "should enforce policy based on Ports", "should enforce policies to check ingress and egress policies can be
/// controlled independently based on PodSelector", "should work with Ingress, Egress specified together", "should support a policy
/// with EndPort", "should allow ingress access on one named port", "should enforce egress policy using named port", "should not
/// allow access by TCP when a policy specifies only UDP".
#[test]
fn ports() {
    let check = |ports: Value, expected: &[(Protocol, u16)]| {
        for (direction, spec) in [("in", ingress(json!([{"ports": ports}]))), ("out", egress(json!([{"ports": ports}])))] {
            let mut cluster = Cluster::with(&[spec]);
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                for port in [79, 80, 81, 82] {
                    let (from, to) = if direction == "in" { ("x/b", "x/a") } else { ("x/a", "x/b") };
                    let expected = expected.contains(&(protocol, port));
                    assert_eq!(cluster.passes(from, to, protocol, port), expected, "{direction} {ports} {protocol:?} {port}");
                }
            }
        }
    };
    let (tcp, udp, sctp) = (Protocol::Tcp, Protocol::Udp, Protocol::Sctp);
    check(json!([{"port": 80}]), &[(tcp, 80)]);
    check(json!([{"port": 80, "protocol": "UDP"}]), &[(udp, 80)]);
    check(json!([{"port": 80, "protocol": "SCTP"}, {"port": 81}]), &[(sctp, 80), (tcp, 81)]);
    check(json!([{"port": 80, "endPort": 81}]), &[(tcp, 80), (tcp, 81)]);
    check(json!([{"port": 80, "endPort": 80}]), &[(tcp, 80)]);
    check(json!([{"protocol": "UDP"}]), &[(udp, 79), (udp, 80), (udp, 81), (udp, 82)]);
    check(json!([{"port": "serve-81"}]), &[(tcp, 81)]);
    check(json!([{"port": "serve-80-udp", "protocol": "UDP"}]), &[(udp, 80)]);
    check(json!([{"port": "serve-80-udp"}]), &[]);
    check(json!([{"port": "nobody-has-it"}]), &[]);
    // Several of one protocol are a set; those that touch or overlap are one range.
    check(json!([{"port": 79}, {"port": 81}, {"port": 82, "protocol": "UDP"}]), &[(tcp, 79), (tcp, 81), (udp, 82)]);
    check(json!([{"port": 81, "endPort": 65535}, {"port": 1, "endPort": 79}]), &[(tcp, 79), (tcp, 81), (tcp, 82)]);
    check(json!([{"port": 79}, {"port": 80, "endPort": 81}, {"port": 80}]), &[(tcp, 79), (tcp, 80), (tcp, 81)]);
    check(json!([{"port": 82, "endPort": 80}]), &[]);
    check(json!([{"port": 80}, {"protocol": "TCP"}]), &[(tcp, 79), (tcp, 80), (tcp, 81), (tcp, 82)]);
    check(json!([{"port": 82}, {"port": "serve-80"}, {"port": "serve-81"}]), &[(tcp, 80), (tcp, 81), (tcp, 82)]);
}

#[test]
fn a_named_port_is_that_of_the_pod_that_is_connected_to() {
    let web = json!([{"port": "web"}]);
    let mut cluster = Cluster::with(&[egress(json!([{"ports": web}]))]);
    assert_eq!(cluster.whom_reaches("x/a", Protocol::Tcp, 80), "x/a x/b x/c");
    assert_eq!(cluster.whom_reaches("x/a", Protocol::Tcp, 81), "x/a y/a y/b y/c z/a z/b z/c");
    let mut cluster = Cluster::with(&[egress(json!([{"ports": web, "to": [{"namespaceSelector": namespace("y")}]}]))]);
    assert_eq!(cluster.whom_reaches("x/a", Protocol::Tcp, 81), "x/a y/a y/b y/c");
    let mut cluster = Cluster::with(&[egress(json!([{"ports": web, "to": [{"ipBlock": {"cidr": "10.42.0.31/32"}}]}]))]);
    cluster.commit();
    let packet = |to, port| Packet { from: addresses("x/a")[0], to: addresses(to)[0], protocol: 6, port, side: Side::First };
    assert!(admits(&cluster.contents, packet("z/a", 81)) && !admits(&cluster.contents, packet("z/b", 81)));
    let mut cluster = Cluster::with(&[ingress(json!([{"ports": web, "from": [{"podSelector": pod("b")}]}]))]);
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), "x/a x/b");
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 81), "x/a");
}

/// Upstream's suite: "should enforce except clause while egress access to server in CIDR block", "should allow egress access to server
/// in CIDR block", "should ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed".
#[test]
fn blocks_of_addresses() {
    let check = |blocks: Value, expected: &[&str]| {
        let mut both = Cluster::with(&[egress(json!([{"to": blocks}])), ingress(json!([{"from": blocks}]))]);
        both.commit();
        for other in ["192.0.2.1", "192.0.2.100", "10.42.0.12", "fd42::12", "2001:db8::1"] {
            let address: IpAddr = other.parse().unwrap();
            let own = addresses("x/a")[usize::from(address.is_ipv6())];
            for (from, to) in [(own, address), (address, own)] {
                let packet = Packet { from, to, protocol: 17, port: 5, side: Side::First };
                assert_eq!(admits(&both.contents, packet), expected.contains(&other), "{blocks} {from} {to}");
            }
        }
    };
    let block = |cidr: &str, except: &[&str]| json!({"ipBlock": {"cidr": cidr, "except": except}});
    check(json!([block("192.0.2.0/24", &[])]), &["192.0.2.1", "192.0.2.100"]);
    check(json!([block("192.0.2.0/24", &["192.0.2.64/26"])]), &["192.0.2.1"]);
    check(json!([block("192.0.2.0/24", &["192.0.2.64/26"]), block("192.0.2.100/32", &[])]), &["192.0.2.1", "192.0.2.100"]);
    check(json!([block("0.0.0.0/0", &["10.0.0.0/8"])]), &["192.0.2.1", "192.0.2.100"]);
    check(json!([block("::/0", &["fd00::/8"])]), &["2001:db8::1"]);
    check(json!([block("10.42.0.12/32", &[]), block("fd42::/64", &["fd42::/124"])]), &["10.42.0.12", "fd42::12"]);
    check(json!([block("192.0.2.0/24", &["192.0.2.0/24"])]), &[]);
}

#[test]
fn what_no_policy_is_asked_about() {
    let mut cluster = Cluster::with(&[json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})]);
    cluster.commit();
    let (own, other) = (addresses("x/a")[0], addresses("y/a")[0]);
    let admitted = |from, to, side| admits(&cluster.contents, Packet { from, to, protocol: 6, port: 80, side });
    for (from, to) in [(own, other), (other, own)] {
        assert!(!admitted(from, to, Side::First));
        assert!(admitted(from, to, Side::Back));
    }
    assert!(admitted(own, own, Side::First), "a pod cannot block access to itself");
    assert!(admitted(own, [192, 0, 2, 1].into(), Side::ToNode), "the node of the pod");
    assert!(!admitted(own, [10, 43, 0, 10].into(), Side::ToNode), "cluster DNS stands for pods");
    let untracked = |from, to| admits(&cluster.contents, Packet { from, to, protocol: 6, port: 80, side: Side::Untracked });
    assert!(!untracked(own, other) && !untracked(other, own));
}

/// Upstream's suite: "should allow egress access on one named port / to DNS": the recipe that everybody uses.
#[test]
fn cluster_dns_is_allowed_like_its_pods() {
    let dns = |rule: Value, port: u16, expected: bool| {
        let mut cluster = Cluster::with(&[egress(json!([rule]))]);
        cluster.commit();
        let to = [10, 43, 0, 10].into();
        let packet = Packet { from: addresses("x/a")[0], to, protocol: 17, port, side: Side::ToNode };
        assert_eq!(admits(&cluster.contents, packet), expected, "{rule}");
    };
    let port = json!([{"port": 53, "protocol": "UDP"}]);
    dns(json!({"ports": port}), 53, true);
    dns(json!({"ports": port}), 54, false);
    let system = json!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}});
    let peer = json!({"namespaceSelector": system, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}});
    dns(json!({"to": [peer], "ports": port}), 53, true);
    dns(json!({"to": [{"namespaceSelector": system}], "ports": [{"port": "dns", "protocol": "UDP"}]}), 53, true);
    dns(json!({"to": [{"namespaceSelector": {}}]}), 53, true);
    dns(json!({"to": [{"podSelector": {}}]}), 53, false);
    dns(json!({"to": [{"ipBlock": {"cidr": "10.43.0.10/32"}}]}), 53, true);
}

/// Upstream's suite: "should enforce updated policy", "should allow ingress access from updated namespace / pod", "should deny ingress
/// access to updated pod", "should stop enforcing policies after they are deleted".
#[test]
fn changes_take_effect() {
    let mut cluster =
        Cluster::with(&[ingress(json!([{"from": [{"namespaceSelector": namespace("y"), "podSelector": pod("b")}]}]))]);
    let reach = |cluster: &mut Cluster| cluster.who_reaches("x/a", Protocol::Tcp, 80);
    assert_eq!(reach(&mut cluster), "x/a y/b");
    cluster.state.set_namespace("z", Some(labels(&[("ns", "y")])));
    assert_eq!(reach(&mut cluster), "x/a y/b z/b");
    cluster.state.set_namespace("y", Some(labels(&[])));
    assert_eq!(reach(&mut cluster), "x/a z/b");
    cluster.state.set_pod(&key("z/c"), Some(Facts { labels: labels(&[("pod", "b")]), ..facts("z/c") }));
    cluster.state.set_pod(&key("z/b"), None);
    assert_eq!(reach(&mut cluster), "x/a z/c");
    cluster.state.set_pod(&key("x/a"), Some(Facts { labels: labels(&[("pod", "other")]), ..facts("x/a") }));
    assert_eq!(reach(&mut cluster), ALL);
    cluster.state.set_pod(&key("x/a"), Some(facts("x/a")));
    cluster.set("x/p0", Some(ingress(json!([{"from": [{"podSelector": {}}]}]))));
    assert_eq!(reach(&mut cluster), "x/a x/b x/c");
    cluster.set("x/p1", Some(json!({"podSelector": {}, "policyTypes": ["Egress"]})));
    assert_eq!(reach(&mut cluster), "x/a");
    cluster.set("x/p1", None);
    assert_eq!(reach(&mut cluster), "x/a x/b x/c");
    cluster.set("x/p0", None);
    assert_eq!(reach(&mut cluster), ALL);
    assert!(cluster.contents.is_empty(), "nothing stays of policies that are gone");
    assert_eq!(cluster.contents.everything().len(), 0);
}

#[test]
fn a_change_costs_what_changes() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.commit(), (0, 0, 0), "without policies there is nothing");
    cluster.set("x/p0", Some(ingress(json!([{"from": [{"namespaceSelector": namespace("y")}]}]))));
    // For each family: three peers, an isolated pod that reaches itself; three base chains, that of the policy and that of the
    // pod; three sets and that of the peers.
    assert_eq!(cluster.commit(), (10, 10, 8));
    cluster.state.set_pod(&key("y/c"), None);
    assert_eq!(cluster.commit(), (2, 0, 0), "one pod, one element of each family");
    cluster.state.set_pod(&key("z/c"), None);
    assert_eq!(cluster.commit(), (0, 0, 0), "a pod that nobody selects");
    cluster.set("x/p1", Some(ingress(json!([{"from": [{"namespaceSelector": namespace("y")}], "ports": [{"port": 1}]}]))));
    // Its chain, and another one of the pod; the peers are the same set.
    let (elements, chains, sets) = cluster.commit();
    assert_eq!((elements, chains, sets), (4, 6, 0));
}

/// The rules of all chains, the sets and the elements that policies make in a cluster of two pods of this node.
fn sizes(cluster: &mut Cluster) -> (usize, usize, usize) {
    cluster.commit();
    let all = cluster.contents.everything();
    let sum = |of: &dyn Fn(&crate::nft::contents::Delta) -> usize| all.values().map(of).sum::<usize>();
    let rules = sum(&|delta| delta.new_chains.iter().map(|chain| chain.rules.len()).sum());
    (rules, sum(&|delta| delta.new_sets.len()), sum(&|delta| delta.len()))
}

/// Who writes a policy chooses how many peers and ports it names: what nodes keep of it grows with their number, not with one times the other.
#[test]
fn a_policy_costs_what_it_says() {
    const MANY: usize = 3000;
    let empty = sizes(&mut Cluster::with(&[ingress(json!([]))]));
    let check = |rules: Value, most: (usize, usize, usize)| {
        for spec in [ingress(rules.clone()), egress(rules)] {
            let found = sizes(&mut Cluster::with(&[spec]));
            let more = (found.0 - empty.0, found.1 - empty.1, found.2 - empty.2);
            assert!(more.0 <= most.0 && more.1 <= most.1 && more.2 <= most.2, "{more:?} {most:?}");
        }
    };
    let rule = |peers: Vec<Value>, ports: Vec<Value>| json!({"from": peers, "to": peers, "ports": ports});
    let of = |one: &dyn Fn(usize) -> Value| (0..MANY).map(one).collect::<Vec<_>>();
    let equal = of(&|_| json!({"namespaceSelector": {}}));
    let odd = of(&|index| json!({"port": 2 * index + 1}));
    let names = of(&|index| json!({"port": format!("web-{index}")}));
    // Of each family: a rule, the sets of peers and of ports, all nine pods and DNS, and the ports.
    check(json!([rule(equal.clone(), odd.clone())]), (2, 4, 2 * (10 + MANY)));
    check(json!([rule(equal.clone(), vec![json!({"port": 1}); MANY])]), (2, 2, 20));
    check(json!([rule(equal.clone(), names.clone())]), (2, 4, 20));
    let distinct = of(&|index| json!({"podSelector": {"matchLabels": {"pod": format!("n{index}")}}}));
    let blocks = of(&|index| json!({"ipBlock": {"cidr": format!("192.0.{}.{}/32", index / 100, index % 100 * 2)}}));
    let everything = [distinct.clone(), blocks, equal.clone()].concat();
    let ports = [odd, names, vec![json!({"port": 7, "protocol": "UDP"})]].concat();
    check(json!([rule(everything, ports)]), (12, 10, 2 * (40 + 2 * MANY)));
    // The same as many rules.
    check(json!(vec![rule(vec![json!({"namespaceSelector": {}})], vec![json!({"port": 1})]); MANY]), (2, 2, 20));
    let by_ports: Vec<Value> = (0..MANY).map(|index| rule(vec![distinct[index].clone()], vec![json!({"port": 1})])).collect();
    check(json!(by_ports), (2, 2, 0));
    let by_peers = of(&|index| rule(vec![json!({"podSelector": {}})], vec![json!({"port": 2 * index + 1})]));
    check(json!(by_peers), (2, 4, 2 * (3 + MANY)));
}

/// Rules that cannot be fewer: those that ask for too much are left out, which allows nothing, and the policy is told.
#[test]
fn sets_of_pods_have_a_bound() {
    let rules: Vec<Value> = (0..1500)
        .map(|index| {
            let peer =
                json!({"podSelector": {"matchLabels": {"pod": if index < 1200 { format!("n{index}") } else { "b".to_owned() }}}});
            json!({"from": [peer], "ports": [{"port": index + 1}]})
        })
        .collect();
    let mut cluster = Cluster::with(&[ingress(json!(rules)), ingress(json!([{"from": [{"podSelector": pod("c")}]}]))]);
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 1250), "x/a x/c");
    let problems = cluster.state.problems();
    assert_eq!(problems.len(), 1);
    // The last 300 have equal peers, and are one.
    assert_eq!(
        (&problems[0].0, problems[0].1.starts_with("201 of its rules allow nothing")),
        (&key("x/p0"), true),
        "{problems:?}"
    );
    assert_eq!(cluster.state.problems(), []);
    // One rule that names too many leaves the others as they are.
    let many: Vec<Value> = (0..5000)
        .map(|index| json!({"podSelector": pod(&format!("n{index}"))}))
        .chain([json!({"podSelector": pod("b")})])
        .collect();
    let mut cluster =
        Cluster::with(&[ingress(json!([{"from": many}, {"from": [{"podSelector": pod("c")}], "ports": [{"port": 80}]}]))]);
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), "x/a x/c");
    assert_eq!(cluster.state.problems().len(), 1);
}

/// Each node keeps what its own pods need, whoever writes policies elsewhere.
#[test]
fn policies_of_other_nodes_pods_contribute_nothing() {
    let mut cluster = Cluster::new();
    let open = || Some(json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 80}]}]}));
    cluster.set("z/p", open());
    cluster.set("x/p", Some(json!({"podSelector": {"matchLabels": {"pod": "nobody"}}})));
    assert_eq!(cluster.commit(), (0, 0, 0));
    assert!(cluster.state.has_policies("z") && !cluster.state.has_policies("y"));
    // One of its pods comes to this node.
    cluster.state.set_pod(&key("z/a"), Some(Facts { local: true, ..facts("z/a") }));
    assert_eq!(cluster.who_reaches("z/a", Protocol::Tcp, 80), ALL);
    assert_eq!(cluster.who_reaches("z/a", Protocol::Tcp, 81), "z/a");
    cluster.state.set_pod(&key("z/b"), Some(Facts { local: true, ..facts("z/b") }));
    cluster.state.set_pod(&key("z/a"), Some(facts("z/a")));
    assert_eq!(cluster.who_reaches("z/b", Protocol::Tcp, 81), "z/b");
    cluster.state.set_pod(&key("z/b"), None);
    cluster.commit();
    assert!(cluster.contents.is_empty());
    assert_eq!(cluster.contents.everything().len(), 0);
    // The subject selects one here.
    cluster.set("x/p", Some(json!({"podSelector": pod("a")})));
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), "x/a");
    cluster.set("x/p", None);
    cluster.set("z/p", None);
    cluster.commit();
    assert_eq!(cluster.contents.everything().len(), 0);
}

/// What the kernel refuses to hold isolates its pods and allows nothing, until the policy is another one.
#[test]
fn a_policy_that_cannot_be_enforced_fails_closed() {
    let open = || ingress(json!([{}]));
    let mut cluster = Cluster::with(&[open()]);
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), ALL);
    assert_eq!(cluster.state.close_behind(["policies", "policy:x/p0"]), [key("x/p0")]);
    assert_eq!(cluster.state.close_behind(["policy:x/p0"]), []);
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), "x/a");
    assert_eq!(cluster.whom_reaches("x/a", Protocol::Tcp, 80), ALL, "it is not about egress");
    cluster.set("x/p0", Some(open()));
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), "x/a", "the same is not tried again");
    cluster.state.open(&key("x/p0"));
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), ALL, "it may be taken another time");
    assert_eq!(cluster.state.close_behind(["policy:x/p0"]), [key("x/p0")]);
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), "x/a");
    cluster.set("x/p0", Some(ingress(json!([{"ports": [{"port": 80}]}]))));
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), ALL);
}
