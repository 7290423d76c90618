//! Cgroups, cgroup values and the out-of-memory score, as upstream computes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
pub use pods::qos::Qos;
use runtime::api::Resources;

use crate::spec::{Member, Model, Role, inherited};
use crate::units::{self, ResourceList};

/// Scheduling period of CPU quotas, microseconds.
const PERIOD: i64 = 100_000;
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
const MIN_QUOTA: i64 = 1000;
/// What names of huge pages as resources begin with; the size of a page follows.
pub const HUGE_PAGES: &str = "hugepages-";

fn requirements(container: &Container) -> (Option<&ResourceList>, Option<&ResourceList>) {
    let resources = container.resources.as_ref();
    (resources.and_then(|r| r.requests.as_ref()), resources.and_then(|r| r.limits.as_ref()))
}

/// The class of a pod.
pub fn qos(model: &Model) -> Qos {
    Qos::of(model.spec())
}

/// Whether a container may have processors and memory of NUMA nodes for itself: those of guaranteed pods may, but for ephemeral ones and where
/// the pod as a whole says what it gets.
pub fn may_have_own(model: &Model, member: &Member) -> bool {
    model.spec().resources.is_none() && member.role != Role::Ephemeral && qos(model) == Qos::Guaranteed
}

/// The pod's cgroup, relative to the runtime's root.
pub fn cgroup_parent(model: &Model) -> String {
    match qos(model) {
        Qos::Guaranteed => format!("kubepods/pod{}", model.uid()),
        Qos::Burstable => format!("kubepods/burstable/pod{}", model.uid()),
        Qos::BestEffort => format!("kubepods/besteffort/pod{}", model.uid()),
    }
}

/// CPU weight, cgroup v1 scale.
pub fn shares(milli_cpu: i64) -> u64 {
    let shares = u64::try_from(milli_cpu).unwrap_or(0) * 1024 / 1000;
    shares.clamp(MIN_SHARES, MAX_SHARES)
}

fn quota(milli_cpu: i64) -> Option<i64> {
    (milli_cpu > 0).then(|| (milli_cpu * PERIOD / 1000).max(MIN_QUOTA))
}

