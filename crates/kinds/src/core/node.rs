//! Node.

mod validate;

use std::collections::BTreeSet;

use apimachinery::field::Errors;
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeSystemInfo};
use serde_json::Value;

use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::text;
use crate::sub::{Connect, Sub};
use crate::typed::Kind;
use crate::util::{each, or_none, remove, set_default};

impl Kind for Node {
    const DEF: KindDef = KindDef::new("", "v1", "Node", "nodes", "node")
        .short(&["no"])
        .cluster()
        .status_on_create()
        .subresources(&[Sub::connect("proxy", Some(("", "v1", "NodeProxyOptions")), Connect::Proxy), Sub::STATUS]);
    const SELECTABLE: &'static [&'static str] = &["spec.unschedulable"];

    fn field(object: &Value, _name: &'static str) -> String {
        object.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false).to_string()
    }

    fn apply_defaults(object: &mut Value) {
        let Some(status) = object.get_mut("status") else { return };
        if let (None, Some(capacity)) = (status.get("allocatable"), status.get("capacity").cloned()) {
            set_default(status, "allocatable", capacity);
        }
        for address in each(status, "addresses") {
            set_default(address, "type", "InternalIP");
        }
    }

    fn prepare_create(object: &mut Value) {
        if object.pointer("/spec/configSource").is_some() {
            remove(&mut object["spec"], "configSource");
        }
    }

    fn validate(&self, errors: &mut Errors) {
        validate::validate(self, errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate::validate_ranges(self, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        validate::validate_update(self, old, errors);
    }

    fn validate_sub(&self, _sub: &str, old: &Self, errors: &mut Errors) {
        validate::validate(self, errors);
        validate::validate_update(self, old, errors);
    }

    fn warnings(&self) -> Vec<String> {
        let Some(spec) = &self.spec else { return Vec::new() };
        let old = [
            (spec.config_source.is_some(), "spec.configSource: the feature is removed"),
            (!text(&spec.external_id).is_empty(), "spec.externalID: this field is deprecated, and is unused by Kubernetes"),
        ];
        old.into_iter().filter(|(used, _)| *used).map(|(_, message)| message.to_owned()).collect()
    }

    fn warnings_on_update(&self, _old: &Self) -> Vec<String> {
        self.warnings()
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::NAME,
                Column::new("Status", "The status of the node", |node, _| ready(node).into()),
                Column::new("Roles", "The roles of the node", |node, _| or_none(roles(node))),
                Column::AGE,
                Column::new("Version", "Kubelet Version reported by the node.", |node, _| {
                    info(node).map(|info| info.kubelet_version.as_str()).unwrap_or_default().into()
                }),
                Column::wide("Internal-IP", "Address of the node inside the cluster.", |node, _| {
                    or_none(address(node, "InternalIP"))
                }),
                Column::wide("External-IP", "Address of the node outside the cluster.", |node, _| {
                    or_none(address(node, "ExternalIP"))
                }),
                Column::wide("OS-Image", "OS Image reported by the node from /etc/os-release.", |node, _| {
                    or_unknown(info(node).map(|info| info.os_image.clone()))
                }),
                Column::wide("Kernel-Version", "Kernel Version reported by the node.", |node, _| {
                    or_unknown(info(node).map(kernel))
                }),
                Column::wide("Container-Runtime", "ContainerRuntime Version reported by the node.", |node, _| {
                    or_unknown(info(node).map(|info| info.container_runtime_version.clone()))
                }),
            ]
        }
    }
}

fn ready(node: &Node) -> String {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.and_then(|all| all.iter().find(|condition| condition.type_ == "Ready"));
    let mut words = vec![match ready.map(|condition| condition.status.as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

/// In order, once each.
fn roles(node: &Node) -> String {
    let role = |(key, value): (&String, &String)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role.to_owned()),
        None => (key == "kubernetes.io/role").then(|| value.clone()),
    };
    let roles: BTreeSet<String> =
        node.metadata.labels.iter().flatten().filter_map(role).filter(|role| !role.is_empty()).collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address(node: &Node, kind: &str) -> String {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let found = addresses.and_then(|all| all.iter().find(|address: &&NodeAddress| address.type_ == kind));
    found.map(|address| address.address.clone()).unwrap_or_default()
}

fn info(node: &Node) -> Option<&NodeSystemInfo> {
    node.status.as_ref().and_then(|status| status.node_info.as_ref())
}

/// `6.8.0-51-generic (amd64)`.
fn kernel(info: &NodeSystemInfo) -> String {
    match (info.kernel_version.as_str(), info.architecture.as_str()) {
        ("", _) => String::new(),
        (version, "") => version.to_owned(),
        (version, architecture) => format!("{version} ({architecture})"),
    }
}

fn or_unknown(text: Option<String>) -> Value {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "<unknown>".to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::Strategy;
    use crate::testing::check_warnings;
    use crate::typed::Typed;
    use serde_json::json;

    /// The cells of `kubectl get nodes -o wide`, after name and status (upstream: `printNode`).
    #[test]
    fn cells() {
        let check = |labels: Value, info: Value, expected: [&str; 7]| {
            let node = json!({"metadata": {"name": "n", "labels": labels}, "status": {"nodeInfo": info}});
            let row = Typed::<Node>::new().row(&node, jiff::Timestamp::UNIX_EPOCH);
            assert_eq!(json!([row[2], row[4], row[5], row[6], row[7], row[8], row[9]]), json!(expected));
        };
        let node_info = |kernel: &str, rest: &str| {
            json!({"architecture": "amd64", "bootID": "", "containerRuntimeVersion": rest, "kernelVersion": kernel,
            "kubeProxyVersion": "", "kubeletVersion": rest, "machineID": "", "operatingSystem": "linux", "osImage": rest, "systemUUID": ""})
        };
        let roles = json!({"kubernetes.io/role": "z", "node-role.kubernetes.io/a": "", "node-role.kubernetes.io/b": ""});
        check(roles, node_info("6.8.0", "v1"), ["a,b,z", "v1", "<none>", "<none>", "v1", "6.8.0 (amd64)", "v1"]);
        let unknown = ["<none>", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"];
        check(json!({}), node_info("", ""), unknown);
        check(json!({}), Value::Null, unknown);
    }

    /// Upstream's `fieldIsDeprecatedWarnings`.
    #[test]
    fn fields_that_do_nothing() {
        let node = |spec: Value| json!({"metadata": {"name": "n"}, "spec": spec});
        check_warnings::<Node>(node(json!({"externalID": "", "providerID": "x://a"})), &[]);
        check_warnings::<Node>(
            node(
                json!({"externalID": "a", "configSource": {"configMap": {"name": "a", "namespace": "b", "kubeletConfigKey": "c"}}}),
            ),
            &[
                "spec.configSource: the feature is removed",
                "spec.externalID: this field is deprecated, and is unused by Kubernetes",
            ],
        );
    }
}
