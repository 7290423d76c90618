//! Changing what a pod that runs may use (KEP-1287). Pure.
//!
//! What runs is told by the runtime: the limits of the sandbox's cgroup, and on each container the requests and limits that it was made
//! with or resized to last.

use k8s_openapi::api::core::v1::{Container as ApiContainer, ResourceRequirements};
use runtime::api::Resources;

use super::state::{Slot, State};
use crate::allocation::RESOURCES;
use crate::resources;
use crate::spec::{Member, Model, Role, inherited_of};
use crate::units::{self, ResourceList};

/// What has to be done at the runtime, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// The sandbox.
    pub sandbox: String,
    /// Limits of the pod's cgroup in which both the old and the new limits of its containers have room.
    pub wide: Option<Resources>,
    /// Containers: identifier, limits, text of the annotation.
    pub containers: Vec<(String, Resources, String)>,
    /// The pod's limits from now on.
    pub narrow: Option<Resources>,
}

impl Steps {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.wide.is_none() && self.containers.is_empty() && self.narrow.is_none()
    }
}

/// The requests and limits of a running container as they are in force. None when it does not run, or nobody has recorded them.
pub fn actual(slot: &Slot) -> Option<ResourceRequirements> {
    let current = slot.current.as_ref().filter(|_| slot.running())?;
    codec::from_slice(current.annotations.get(RESOURCES)?.as_bytes()).ok()
}

/// What is recorded of a container.
fn recorded(slot: &Slot) -> Option<&String> {
    slot.current.as_ref().and_then(|current| current.annotations.get(RESOURCES))
}

/// Whether the running container has other requests or limits than the pod's.
fn differs(member: &Member, slot: &Slot) -> bool {
    member.role != Role::Ephemeral && slot.running() && recorded(slot).is_some_and(|text| text != member.record())
}

/// Whether a container must be started anew to get its resources: one that differs by amount says so in its `resizePolicy`. KEP-5419: "When
/// the pod's limit is resized, c1's effective memory limit changes. Because c1's memory resizePolicy is RestartRequired, a resize of the
/// pod-level memory limit will trigger a restart of container c1."
pub fn wants_restart(member: &Member, slot: &Slot) -> bool {
    let Some(actual) = actual(slot).filter(|_| differs(member, slot)) else { return false };
    let of_pod = recorded(slot).map(|text| inherited_of(text)).unwrap_or_default();
    let wanted = member.spec.resources.clone().unwrap_or_default();
    let changes = |name: &str| amounts(&actual, &of_pod, name) != amounts(&wanted, &member.inherited, name);
    let policies = member.spec.resize_policy.iter().flatten();
    policies.filter(|policy| policy.restart_policy == "RestartContainer").any(|policy| changes(&policy.resource_name))
}

/// What a container asks for and what it may take, which is its pod's limit where it has none of its own.
fn amounts(own: &ResourceRequirements, of_pod: &ResourceList, name: &str) -> [Option<i64>; 2] {
    let amount = |list: Option<&ResourceList>| list.and_then(|list| list.get(name)).map(units::milli);
    [amount(own.requests.as_ref()), amount(Some(of_pod)).or_else(|| amount(own.limits.as_ref()))]
}

/// Whether something that runs does not have what the pod was given yet.
pub fn in_progress(model: &Model, state: &State) -> bool {
    let slots = model.members.iter().filter_map(|member| Some((member, state.slots.get(&member.spec.name)?)));
    slots.into_iter().any(|(member, slot)| differs(member, slot))
        || state.sandbox.done().is_some_and(|sandbox| pod_differs(model, state, &sandbox.resources))
}

/// Whether the pod's cgroup has other limits than it is to have, by what was recorded with it.
fn pod_differs(model: &Model, state: &State, has: &Resources) -> bool {
    has.cpu_shares.is_some() && limits(has) != limits(&resources::pod_group(model, state.has_cpus))
}

/// What a resize changes of a cgroup.
fn limits(of: &Resources) -> (Option<i64>, Option<u64>, Option<u64>, Option<i64>) {
    (of.cpu_quota, of.cpu_period, of.cpu_shares, of.memory_limit)
}

