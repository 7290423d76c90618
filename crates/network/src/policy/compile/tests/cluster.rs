//! Policies of the cluster: tiers, priorities and actions, as the API's reference (network-policy-api.sigs.k8s.io) has them.

use serde_json::{Value, json};

use super::{ALL, Cluster, egress, ingress, namespace, pod};
use crate::nft::element::Protocol;
use crate::policy::cluster::{Kind, Object};

fn set(cluster: &mut Cluster, kind: Kind, name: &str, spec: Option<Value>) {
    let spec = spec.map(|spec| {
        let object: Object = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        object.read(kind).unwrap().spec
    });
    cluster.state.set_policy(&client::Key { namespace: None, name: format!("{} {name}", kind.name()) }, spec);
}

/// A ClusterNetworkPolicy about the pods `a` of all namespaces.
fn policy(tier: &str, priority: i32, direction: &str, rules: Value) -> Value {
    json!({"tier": tier, "priority": priority, "subject": {"pods": {"namespaceSelector": {}, "podSelector": pod("a")}}, direction: rules})
}

fn rule(action: &str, way: &str, peer: Value) -> Value {
    json!({"action": action, way: [peer]})
}

fn of_namespace(name: &str) -> Value {
    json!({"namespaces": namespace(name)})
}

fn of_pods(name: &str) -> Value {
    json!({"pods": {"namespaceSelector": {}, "podSelector": pod(name)}})
}

/// Who reaches x/a by TCP 80, with these ClusterNetworkPolicies and NetworkPolicies of `x`.
fn check(cluster_policies: &[Value], policies: &[Value], expected: &str) {
    let mut cluster = Cluster::with(policies);
    for (index, spec) in cluster_policies.iter().enumerate() {
        set(&mut cluster, Kind::Cluster, &format!("c{index}"), Some(spec.clone()));
    }
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), expected, "{cluster_policies:?} {policies:?}");
    // Nothing is about these.
    assert_eq!(cluster.who_reaches("x/b", Protocol::Tcp, 80), ALL);
    assert!(cluster.whom_reaches("x/a", Protocol::Tcp, 80).contains("x/b"));
}

/// "If Admin tier has made a final decision (Accept or Deny) on a connection, then no further evaluation is done"; "v1.NetworkPolicy always makes a
/// final decision for selected pods"; "Baseline tier ... can be overridden by the v1.NetworkPolicy"; "Pass: Skips all further ClusterNetworkPolicy rules in the
/// current tier for the selected traffic, and passes evaluation to the next tier".
#[test]
fn tiers_and_actions() {
    let admin = |priority, rules: Value| policy("Admin", priority, "ingress", rules);
    let baseline = |rules: Value| policy("Baseline", 0, "ingress", rules);
    let from = |action, peer| rule(action, "from", peer);
    let (deny_y, pass_b) = (from("Deny", of_namespace("y")), from("Pass", of_pods("b")));
    let nobody = ingress(json!([]));
    check(&[admin(1, json!([deny_y]))], &[], "x/a x/b x/c z/a z/b z/c");
    // What nobody decides passes; what a NetworkPolicy does not allow is dropped, whatever the tier Baseline says.
    check(&[admin(1, json!([deny_y]))], &[ingress(json!([{}]))], "x/a x/b x/c z/a z/b z/c");
    check(&[admin(1, json!([from("Accept", of_namespace("y"))]))], std::slice::from_ref(&nobody), "x/a y/a y/b y/c");
    check(&[baseline(json!([from("Accept", of_namespace("y"))]))], std::slice::from_ref(&nobody), "x/a");
    check(&[baseline(json!([deny_y]))], &[ingress(json!([{}]))], ALL);
    check(&[baseline(json!([deny_y]))], &[], "x/a x/b x/c z/a z/b z/c");
    // The first rule that matches decides.
    check(&[admin(1, json!([pass_b, deny_y]))], &[], "x/a x/b x/c y/b z/a z/b z/c");
    check(&[admin(1, json!([deny_y, pass_b]))], &[], "x/a x/b x/c z/a z/b z/c");
    check(&[admin(1, json!([pass_b, from("Deny", of_namespace("z")), deny_y]))], std::slice::from_ref(&nobody), "x/a");
    // A lower priority comes first, wherever its policy stands; what passes skips the other policies of its tier too.
    let everybody = |action| from(action, json!({"namespaces": {}}));
    check(&[admin(9, json!([everybody("Deny")])), admin(1, json!([from("Accept", of_pods("c"))]))], &[], "x/a x/c y/c z/c");
    check(&[admin(1, json!([everybody("Deny")])), admin(9, json!([from("Accept", of_pods("c"))]))], &[], "x/a");
    check(&[admin(1, json!([pass_b])), admin(2, json!([everybody("Deny")]))], &[], "x/a x/b y/b z/b");
    check(&[admin(1, json!([pass_b])), admin(2, json!([everybody("Deny")])), baseline(json!([deny_y]))], &[], "x/a x/b z/b");
    // In the last tier, to pass is to be let in: the default is that all pods can communicate.
    check(&[baseline(json!([pass_b, everybody("Deny")]))], &[], "x/a x/b y/b z/b");
    // "CNPs with no ingress rules do not affect ingress traffic."
    check(&[policy("Admin", 1, "egress", json!([rule("Deny", "to", of_namespace("z"))]))], &[], ALL);
}

