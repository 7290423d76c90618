//! Whether a pod that was bound to this node fits it. Pure.

mod confinement;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pods::ports;
use pods::tolerations::tolerates;
use runtime::api::Features;

use crate::allocation::Pending;
use crate::pod::state::Rejection;
use crate::resources::{self, Qos};
use crate::spec::Model;
use crate::sysctls::Pattern;
use crate::units::{self, ResourceList};

/// The node as admission sees it.
pub struct Room<'a> {
    /// Name of the node.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// What keeps pods away from it.
    pub taints: &'a [Taint],
    /// Its kernel has AppArmor.
    pub app_armor: bool,
    /// What its runtime can do.
    pub features: Features,
    /// Unsafe sysctls that pods may set.
    pub sysctls: &'a [Pattern],
    /// What pods may take.
    pub allocatable: &'a ResourceList,
    /// Containers may have processors for themselves.
    pub exclusive_cpus: bool,
    /// Containers may have memory of NUMA nodes for themselves.
    pub exclusive_memory: bool,
}

/// A resource of which the node does not have enough for a pod. Amounts are in thousandths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Its name.
    pub resource: String,
    /// What the pod asks for.
    pub requested: i64,
    /// What others have.
    pub used: i64,
    /// What there is.
    pub capacity: i64,
}

impl Shortage {
    /// How much would have to be free in addition.
    pub fn missing(&self) -> i64 {
        self.requested.saturating_add(self.used) - self.capacity
    }

    fn message(&self) -> String {
        let Self { resource, .. } = self;
        let [requested, used, capacity] = [self.requested, self.used, self.capacity].map(|amount| shown(resource, amount));
        format!("Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}")
    }
}

/// An amount as upstream shows it: CPU in thousandths, anything else in units.
pub fn shown(resource: &str, amount: i64) -> i64 {
    if resource == "cpu" { amount } else { amount / 1000 }
}

/// Why a pod does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// There is not enough of something.
    Short(Shortage),
    /// The Node object forbids it. A pod is refused for good, so that the newest version of that object must say so.
    Node(Rejection),
    /// Anything else.
    Other(Rejection),
}

impl From<Misfit> for Rejection {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::Short(shortage) => (format!("OutOf{}", shortage.resource), shortage.message()),
            Misfit::Node(rejection) | Misfit::Other(rejection) => rejection,
        }
    }
}

