//! Namespace and Node.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{Namespace, Node, NodeAddress};
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::{KindDef, NameRule};
use crate::node;
use crate::rules::{self, list};
use crate::sub::{Connect, Sub};
use crate::typed::Kind;
use crate::util::{child_object, each, keep_all_but_part, or_none, remove, set_default, text};
use crate::verb::{Verb, VerbSet};

impl Kind for Namespace {
    const DEF: KindDef = KindDef::new("", "v1", "Namespace", "namespaces", "namespace")
        .short(&["ns"])
        .cluster()
        .name(NameRule::Label)
        .verbs(VerbSet::WITHOUT_COLLECTION)
        .subresources(&[
            Sub::part("finalize", VerbSet::of(&[Verb::Update]), |object, old| {
                keep_all_but_part(object, old, "spec", "finalizers")
            }),
            Sub::STATUS,
        ]);
    const SELECTABLE: &'static [&'static str] = &["status.phase"];

    fn field(object: &Value, _name: &'static str) -> String {
        text(object, "/status/phase").to_owned()
    }

    /// Every namespace carries its name as a label (KEP-2161).
    fn apply_defaults(object: &mut Value) {
        let name = text(object, "/metadata/name").to_owned();
        if !name.is_empty() {
            child_object(child_object(object, "metadata"), "labels")["kubernetes.io/metadata.name"] = name.into();
        }
    }

    /// The `kubernetes` finalizer keeps a namespace until its content is gone.
    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"phase": "Active"});
        let finalizers = child_object(object, "spec").as_object_mut().map(|spec| spec.entry("finalizers").or_insert(json!([])));
        if let Some(Value::Array(list)) = finalizers
            && !list.iter().any(|name| name == "kubernetes")
        {
            list.push("kubernetes".into());
        }
    }

    /// A namespace stays until its content is gone (Namespaces walkthrough: "finalizers").
    fn is_kept(object: &Value) -> bool {
        object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    }

    fn prepare_delete(object: &mut Value) {
        child_object(object, "status")["phase"] = "Terminating".into();
    }

    /// Finalizers change through the finalize sub-resource only.
    fn prepare_update(object: &mut Value, old: &Value) {
        crate::util::carry_over(object, old, "spec");
    }

    fn validate(&self, errors: &mut Errors) {
        let path = Path::new("spec").child("finalizers");
        for finalizer in self.spec.iter().flat_map(|spec| list(&spec.finalizers)) {
            validate_finalizer(finalizer, &path, errors);
        }
    }

    fn validate_sub(&self, sub: &str, _old: &Self, errors: &mut Errors) {
        if sub == "finalize" {
            let path = Path::new("spec").child("finalizers");
            for (index, finalizer) in self.spec.iter().flat_map(|spec| list(&spec.finalizers)).enumerate() {
                validate_finalizer(finalizer, &path.index(index), errors);
            }
            return;
        }
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let (expected, deleted) =
            if self.metadata.deletion_timestamp.is_some() { ("Terminating", "not empty") } else { ("Active", "empty") };
        if phase != expected {
            let detail = format!("may only be '{expected}' if `deletionTimestamp` is {deleted}");
            errors.push(Error::invalid(&Path::new("status.Phase"), phase, detail));
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[Column::new("Status", "The status of the namespace", |namespace, _| {
                namespace.status.as_ref().and_then(|status| status.phase.clone()).into()
            })]
        }
    }
}

/// A qualified name, or one of the few older than that rule.
fn validate_finalizer(finalizer: &str, path: &Path, errors: &mut Errors) {
    rules::qualified_name(path, finalizer, errors);
    if !finalizer.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&finalizer) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(Error::invalid(path, finalizer, detail));
    }
}

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
        node::validate(self, errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        node::validate_ranges(self, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        node::validate_update(self, old, errors);
    }

    fn validate_sub(&self, _sub: &str, old: &Self, errors: &mut Errors) {
        node::validate(self, errors);
        node::validate_update(self, old, errors);
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