/// How ready the kernel is to kill a container of this pod when memory is short, -1000 to 1000.
pub fn oom_score_adj(model: &Model, container: &Container, memory_capacity: i64) -> i32 {
    // What the node cannot do without is kept as long as guaranteed pods.
    if model.spec().priority_class_name.as_deref() == Some("system-node-critical") {
        return -997;
    }
    match qos(model) {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let requested = |container: &Container| units::whole_of(requirements(container).0, "memory");
            let mut request = requested(container);
            // KEP-753: a sidecar is not killed before the containers that it serves.
            if pods::is_sidecar(container) {
                request = request.max(model.spec().containers.iter().map(requested).min().unwrap_or(0));
            }
            let request = request.saturating_add(memory_share(model));
            let adjust = 1000 - 1000i128 * i128::from(request) / i128::from(memory_capacity.max(1));
            i32::try_from(adjust.clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// What each container has of the memory that its pod asks for as a whole, and of which no container does: an equal share (KEP-2837, "OOM
/// Score Adjustment").
fn memory_share(model: &Model) -> i64 {
    let spec = model.spec();
    let of_pod = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let asked = pods::resources::together(spec, pods::resources::requests).get("memory").map_or(0, |amount| amount.as_i64());
    let left = (units::whole_of(of_pod, "memory") - asked).max(0);
    let count = spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len);
    left / i64::try_from(count.max(1)).unwrap_or(1)
}

/// The limits of a container: its own, and for what it has none those of its pod, more than which it cannot get (KEP-2837).
pub fn limits(model: &Model, container: &Container) -> ResourceList {
    let mut limits = requirements(container).1.cloned().unwrap_or_default();
    limits.extend(inherited(model.spec(), container));
    limits
}

/// Cgroup values of one container.
pub fn container(model: &Model, container: &Container, memory_capacity: i64) -> Resources {
    let (requests, limits) = (requirements(container).0, limits(model, container));
    let cpu_limit = units::milli_of(Some(&limits), "cpu");
    let cpu_request = requests.and_then(|r| r.get("cpu")).map_or(cpu_limit, units::milli);
    let memory_limit = units::whole_of(Some(&limits), "memory");
    Resources {
        cpu_quota: quota(cpu_limit),
        cpu_period: (cpu_limit > 0).then_some(PERIOD as u64),
        cpu_shares: Some(shares(cpu_request)),
        memory_limit: (memory_limit > 0).then_some(memory_limit),
        oom_score_adj: Some(oom_score_adj(model, container, memory_capacity)),
        huge_pages: huge_pages(Some(&limits)),
        ..Resources::default()
    }
}

/// Limits of huge pages, in the kernel's names of page sizes: `hugepages-2Mi` is `2MB`.
fn huge_pages(limits: Option<&ResourceList>) -> BTreeMap<String, u64> {
    let huge = limits.into_iter().flatten().filter_map(|(name, limit)| Some((name.strip_prefix(HUGE_PAGES)?, limit)));
    let named = huge.map(|(size, limit)| (size.replace('i', "B"), u64::try_from(units::whole(limit)).unwrap_or(0)));
    named.collect()
}

/// Limits of a pod's huge pages on a machine with these resources of them: what it asks for, and nothing of other sizes.
pub fn pod_huge_pages<'a>(model: &Model, sizes: impl IntoIterator<Item = &'a String>) -> BTreeMap<String, u64> {
    let none = sizes.into_iter().map(|name| (name.clone(), units::quantity(0)));
    let asked = pods::resources::pod_requests(model.spec());
    let asked = asked.iter().filter(|(name, _)| name.starts_with(HUGE_PAGES));
    let list: ResourceList = none.chain(asked.map(|(name, limit)| (name.to_string(), units::quantity(limit.as_i64())))).collect();
    huge_pages(Some(&list))
}

/// What a pod takes of resource `name`, in thousandths.
pub fn pod_request(model: &Model, name: &str) -> i64 {
    pods::resources::pod_requests(model.spec()).get(name).map_or(0, |amount| amount.as_milli())
}

/// What a pod takes of what the node itself has: not what its containers have by a claim (KEP-5004).
pub fn node_requests(model: &Model) -> pods::resources::Amounts<'_> {
    pods::resources::pod_requests_as(model.spec(), |container| {
        let mut own = pods::resources::requests(container);
        own.retain(|resource, _| !pods::claims::is_claimed(&model.pod, &container.name, resource));
        own
    })
}

/// Limits of the pod's own cgroup: CPU and memory only where every container has a limit.
pub fn pod(model: &Model) -> Resources {
    let limits = pods::resources::pod_limits(model.spec());
    let cpu_limit = limits.get("cpu").map_or(0, |limit| limit.as_milli());
    Resources {
        cpu_quota: quota(cpu_limit),
        cpu_period: (cpu_limit > 0).then_some(PERIOD as u64),
        cpu_shares: Some(shares(pod_request(model, "cpu"))),
        memory_limit: limits.get("memory").map(|limit| limit.as_i64()).filter(|limit| *limit > 0),
        ..Resources::default()
    }
}

