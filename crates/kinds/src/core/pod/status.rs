//! What a status may say, and how it may change.

mod devices;

use std::collections::{HashMap, HashSet, VecDeque};

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus};
use serde_json::{Value, json};

use super::update;
use crate::rules::{self, list, text};
use crate::util;

const MAX_ID: i64 = i32::MAX as i64;
/// Conditions whose names are older than the rule for names.
const SYSTEM_CONDITIONS: &[&str] = &["PodScheduled", "Ready", "Initialized"];

/// What the rules look at in the spec.
pub(super) const READS: &[&str] = &[
    "spec.os.name",
    "spec.containers.name",
    "spec.containers.restartPolicy",
    "spec.containers.restartPolicyRules",
    "spec.initContainers.name",
    "spec.initContainers.restartPolicy",
    "spec.initContainers.restartPolicyRules",
    "spec.resourceClaims.name",
    "spec.containers.resources.requests",
    "spec.containers.resources.claims",
    "spec.initContainers.resources.requests",
    "spec.initContainers.resources.claims",
];

/// What was observed is not forgotten because a writer does not know of it (KEP-5067): a status, or a condition of it, without an
/// `observedGeneration` keeps the old one. There may be several conditions of one type.
pub(super) fn keep_generations(object: &mut Value, old: &Value) {
    let observed = |of: &Value| of.get("observedGeneration").and_then(Value::as_i64).filter(|generation| *generation != 0);
    let keep = |new: &mut Value, generation: Option<i64>| {
        if let (None, Some(generation)) = (observed(new), generation) {
            new["observedGeneration"] = generation.into();
        }
    };
    let (Some(status), Some(was)) = (object.get_mut("status"), old.get("status")) else { return };
    keep(status, observed(was));
    let mut before: HashMap<&str, VecDeque<Option<i64>>> = HashMap::new();
    for condition in was.get("conditions").and_then(Value::as_array).into_iter().flatten() {
        before.entry(util::text(condition, "/type")).or_default().push_back(observed(condition));
    }
    for condition in util::each(status, "conditions") {
        let generation = before.get_mut(util::text(condition, "/type")).and_then(VecDeque::pop_front);
        keep(condition, generation.flatten());
    }
}

/// An update through the status subresource.
pub(super) fn validate(pod: &Pod, old: &Pod, errors: &mut Errors) {
    update::annotations(pod, old, errors);
    let (no_status, no_spec) = (PodStatus::default(), PodSpec::default());
    let (new, was) = (pod.status.as_ref().unwrap_or(&no_status), old.status.as_ref().unwrap_or(&no_status));
    // The spec is the old one: a write of the status cannot change it.
    let (path, spec) = (Path::new("status"), pod.spec.as_ref().unwrap_or(&no_spec));
    for (index, condition) in list(&new.conditions).iter().enumerate() {
        if !SYSTEM_CONDITIONS.contains(&condition.type_.as_str()) {
            let path = Path::new("metadata.conditions").index(index).child("Type");
            rules::qualified_name(&path, &condition.type_, errors);
        }
    }
    let nominated = text(&new.nominated_node_name);
    if new.nominated_node_name != was.nominated_node_name && !nominated.is_empty() {
        rules::dns_subdomain(&path.child("nominatedNodeName"), nominated, errors);
    }
    if new.qos_class != was.qos_class {
        errors.push(Error::invalid(&path.child("qosClass"), text(&new.qos_class), apimachinery::meta::IMMUTABLE));
    }
    validate_transitions(new, was, spec, &path, errors);
    let addresses = list(&new.pod_ips).iter().map(|address| address.ip.as_str()).collect::<Vec<_>>();
    validate_addresses(&addresses, json!(new.pod_ips), &path.child("podIPs"), errors);
    validate_host_addresses(new, &path.child("hostIPs"), errors);
    validate_users(new, spec, &path, errors);
    devices::validate(new, spec, &path, errors);
}