/// Peers by address and ports by number, range and name, in the forms of both versions.
#[test]
fn peers_and_ports() {
    let whom = |kind, spec: Value, protocol, port| {
        let mut cluster = Cluster::new();
        set(&mut cluster, kind, "default", Some(spec));
        cluster.whom_reaches("x/a", protocol, port)
    };
    let only_itself = "x/a";
    let deny = |protocols: Value| {
        let mut rule = rule("Deny", "to", json!({"networks": ["10.42.0.0/16", "fd42::/16"]}));
        rule["protocols"] = protocols;
        policy("Admin", 1, "egress", json!([rule]))
    };
    let both = |protocols: Value, port| {
        (
            whom(Kind::Cluster, deny(protocols.clone()), Protocol::Tcp, port),
            whom(Kind::Cluster, deny(protocols), Protocol::Udp, port),
        )
    };
    let (shut, open) = (only_itself.to_owned(), ALL.to_owned());
    assert_eq!(both(Value::Null, 80), (shut.clone(), shut.clone()));
    assert_eq!(both(json!([{"tcp": {}}]), 80), (shut.clone(), open.clone()));
    assert_eq!(both(json!([{"udp": {"destinationPort": {"number": 80}}}]), 80), (open.clone(), shut.clone()));
    assert_eq!(
        both(json!([{"tcp": {"destinationPort": {"range": {"start": 80, "end": 90}}}}]), 90),
        (shut.clone(), open.clone())
    );
    assert_eq!(both(json!([{"tcp": {"destinationPort": {"range": {"start": 80, "end": 90}}}}]), 91), (open.clone(), open));
    // The port that is called so is another in each namespace.
    let mut named = rule("Deny", "to", json!({"namespaces": {}}));
    named["protocols"] = json!([{"destinationNamedPort": "web"}]);
    let named = policy("Admin", 1, "egress", json!([named]));
    assert_eq!(whom(Kind::Cluster, named, Protocol::Tcp, 80), "x/a y/a y/b y/c z/a z/b z/c");
    // The kinds from which it was made.
    let mut allow = rule("Allow", "to", of_namespace("y"));
    allow["ports"] = json!([{"portNumber": {"protocol": "TCP", "port": 80}}]);
    let mut rest = rule("Deny", "to", json!({"namespaces": {}}));
    rest["ports"] = json!([{"portRange": {"protocol": "TCP", "start": 1, "end": 100}}, {"namedPort": "serve-80-udp"}]);
    let spec = json!({"priority": 3, "subject": {"namespaces": {}}, "egress": [allow, rest]});
    for kind in [Kind::Admin, Kind::Baseline] {
        assert_eq!(whom(kind, spec.clone(), Protocol::Tcp, 80), "x/a y/a y/b y/c");
        assert_eq!(whom(kind, spec.clone(), Protocol::Udp, 80), only_itself);
        assert_eq!(whom(kind, spec.clone(), Protocol::Udp, 81), ALL);
    }
}

