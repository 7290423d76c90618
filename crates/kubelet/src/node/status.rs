//! The Node object that a kubelet registers and keeps current. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use runtime::api::Image;

use super::extended;
use crate::context::Context;
use crate::eviction::Condition;
use crate::options::Options;
use crate::pod::conditions::seconds;

/// Most images that are listed, the largest first; upstream's default.
const MAX_IMAGES: usize = 50;
/// Names of each, digests first (upstream's `MaxNamesPerImageInNodeStatus`).
const MAX_NAMES: usize = 5;

/// What changes while the node runs.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Why the runtime does not serve; none when it does.
    pub runtime_error: Option<String>,
    /// Why pods cannot be connected to the network; none when they can.
    pub network_error: Option<String>,
    /// The machine shuts down.
    pub shuts_down: bool,
    /// What the node runs short of.
    pub conditions: BTreeSet<Condition>,
    /// Images on the node.
    pub images: Vec<Image>,
}

/// The object to register.
pub fn node(options: &Options, status: NodeStatus) -> Node {
    let info = status.node_info.as_ref();
    let labels = options.node_labels(info.map(|info| info.architecture.as_str()).unwrap_or_default());
    Node {
        metadata: ObjectMeta {
            name: Some(options.node_name.clone()),
            labels: Some(labels),
            annotations: Some(annotations(options)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { taints: Some(options.taints.clone()).filter(|taints| !taints.is_empty()), ..NodeSpec::default() }),
        status: Some(status),
    }
}

/// The annotations to register with. Volumes are attached for the node, never by it.
fn annotations(options: &Options) -> BTreeMap<String, String> {
    let attached = ("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned());
    options.annotations.clone().into_iter().chain([attached]).collect()
}

/// The status, with transition times and what others advertise kept from `old`.
pub fn status(cx: &Context, health: &Health, old: &NodeStatus, now: Timestamp) -> NodeStatus {
    let Context { options, machine, allocatable, .. } = cx;
    let features = NodeRuntimeHandlerFeatures {
        recursive_read_only_mounts: Some(options.runtime.features().recursive_readonly),
        user_namespaces: Some(options.runtime.features().user_namespaces),
    };
    let used = crate::drivers::mount::in_use(&options.data_dir);
    let mut info = machine.info.clone();
    info.container_runtime_version = options.runtime.version();
    info.kubelet_version = options.version.clone();
    let mut status = NodeStatus {
        addresses: Some(addresses(&options.node_ips, &options.node_name)),
        allocatable: Some(allocatable.list().clone()),
        capacity: Some(machine.capacity(options.max_pods)),
        conditions: Some(conditions(health, old, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(options.port()) }),
        }),
        images: Some(images(&health.images)),
        node_info: Some(info),
        // Said also when there are none any more: whoever attaches volumes waits for that.
        volumes_in_use: (!used.is_empty() || old.volumes_in_use.is_some()).then_some(used),
        // Who asks for `supplementalGroupsPolicy: Strict` looks here whether it holds.
        features: Some(NodeFeatures { supplemental_groups_policy: Some(true) }),
        // What pods may ask of this node (KEP-5328).
        declared_features: Some(pods::features::FEATURES.iter().map(|feature| feature.name.to_owned()).collect()),
        runtime_handlers: Some(vec![NodeRuntimeHandler { name: Some(String::new()), features: Some(features) }]),
        ..NodeStatus::default()
    };
    extended::take_over(&mut status, old, &cx.devices.amounts());
    status
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
        names: Some(image.digests.iter().chain(&image.tags).take(MAX_NAMES).cloned().collect()),
        size_bytes: i64::try_from(image.size).ok(),
    });
    list.collect()
}

fn conditions(health: &Health, old: &NodeStatus, now: Timestamp) -> Vec<NodeCondition> {
    let pressure = |condition: Condition, bad: (&'static str, &str), good: (&'static str, &str)| {
        let holds = health.conditions.contains(&condition);
        let (reason, message) = if holds { bad } else { good };
        (condition.name(), (holds, reason, message.to_owned()))
    };
    let down = health.runtime_error.as_ref().map(|error| format!("container runtime is down: {error}"));
    let unconnected = health.network_error.as_ref().map(|error| {
        format!("container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{error}")
    });
    let ends = health.shuts_down.then(|| "node is shutting down".to_owned());
    let problems: Vec<String> = down.into_iter().chain(unconnected).chain(ends).collect();
    let ready = match problems.as_slice() {
        [] => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        [problem] => (false, "KubeletNotReady", problem.clone()),
        all => (false, "KubeletNotReady", format!("[{}]", all.join(", "))),
    };
    let all = [
        pressure(
            Condition::Memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            Condition::Disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            Condition::Pid,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
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

/// Reasons of the events about conditions: when the condition is False, and when it is True.
const EVENTS: &[(&str, [&str; 2])] = &[
    ("MemoryPressure", ["NodeHasSufficientMemory", "NodeHasInsufficientMemory"]),
    ("DiskPressure", ["NodeHasNoDiskPressure", "NodeHasDiskPressure"]),
    ("PIDPressure", ["NodeHasSufficientPID", "NodeHasInsufficientPID"]),
    ("Ready", ["NodeNotReady", "NodeReady"]),
];

/// Conditions of `new` that were otherwise in `old`, each with the reason of the event that says so.
pub fn transitions<'a>(old: &NodeStatus, new: &'a NodeStatus) -> Vec<(&'static str, &'a NodeCondition)> {
    let before = old.conditions.as_deref().unwrap_or_default();
    let changed = |condition: &&NodeCondition| {
        !before.iter().any(|other| (&other.type_, &other.status) == (&condition.type_, &condition.status))
    };
    let conditions = new.conditions.iter().flatten().filter(changed);
    let named = conditions.filter_map(|condition| {
        let (_, reasons) = EVENTS.iter().find(|(type_, _)| *type_ == condition.type_)?;
        Some((reasons[usize::from(condition.status == "True")], condition))
    });
    named.collect()
}

/// The boot that a node is in now, when it was in another one as it reported last.
pub(super) fn rebooted<'a>(old: &NodeStatus, new: &'a NodeStatus) -> Option<&'a str> {
    let before = old.node_info.as_ref().map(|info| &info.boot_id).filter(|boot| !boot.is_empty())?;
    new.node_info.as_ref().map(|info| info.boot_id.as_str()).filter(|boot| *boot != before)
}

