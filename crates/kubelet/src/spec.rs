//! A pod with its containers in one list, whatever field they come from.

use codec::{Decode, Encode};
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, EphemeralContainer, Pod, PodSpec};

use crate::units::{self, ResourceList};

/// What part a container plays in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// A restartable init container: started in order, runs beside the others (KEP-753).
    Sidecar,
    /// A container of `spec.containers`.
    App,
    /// Added later for debugging, never restarted (KEP-277).
    Ephemeral,
}

/// One container of a pod.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its part.
    pub role: Role,
    /// Its specification; that of an ephemeral container has the same fields.
    pub spec: Arc<Container>,
    /// Name of the container whose process namespace an ephemeral container joins.
    pub target: Option<String>,
    /// Limits that it has from its pod alone.
    pub inherited: ResourceList,
    /// See [`Member::record`].
    record: Arc<OnceLock<String>>,
}

/// A pod, prepared for planning. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Model {
    /// As the API has it.
    pub pod: Arc<Pod>,
    /// Init and sidecar containers in order, containers, ephemeral containers.
    pub members: Arc<[Member]>,
}

impl Model {
    /// Lists the containers of `pod`.
    pub fn new(pod: Arc<Pod>) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let limits = PodSpec { resources: spec.resources, ..PodSpec::default() };
        let init = spec.init_containers.into_iter().flatten().map(|spec| {
            let role = if pods::is_sidecar(&spec) { Role::Sidecar } else { Role::Init };
            Member::new(role, spec)
        });
        let app = spec.containers.into_iter().map(|spec| Member::new(Role::App, spec));
        let ephemeral = spec.ephemeral_containers.into_iter().flatten().map(ephemeral);
        let members = init.chain(app).chain(ephemeral);
        let members = members.map(|member| Member { inherited: inherited(&limits, &member.spec), ..member }).collect();
        Self { pod, members }
    }

    /// The same pod as a newer object has it. What is prepared already is kept where the specification is the same.
    pub fn renewed(&self, pod: Arc<Pod>) -> Self {
        if self.pod.spec == pod.spec { Self { pod, members: self.members.clone() } } else { Self::new(pod) }
    }

    /// Whether `newer`, of [`Model::renewed`], says nothing new of the pod but its status: most often that is the own report, come back.
    pub fn is_echoed_by(&self, newer: &Self) -> bool {
        let (old, new) = (&self.pod.metadata, &newer.pod.metadata);
        Arc::ptr_eq(&self.members, &newer.members)
            && (&old.uid, &old.labels, &old.annotations) == (&new.uid, &new.labels, &new.annotations)
            && (&old.deletion_timestamp, old.deletion_grace_period_seconds)
                == (&new.deletion_timestamp, new.deletion_grace_period_seconds)
    }

    /// The specification.
    pub fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    /// The container called `name`.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.spec.name == name)
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// `NAME_NAMESPACE(UID)`, as upstream's messages name a pod.
    pub fn title(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    /// `spec.restartPolicy`.
    pub fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }

    /// Whether the pod uses the host's network.
    pub fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }
}

impl Member {
    fn new(role: Role, spec: Container) -> Self {
        Self { role, spec: Arc::new(spec), target: None, inherited: ResourceList::new(), record: Arc::default() }
    }

    /// Its requests and limits as the runtime keeps them beside the container. They are compared at every step, and written down once.
    pub fn record(&self) -> &str {
        self.record.get_or_init(|| record(&self.spec, &self.inherited))
    }

    /// Whether the container is started again after it ended with `exit_code`, under the pod's restart policy.
    pub fn restarts(&self, pod_policy: &str, exit_code: i32) -> bool {
        match self.role {
            Role::Ephemeral => return false,
            Role::Sidecar => return true,
            Role::Init | Role::App => {}
        }
        if self.rule(exit_code).is_some() {
            return true;
        }
        match self.spec.restart_policy.as_deref().unwrap_or(pod_policy) {
            "Never" => false,
            "OnFailure" => exit_code != 0,
            _ => self.role == Role::App || exit_code != 0,
        }
    }

    /// The restart rule that applies after the container ended with `exit_code`: the first one that matches (KEP-5307).
    pub fn rule(&self, exit_code: i32) -> Option<&ContainerRestartRule> {
        self.spec.restart_policy.as_ref()?;
        self.spec.restart_policy_rules.iter().flatten().find(|rule| {
            rule.exit_codes.as_ref().is_some_and(|codes| {
                let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
                if codes.operator == "NotIn" { !listed } else { listed }
            })
        })
    }

    /// `spec.containers{NAME}`, where events point to.
    pub fn field_path(&self) -> String {
        let list = match self.role {
            Role::Init | Role::Sidecar => "initContainers",
            Role::App => "containers",
            Role::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.spec.name)
    }
}