/// What [`pod`] says, where `has_cpus` says that a container has processors for itself: it is not held back on them, as upstream
/// (`DisableCPUQuotaWithExclusiveCPUs`).
pub fn pod_group(model: &Model, has_cpus: bool) -> Resources {
    let limits = pod(model);
    if has_cpus { Resources { cpu_quota: None, cpu_period: None, ..limits } } else { limits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn model(containers: Value) -> Model {
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": containers}});
        Model::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    #[track_caller]
    fn check(containers: Value, class: Qos, parent: &str, score: i32) {
        let model = model(containers);
        assert_eq!(qos(&model), class);
        assert_eq!(cgroup_parent(&model), parent);
        assert_eq!(oom_score_adj(&model, &model.members[0].spec, 16 << 30), score);
    }

    #[test]
    fn classes() {
        check(json!([{"name": "a"}]), Qos::BestEffort, "kubepods/besteffort/podu", 1000);
        let amounts = json!({"cpu": "1", "memory": "1Gi"});
        let all = json!({"requests": amounts, "limits": amounts});
        check(json!([{"name": "a", "resources": all}]), Qos::Guaranteed, "kubepods/podu", -997);
        let some = json!({"requests": {"memory": "4Gi"}});
        check(json!([{"name": "a", "resources": some}]), Qos::Burstable, "kubepods/burstable/podu", 750);
        check(json!([{"name": "a", "resources": all}, {"name": "b"}]), Qos::Burstable, "kubepods/burstable/podu", 938);
    }

    #[test]
    fn only_node_critical_pods_are_kept_to_the_last() {
        let check = |class: &str, score: i32| {
            let pod = json!({"spec": {"priorityClassName": class, "priority": 2_000_000_000, "containers": [{"name": "a"}]}});
            let model = Model::new(Arc::new(serde_json::from_value(pod).unwrap()));
            assert_eq!(oom_score_adj(&model, &model.members[0].spec, 1 << 34), score);
        };
        check("system-node-critical", -997);
        check("system-cluster-critical", 1000);
    }

    fn of(spec: Value) -> Model {
        Model::new(Arc::new(serde_json::from_value(json!({"spec": spec})).unwrap()))
    }

    /// KEP-753: a sidecar has no higher score than the container with the least request. KEP-2837, "OOM Score Adjustment".
    #[test]
    fn whom_the_kernel_kills_first() {
        let check = |spec: Value, expected: &[i32]| {
            let model = of(spec.clone());
            let scores: Vec<i32> = model.members.iter().map(|member| oom_score_adj(&model, &member.spec, 1000 << 20)).collect();
            assert_eq!(scores, expected, "{spec}");
        };
        let asks = |memory: &str| json!({"name": memory, "resources": {"requests": {"memory": memory}}});
        let sidecar = |memory: &str| {
            let mut sidecar = asks(memory);
            sidecar["restartPolicy"] = json!("Always");
            sidecar
        };
        let containers = json!([asks("100Mi"), asks("300Mi")]);
        check(json!({"initContainers": [sidecar("0"), asks("1Mi")], "containers": containers}), &[900, 999, 900, 700]);
        check(json!({"initContainers": [sidecar("200Mi")], "containers": containers}), &[800, 900, 700]);
        check(json!({"containers": [asks("999Mi")]}), &[3]);
        let pod = json!({"requests": {"memory": "700Mi"}});
        check(json!({"resources": pod, "containers": containers}), &[750, 550]);
        check(json!({"resources": pod, "initContainers": [sidecar("0")], "containers": containers}), &[800, 800, 600]);
        check(json!({"resources": pod, "containers": [{"name": "a"}, {"name": "b"}]}), &[650, 650]);
        check(json!({"resources": {"requests": {"cpu": "1"}}, "containers": containers}), &[900, 700]);
    }

    /// KEP-2837: containers without limits of their own can use all that the pod may.
    #[test]
    fn containers_have_the_limits_of_their_pod() {
        let model = of(json!({
            "resources": {"limits": {"cpu": "2", "memory": "64Mi", "hugepages-2Mi": "4Mi"}},
            "containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "16Mi", "cpu": "0"}}}]}));
        let of = |index: usize| container(&model, &model.members[index].spec, 1 << 34);
        let huge = BTreeMap::from([("2MB".to_owned(), 4 << 20)]);
        let values = |values: &Resources| (values.cpu_shares, values.cpu_quota, values.memory_limit, values.huge_pages.clone());
        assert_eq!(values(&of(0)), (Some(2048), Some(200_000), Some(64 << 20), huge.clone()));
        assert_eq!(values(&of(1)), (Some(102), Some(200_000), Some(16 << 20), huge));
    }

    #[test]
    fn cgroup_values() {
        let model = model(json!([{"name": "a", "resources": {
            "requests": {"cpu": "100m", "hugepages-2Mi": "4Mi"}, "limits": {"cpu": "500m", "memory": "64Mi", "hugepages-2Mi": "4Mi"}}}]));
        let values = container(&model, &model.members[0].spec, 1 << 34);
        assert_eq!((values.cpu_shares, values.cpu_quota, values.cpu_period), (Some(102), Some(50_000), Some(100_000)));
        assert_eq!(values.memory_limit, Some(64 << 20));
        assert_eq!(values.huge_pages, BTreeMap::from([("2MB".to_owned(), 4 << 20)]));
        let sizes = ["hugepages-2Mi".to_owned(), "hugepages-1Gi".to_owned()];
        let expected = BTreeMap::from([("2MB".to_owned(), 4 << 20), ("1GB".to_owned(), 0)]);
        assert_eq!(pod_huge_pages(&model, &sizes), expected);
        let pod = pod(&model);
        assert_eq!((pod.cpu_quota, pod.memory_limit), (Some(50_000), Some(64 << 20)));
    }
}