/// Whether the condition says that all is well.
pub fn is_good(condition: &NodeCondition) -> bool {
    (condition.type_ == "Ready") == (condition.status == "True")
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

/// Whether somebody else has changed one of the conditions that we report, or advertises a resource of the node.
pub(super) fn is_overruled(known: &NodeStatus, found: &NodeStatus, owned: &extended::Owned) -> bool {
    if extended::is_overruled(known, found, owned) {
        return true;
    }
    let of = |kind: &str| found.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    known.conditions.iter().flatten().any(|own| of(&own.type_).is_none_or(|condition| condition.status != own.status))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSystemInfo;

    use super::*;

    #[track_caller]
    fn check(health: Health, expected: &[&str]) {
        let shown = conditions(&health, &NodeStatus::default(), Timestamp::UNIX_EPOCH);
        let shown: Vec<_> = shown.iter().map(|c| format!("{}={}:{}", c.type_, c.status, c.reason.as_deref().unwrap())).collect();
        assert_eq!(shown, expected);
    }

    /// Upstream's `TestImages`: "max names per image enforced", "repo digests and tags both show up in image names".
    #[test]
    fn images_have_a_bounded_number_of_names() {
        let image = |digests: usize, tags: usize| {
            let names = |prefix: &str, count: usize| (0..count).map(|number| format!("{prefix}{number}")).collect::<Vec<_>>();
            let shown = images(&[Image { digests: names("d", digests), tags: names("t", tags), ..Image::default() }]);
            shown[0].names.clone().unwrap().join(" ")
        };
        assert_eq!(image(2, 2), "d0 d1 t0 t1");
        assert_eq!(image(2, 9), "d0 d1 t0 t1 t2");
        assert_eq!(image(9, 2), "d0 d1 d2 d3 d4");
    }

    #[test]
    fn changes_become_events() {
        let status = |health: Health| NodeStatus {
            conditions: Some(conditions(&health, &NodeStatus::default(), Timestamp::UNIX_EPOCH)),
            ..NodeStatus::default()
        };
        let check = |old: &NodeStatus, new: &NodeStatus, expected: &[(&str, bool)]| {
            let shown: Vec<_> =
                transitions(old, new).into_iter().map(|(reason, condition)| (reason, is_good(condition))).collect();
            assert_eq!(shown, expected);
        };
        let good = status(Health::default());
        let full = status(Health { conditions: [Condition::Disk].into(), ..Health::default() });
        let first = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"];
        check(&NodeStatus::default(), &good, &first.map(|reason| (reason, true)));
        check(&good, &good, &[]);
        check(&good, &full, &[("NodeHasDiskPressure", false)]);
        check(&full, &good, &[("NodeHasNoDiskPressure", true)]);
        let overruled = |found: &NodeStatus| is_overruled(&good, found, &extended::Owned::new());
        assert!(!overruled(&good) && overruled(&full) && overruled(&NodeStatus::default()));
    }

    #[test]
    fn a_reboot_is_another_boot_than_the_last() {
        let status = |boot: &str| {
            let info = NodeSystemInfo { boot_id: boot.to_owned(), ..NodeSystemInfo::default() };
            NodeStatus { node_info: Some(info), ..NodeStatus::default() }
        };
        let check = |old: &NodeStatus, expected: Option<&str>| assert_eq!(rebooted(old, &status("b")), expected);
        check(&status("a"), Some("b"));
        check(&status("b"), None);
        check(&status(""), None);
        check(&NodeStatus::default(), None);
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
            network_error: Some("y".to_owned()),
            shuts_down: true,
            conditions: [Condition::Memory, Condition::Disk, Condition::Pid].into(),
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
    fn a_node_that_is_not_ready_says_why() {
        let check = |runtime: Option<&str>, network: Option<&str>, shuts_down: bool, expected: &str| {
            let (runtime_error, network_error) = (runtime.map(str::to_owned), network.map(str::to_owned));
            let health = Health { runtime_error, network_error, shuts_down, ..Health::default() };
            let shown = conditions(&health, &NodeStatus::default(), Timestamp::UNIX_EPOCH);
            assert_eq!(shown[3].message.as_deref(), Some(expected));
        };
        check(None, None, false, "kubelet is posting ready status");
        check(None, None, true, "node is shutting down");
        let network = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:y";
        check(None, Some("y"), false, network);
        check(Some("x"), None, true, "[container runtime is down: x, node is shutting down]");
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