/// Addresses that are right and written in another way than others write them.
pub(super) fn warnings(pod: &Pod) -> Vec<String> {
    let (mut warnings, path) = (Vec::new(), Path::new("status"));
    let Some(status) = &pod.status else { return warnings };
    let of_pod = list(&status.pod_ips).iter().map(|address| &address.ip).enumerate().map(|one| ("podIPs", one));
    let of_host = list(&status.host_ips).iter().map(|address| &address.ip).enumerate().map(|one| ("hostIPs", one));
    for (field, (index, address)) in of_pod.chain(of_host) {
        rules::warn_of_ip(&path.child(field).index(index).child("ip"), address, &mut warnings);
    }
    warnings
}

fn lists(status: &PodStatus) -> [(&'static str, &[ContainerStatus]); 3] {
    [
        ("containerStatuses", list(&status.container_statuses)),
        ("initContainerStatuses", list(&status.init_container_statuses)),
        ("ephemeralContainerStatuses", list(&status.ephemeral_container_statuses)),
    ]
}

/// What ended and is not started again stays ended.
fn validate_transitions(new: &PodStatus, old: &PodStatus, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let restarts = Restarts::new(spec);
    for ((field, new), (_, old)) in lists(new).into_iter().zip(lists(old)) {
        let ended = |state: &ContainerStatus| state.state.as_ref().is_some_and(|state| state.terminated.is_some());
        let running: HashSet<&str> = new.iter().filter(|now| !ended(now)).map(|now| now.name.as_str()).collect();
        for (index, was) in old.iter().enumerate() {
            let Some(code) = was.state.as_ref().and_then(|state| state.terminated.as_ref()).map(|ended| ended.exit_code) else {
                continue;
            };
            if running.contains(was.name.as_str()) && !restarts.may(field, &was.name, code) {
                let path = path.child(field).index(index).child("state");
                errors.push(Error::forbidden(&path, "may not be transitioned to non-terminated state"));
            }
        }
    }
}

/// What the policies of the pod and its containers, and their rules, start again.
struct Restarts<'a> {
    containers: HashMap<&'a str, &'a Container>,
    /// Whether a rule may start all of them again.
    gang: bool,
    policy: &'a str,
}

impl<'a> Restarts<'a> {
    fn new(spec: &'a PodSpec) -> Self {
        let all = || spec.containers.iter().chain(list(&spec.init_containers));
        let containers = all().map(|container| (container.name.as_str(), container)).collect();
        let rules = |container: &'a Container| list(&container.restart_policy_rules).iter();
        let gang = all().flat_map(rules).any(|rule| rule.action == "RestartAllContainers");
        Self { containers, gang, policy: text(&spec.restart_policy) }
    }

    /// Whether a container is started again that ended with that code.
    fn may(&self, field: &str, name: &str, code: i32) -> bool {
        if field == "ephemeralContainerStatuses" {
            return false;
        }
        let container = self.containers.get(name);
        if self.gang || container.is_some_and(|container| !list(&container.restart_policy_rules).is_empty()) {
            return true;
        }
        match container.and_then(|container| container.restart_policy.as_deref()).unwrap_or(self.policy) {
            "Always" => true,
            "OnFailure" => code != 0,
            _ => false,
        }
    }
}

/// At most one address of each family.
fn validate_addresses(addresses: &[&str], shown: Value, path: &Path, errors: &mut Errors) {
    for (index, address) in addresses.iter().enumerate() {
        rules::ip(&path.index(index), address, errors);
    }
    if addresses.len() < 2 {
        return;
    }
    let families: HashSet<_> = addresses.iter().filter_map(|address| rules::family(address)).collect();
    if families.len() != 2 || addresses.len() > 2 {
        errors.push(Error::invalid(path, shown, "may specify no more than one IP for each IP family"));
    }
    for index in rules::repeated(addresses) {
        errors.push(Error::duplicate(&path.index(index), json!({"ip": addresses[index]})));
    }
}

