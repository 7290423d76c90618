//! Admission plugins, in upstream's order.

mod namespace;
mod node_restriction;
mod priority;
mod runtime_class;
mod service_account;
mod taints;
mod tolerations;

use std::sync::Arc;

use apimachinery::Status;
use registry::{Admission, Operation, Request};
use serde_json::Value;

use crate::authz::{Authorizer, EscalationCheck};

/// The list of plugins. Order matters: mutation happens in it.
pub fn all(authorizer: &Arc<Authorizer>) -> Vec<Box<dyn Admission>> {
    vec![
        Box::new(namespace::NamespaceLifecycle),
        Box::new(service_account::ServiceAccount),
        Box::new(node_restriction::NodeRestriction),
        Box::new(taints::TaintNodesByCondition),
        Box::new(priority::Priority),
        Box::new(tolerations::DefaultTolerationSeconds),
        Box::new(runtime_class::RuntimeClass),
        Box::new(EscalationCheck::new(authorizer.clone())),
    ]
}

/// Whether the request creates a pod.
fn creates_pod(a: &Request<'_>) -> bool {
    is(a, "", "pods") && a.subresource.is_empty() && a.operation == Operation::Create
}

fn is(a: &Request<'_>, group: &str, plural: &str) -> bool {
    a.resource.def.group == group && a.resource.def.plural == plural
}

/// 403 for the object of the request.
fn forbidden(a: &Request<'_>, why: impl std::fmt::Display) -> Status {
    let own = a.object().map(apimachinery::meta::name).unwrap_or_default();
    Status::forbidden(&a.resource.group_resource, if a.name.is_empty() { own } else { a.name }, why)
}

/// Another object, none when it does not exist.
async fn find(a: &Request<'_>, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
    let resource = a.registry.resource(group, "v1", plural)?;
    a.registry.get(&resource, namespace, name, None).await.ok().map(|entry| entry.value())
}

/// All objects of a kind.
async fn list(a: &Request<'_>, group: &str, plural: &str) -> Vec<Value> {
    let Some(resource) = a.registry.resource(group, "v1", plural) else { return Vec::new() };
    let all = a.registry.list(&resource, None, &registry::ListOptions::default()).await;
    all.map(|list| list.entries.iter().map(|entry| entry.value()).collect()).unwrap_or_default()
}

/// The list at a key, made when it is missing.
fn list_mut<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Vec<Value>> {
    let slot = object.as_object_mut()?.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    if slot.is_null() {
        *slot = Value::Array(Vec::new());
    }
    slot.as_array_mut()
}

/// A text of the object, empty when it is missing.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