/// Limits that a container has from its pod alone.
pub fn inherited(spec: &PodSpec, container: &Container) -> ResourceList {
    let own = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let of_pod = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let lacks = |name: &str| own.and_then(|own| own.get(name)).is_none_or(|limit| units::milli(limit) == 0);
    let of_pod = of_pod.into_iter().flatten().filter(|(name, _)| lacks(name));
    of_pod.map(|(name, limit)| (name.clone(), limit.clone())).collect()
}

/// Where a record has limits that are the pod's.
const POD_LIMITS: &str = "podLimits";

/// Requests and limits of a container, as JSON; beside them, where there are any, the limits that it has from its pod alone.
fn record(container: &Container, inherited: &ResourceList) -> String {
    let own = container.resources.clone().unwrap_or_default();
    if inherited.is_empty() {
        return String::from_utf8(own.to_json().unwrap_or_default()).unwrap_or_default();
    }
    let mut record = own.to_tree().unwrap_or_default();
    if let Some(record) = record.as_object_mut() {
        record.insert(POD_LIMITS.to_owned(), serde_json::json!(inherited));
    }
    record.to_string()
}

/// The limits of a record that are the pod's.
pub fn inherited_of(record: &str) -> ResourceList {
    let record = serde_json::from_str::<serde_json::Value>(record).unwrap_or_default();
    record.get(POD_LIMITS).and_then(|limits| serde_json::from_value(limits.clone()).ok()).unwrap_or_default()
}

fn ephemeral(container: EphemeralContainer) -> Member {
    let target = container.target_container_name.clone().filter(|name| !name.is_empty());
    // The two types have the same fields but for the target's name, which the other type ignores.
    let spec = container.to_json().and_then(|json| Container::from_json(&json)).unwrap_or_default();
    Member { target, ..Member::new(Role::Ephemeral, spec) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(role: Role, own: Option<&str>, pod_policy: &str, exit_code: i32, restarts: bool) {
        let spec = Container { restart_policy: own.map(str::to_owned), ..Default::default() };
        let member = Member::new(role, spec);
        assert_eq!(member.restarts(pod_policy, exit_code), restarts, "{role:?} {own:?} {pod_policy} {exit_code}");
    }

    #[test]
    fn restart_policies() {
        check(Role::App, None, "Always", 0, true);
        check(Role::App, None, "OnFailure", 0, false);
        check(Role::App, None, "OnFailure", 1, true);
        check(Role::App, None, "Never", 1, false);
        check(Role::App, Some("Never"), "Always", 1, false);
        check(Role::Init, None, "Always", 0, false);
        check(Role::Init, None, "Always", 1, true);
        check(Role::Init, None, "Never", 1, false);
        check(Role::Sidecar, Some("Always"), "Never", 0, true);
        check(Role::Ephemeral, None, "Always", 1, false);
    }

    #[test]
    fn a_newer_object_with_the_same_specification_is_an_echo() {
        let pod = |image: &str, label: &str, phase: &str| -> Arc<Pod> {
            let pod = serde_json::json!({"metadata": {"uid": "u", "labels": {"a": label}, "resourceVersion": phase},
                "spec": {"containers": [{"name": "a", "image": image}]}, "status": {"phase": phase}});
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        let model = Model::new(pod("img", "1", "Pending"));
        let check = |newer: Arc<Pod>, expected: bool| {
            let newer = model.renewed(newer);
            assert_eq!(model.is_echoed_by(&newer), expected);
            newer
        };
        let echo = check(pod("img", "1", "Running"), true);
        assert_eq!(echo.pod.status.as_ref().unwrap().phase.as_deref(), Some("Running"));
        check(pod("img", "2", "Pending"), false);
        let changed = check(pod("other", "1", "Pending"), false);
        assert_eq!(changed.members[0].spec.image.as_deref(), Some("other"));
    }

    #[test]
    fn lists_ephemeral_containers_last() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "spec": {
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
                "containers": [{"name": "a"}],
                "ephemeralContainers": [{"name": "e", "image": "x", "targetContainerName": "a"}],
            }
        }))
        .unwrap();
        let model = Model::new(Arc::new(pod));
        let roles: Vec<_> = model.members.iter().map(|m| (m.spec.name.as_str(), m.role)).collect();
        assert_eq!(roles, [("i", Role::Init), ("s", Role::Sidecar), ("a", Role::App), ("e", Role::Ephemeral)]);
        assert_eq!(model.members[3].target.as_deref(), Some("a"));
        assert_eq!(model.members[3].field_path(), "spec.ephemeralContainers{e}");
    }
}
