//! What a pod asks for its own or others' protection and this node cannot give is refused: to run without it would be worse.

use runtime::api::Features;

use crate::spec::Model;
use crate::sysctls::{self, Pattern};

/// The error is the status reason and message.
/// `allowed` are unsafe sysctls that the node allows.
pub(super) fn check(pod: &Model, has_app_armor: bool, features: Features, allowed: &[Pattern]) -> Result<(), (String, String)> {
    let spec = pod.spec();
    let refuse = |reason: &str, message: String| Err((reason.to_owned(), message));
    if spec.host_users == Some(false) && !features.user_namespaces {
        let message =
            "spec.hostUsers is false, and this node does not offer user namespaces: it needs Linux 6.3, or leave it out";
        return refuse("UserNamespacesNotSupported", message.to_owned());
    }
    let labels = pod.pod.metadata.labels.as_ref();
    // A label of the pod, not its node selector, as upstream.
    if labels.and_then(|labels| labels.get("kubernetes.io/os")).is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return refuse("PodOSSelectorNodeLabelDoesNotMatch", message.to_owned());
    }
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != "linux") {
        let message = format!("Failed to admit pod as the OS field doesn't match node OS: the pod is for {}", os.name);
        return refuse("PodOSNotSupported", message);
    }
    let Some(security) = &spec.security_context else { return app_armor(pod, has_app_armor) };
    for sysctl in security.sysctls.iter().flatten() {
        let Some(why) = sysctls::refusal(&sysctl.name, allowed, pod.host_network(), spec.host_ipc == Some(true)) else {
            continue;
        };
        return refuse("SysctlForbidden", format!("forbidden sysctl: {:?} {why}", sysctl.name));
    }
    app_armor(pod, has_app_armor)
}

fn app_armor(pod: &Model, is_there: bool) -> Result<(), (String, String)> {
    if is_there || !pods::app_armor::is_required(&pod.pod, pod.members.iter().map(|member| &*member.spec)) {
        return Ok(());
    }
    Err(("AppArmor".to_owned(), "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned()))
}

#[cfg(test)]
mod tests {
    use crate::pod::testing::model;
    use runtime::api::Features;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(spec: Value, expected: Option<(&str, &str)>) {
        let refused = super::check(&model(spec), false, Features::default(), &[]).err();
        let refused = refused.as_ref().map(|(reason, message)| (reason.as_str(), message.as_str()));
        assert_eq!(refused, expected);
    }

    #[test]
    fn sysctls() {
        let with = |name: &str, extra: Value| {
            let mut spec = json!({"containers": [], "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            spec
        };
        let refused = |message: &'static str| Some(("SysctlForbidden", message));
        check(with("net.ipv4.tcp_syncookies", json!({})), None);
        check(with("net/ipv4/tcp_syncookies", json!({})), None);
        // Written by root of the host: a program of the container's would run there.
        let pattern = refused("forbidden sysctl: \"kernel.core_pattern\" not allowlisted");
        check(with("kernel.core_pattern", json!({})), pattern);
        check(with("kernel/core_pattern", json!({})), refused("forbidden sysctl: \"kernel/core_pattern\" not allowlisted"));
        check(with("kernel.msgmax", json!({})), refused("forbidden sysctl: \"kernel.msgmax\" not allowlisted"));
        let net = refused("forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host net enabled");
        check(with("net.ipv4.tcp_rmem", json!({"hostNetwork": true})), net);
        let ipc = refused("forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host ipc enabled");
        check(with("kernel.shm_rmid_forced", json!({"hostIPC": true})), ipc);
    }

    #[test]
    fn other_protection() {
        check(json!({"containers": []}), None);
        check(json!({"containers": [], "hostUsers": true}), None);
        let users = "spec.hostUsers is false, and this node does not offer user namespaces: it needs Linux 6.3, or leave it out";
        let able = Features { user_namespaces: true, ..Features::default() };
        assert_eq!(super::check(&model(json!({"containers": [], "hostUsers": false})), false, able, &[]), Ok(()));
        check(json!({"containers": [], "hostUsers": false}), Some(("UserNamespacesNotSupported", users)));
        check(json!({"containers": [], "securityContext": {"supplementalGroupsPolicy": "Strict"}}), None);
        let windows = "Failed to admit pod as the OS field doesn't match node OS: the pod is for windows";
        check(json!({"containers": [], "os": {"name": "windows"}}), Some(("PodOSNotSupported", windows)));
        check(json!({"containers": [], "os": {"name": "linux"}}), None);
        let labelled = |os: &str| {
            let metadata = json!({"name": "p", "namespace": "n", "uid": "u", "labels": {"kubernetes.io/os": os}});
            let pod = json!({"metadata": metadata, "spec": {"containers": []}});
            let pod = crate::spec::Model::new(std::sync::Arc::new(serde_json::from_value(pod).unwrap()));
            super::check(&pod, false, Features::default(), &[]).err().map(|(reason, _)| reason)
        };
        assert_eq!(labelled("linux"), None);
        assert_eq!(labelled("windows").as_deref(), Some("PodOSSelectorNodeLabelDoesNotMatch"));
        let profile = |kind: &str| json!({"containers": [{"name": "c", "securityContext": {"appArmorProfile": {"type": kind, "localhostProfile": "p"}}}]});
        check(profile("Unconfined"), None);
        let missing = Some(("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"));
        check(profile("Localhost"), missing);
        check(profile("RuntimeDefault"), missing);
        assert_eq!(super::check(&model(profile("Localhost")), true, Features::default(), &[]), Ok(()));
    }
}
