//! The Node object that a kubelet registers and keeps current. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeRuntimeHandler, NodeSpec,
    NodeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use runtime::api::Image;

use super::machine::Machine;
use crate::options::Options;
use crate::pod::status::seconds;

/// Most images that are listed, the largest first; upstream's default.
const MAX_IMAGES: usize = 50;

/// Part of the file system that must stay available, percent. Upstream's default of 10 % keeps 25 GB of a usual
/// development machine from being used; k3s chose 5 %, too.
const LEAST_STORAGE: i64 = 5;

/// What changes while the node runs.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Why the runtime does not serve; none when it does.
    pub runtime_error: Option<String>,
    /// Bytes of memory that can be had.
    pub available_memory: Option<i64>,
    /// Total and available bytes of the file system with the pods' data.
    pub storage: Option<(i64, i64)>,
    /// Processes, and the most that there can be.
    pub processes: Option<(i64, i64)>,
    /// Images on the node.
    pub images: Vec<Image>,
}

/// The object to register.
pub fn node(options: &Options, status: NodeStatus) -> Node {
    let info = status.node_info.as_ref();
    let architecture = info.map(|info| info.architecture.clone()).unwrap_or_default();
    let mut labels: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", options.node_name.clone()),
        ("kubernetes.io/os", "linux".to_owned()),
        ("kubernetes.io/arch", architecture.clone()),
        ("beta.kubernetes.io/os", "linux".to_owned()),
        ("beta.kubernetes.io/arch", architecture),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    labels.extend(options.labels.clone());
    Node {
        metadata: ObjectMeta { name: Some(options.node_name.clone()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(NodeSpec { taints: Some(options.taints.clone()).filter(|taints| !taints.is_empty()), ..NodeSpec::default() }),
        status: Some(status),
    }
}

/// The status, with transition times kept from `old`.
pub fn status(options: &Options, machine: &Machine, health: &Health, old: &NodeStatus, now: Timestamp) -> NodeStatus {
    let capacity = machine.capacity(options.max_pods);
    let mut info = machine.info.clone();
    info.container_runtime_version = options.runtime.version();
    info.kubelet_version = options.version.clone();
    NodeStatus {
        addresses: Some(addresses(&options.node_ips, &options.node_name)),
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        conditions: Some(conditions(health, old, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(options.port()) }),
        }),
        images: Some(images(&health.images)),
        node_info: Some(info),
        runtime_handlers: Some(vec![NodeRuntimeHandler { name: Some(String::new()), features: None }]),
        ..NodeStatus::default()
    }
}

fn addresses(ips: &[IpAddr], name: &str) -> Vec<NodeAddress> {
    let address = |type_: &str, address: String| NodeAddress { address, type_: type_.to_owned() };
    let ips = ips.iter().map(|ip| address("InternalIP", ip.to_string()));
    ips.chain([address("Hostname", name.to_owned())]).collect()
}

fn images(images: &[Image]) -> Vec<ContainerImage> {
    let mut images: Vec<&Image> = images.iter().collect();
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    images.truncate(MAX_IMAGES);
    let list = images.into_iter().map(|image| ContainerImage {
        names: Some(image.digests.iter().chain(&image.tags).cloned().collect()),
        size_bytes: i64::try_from(image.size).ok(),
    });
    list.collect()
}

fn conditions(health: &Health, old: &NodeStatus, now: Timestamp) -> Vec<NodeCondition> {
    let pressure = |yes: bool, bad: (&'static str, &'static str), good: (&'static str, &'static str)| {
        let (reason, message) = if yes { bad } else { good };
        (yes, reason, message.to_owned())
    };
    let memory = health.available_memory.is_some_and(|bytes| bytes < 100 << 20);
    let disk = health.storage.is_some_and(|(total, available)| available < total / 100 * LEAST_STORAGE);
    let processes = health.processes.is_some_and(|(used, most)| used * 100 > most * 95);
    let ready = match &health.runtime_error {
        None => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        Some(error) => (false, "KubeletNotReady", format!("container runtime is down: {error}")),
    };
    let all = [
        (
            "MemoryPressure",
            pressure(
                memory,
                ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ),
        ),
        (
            "DiskPressure",
            pressure(
                disk,
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ),
        ),
        (
            "PIDPressure",
            pressure(
                processes,
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ),
        ),
        ("Ready", ready),
    ];
    let before = old.conditions.as_deref().unwrap_or_default();
    let condition = |(name, (holds, reason, message)): (&str, (bool, &str, String))| {
        let status = if holds { "True" } else { "False" };
        let same = before.iter().find(|condition| condition.type_ == name && condition.status == status);
        let since: Option<Time> = same.and_then(|condition| condition.last_transition_time.clone());
        NodeCondition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(seconds(now)),
            last_transition_time: Some(since.unwrap_or_else(|| seconds(now))),
        }
    };
    all.into_iter().map(condition).collect()
}