fn validate_host_addresses(status: &PodStatus, path: &Path, errors: &mut Errors) {
    let addresses: Vec<_> = list(&status.host_ips).iter().map(|address| address.ip.as_str()).collect();
    if let Some(first) = addresses.first().filter(|first| **first != text(&status.host_ip)) {
        errors.push(Error::invalid(&path.index(0).child("ip"), *first, "must be equal to `hostIP`"));
    }
    validate_addresses(&addresses, json!(status.host_ips), path, errors);
}

/// Users of containers (KEP-3619).
fn validate_users(status: &PodStatus, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    for (field, statuses) in lists(status) {
        for (index, status) in statuses.iter().enumerate() {
            let Some(user) = status.user.as_ref().and_then(|user| user.linux.as_ref()) else { continue };
            let path = path.child(field).index(index).child("linux");
            if windows {
                errors.push(Error::forbidden(&path, "cannot be set for a windows pod"));
                continue;
            }
            rules::in_range(&path.child("uid"), Some(user.uid), 0, MAX_ID, errors);
            rules::in_range(&path.child("gid"), Some(user.gid), 0, MAX_ID, errors);
            for (group, id) in list(&user.supplemental_groups).iter().enumerate() {
                rules::in_range(&path.child("supplementalGroups").index(group), Some(*id), 0, MAX_ID, errors);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(spec: Value, old: Value, new: Value, expected: &str) {
        let pod = |status: Value| serde_json::from_value::<Pod>(json!({"spec": spec, "status": status})).unwrap();
        let mut errors = Errors::new();
        validate(&pod(new), &pod(old), &mut errors);
        assert_eq!(errors.to_string(), expected);
    }

    /// KEP-4858, "API Warnings".
    #[test]
    fn addresses_in_other_words() {
        let told = |field: &str| {
            format!("status.{field}.ip: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")")
        };
        let pod = |first: &str, second: &str| {
            json!({"spec": {"containers": [{"name": "c", "image": "x"}]}, "status": {"qosClass": "BestEffort", "podIP": "10.0.0.1",
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": second}], "hostIP": first, "hostIPs": [{"ip": first}, {"ip": "10.0.0.2"}]}})
        };
        crate::testing::check_status_warnings::<Pod>(pod("fd00::1", "fd00::1"), &[]);
        crate::testing::check_status_warnings::<Pod>(pod("FD00::1", "FD00::1"), &[&told("podIPs[1]"), &told("hostIPs[0]")]);
    }

    #[test]
    fn what_ended_stays_ended() {
        let ended = |code: i32| json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code}}}]});
        let running = json!({"containerStatuses": [{"name": "c", "state": {"running": {}}}]});
        let refused = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state";
        let never = json!({"restartPolicy": "Never", "containers": [{"name": "c"}]});
        check(never.clone(), ended(1), ended(1), "");
        check(never.clone(), ended(1), running.clone(), refused);
        check(json!({"restartPolicy": "Always"}), ended(1), running.clone(), "");
        check(json!({"restartPolicy": "OnFailure"}), ended(1), running.clone(), "");
        check(json!({"restartPolicy": "OnFailure"}), ended(0), running.clone(), refused);
        let own = json!({"restartPolicy": "Never", "containers": [{"name": "c", "restartPolicy": "Always"}]});
        check(own, ended(0), running, "");
    }

    #[test]
    fn addresses() {
        let status = |ips: &[&str]| json!({"podIPs": ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()});
        check(json!({}), json!({}), status(&["10.0.0.1", "fd00::1"]), "");
        check(
            json!({}),
            json!({}),
            status(&["10.0.0.1", "10.0.0.2"]),
            "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}]: may specify no more than one IP for each IP family",
        );
        check(
            json!({}),
            json!({}),
            json!({"hostIP": "1.2.3.4", "hostIPs": [{"ip": "1.2.3.5"}]}),
            "status.hostIPs[0].ip: Invalid value: \"1.2.3.5\": must be equal to `hostIP`",
        );
    }

    #[test]
    fn the_class_of_service_stays() {
        check(
            json!({}),
            json!({"qosClass": "Burstable"}),
            json!({"qosClass": "Guaranteed"}),
            "status.qosClass: Invalid value: \"Guaranteed\": field is immutable",
        );
    }
}
