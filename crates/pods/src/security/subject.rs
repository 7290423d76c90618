//! What the checks look at, and the words that they have in common.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::meta;
use k8s_openapi::api::core::v1::{Container, ContainerPort, EphemeralContainer, Lifecycle, PodSpec, Probe, SecurityContext};
use serde_json::Value;

use super::Violation;

/// A pod, or the template of one.
#[derive(Clone, Debug)]
pub struct Subject {
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) spec: PodSpec,
}

impl Subject {
    /// Reads a pod or a template as it is stored; None when it is none.
    pub fn of_value(pod: &Value) -> Option<Self> {
        let annotations = meta::annotations(pod).into_iter().flatten();
        let annotations = annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        Some(Self { annotations, spec: crate::spec_of_value(pod)? })
    }
}

/// A container of any sort.
pub(super) struct Member<'a> {
    pub name: &'a str,
    pub security: Option<&'a SecurityContext>,
    pub ports: &'a [ContainerPort],
    pub probes: [Option<&'a Probe>; 3],
    pub lifecycle: Option<&'a Lifecycle>,
}

/// [`Member`] of a type that has its fields.
macro_rules! member {
    ($kind:ty) => {
        impl<'a> From<&'a $kind> for Member<'a> {
            fn from(container: &'a $kind) -> Self {
                Self {
                    name: &container.name,
                    security: container.security_context.as_ref(),
                    ports: container.ports.as_deref().unwrap_or_default(),
                    probes: [&container.liveness_probe, &container.readiness_probe, &container.startup_probe].map(Option::as_ref),
                    lifecycle: container.lifecycle.as_ref(),
                }
            }
        }
    };
}
member!(Container);
member!(EphemeralContainer);

impl Subject {
    /// Init containers, containers and ephemeral containers.
    pub(super) fn members(&self) -> impl Iterator<Item = Member<'_>> {
        let spec = &self.spec;
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(Member::from);
        spec.init_containers.iter().flatten().chain(&spec.containers).map(Member::from).chain(ephemeral)
    }

    /// Names of the containers of which something is true.
    pub(super) fn which(&self, is: impl Fn(&Member<'_>) -> bool) -> Vec<&str> {
        self.members().filter(|member| is(member)).map(|member| member.name).collect()
    }

    /// Whether its users are none of the node's (KEP-127).
    pub(super) fn has_own_users(&self) -> bool {
        self.spec.host_users == Some(false)
    }

    pub(super) fn is_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }
}

/// The pod itself and its containers, where either does something.
#[derive(Default)]
pub(super) struct Setters<'a> {
    pub pod: bool,
    pub containers: Vec<&'a str>,
}

impl Setters<'_> {
    pub(super) fn is_empty(&self) -> bool {
        !self.pod && self.containers.is_empty()
    }

    /// `pod and containers "a", "b"`.
    pub(super) fn words(&self) -> String {
        let pod = self.pod.then(|| "pod".to_owned());
        let containers = (!self.containers.is_empty()).then(|| containers(&self.containers));
        pod.into_iter().chain(containers).collect::<Vec<_>>().join(" and ")
    }
}

pub(super) fn violation(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason, detail })
}

/// `containers "a", "b"`.
pub(super) fn containers(names: &[&str]) -> String {
    format!("{} {}", plural(names.len(), "container", "containers"), quoted(names))
}

pub(super) fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

pub(super) fn quoted<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let each = words.into_iter().map(|word| format!("\"{}\"", word.as_ref()));
    each.collect::<Vec<_>>().join(", ")
}

/// Each word once, in order.
pub(super) type Words<'a> = BTreeSet<&'a str>;