/// Reasons of the events that tell of the conditions that changed between two statuses, and whether each is bad news.
pub fn transitions(old: &NodeStatus, new: &NodeStatus) -> Vec<(&'static str, bool)> {
    let holds = |status: &NodeStatus, name: &str| {
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == name);
        condition.map(|condition| condition.status == "True")
    };
    let changed = |(name, good, yes, no): (&str, bool, &'static str, &'static str)| {
        let now = holds(new, name)?;
        (holds(old, name) != Some(now)).then_some((if now { yes } else { no }, now != good))
    };
    let all = [
        ("MemoryPressure", false, "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", false, "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", false, "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ("Ready", true, "NodeReady", "NodeNotReady"),
    ];
    all.into_iter().filter_map(changed).collect()
}

/// Whether two statuses say the same, heartbeats aside.
pub fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        status.conditions.iter_mut().flatten().for_each(|condition| condition.last_heartbeat_time = None);
        status
    };
    still(a) == still(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(health: Health, expected: &[&str]) {
        let shown = conditions(&health, &NodeStatus::default(), Timestamp::UNIX_EPOCH);
        let shown: Vec<_> = shown.iter().map(|c| format!("{}={}:{}", c.type_, c.status, c.reason.as_deref().unwrap())).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn conditions_follow_health() {
        check(
            Health::default(),
            &[
                "MemoryPressure=False:KubeletHasSufficientMemory",
                "DiskPressure=False:KubeletHasNoDiskPressure",
                "PIDPressure=False:KubeletHasSufficientPID",
                "Ready=True:KubeletReady",
            ],
        );
        let bad = Health {
            runtime_error: Some("x".to_owned()),
            available_memory: Some(1),
            storage: Some((1000, 49)),
            processes: Some((99, 100)),
            images: vec![],
        };
        check(
            bad,
            &[
                "MemoryPressure=True:KubeletHasInsufficientMemory",
                "DiskPressure=True:KubeletHasDiskPressure",
                "PIDPressure=True:KubeletHasInsufficientPID",
                "Ready=False:KubeletNotReady",
            ],
        );
    }

    #[test]
    fn transitions_are_told() {
        let status = |health: &Health| NodeStatus {
            conditions: Some(conditions(health, &NodeStatus::default(), Timestamp::UNIX_EPOCH)),
            ..NodeStatus::default()
        };
        let good = status(&Health { storage: Some((1000, 51)), ..Health::default() });
        let full = status(&Health { storage: Some((1000, 49)), ..Health::default() });
        let first: Vec<_> = transitions(&NodeStatus::default(), &good).into_iter().map(|(reason, _)| reason).collect();
        assert_eq!(first, ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"]);
        assert_eq!(transitions(&good, &full), [("NodeHasDiskPressure", true)]);
        assert_eq!(transitions(&full, &good), [("NodeHasNoDiskPressure", false)]);
        assert_eq!(transitions(&good, &good), []);
    }

    #[test]
    fn transition_times_stay() {
        let old = NodeStatus {
            conditions: Some(conditions(&Health::default(), &NodeStatus::default(), Timestamp::UNIX_EPOCH)),
            ..Default::default()
        };
        let later = Timestamp::from_second(100).unwrap();
        let new = conditions(&Health::default(), &old, later);
        assert_eq!(new[3].last_transition_time, Some(Time(Timestamp::UNIX_EPOCH)));
        assert_eq!(new[3].last_heartbeat_time, Some(Time(later)));
        assert!(same(&old, &NodeStatus { conditions: Some(new), ..Default::default() }));
    }
}