/// What to do now. The pod's cgroup shrinks when no container is left that has more.
pub fn steps(model: &Model, state: &State, memory_capacity: i64) -> Steps {
    let Some(sandbox) = state.sandbox.done() else { return Steps::default() };
    let mut steps = Steps { sandbox: sandbox.id.clone(), ..Steps::default() };
    let mut restarting = false;
    for member in model.members.iter() {
        let Some(slot) = state.slots.get(&member.spec.name).filter(|slot| differs(member, slot)) else { continue };
        if wants_restart(member, slot) {
            restarting = true;
        } else if let Some(current) = &slot.current {
            let limits = resources::container(model, &member.spec, memory_capacity);
            steps.containers.push((current.id.clone(), limits, member.record().to_owned()));
        }
    }
    if pod_differs(model, state, &sandbox.resources) {
        let wanted = resources::pod_group(model, state.has_cpus);
        // What no resize changes stays on record as it is.
        let (pids_limit, huge_pages) = (sandbox.resources.pids_limit, sandbox.resources.huge_pages.clone());
        let wanted = Resources { pids_limit, huge_pages, ..wanted };
        let wide = widest(&sandbox.resources, &wanted);
        steps.wide = (limits(&wide) != limits(&sandbox.resources)).then(|| wide.clone());
        steps.narrow = (!restarting && limits(&wide) != limits(&wanted)).then_some(wanted);
    }
    steps
}

/// Limits in which both have room. No limit is more than any.
fn widest(a: &Resources, b: &Resources) -> Resources {
    let (cpu_quota, cpu_period) = match (a.cpu_quota, b.cpu_quota) {
        (Some(a_quota), Some(b_quota)) => (Some(a_quota.max(b_quota)), b.cpu_period),
        _ => (None, None),
    };
    Resources {
        cpu_quota,
        cpu_period,
        cpu_shares: a.cpu_shares.max(b.cpu_shares),
        memory_limit: a.memory_limit.zip(b.memory_limit).map(|(a, b)| a.max(b)),
        ..b.clone()
    }
}

