//! Decisions over small clusters.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::attempt::Attempt;
use crate::cluster::Cluster;
use crate::cycle::{Chooser, Found};
use crate::plugins::PLUGINS;
use crate::pod::PodInfo;
use crate::profile::{DEFAULT, Profile, Profiles, Strategy};
use crate::testing::{labelled_pod, node};

fn info(name: &str, labels: Value, spec: Value) -> PodInfo {
    PodInfo::new(Arc::new(labelled_pod(name, labels, spec)))
}

/// Nodes a and b in zone x, c in zone y, with what `more` gives them.
fn cluster(more: [Value; 3]) -> Cluster {
    let mut cluster = Cluster::default();
    for ((name, zone), mut more) in [("a", "x"), ("b", "x"), ("c", "y")].into_iter().zip(more) {
        more["labels"]["zone"] = json!(zone);
        cluster.set_node(&node(name, more));
    }
    cluster
}

fn plain() -> Cluster {
    cluster([json!({}), json!({}), json!({})])
}

fn place(cluster: &mut Cluster, name: &str, labels: Value, spec: Value, node: &str) {
    cluster.place(Arc::new(info(name, labels, spec)), node);
}

/// The nodes that are chosen in some of many tries, or the error.
#[track_caller]
fn check(cluster: &mut Cluster, labels: Value, spec: Value, expected: &str) {
    let pod = info("new", labels, spec);
    // Once counting every pod, once by what is kept counted.
    for prepared in [false, true] {
        let mut chooser = Chooser::default();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..64 {
            let attempt = Attempt::default();
            let chosen = if prepared {
                chooser.choose(&pod, cluster, &attempt)
            } else {
                let slot = chooser.find(&pod, cluster, &attempt).map(|found| match found {
                    Found::One(slot) => slot,
                    Found::Several(slots) => chooser.best(&pod, cluster, &attempt, &slots, &HashMap::new()),
                });
                slot.map(|slot| cluster.slots()[slot].name.clone())
            };
            seen.insert(chosen.unwrap_or_else(|error| error.to_string()));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>().join(" "), expected, "prepared: {prepared}");
    }
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu, "memory": memory}}}])
}

#[test]
fn says_why_no_node_will_do() {
    check(&mut Cluster::default(), json!({}), json!({}), "no nodes available to schedule pods");
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let cordoned = json!({"spec": {"unschedulable": true}});
    let mut mixed = cluster([taint.clone(), cordoned, json!({})]);
    check(
        &mut mixed,
        json!({}),
        json!({"containers": requests("8", "64Gi")}),
        "0/3 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 node(s) had untolerated taint(s), \
         1 node(s) were unschedulable.",
    );
    check(&mut mixed, json!({}), json!({"nodeSelector": {"zone": "x"}, "tolerations": [{"operator": "Exists"}]}), "a b");
    check(&mut mixed, json!({}), json!({"nodeSelector": {"zone": "z"}, "tolerations": [{"operator": "Exists"}]}), {
        "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    });
    let gpu = json!([{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]);
    check(&mut plain(), json!({}), json!({"containers": gpu}), "0/3 nodes are available: 3 Insufficient example.com/gpu.");
}

#[test]
fn node_affinity_selects_and_prefers() {
    let terms = |expressions: Value| json!({"nodeSelectorTerms": [{"matchExpressions": expressions}]});
    let required = |term: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
    check(&mut plain(), json!({}), required(terms(json!([{"key": "zone", "operator": "NotIn", "values": ["x"]}]))), "c");
    let field = json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}]});
    check(&mut plain(), json!({}), required(field), "b");
    // As upstream's PreFilter: of other nodes nothing more is said, and nobody looks at them.
    let named = |names: &[&[&str]]| {
        let field = |names: &&[&str]| json!({"key": "metadata.name", "operator": "In", "values": names});
        required(json!({"nodeSelectorTerms": [{"matchFields": names.iter().map(field).collect::<Vec<_>>()}]}))
    };
    let mut large = named(&[&["b"]]);
    large["containers"] = requests("8", "1Gi");
    let text = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity].";
    check(&mut plain(), json!({}), large, text);
    let nowhere = "0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity].";
    check(&mut plain(), json!({}), named(&[&["d"]]), nowhere);
    let conflict = "0/3 nodes are available: pod affinity terms conflict.";
    check(&mut plain(), json!({}), named(&[&["a"], &["b"]]), conflict);
    let preference =
        json!([{"weight": 5, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["y"]}]}}]);
    let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preference}}});
    check(&mut plain(), json!({}), preferred, "c");
}

