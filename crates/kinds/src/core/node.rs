//! Node.

mod validate;

use apimachinery::field::Errors;
use k8s_openapi::api::core::v1::{Node, NodeAddress};
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
                    info(node, |info| &info.kubelet_version)
                }),
                Column::wide("Internal-IP", "Address of the node inside the cluster.", |node, _| {
                    or_none(address(node, "InternalIP"))
                }),
                Column::wide("External-IP", "Address of the node outside the cluster.", |node, _| {
                    or_none(address(node, "ExternalIP"))
                }),
                Column::wide("OS-Image", "OS Image reported by the node from /etc/os-release.", |node, _| {
                    info(node, |info| &info.os_image)
                }),
                Column::wide("Kernel-Version", "Kernel Version reported by the node.", |node, _| {
                    info(node, |info| &info.kernel_version)
                }),
                Column::wide("Container-Runtime", "ContainerRuntime Version reported by the node.", |node, _| {
                    info(node, |info| &info.container_runtime_version)
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

fn roles(node: &Node) -> String {
    let mut roles = Vec::new();
    for (key, value) in node.metadata.labels.iter().flatten() {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => roles.push(role),
            _ if key == "kubernetes.io/role" && !value.is_empty() => roles.push(value),
            _ => {}
        }
    }
    roles.join(",")
}

fn address(node: &Node, kind: &str) -> String {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let found = addresses.and_then(|all| all.iter().find(|address: &&NodeAddress| address.type_ == kind));
    found.map(|address| address.address.clone()).unwrap_or_default()
}

fn info(node: &Node, pick: fn(&k8s_openapi::api::core::v1::NodeSystemInfo) -> &String) -> Value {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    info.map_or_else(|| "<unknown>".into(), |info| pick(info).clone().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check_warnings;
    use serde_json::json;

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