/// Why a container is stopped to be resized, for its event.
pub fn restart_message(container: &ApiContainer) -> String {
    format!("Container {} resize requires restart", container.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::state::Step;
    use crate::pod::testing::{container, model, sandbox};
    use runtime::api::ContainerState;
    use serde_json::{Value, json};

    fn pod(resources: &[Value], policy: &str) -> Model {
        let containers = resources.iter().enumerate().map(|(index, resources)| {
            json!({"name": format!("c{index}"), "resources": resources,
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}, {"resourceName": "memory", "restartPolicy": policy}]})
        });
        model(json!({"containers": containers.collect::<Vec<_>>()}))
    }

    /// The state in which `model` runs as it is.
    fn running(model: &Model) -> State {
        let mut state = State::default();
        for member in model.members.iter() {
            let mut running = container(&member.spec.name, &member.spec.name, 0, ContainerState::Running);
            running.annotations.insert(RESOURCES.to_owned(), member.record().to_owned());
            state.slot(&member.spec.name).observe(running);
        }
        state.sandbox = Step::Done(runtime::api::Sandbox { resources: resources::pod(model), ..sandbox() });
        state
    }

    fn both(cpu: &str, memory: &str) -> Value {
        json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
    }

    fn small() -> Value {
        both("100m", "64Mi")
    }

    fn large() -> Value {
        both("200m", "128Mi")
    }

    /// Memory of the pod's cgroup on the way and at the end in MiB, and the containers that change in place.
    #[track_caller]
    fn check(
        old: &[Value],
        new: &[Value],
        policy: &str,
        memory: (Option<i64>, Option<i64>),
        containers: &[&str],
        restarts: &[&str],
    ) {
        let (old, new) = (pod(old, policy), pod(new, policy));
        let state = running(&old);
        assert!(steps(&old, &state, 1 << 34).is_empty() && !in_progress(&old, &state));
        let steps = steps(&new, &state, 1 << 34);
        let mebibytes =
            |limits: &Option<Resources>| limits.as_ref().and_then(|limits| limits.memory_limit).map(|limit| limit >> 20);
        assert_eq!((mebibytes(&steps.wide), mebibytes(&steps.narrow)), memory);
        assert_eq!(steps.containers.iter().map(|(id, _, _)| id.as_str()).collect::<Vec<_>>(), containers);
        let restarted = new.members.iter().filter(|member| wants_restart(member, &state.slots[&member.spec.name]));
        assert_eq!(restarted.map(|member| member.spec.name.as_str()).collect::<Vec<_>>(), restarts);
        assert!(in_progress(&new, &state));
    }

    #[test]
    fn the_pod_grows_before_its_containers_and_shrinks_after_them() {
        check(&[small()], &[large()], "NotRequired", (Some(128), None), &["c0"], &[]);
        check(&[large()], &[small()], "NotRequired", (None, Some(64)), &["c0"], &[]);
        check(&[large(), small()], &[small(), large()], "NotRequired", (None, None), &["c0", "c1"], &[]);
        check(&[small()], &[both("50m", "128Mi")], "NotRequired", (Some(128), Some(128)), &["c0"], &[]);
    }

    #[test]
    fn a_container_that_wants_it_is_started_anew() {
        check(&[small()], &[large()], "RestartContainer", (Some(128), None), &[], &["c0"]);
        // It still has its old limits: the pod's cgroup waits.
        check(&[large()], &[small()], "RestartContainer", (None, None), &[], &["c0"]);
        check(&[small()], &[both("200m", "64Mi")], "RestartContainer", (Some(64), None), &["c0"], &[]);
    }

    #[test]
    fn equal_amounts_in_other_words_change_no_limit_and_restart_nothing() {
        check(&[both("1", "64Mi")], &[both("1000m", "65536Ki")], "RestartContainer", (None, None), &["c0"], &[]);
    }

    /// `DisableCPUQuotaWithExclusiveCPUs`: the group of a pod whose containers have processors for themselves has no quota, and gets none later.
    #[test]
    fn who_has_processors_is_not_held_back_on_them() {
        let model = pod(&[both("1", "64Mi")], "NotRequired");
        let has = Resources { huge_pages: [("2MB".to_owned(), 1 << 21)].into(), ..resources::pod_group(&model, true) };
        assert_eq!((has.cpu_quota, has.cpu_period, has.memory_limit), (None, None, Some(64 << 20)));
        let mut state = State { has_cpus: true, ..running(&model) };
        state.sandbox = Step::Done(runtime::api::Sandbox { resources: has.clone(), ..sandbox() });
        assert!(!in_progress(&model, &state) && steps(&model, &state, 1 << 34).is_empty());
        // Where there is something to change, the rest of the record stays.
        state.has_cpus = false;
        let wide = steps(&model, &state, 1 << 34).narrow.unwrap();
        assert_eq!((wide.cpu_quota, wide.huge_pages), (Some(100_000), has.huge_pages));
    }

    /// KEP-5419: a container without a limit of its own has that of its pod, also when it changes.
    #[test]
    fn containers_follow_the_limits_of_their_pod() {
        let of = |limit: &str| {
            model(json!({"resources": {"limits": {"memory": limit}}, "containers": [{"name": "c0"},
                {"name": "c1", "resources": {"limits": {"memory": "16Mi"}}}]}))
        };
        let (old, new) = (of("64Mi"), of("128Mi"));
        let state = running(&old);
        assert!(!in_progress(&old, &state) && in_progress(&new, &state));
        assert_eq!(actual(&state.slots["c0"]), Some(ResourceRequirements::default()), "it shows its own");
        let steps = steps(&new, &state, 1 << 34);
        let changed: Vec<_> = steps.containers.iter().map(|(id, limits, _)| (id.as_str(), limits.memory_limit)).collect();
        assert_eq!(changed, [("c0", Some(128 << 20))]);
        assert_eq!(steps.wide.unwrap().memory_limit, Some(128 << 20));
    }

    /// KEP-5419, "Resize Restart Policy": a container is restarted for the limit that it has from its pod, and not beside one of its own.
    #[test]
    fn a_limit_of_the_pod_restarts_the_containers_that_have_it() {
        let of = |memory: &str, cpu: &str| {
            let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
            let own = json!({"limits": {"memory": "16Mi"}});
            model(json!({"resources": {"limits": {"memory": memory, "cpu": cpu}}, "containers": [
                {"name": "c0", "resizePolicy": policy}, {"name": "c1", "resizePolicy": policy, "resources": own}, {"name": "c2"}]}))
        };
        let state = running(&of("64Mi", "1"));
        for (memory, cpu, restarted, in_place) in [
            ("128Mi", "1", &["c0"][..], &["c2"][..]),
            ("64Mi", "2", &[], &["c0", "c1", "c2"]),
            ("65536Ki", "1", &[], &["c0", "c2"]),
        ] {
            let new = of(memory, cpu);
            let names = |member: &&Member| wants_restart(member, &state.slots[&member.spec.name]);
            let found: Vec<_> = new.members.iter().filter(names).map(|member| member.spec.name.as_str()).collect();
            assert_eq!(found, restarted, "{memory} {cpu}");
            let steps = steps(&new, &state, 1 << 34);
            let changed: Vec<_> = steps.containers.iter().map(|(id, _, _)| id.as_str()).collect();
            assert_eq!(changed, in_place, "{memory} {cpu}");
        }
    }

    #[test]
    fn what_was_made_before_there_was_a_record_is_left_alone() {
        let model = pod(&[both("1", "64Mi")], "NotRequired");
        let mut state = State { sandbox: Step::Done(sandbox()), ..State::default() };
        state.slot("c0").observe(container("c0", "c0", 0, ContainerState::Running));
        assert!(!in_progress(&model, &state) && steps(&model, &state, 1 << 34).is_empty());
    }
}