#[test]
fn prefers_empty_nodes_and_tolerates_soft_taints_last() {
    let mut busy = plain();
    place(&mut busy, "p", json!({}), json!({"containers": requests("2", "4Gi")}), "a");
    place(&mut busy, "q", json!({}), json!({"containers": requests("2", "4Gi")}), "b");
    check(&mut busy, json!({}), json!({"containers": requests("1", "2Gi")}), "c");
    let soft = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    check(&mut cluster([soft.clone(), json!({}), soft]), json!({}), json!({}), "b");
}

#[test]
fn profiles_choose_in_their_own_way() {
    let mut busy = plain();
    place(&mut busy, "p", json!({}), json!({"containers": requests("2", "4Gi")}), "a");
    place(&mut busy, "q", json!({}), json!({"containers": requests("1", "2Gi")}), "b");
    let wanted = || json!({"containers": requests("1", "2Gi")});
    check(&mut busy, json!({}), wanted(), "c");
    let mut packs = Profile::new(DEFAULT);
    packs.fit.strategy = Strategy::MostAllocated;
    busy.profiles = Profiles::new(vec![packs.clone()]);
    check(&mut busy, json!({}), wanted(), "a");
    packs.weights = vec![0; PLUGINS.len()];
    busy.profiles = Profiles::new(vec![packs.clone()]);
    check(&mut busy, json!({}), wanted(), "a b c");
    check(&mut busy, json!({}), json!({"nodeSelector": {"zone": "y"}}), "c");
    packs.filters = 0;
    busy.profiles = Profiles::new(vec![packs]);
    check(&mut busy, json!({}), json!({"nodeSelector": {"zone": "y"}}), "a b c");
}

#[test]
fn host_ports_are_used_once() {
    let port = |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]});
    let mut used = plain();
    for (pod, node) in [("p", "a"), ("q", "b"), ("r", "c")] {
        place(&mut used, pod, json!({}), port("127.0.0.1"), node);
    }
    check(
        &mut used,
        json!({}),
        port(""),
        "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports.",
    );
    check(&mut used, json!({}), port("127.0.0.2"), "a b c");
}

/// KEP-5328: a pod goes to nodes that declare the features that it needs.
#[test]
fn nodes_declare_features() {
    let rules = json!({"containers": [{"name": "c", "restartPolicyRules": [{"action": "RestartAllContainers"}]}]});
    let declares = |feature: &str| json!({"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "declaredFeatures": [feature]}});
    let nodes =
        [json!({}), declares("RestartAllContainersOnContainerExits"), declares("InPlacePodVerticalScalingInitContainers")];
    check(&mut cluster(nodes), json!({}), rules.clone(), "b");
    check(&mut plain(), json!({}), rules, "0/3 nodes are available: 3 node(s) didn't match Pod's required features.");
}

fn term(app: &str, key: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

fn required_terms(kind: &str, app: &str, key: &str) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term(app, key)]}}})
}

#[test]
fn pods_stay_near_or_far() {
    let web = || json!({"app": "web"});
    let mut one = plain();
    place(&mut one, "p", web(), json!({}), "a");
    check(&mut one, json!({}), required_terms("podAffinity", "web", "zone"), "b");
    check(&mut one, json!({}), required_terms("podAntiAffinity", "web", "zone"), "c");
    check(&mut one, json!({}), required_terms("podAffinity", "db", "zone"), {
        "0/3 nodes are available: 3 node(s) didn't match pod affinity rules."
    });
    // The first of a group may go anywhere.
    check(&mut plain(), web(), required_terms("podAffinity", "web", "zone"), "a b c");
    let mut guarded = plain();
    place(&mut guarded, "p", json!({}), required_terms("podAntiAffinity", "web", "zone"), "a");
    check(&mut guarded, web(), json!({}), "c");
    let preferred = json!([{"weight": 100, "podAffinityTerm": term("web", "kubernetes.io/hostname")}]);
    check(
        &mut one,
        json!({}),
        json!({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}),
        "a",
    );
}

