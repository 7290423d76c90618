//! The default policy against upstream's: `testdata/upstream.txt` is a normal form of what the test data of its bootstrap policy say, and is
//! changed with a release of Kubernetes only. What differs stands in `DIFFERENCES` with the reason.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use apimachinery::meta;
use serde_json::Value;

use super::{Policy, Rule};

/// How a fact is different that starts with the text, and why. `+`: only Knarr has it.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "+ClusterRole system:controller:service-cidrs-controller: create networking.k8s.io:ipaddresses",
        "the controller writes the IPAddresses that upstream's API server writes itself",
    ),
    ("+ClusterRole system:controller:service-cidrs-controller: delete networking.k8s.io:ipaddresses", "the same"),
    (
        "+ClusterRole system:controller:service-cidrs-controller: list core:services",
        "a range stays while a Service has an address of it, whose IPAddress may not be there yet",
    ),
    ("+ClusterRole system:aggregated-metrics-reader: ", "comes with metrics-server, whose API is part of this server"),
    ("+ClusterRole system:coredns: ", "comes with CoreDNS, whose place the server's DNS takes"),
    ("+ClusterRoleBinding system:coredns: ", "the same"),
    ("+ClusterRole system:controller:pod-certificate-signer: ", "upstream has the name of this signer and no signer"),
    ("+ClusterRoleBinding system:controller:pod-certificate-signer: ", "the same"),
    (
        "+ClusterRole system:controller:tokens-controller: ",
        "upstream's works with the rights of the controller manager as a whole",
    ),
    ("+ClusterRoleBinding system:controller:tokens-controller: ", "the same"),
    ("+ClusterRole knarr:network-policies: ", "upstream's network plugins bring a role like it"),
    ("+ClusterRoleBinding knarr:network-policies: ", "the same"),
];

/// `kind namespace/name: fact`, from the normal form: what grants several things, to several, is several facts.
fn of_upstream() -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    let mut object = "";
    for line in include_str!("testdata/upstream.txt").lines().filter(|line| !line.starts_with('#')) {
        let Some(line) = line.strip_prefix("  ") else {
            object = line;
            continue;
        };
        let (first, rest) = line.split_once(' ').unwrap();
        match first {
            "aggregates" | "into" => _ = facts.insert(format!("{object}: {line}")),
            "of" => {
                let (role, subjects) = rest.split_once(' ').unwrap_or((rest, ""));
                facts.insert(format!("{object}: of {role}"));
                facts.extend(subjects.split_whitespace().map(|subject| format!("{object}: to {subject}")));
            }
            verbs => {
                let places = rest.split(' ').flat_map(|place| verbs.split(',').map(move |verb| (verb, place)));
                facts.extend(places.map(|(verb, place)| format!("{object}: {verb} {place}")));
            }
        }
    }
    facts
}

fn of_rule(rule: &Rule) -> Vec<String> {
    let all = [String::new()];
    let names = if rule.names.is_empty() { all.as_slice() } else { rule.names.as_slice() };
    let mut places: Vec<String> =
        rule.paths.iter().map(|path| if path == "*" { "/*".to_owned() } else { path.clone() }).collect();
    for group in &rule.groups {
        let group = if group.is_empty() { "core" } else { group };
        for resource in &rule.resources {
            let named = |name: &String| {
                if name.is_empty() { format!("{group}:{resource}") } else { format!("{group}:{resource}@{name}") }
            };
            places.extend(names.iter().map(named));
        }
    }
    rule.verbs.iter().flat_map(|verb| places.iter().map(move |place| format!("{verb} {place}"))).collect()
}

fn of_object(object: &Value) -> Vec<String> {
    const LABEL: &str = "rbac.authorization.k8s.io/aggregate-to-";
    let mut facts: Vec<String> = Rule::read_all(object).iter().flat_map(of_rule).collect();
    let labels = object["metadata"]["labels"].as_object().unwrap();
    facts.extend(labels.keys().filter_map(|label| label.strip_prefix(LABEL)).map(|role| format!("into {role}")));
    for selector in object["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten() {
        let wanted = selector["matchLabels"].as_object().unwrap();
        facts.extend(wanted.keys().map(|label| format!("aggregates {}", label.strip_prefix(LABEL).unwrap())));
    }
    facts.extend(object["roleRef"]["name"].as_str().map(|role| format!("of {role}")));
    for subject in object["subjects"].as_array().into_iter().flatten() {
        let namespace = subject["namespace"].as_str().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        let (kind, name) = (subject["kind"].as_str().unwrap(), subject["name"].as_str().unwrap());
        facts.push(format!("to {kind}:{namespace}{name}"));
    }
    facts
}

fn of_knarr() -> BTreeSet<String> {
    let facts = |(_, namespace, object): &(&str, &str, Value)| {
        let namespace = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let object_name = format!("{} {namespace}{}", object["kind"].as_str().unwrap(), meta::name(object));
        of_object(object).into_iter().map(move |fact| format!("{object_name}: {fact}"))
    };
    Policy::new().objects.iter().flat_map(facts).collect()
}

/// Issue 8: "every v1.36 default role and binding equal to upstream's by comparison with its data".
#[test]
fn the_default_policy_is_upstreams() {
    let (upstream, knarr) = (of_upstream(), of_knarr());
    assert!(upstream.len() > 1_000, "{}", upstream.len());
    let more = knarr.difference(&upstream).map(|fact| format!("+{fact}"));
    let less = upstream.difference(&knarr).map(|fact| format!("-{fact}"));
    let found: Vec<String> = more.chain(less).collect();
    let is_known = |fact: &&String| DIFFERENCES.iter().any(|(known, _)| fact.starts_with(known));
    let unexplained: Vec<&String> = found.iter().filter(|fact| !is_known(fact)).collect();
    assert!(unexplained.is_empty(), "without a reason: {unexplained:#?}");
    for (known, why) in DIFFERENCES {
        assert!(found.iter().any(|fact| fact.starts_with(known)), "is no difference any more: {known} ({why})");
    }
}
