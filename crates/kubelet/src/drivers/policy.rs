//! What the CSIDriver object of a driver asks of kubelets. Without one, defaults hold.

use std::time::Duration;

use k8s_openapi::api::storage::v1::{CSIDriver, TokenRequest};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Volumes are attached to a node first.
    pub attach: bool,
    /// The driver is told whom a volume is for.
    pub pod_info: bool,
    /// Pods may have volumes of it that come and go with them.
    pub ephemeral: bool,
    /// Pods may have volumes of it that claims stand for.
    pub persistent: bool,
    /// Who gives volumes to a pod's group.
    pub group: Group,
    /// Volumes are published again from time to time.
    pub republish: bool,
    /// Tokens of the pod's service account that it is given.
    pub tokens: Vec<TokenRequest>,
    /// They come with the secrets, not with the context.
    pub tokens_are_secret: bool,
    /// How often the driver is asked how many volumes the node can have; none: when one cannot be attached for want of room.
    pub recount: Option<Duration>,
}

/// `fsGroupPolicy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Volumes of one node whose file system's type is named are given to the group.
    WithType,
    /// All are.
    Always,
    /// None is.
    Never,
}

impl Policy {
    /// Of a driver.
    pub fn of(driver: Option<&CSIDriver>) -> Self {
        let spec = driver.map(|driver| driver.spec.clone()).unwrap_or_default();
        let modes = spec.volume_lifecycle_modes.unwrap_or_default();
        Self {
            attach: pods::csi::needs_attachment(driver),
            pod_info: spec.pod_info_on_mount.unwrap_or(false),
            ephemeral: modes.iter().any(|mode| mode == "Ephemeral"),
            persistent: modes.is_empty() || modes.iter().any(|mode| mode == "Persistent"),
            group: match spec.fs_group_policy.as_deref() {
                Some("File") => Group::Always,
                Some("None") => Group::Never,
                _ => Group::WithType,
            },
            republish: spec.requires_republish.unwrap_or(false),
            tokens: spec.token_requests.unwrap_or_default(),
            tokens_are_secret: spec.service_account_token_in_secrets.unwrap_or(false),
            recount: spec
                .node_allocatable_update_period_seconds
                .and_then(|seconds| u64::try_from(seconds).ok().filter(|seconds| *seconds > 0))
                .map(Duration::from_secs),
        }
    }

    /// Whether the kubelet gives a volume to the pod's group.
    pub fn gives_to_group(&self, fs_type: &str, modes: &[String]) -> bool {
        match self.group {
            Group::Always => true,
            Group::Never => false,
            Group::WithType => {
                let one_node = |mode: &String| matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod");
                !fs_type.is_empty() && modes.iter().any(one_node)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn policy(spec: Value) -> Policy {
        let driver: CSIDriver = serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).unwrap();
        Policy::of(Some(&driver))
    }

    #[test]
    fn defaults() {
        let none = Policy::of(None);
        assert_eq!(policy(json!({})), none);
        assert_eq!((none.attach, none.pod_info, none.ephemeral, none.persistent), (true, false, false, true));
        assert_eq!(none.recount, None);
        assert_eq!(policy(json!({"nodeAllocatableUpdatePeriodSeconds": 30})).recount, Some(Duration::from_secs(30)));
        let only = policy(json!({"volumeLifecycleModes": ["Ephemeral"], "attachRequired": false, "podInfoOnMount": true}));
        assert_eq!((only.attach, only.pod_info, only.ephemeral, only.persistent), (false, true, true, false));
    }

    /// Kubernetes API reference, CSIDriverSpec.fsGroupPolicy.
    #[test]
    fn groups() {
        let check = |name: Option<&str>, fs_type: &str, modes: &[&str], expected: bool| {
            let modes: Vec<String> = modes.iter().map(|mode| (*mode).to_owned()).collect();
            let policy = policy(json!({"fsGroupPolicy": name}));
            assert_eq!(policy.gives_to_group(fs_type, &modes), expected, "{name:?} {fs_type} {modes:?}");
        };
        check(None, "ext4", &["ReadWriteOnce"], true);
        check(Some("ReadWriteOnceWithFSType"), "ext4", &["ReadWriteOncePod"], true);
        check(None, "", &["ReadWriteOnce"], false);
        check(None, "ext4", &["ReadWriteMany"], false);
        check(Some("File"), "", &["ReadWriteMany"], true);
        check(Some("None"), "ext4", &["ReadWriteOnce"], false);
    }
}