#[test]
fn affinity_follows_pods_nodes_and_namespaces() {
    let web = || json!({"app": "web"});
    let prefers = |kind: &str, key: &str| {
        let preferred = json!([{"weight": 10, "podAffinityTerm": term("web", key)}]);
        json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}})
    };
    let mut nodes = plain();
    // What others want of the pod, until they go.
    place(&mut nodes, "p", json!({}), prefers("podAntiAffinity", "zone"), "a");
    check(&mut nodes, web(), json!({}), "c");
    assert!(nodes.remove_pod("p").is_some());
    check(&mut nodes, web(), json!({}), "a b c");
    // What the pod wants of others; their node moves to another zone and goes.
    place(&mut nodes, "q", web(), json!({}), "c");
    check(&mut nodes, json!({}), prefers("podAffinity", "zone"), "c");
    check(&mut nodes, json!({}), required_terms("podAffinity", "web", "zone"), "c");
    nodes.set_node(&node("c", json!({"labels": {"zone": "x"}})));
    check(&mut nodes, json!({}), required_terms("podAffinity", "web", "zone"), "a b");
    nodes.remove_node("c");
    check(&mut nodes, json!({}), required_terms("podAffinity", "web", "zone"), {
        "0/2 nodes are available: 2 node(s) didn't match pod affinity rules."
    });
    // Of several terms a pod counts that matches all.
    let mut both = required_terms("podAffinity", "web", "zone");
    let terms = &mut both["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let front = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"tier": "front"}}});
    *terms = json!([term("web", "zone"), front]);
    place(&mut nodes, "r", web(), json!({}), "a");
    check(&mut nodes, json!({}), both.clone(), "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.");
    place(&mut nodes, "s", json!({"app": "web", "tier": "front"}), json!({}), "a");
    check(&mut nodes, json!({}), both, "b");
    // Namespaces that are selected by labels which they get later.
    let mut selected = required_terms("podAffinity", "web", "kubernetes.io/hostname");
    let terms = &mut selected["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    terms[0]["namespaceSelector"] = json!({"matchLabels": {"team": "t"}});
    check(&mut nodes, json!({}), selected.clone(), "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.");
    assert!(nodes.set_namespace("a", Some(serde_json::from_value(json!({"team": "t"})).ok())));
    assert!(!nodes.set_namespace("a", Some(serde_json::from_value(json!({"team": "t"})).ok())));
    check(&mut nodes, json!({}), selected, "a");
}

#[test]
fn pods_spread() {
    let web = || json!({"app": "web"});
    let spread = |key: &str, when: &str| {
        json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when,
               "labelSelector": {"matchLabels": {"app": "web"}}}]})
    };
    let mut skewed = plain();
    place(&mut skewed, "p", web(), json!({}), "a");
    check(&mut skewed, web(), spread("zone", "DoNotSchedule"), "c");
    check(&mut skewed, web(), spread("kubernetes.io/hostname", "DoNotSchedule"), "b c");
    check(&mut skewed, web(), spread("rack", "DoNotSchedule"), {
        "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints (missing required label)."
    });
    check(&mut skewed, web(), spread("zone", "ScheduleAnyway"), "c");
    // A node without the label comes last, however empty it is.
    let mut partly = cluster([json!({"labels": {"rack": "r"}}), json!({"labels": {"rack": "s"}}), json!({})]);
    place(&mut partly, "p", web(), json!({}), "a");
    check(&mut partly, web(), spread("rack", "ScheduleAnyway"), "b");
    // Nodes that the pod does not tolerate count unless asked not to.
    let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let mut guarded = cluster([tainted, json!({}), json!({})]);
    place(&mut guarded, "p", web(), json!({}), "b");
    place(&mut guarded, "q", web(), json!({}), "c");
    check(&mut guarded, web(), spread("kubernetes.io/hostname", "DoNotSchedule"), {
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match pod topology spread constraints."
    });
    let mut honest = spread("kubernetes.io/hostname", "DoNotSchedule");
    honest["topologySpreadConstraints"][0]["nodeTaintsPolicy"] = json!("Honor");
    check(&mut guarded, web(), honest, "b c");
}

