//! AppArmor profiles of containers (KEP-24).

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod};

/// Before their key, the names of containers whose profile an annotation says: the API's form until v1.30, which it still takes.
pub const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The profile that a container asks for: by its own field, by the annotation for it, or else by the pod's field. None where nobody says.
pub fn of_container(pod: &Pod, container: &Container) -> Option<AppArmorProfile> {
    let own = container.security_context.as_ref().and_then(|security| security.app_armor_profile.clone());
    let of_pod = || pod.spec.as_ref()?.security_context.as_ref()?.app_armor_profile.clone();
    own.or_else(|| of_annotation(pod.metadata.annotations.as_ref()?.get(&format!("{ANNOTATION}{}", container.name))?))
        .or_else(of_pod)
}

/// Whether a pod, or a container of `containers`, all that it has, asks for a profile, so that its node needs AppArmor.
pub fn is_required<'a>(pod: &Pod, containers: impl Iterator<Item = &'a Container>) -> bool {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.app_armor_profile.as_ref());
    let own = containers.filter_map(|container| container.security_context.as_ref()?.app_armor_profile.as_ref());
    let annotations = pod.metadata.annotations.iter().flatten();
    own.chain(of_pod).any(|profile| profile.type_ != "Unconfined")
        || annotations.into_iter().any(|(key, value)| key.starts_with(ANNOTATION) && value != "unconfined")
}

/// The profile that the value of an annotation means, if it means one.
pub fn of_annotation(value: &str) -> Option<AppArmorProfile> {
    let (kind, name) = match value {
        "runtime/default" => ("RuntimeDefault", None),
        "unconfined" => ("Unconfined", None),
        other => ("Localhost", Some(other.strip_prefix("localhost/")?.to_owned())),
    };
    Some(AppArmorProfile { type_: kind.to_owned(), localhost_profile: name })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn profile(kind: &str) -> Value {
        json!({"appArmorProfile": {"type": kind}})
    }

    fn local(name: &str) -> Value {
        json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": name}})
    }

    /// What the only container has, and whether the node needs AppArmor.
    #[track_caller]
    fn check(own: Value, annotation: Option<&str>, of_pod: Value, expected: Option<(&str, Option<&str>)>, required: bool) {
        let annotations = annotation.map(|value| json!({format!("{ANNOTATION}c"): value})).unwrap_or_default();
        let containers = json!([{"name": "c", "securityContext": own}]);
        let pod =
            json!({"metadata": {"annotations": annotations}, "spec": {"securityContext": of_pod, "containers": containers}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let containers = &pod.spec.as_ref().unwrap().containers;
        let found = of_container(&pod, &containers[0]);
        let found = found.as_ref().map(|profile| (profile.type_.as_str(), profile.localhost_profile.as_deref()));
        assert_eq!((found, is_required(&pod, containers.iter())), (expected, required));
    }

    /// KEP-24, "Failing the API": fields win over annotations, a container's over its pod's.
    #[test]
    fn who_says_the_profile() {
        let nobody = || json!({});
        check(nobody(), None, nobody(), None, false);
        check(nobody(), None, profile("RuntimeDefault"), Some(("RuntimeDefault", None)), true);
        check(profile("Unconfined"), None, nobody(), Some(("Unconfined", None)), false);
        check(local("a"), None, profile("RuntimeDefault"), Some(("Localhost", Some("a"))), true);
        check(local("a"), Some("localhost/b"), nobody(), Some(("Localhost", Some("a"))), true);
        check(nobody(), Some("localhost/b"), profile("RuntimeDefault"), Some(("Localhost", Some("b"))), true);
        check(nobody(), Some("runtime/default"), nobody(), Some(("RuntimeDefault", None)), true);
        check(nobody(), Some("unconfined"), nobody(), Some(("Unconfined", None)), false);
        check(nobody(), Some("unconfined"), local("a"), Some(("Unconfined", None)), true);
        // No profile, but the pod has asked for something.
        check(nobody(), Some(""), nobody(), None, true);
    }
}