/// All that keeps `pod` from the node where `others` run.
pub fn misfits(pod: &Model, others: &[Model], room: &Room<'_>) -> Vec<Misfit> {
    let confined = confinement::check(pod, room.app_armor, room.features, room.sysctls).err();
    let mut found: Vec<Misfit> = confined.into_iter().map(Misfit::Other).collect();
    found.extend(shortages(pod, others, room.allocatable).into_iter().map(Misfit::Short));
    if !pods::nodes::fits(pod.spec(), room.name, &Some(room.labels.clone())) {
        found.push(Misfit::Node(predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")));
    }
    let taken: Vec<_> = others.iter().flat_map(|other| ports::of(other.spec())).collect();
    if ports::of(pod.spec()).iter().any(|port| taken.iter().any(|other| port.conflicts(other))) {
        found.push(Misfit::Other(predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")));
    }
    if room.taints.iter().any(|taint| taint.effect == "NoExecute" && !is_tolerated(pod, taint)) {
        found.push(Misfit::Node(predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate")));
    }
    found
}

/// Whether a pod may be where this taint is. Static pods may be anywhere: they are made with a toleration of all that would end them.
fn is_tolerated(pod: &Model, taint: &Taint) -> bool {
    pod.spec().tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint))
}

/// What a pod takes of each resource of the node, in thousandths.
pub fn requests(pod: &Model) -> BTreeMap<String, i64> {
    let asked = resources::node_requests(pod);
    let asked = asked.iter().map(|(name, amount)| (name.to_string(), amount.as_milli()));
    asked.chain([("pods".to_owned(), 1000)]).collect()
}

/// The resources of which there is less than the pod asks for beside what `others` have, pods themselves first.
fn shortages(pod: &Model, others: &[Model], allocatable: &ResourceList) -> Vec<Shortage> {
    let (own, others) = (requests(pod), others.iter().map(requests).collect::<Vec<_>>());
    let shortage = |(name, quantity): (&String, &Quantity)| {
        let requested = own.get(name).copied().filter(|amount| *amount > 0)?;
        let used = others.iter().filter_map(|other| other.get(name)).sum();
        let shortage = Shortage { resource: name.clone(), requested, used, capacity: units::milli(quantity) };
        (shortage.missing() > 0).then_some(shortage)
    };
    let mut found: Vec<_> = allocatable.iter().filter_map(shortage).collect();
    found.sort_by_key(|shortage| shortage.resource != "pods");
    found
}

/// Whether a pod gets what it asks for, beside what `others` have.
pub fn resize(wanted: &Model, others: &[Model], room: &Room<'_>) -> Result<(), Pending> {
    let pending = |reason, message| Pending { reason, message, generation: wanted.pod.metadata.generation };
    let managers = [("CPU", room.exclusive_cpus), ("Memory", room.exclusive_memory)];
    if let Some((manager, _)) =
        managers.into_iter().find(|(_, exclusive)| *exclusive && resources::qos(wanted) == Qos::Guaranteed)
    {
        let message = format!("Resize is infeasible for Guaranteed Pods alongside {manager} Manager static policy");
        return Err(pending("Infeasible", message));
    }
    for name in ["cpu", "memory"] {
        let requested = resources::pod_request(wanted, name);
        let capacity = room.allocatable.get(name).map_or(0, units::milli);
        if requested > capacity {
            let [requested, capacity] = [requested, capacity].map(|amount| shown(name, amount));
            let message = format!("Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}");
            return Err(pending("Infeasible", message));
        }
    }
    let short = shortages(wanted, others, room.allocatable).into_iter().find(|shortage| shortage.resource != "pods");
    short.map_or(Ok(()), |shortage| Err(pending("Deferred", shortage.message())))
}

fn predicate(name: &str, why: &str) -> Rejection {
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
        let taint = |key: &str, effect: &str| Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() };
        let taints = [taint("soft", "PreferNoSchedule"), taint("hard", "NoSchedule"), taint("out", "NoExecute")];
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
            taints: &taints,
            app_armor: false,
            features: Features::default(),
            sysctls: &[],
            allocatable: &allocatable,
            exclusive_cpus: false,
            exclusive_memory: false,
        };
        let first = |spec: Value| misfits(&model(spec), &[model(other.clone())], &room).into_iter().next().map(Rejection::from);
        let mut tolerant = spec.clone();
        tolerant["tolerations"] = json!([{"key": "out", "operator": "Exists"}]);
        let refused = first(tolerant);
        assert_eq!(refused.as_ref().map(|(reason, _)| reason.as_str()), reason, "{refused:?}");
        // Upstream's `generalFilter`: "Kubelet is only interested in the NoExecute taint", after all else.
        let refused = first(spec);
        assert_eq!(refused.as_ref().map(|(reason, _)| reason.as_str()), reason.or(Some("TaintToleration")), "{refused:?}");
    }

    #[test]
    fn fits_or_says_why_not() {
        let cpu = |value: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": value}}}]});
        check(cpu("500m"), None);
        check(cpu("501m"), Some("OutOfcpu"));
        let port =
            |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]});
        check(port("127.0.0.1"), Some("NodePorts"));
        let mut on_host = port("");
        on_host["hostNetwork"] = json!(true);
        check(on_host, Some("NodePorts"));
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

    /// KEP-5004: what a pod has by a claim is not counted against what the node has of the same name.
    #[test]
    fn what_comes_by_a_claim_is_not_the_nodes() {
        let asking = |status: Value| {
            let container = json!({"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}});
            let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [container]}, "status": status});
            Model::new(std::sync::Arc::new(serde_json::from_value(pod).unwrap()))
        };
        let mapping = json!({"containerName": "c", "resourceName": "example.com/gpu", "requestName": "r"});
        let claimed = asking(json!({"extendedResourceClaimStatus": {"resourceClaimName": "x", "requestMappings": [mapping]}}));
        let (plain, room) =
            (asking(json!({})), |amount: &str| ResourceList::from([("example.com/gpu".to_owned(), quantity(amount))]));
        assert!(shortages(&claimed, &[], &room("0")).is_empty());
        assert!(shortages(&plain, &[claimed], &room("1")).is_empty());
        assert_eq!(shortages(&plain, &[], &room("0"))[0].resource, "example.com/gpu");
    }

    #[test]
    fn the_message_has_the_figures() {
        let message =
            |resource: &str| Shortage { resource: resource.to_owned(), requested: 1000, used: 2000, capacity: 2500 }.message();
        assert_eq!(message("cpu"), "Node didn't have enough resource: cpu, requested: 1000, used: 2000, capacity: 2500");
        assert_eq!(message("pods"), "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2");
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
            taints: &[],
            app_armor: false,
            features: Features::default(),
            sysctls: &[],
            allocatable: &allocatable,
            exclusive_cpus: false,
            exclusive_memory: false,
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
