//! Administrative access to devices, which others may be using, is for namespaces that say so (KEP-5018).
//!
//! Upstream asks this while it validates the object; it needs another object, so here it is admission.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{Status, meta};
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::Value;

use super::{find, is};

const GROUP: &str = "resource.k8s.io";
const LABEL: &str = "resource.kubernetes.io/admin-access";

pub(super) struct AdminAccess;

fn writes(a: &Request<'_>) -> bool {
    let create = a.operation == Operation::Create && a.subresource.is_empty();
    is(a, GROUP, "resourceclaims") && (create || (a.operation == Operation::Update && a.subresource == "status"))
        || is(a, GROUP, "resourceclaimtemplates") && create
}

#[async_trait]
impl Admission for AdminAccess {
    fn name(&self) -> &'static str {
        "AdminAccess"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        writes(a)
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let Some(object) = a.object() else { return Ok(()) };
        let wanted = if a.subresource.is_empty() {
            requested(object)
        } else if a.old.and_then(granted).is_some() {
            None
        } else {
            granted(object)
        };
        let Some(path) = wanted else { return Ok(()) };
        let namespace = find(a, "", "namespaces", "", a.namespace).await;
        if namespace.is_some_and(|namespace| meta::label(&namespace, LABEL) == Some("true")) {
            return Ok(());
        }
        let detail = format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        let errors = Errors::from(vec![Error::forbidden(&path, detail)]);
        Err(Status::invalid(GROUP, &a.resource.def.kind, meta::name(object), &errors))
    }
}

fn first(object: &Value, list: &str, flag: &str) -> Option<usize> {
    let items = object.pointer(list)?.as_array()?;
    items.iter().position(|item| item.pointer(flag) == Some(&Value::Bool(true)))
}

/// The first request of a claim, or of a template of claims, that asks for it.
fn requested(object: &Value) -> Option<Path> {
    let index = ["/spec/devices/requests", "/spec/spec/devices/requests"]
        .into_iter()
        .find_map(|requests| first(object, requests, "/exactly/adminAccess"))?;
    Some(Path::new("spec.devices.requests").index(index).child("adminAccess"))
}

/// The first allocated device that has it.
fn granted(claim: &Value) -> Option<Path> {
    let index = first(claim, "/status/allocation/devices/results", "/adminAccess")?;
    Some(Path::new("status.allocation.devices.results").index(index).child("adminAccess"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn where_it_is_asked_for() {
        let check = |object: Value, expected: Option<&str>| {
            assert_eq!(requested(&object).or_else(|| granted(&object)).map(|path| path.to_string()).as_deref(), expected);
        };
        let requests =
            json!({"devices": {"requests": [{"name": "a", "exactly": {}}, {"name": "b", "exactly": {"adminAccess": true}}]}});
        check(json!({"spec": requests}), Some("spec.devices.requests[1].adminAccess"));
        check(json!({"spec": {"spec": requests}}), Some("spec.devices.requests[1].adminAccess"));
        check(json!({"spec": {"devices": {"requests": [{"exactly": {"adminAccess": false}}]}}}), None);
        let status = json!({"allocation": {"devices": {"results": [{"adminAccess": true}]}}});
        check(json!({"status": status}), Some("status.allocation.devices.results[0].adminAccess"));
    }
}