#[test]
fn pods_of_a_service_spread_by_default() {
    let mut one = plain();
    let selector = serde_json::from_value(json!({"app": "web"})).ok();
    one.groups.set_service(&client::Key::namespaced("a", "web"), selector);
    place(&mut one, "p", json!({"app": "web"}), json!({}), "a");
    place(&mut one, "q", json!({"app": "other"}), json!({}), "b");
    place(&mut one, "r", json!({"app": "web"}), json!({}), "c");
    check(&mut one, json!({"app": "web"}), json!({}), "b");
}

#[test]
fn images_that_are_there_attract() {
    let image = |name: &str| {
        json!({"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "images": [{"names": [name], "sizeBytes": 900_000_000}]}})
    };
    let mut nodes = cluster([json!({}), image("registry/app:latest"), image("other:1")]);
    check(&mut nodes, json!({}), json!({"containers": [{"name": "c", "image": "registry/app"}]}), "b");
    // KEP-4639: so do images that are mounted.
    let mounted = json!([{"name": "v", "image": {"reference": "other:1"}}]);
    check(&mut nodes, json!({}), json!({"containers": [{"name": "c", "image": "none"}], "volumes": mounted}), "c");
}

#[test]
fn what_is_counted_follows_pods_and_nodes() {
    let web = || json!({"app": "web"});
    let spread = |key: &str| {
        json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
               "labelSelector": {"matchLabels": {"app": "web"}}}]})
    };
    let mut nodes = plain();
    check(&mut nodes, web(), spread("zone"), "a b c");
    place(&mut nodes, "p", web(), json!({}), "a");
    check(&mut nodes, web(), spread("zone"), "c");
    place(&mut nodes, "q", web(), json!({}), "c");
    place(&mut nodes, "other", json!({}), json!({}), "b");
    check(&mut nodes, web(), spread("zone"), "a b c");
    nodes.set_node(&node("b", json!({"labels": {"zone": "z"}})));
    check(&mut nodes, web(), spread("zone"), "b");
    assert!(nodes.remove_pod("p").is_some() && nodes.remove_pod("other").is_some());
    check(&mut nodes, web(), spread("zone"), "a b");
    nodes.remove_node("a");
    nodes.remove_node("b");
    check(&mut nodes, web(), spread("zone"), "c");
}

/// KEP-5004: where the node has none of an extended resource that a class stands for, claims for devices decide and not its amounts.
#[test]
fn resources_of_classes_are_not_counted_where_there_are_none() {
    let asks = || json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]});
    let allocatable = json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", "example.com/gpu": "1"}});
    let mut cluster = cluster([json!({}), json!({}), json!({"status": allocatable})]);
    check(&mut cluster, json!({}), asks(), "c");
    place(&mut cluster, "old", json!({}), asks(), "c");
    check(&mut cluster, json!({}), asks(), "0/3 nodes are available: 3 Insufficient example.com/gpu.");
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}});
    cluster.devices.extended.changed(None, Some(&serde_json::from_value(class).unwrap()));
    // The class is not in the cache of classes, which is what the plugin of claims says.
    check(
        &mut cluster,
        json!({}),
        asks(),
        "0/3 nodes are available: 1 Insufficient example.com/gpu, 2 request container-0-request-0: device class gpu does not exist.",
    );
}

