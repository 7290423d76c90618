//! A Service that changes its type: fields that the old type had and the new one has not go away, unless the client
//! changed them too, which validation then judges (pkg/registry/core/service, `dropTypeDependentFields`).

use serde_json::{Value, json};

use super::validate;
use crate::util::{each, remove, text};

/// Removes what the new type has no use for.
pub(crate) fn drop_dependent(object: &mut Value, old: &Value) {
    let types = (text(object, "/spec/type").to_owned(), text(old, "/spec/type").to_owned());
    let lost = |has: fn(&str) -> bool| has(&types.1) && !has(&types.0);
    // Nobody serves it any more, whoever wrote the status.
    if types.0 != "LoadBalancer"
        && let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
    {
        status.insert("loadBalancer".to_owned(), json!({}));
    }
    let Some(spec) = object.get_mut("spec") else { return };
    let old = old.get("spec").unwrap_or(&Value::Null);
    if lost(has_cluster_ip) {
        drop_addresses(spec, old);
        drop_same(spec, old, "internalTrafficPolicy");
    }
    if lost(has_node_port) && node_ports(spec) == node_ports(old) {
        each(spec, "ports").for_each(|port| remove(port, "nodePort"));
    }
    if is_external(old) && !is_external(spec) {
        drop_same(spec, old, "externalTrafficPolicy");
    }
    if lost(|kind| kind == "LoadBalancer") {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            drop_same(spec, old, field);
        }
    }
    if is_checked(old) && !is_checked(spec) {
        drop_same(spec, old, "healthCheckNodePort");
    }
}

/// Whether load balancers ask nodes for the service's health.
fn is_checked(spec: &Value) -> bool {
    text(spec, "/type") == "LoadBalancer" && text(spec, "/externalTrafficPolicy") == "Local"
}

/// Whether the service can be reached from outside of the cluster.
fn is_external(spec: &Value) -> bool {
    let addresses = spec["externalIPs"].as_array().is_some_and(|addresses| !addresses.is_empty());
    validate::is_external(text(spec, "/type"), addresses)
}

fn has_cluster_ip(kind: &str) -> bool {
    kind != "ExternalName"
}

fn has_node_port(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

/// Older clients know the first address only: it speaks for all.
fn drop_addresses(spec: &mut Value, old: &Value) {
    let first = text(spec, "/clusterIP");
    if !first.is_empty() && first != text(old, "/clusterIP") {
        return;
    }
    remove(spec, "clusterIP");
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        drop_same(spec, old, field);
    }
}

fn drop_same(spec: &mut Value, old: &Value, field: &str) {
    if spec.get(field) == old.get(field) {
        remove(spec, field);
    }
}

fn node_ports(spec: &Value) -> Vec<&Value> {
    spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(mut new: Value, expected: Value) {
        let old = json!({"type": "NodePort", "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "ipFamilies": ["IPv4"],
            "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "nodePort": 30001}]});
        for (key, value) in old.as_object().unwrap() {
            crate::util::set_default(&mut new, key, value.clone());
        }
        let mut object = json!({"spec": new});
        drop_dependent(&mut object, &json!({"spec": old}));
        assert_eq!(object["spec"], expected);
    }

    #[test]
    fn types_change() {
        let external = json!({"type": "ExternalName", "externalName": "a.b", "ports": [{"port": 80}]});
        check(json!({"type": "ExternalName", "externalName": "a.b"}), external.clone());
        check(json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": ""}), external);
        let cluster = json!({"type": "ClusterIP", "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "ipFamilies": ["IPv4"],
            "internalTrafficPolicy": "Cluster", "ports": [{"port": 80}]});
        check(json!({"type": "ClusterIP"}), cluster);
    }

    #[test]
    fn external_addresses_go_with_their_policy() {
        let old = json!({"type": "ClusterIP", "externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Cluster"});
        let check = |new: Value, expected: Value| {
            let mut object = json!({"spec": new});
            drop_dependent(&mut object, &json!({"spec": old}));
            assert_eq!(object["spec"], expected);
        };
        check(json!({"type": "ClusterIP", "externalTrafficPolicy": "Cluster"}), json!({"type": "ClusterIP"}));
        check(
            json!({"type": "ClusterIP", "externalIPs": [], "externalTrafficPolicy": "Cluster"}),
            json!({"type": "ClusterIP", "externalIPs": []}),
        );
        check(old.clone(), old.clone());
        let other = json!({"type": "ClusterIP", "externalTrafficPolicy": "Local"});
        check(other.clone(), other);
    }

    #[test]
    fn what_is_no_load_balancer_has_no_addresses_of_one() {
        let served = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}, "conditions": []});
        let check = |kind: &str, expected: Value| {
            let mut object = json!({"spec": {"type": kind}, "status": served});
            drop_dependent(&mut object, &json!({"spec": {"type": "LoadBalancer"}, "status": served}));
            assert_eq!(object["status"], expected, "{kind}");
        };
        check("LoadBalancer", served.clone());
        for kind in ["ClusterIP", "NodePort", "ExternalName"] {
            check(kind, json!({"loadBalancer": {}, "conditions": []}));
        }
    }

    #[test]
    fn what_the_client_changed_stays_for_validation() {
        let kept = json!({"type": "ExternalName", "clusterIP": "10.43.0.10", "clusterIPs": ["10.43.0.9"], "ipFamilies": ["IPv4"], "ports": [{"port": 81, "nodePort": 30002}]});
        let new = json!({"type": "ExternalName", "clusterIP": "10.43.0.10", "ports": [{"port": 81, "nodePort": 30002}]});
        check(new, kept);
    }
}
