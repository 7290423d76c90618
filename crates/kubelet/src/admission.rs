//! Whether a pod that was bound to this node fits it. Pure.

mod confinement;

use std::collections::BTreeMap;

use runtime::api::Features;

use crate::allocation::Pending;
use crate::pod::effects::host_ports;
use crate::resources::{self, Qos};
use crate::spec::Model;
use crate::units::{self, ResourceList};

/// The node as admission sees it.
pub struct Room<'a> {
    /// Name of the node.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its kernel has AppArmor.
    pub app_armor: bool,
    /// What its runtime can do.
    pub features: Features,
    /// What pods may take.
    pub allocatable: &'a ResourceList,
    /// Containers may have processors for themselves.
    pub exclusive_cpus: bool,
}

/// Checks `pod` against the node and the pods that run there. The error is the status reason and message.
pub fn admit(pod: &Model, others: &[Model], room: &Room<'_>) -> Result<(), (String, String)> {
    confinement::check(pod, room.app_armor, room.features)?;
    let capacity = units::whole_of(Some(room.allocatable), "pods");
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count + 1 > capacity {
        return Err(out_of("pods", 1, count, capacity));
    }
    fits(pod, others, room.allocatable)?;
    if !pods::nodes::fits(pod.spec(), room.name, &Some(room.labels.clone())) {
        return Err(predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    let taken: Vec<_> = others.iter().flat_map(host_ports).collect();
    let clash = host_ports(pod).iter().any(|port| {
        taken.iter().any(|other| {
            let same_address = port.host_ip == other.host_ip || port.host_ip.is_none() || other.host_ip.is_none();
            port.host_port == other.host_port && port.protocol == other.protocol && same_address
        })
    });
    if clash {
        return Err(predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
    }
    Ok(())
}

/// Whether there is as much as the pod asks for beside what `others` have.
pub fn fits(pod: &Model, others: &[Model], allocatable: &ResourceList) -> Result<(), (String, String)> {
    for (name, quantity) in allocatable.iter().filter(|(name, _)| *name != "pods") {
        let (requested, available) = (resources::pod_request(pod, name), units::milli(quantity));
        let used: i64 = others.iter().map(|other| resources::pod_request(other, name)).sum();
        if requested > 0 && used.saturating_add(requested) > available {
            let unit = if name == "cpu" { 1 } else { 1000 };
            return Err(out_of(name, requested / unit, used / unit, available / unit));
        }
    }
    Ok(())
}

/// Whether a pod gets what it asks for, beside what `others` have.
pub fn resize(wanted: &Model, others: &[Model], room: &Room<'_>) -> Result<(), Pending> {
    let pending = |reason, message| Pending { reason, message, generation: wanted.pod.metadata.generation };
    if room.exclusive_cpus && resources::qos(wanted) == Qos::Guaranteed {
        let message = "Resize is infeasible for Guaranteed Pods alongside CPU Manager static policy";
        return Err(pending("Infeasible", message.to_owned()));
    }
    for name in ["cpu", "memory"] {
        let unit = if name == "cpu" { 1 } else { 1000 };
        let requested = resources::pod_request(wanted, name);
        let capacity = room.allocatable.get(name).map_or(0, units::milli);
        if requested > capacity {
            let (requested, capacity) = (requested / unit, capacity / unit);
            let message = format!("Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}");
            return Err(pending("Infeasible", message));
        }
    }
    fits(wanted, others, room.allocatable).map_err(|(_, message)| pending("Deferred", message))
}

fn out_of(name: &str, requested: i64, used: i64, capacity: i64) -> (String, String) {
    let message = format!("Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}");
    (format!("OutOf{name}"), message)
}

fn predicate(name: &str, why: &str) -> (String, String) {
    (name.to_owned(), format!("Predicate {name} failed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::model;
    use crate::units::quantity;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(spec: Value, reason: Option<&str>) {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("size".to_owned(), "5".to_owned())]);
        let allocatable = ResourceList::from([
            ("cpu".to_owned(), quantity("2")),
            ("memory".to_owned(), quantity("1Gi")),
            ("pods".to_owned(), quantity("2")),
        ]);
        let other = json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}],
            "resources": {"requests": {"cpu": "1500m"}}}]});
        let room = Room {
            name: "n",
            labels: &labels,
            app_armor: false,
            features: Features::default(),
            allocatable: &allocatable,
            exclusive_cpus: false,
        };
        let refused = admit(&model(spec), &[model(other)], &room).err();
        assert_eq!(refused.as_ref().map(|(reason, _)| reason.as_str()), reason, "{refused:?}");
    }

    #[test]
    fn fits_or_says_why_not() {
        let cpu = |value: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": value}}}]});
        check(cpu("500m"), None);
        check(cpu("501m"), Some("OutOfcpu"));
        let port =
            |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]});
        check(port("127.0.0.1"), Some("NodePorts"));
        check(json!({"nodeSelector": {"zone": "a"}, "containers": []}), None);
        check(json!({"nodeSelector": {"zone": "b"}, "containers": []}), Some("NodeAffinity"));
        let affinity = |operator: &str, values: Value| {
            json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "size", "operator": operator, "values": values}]}]}}}})
        };
        check(affinity("Gt", json!(["4"])), None);
        check(affinity("Lt", json!(["4"])), Some("NodeAffinity"));
        check(affinity("Exists", json!([])), None);
    }

    #[test]
    fn the_message_has_the_figures() {
        let (_, message) = out_of("cpu", 501, 1500, 2000);
        assert_eq!(message, "Node didn't have enough resource: cpu, requested: 501, used: 1500, capacity: 2000");
    }

    fn asking(cpu: &str, memory: &str) -> Model {
        model(json!({"containers": [{"name": "c1", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}))
    }

    /// A node of four processors and 4 GiB, of which another pod has `used` processors.
    #[track_caller]
    fn check_resize(wanted: &Model, used: &str, expected: Result<(), (&str, &str)>) {
        let amounts = [("cpu", "4"), ("memory", "4Gi"), ("pods", "110")];
        let allocatable: ResourceList = amounts.into_iter().map(|(name, amount)| (name.to_owned(), quantity(amount))).collect();
        let room = Room {
            name: "n",
            labels: &BTreeMap::new(),
            app_armor: false,
            features: Features::default(),
            allocatable: &allocatable,
            exclusive_cpus: false,
        };
        let decision = resize(wanted, &[asking(used, "1Mi")], &room);
        assert_eq!(decision.as_ref().map_err(|pending| (pending.reason, pending.message.as_str())).copied(), expected);
    }

    #[test]
    fn a_resize_gets_what_there_is_waits_or_can_never_be() {
        check_resize(&asking("1", "1Gi"), "3", Ok(()));
        let used = "Node didn't have enough resource: cpu, requested: 1500, used: 3000, capacity: 4000";
        check_resize(&asking("1500m", "1Gi"), "3", Err(("Deferred", used)));
        let memory = "Node didn't have enough capacity: memory, requested: 4718592000, capacity: 4294967296";
        check_resize(&asking("1", "4500Mi"), "1", Err(("Infeasible", memory)));
    }
}