/// An attempt looks at so many terms as others can wait for: of those that are preferred the first count, one that requires more is refused.
#[test]
fn terms_have_a_bound() {
    let mut nodes = plain();
    place(&mut nodes, "p", json!({"app": "wanted"}), json!({}), "b");
    let most = (nodes.most_required(), nodes.most_preferred());
    assert!(most.0 > 100_000 && most.1 > 50_000, "{most:?}");
    for number in 0..5000 {
        place(&mut nodes, &format!("q{number}"), json!({"app": "other"}), json!({}), ["a", "b", "c"][number % 3]);
    }
    let term = |app: &str| json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}});
    let weighed = |app: &str| json!({"weight": 100, "podAffinityTerm": term(app)});
    let limit = nodes.most_preferred();
    let near = |number: usize| {
        let first: Vec<Value> = (0..number).map(|index| weighed(&format!("none{index}"))).collect();
        let all = [first, vec![weighed("wanted")]].concat();
        json!({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": all}}})
    };
    for node in ["a", "b", "c"] {
        nodes.set_node(&crate::testing::node(
            node,
            json!({"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "9999"}}}),
        ));
    }
    let choose = |nodes: &mut Cluster, spec: Value| {
        let attempt = Attempt::default();
        let chosen = Chooser::default().choose(&info("new", json!({}), spec), nodes, &attempt);
        chosen.unwrap_or_else(|error| error.to_string())
    };
    for _ in 0..4 {
        assert_eq!(choose(&mut nodes, near(limit - 1)), "b");
    }
    let chosen: std::collections::BTreeSet<String> = (0..16).map(|_| choose(&mut nodes, near(5000))).collect();
    assert!(chosen.len() > 1, "the last term counts for nothing: {chosen:?}");
    let far: Vec<Value> = (0..nodes.most_required()).map(|index| term(&format!("none{index}"))).collect();
    let required =
        |far: &[Value]| json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": far}}});
    assert!(["a", "b", "c"].contains(&choose(&mut nodes, required(&far)).as_str()));
    let refused = choose(&mut nodes, required(&[far.as_slice(), &[term("other")]].concat()));
    assert!(refused.contains("required affinity terms, of which at most"), "{refused}");
}

/// A topology that was looked up anew may have other numbers than the one that pods were counted by.
#[test]
fn zones_keep_the_numbers_by_which_pods_are_counted() {
    let mut nodes = plain();
    place(&mut nodes, "p", json!({"app": "web"}), json!({}), "a");
    let spread = json!({"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
        "nodeAffinityPolicy": "Ignore", "labelSelector": {"matchLabels": {"app": "web"}}}]});
    let web = || json!({"app": "web"});
    check(&mut nodes, web(), spread.clone(), "c");
    // The slots of nodes are others without that nodes have changed: one that was known by its pods only goes.
    let mut nodes = Cluster::default();
    place(&mut nodes, "gone", json!({}), json!({}), "unknown");
    for (name, zone) in [("a", "x"), ("b", "x"), ("c", "y")] {
        nodes.set_node(&node(name, json!({"labels": {"zone": zone}})));
    }
    place(&mut nodes, "p", web(), json!({}), "a");
    check(&mut nodes, web(), spread.clone(), "c");
    assert!(nodes.remove_pod("gone").is_some());
    // More keys than are kept: that of the zone is forgotten.
    for number in 0..64 {
        nodes.prepare_scores(&info(
            "other",
            json!({}),
            json!({"topologySpreadConstraints": [{"topologyKey": format!("k{number}"),
            "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}]}),
        ));
    }
    check(&mut nodes, web(), spread, "c");
}

/// Upstream, #135573: nodes are scored by how the pod changes the balance of what is used, from 50 to 100; 75 is no change.
#[test]
fn balance_is_scored_by_its_change() {
    let check = |there: Option<(&str, &str)>, memory: &str, wanted: (&str, &str), expected: i64| {
        let asks = |(cpu, memory): (&str, &str)| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]});
        let mut cluster = Cluster::default();
        cluster.set_node(&node("a", json!({"status": {"allocatable": {"cpu": "4", "memory": memory, "pods": "110"}}})));
        if let Some(there) = there {
            place(&mut cluster, "there", json!({}), asks(there), "a");
        }
        let plugin = PLUGINS.iter().find(|plugin| plugin.name() == "NodeResourcesBalancedAllocation").unwrap();
        let (pod, a, attempt) = (info("new", json!({}), asks(wanted)), cluster.node("a").unwrap(), Attempt::default());
        assert_eq!(plugin.score(&pod, &cluster, &attempt, &[a]).unwrap().score(a), expected, "{there:?} {wanted:?}");
    };
    check(None, "8Gi", ("1", "2Gi"), 75);
    check(Some(("1", "0")), "8Gi", ("1", "2Gi"), 75);
    check(None, "8Gi", ("4", "0"), 50);
    check(Some(("4", "0")), "8Gi", ("0", "8Gi"), 100);
    // 1 - 1/8, and half of what it changes: in whole numbers.
    check(None, "8Gi", ("1", "0"), 68);
    check(Some(("1", "0")), "8Gi", ("0", "2Gi"), 81);
    // What there is none of is not counted.
    check(None, "0", ("4", "0"), 75);
}