/// "If an implementation sees no fields are set ... it should fail closed. For Accept rules: treat the rule as matching no traffic. For Deny and Pass rules: treat the rule
/// as a 'Deny all' rule."
#[test]
fn what_is_not_known_fails_closed() {
    let who_by = |rule: Value| {
        let object: Object =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": policy("Admin", 1, "ingress", json!([rule]))}))
                .unwrap();
        let read = object.read(Kind::Cluster).unwrap();
        let mut cluster = Cluster::with(&[ingress(json!([{"from": [{"podSelector": pod("b")}]}]))]);
        cluster.state.set_policy(&client::Key { namespace: None, name: "p".to_owned() }, Some(read.spec));
        (cluster.who_reaches("x/a", Protocol::Tcp, 80), read.unknown.len())
    };
    let who = |action, peer: Value| who_by(rule(action, "from", peer));
    for peer in
        [json!({}), json!({"domainNames": ["*.example.com"]}), json!({"nodes": {}}), json!({"networks": ["10.42.0.0/99"]})]
    {
        assert_eq!(who("Accept", peer.clone()), ("x/a x/b".to_owned(), 1), "{peer}");
        assert_eq!(who("Deny", peer.clone()), ("x/a".to_owned(), 1), "{peer}");
        assert_eq!(who("Pass", peer.clone()), ("x/a".to_owned(), 1), "{peer}");
    }
    // Lists of nothing make no rule that denies less.
    for empty in ["from", "ports", "protocols"] {
        let rule = |action| {
            let mut rule = rule(action, "from", of_namespace("y"));
            rule[empty] = json!([]);
            rule
        };
        assert_eq!(who_by(rule("Accept")), ("x/a x/b".to_owned(), 1), "{empty}");
        assert_eq!(who_by(rule("Deny")), ("x/a".to_owned(), 1), "{empty}");
    }
    let object: Object =
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"tier": "Admin", "subject": {"nodes": {}}}})).unwrap();
    assert!(object.read(Kind::Cluster).is_err(), "whom it is about is not known");
}

/// A policy that changes is a change of the chains of those that it concerns, and one that goes leaves nothing.
#[test]
fn they_change_and_go() {
    let mut cluster = Cluster::with(&[egress(json!([{}]))]);
    let deny = |peer| Some(policy("Admin", 5, "ingress", json!([rule("Deny", "from", peer)])));
    set(&mut cluster, Kind::Cluster, "p", deny(of_namespace("y")));
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), "x/a x/b x/c z/a z/b z/c");
    set(&mut cluster, Kind::Cluster, "p", deny(of_namespace("z")));
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), "x/a x/b x/c y/a y/b y/c");
    let accept = policy("Admin", 9, "ingress", json!([rule("Accept", "from", of_namespace("z"))]));
    set(&mut cluster, Kind::Cluster, "q", Some(accept.clone()));
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), "x/a x/b x/c y/a y/b y/c");
    let mut first = accept;
    first["priority"] = json!(1);
    set(&mut cluster, Kind::Cluster, "q", Some(first));
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), ALL);
    for name in ["p", "q"] {
        set(&mut cluster, Kind::Cluster, name, None);
    }
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), ALL);
    cluster.set("x/p0", None);
    cluster.commit();
    assert!(cluster.contents.everything().values().all(|delta| delta.is_empty()), "something is left");
}

/// The rules of the cluster's policies are in the chains of the pods that they concern: where the kernel refuses such a chain, they fail closed, and where nothing is left to
/// close, it is known whom to tell and which pods must not start.
#[test]
fn what_holds_rules_of_the_cluster_fails_closed() {
    let mut cluster = Cluster::with(&[ingress(json!([{}]))]);
    let everybody = rule("Accept", "from", json!({"namespaces": {}}));
    let spec = policy("Admin", 1, "ingress", json!([rule("Deny", "from", of_namespace("z")), everybody]));
    set(&mut cluster, Kind::Cluster, "c", Some(spec.clone()));
    let key = |name: &str| client::Key { namespace: None, name: format!("ClusterNetworkPolicy {name}") };
    let (own, pod) = (client::Key::namespaced("x", "p0"), client::Key::namespaced("x", "a"));
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), "x/a x/b x/c y/a y/b y/c");
    let owners = cluster.state.isolators(&pod);
    let [chain, elements] = owners.as_slice() else { panic!("{owners:?}") };
    assert!(chain.starts_with("isolation:ingress:") && elements == "policies of pod:x/a", "{owners:?}");
    assert_eq!(Vec::from_iter(cluster.state.behind(chain)), [key("c"), own.clone()]);
    assert_eq!(Vec::from_iter(cluster.state.behind(elements)), [key("c"), own.clone()]);
    assert!(cluster.state.behind("policies").is_empty());
    // A policy that is refused itself takes the chain along that leads to it: no other is to blame.
    assert_eq!(cluster.state.close_behind([chain.as_str(), "policy:x/p0", elements]), [own]);
    assert_eq!(cluster.state.close_behind([elements.as_str(), "policies", "features"]), []);
    assert_eq!(cluster.state.close_behind([chain.as_str(), "policy:x/p0", elements]), [key("c")]);
    assert_eq!(cluster.state.close_behind([chain.as_str(), "policy:x/p0", elements]), []);
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), "x/a");
    let spec = policy("Admin", 2, "ingress", json!([rule("Accept", "from", of_namespace("y"))]));
    set(&mut cluster, Kind::Cluster, "c", Some(spec));
    assert_eq!(cluster.who_reaches("x/a", Protocol::Tcp, 80), "x/a y/a y/b y/c");
}
