//! OwnerReferencesPermissionEnforcement, where it is enabled: who may not delete an object gives it no other owners, by which it would be deleted,
//! and who may not write the finalizers of an owner does not keep it from going.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::Status;
use async_trait::async_trait;
use registry::{Admission, Operation, Registry, Request};
use serde_json::Value;

use super::{forbidden, is, text};
use crate::authz::{Attributes, Authorizer, Decision};

pub(super) struct OwnerReferencesPermissionEnforcement(pub(super) Arc<Authorizer>);

#[async_trait]
impl Admission for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    /// The status of a pod changes no owners.
    fn handles(&self, a: &Request<'_>) -> bool {
        matches!(a.operation, Operation::Create | Operation::Update) && !(is(a, "", "pods") && a.subresource == "status")
    }

    fn sees_all(&self, _registry: &Registry) -> bool {
        true
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let new = owners(a.object());
        let old = owners(a.old);
        if new == old {
            return Ok(());
        }
        self.may_delete(a).await?;
        self.may_block(a, &blocking(new, old)).await
    }
}

impl OwnerReferencesPermissionEnforcement {
    /// Whoever creates an object may say who owns it.
    async fn may_delete(&self, a: &Request<'_>) -> Result<(), Status> {
        if a.operation == Operation::Create {
            return Ok(());
        }
        let def = &a.resource.def;
        let asked = Attributes {
            verb: "delete",
            group: &def.group,
            version: &def.version,
            resource: &def.plural,
            subresource: a.subresource,
            namespace: a.namespace,
            name: a.name,
            is_resource: true,
            ..Attributes::new(a.user)
        };
        let decision = self.0.authorize(a.registry, &asked).await;
        if decision.allowed {
            return Ok(());
        }
        Err(forbidden(a, format!("cannot set an ownerRef on a resource you can't delete: {}", why(decision))))
    }

    async fn may_block(&self, a: &Request<'_>, owners: &[&Value]) -> Result<(), Status> {
        let base = Attributes { verb: "update", subresource: "finalizers", is_resource: true, ..Attributes::new(a.user) };
        let anything = Attributes { group: "*", version: "*", resource: "*", name: "*", ..base };
        if owners.is_empty() || self.0.allows(a.registry, &anything).await {
            return Ok(());
        }
        for owner in owners {
            let (api_version, kind) = (text(owner, "/apiVersion"), text(owner, "/kind"));
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let resources = resources(a.registry, group, version, kind);
            if resources.is_empty() {
                let what = format!("cannot find RESTMapping for APIVersion {api_version} Kind {kind}");
                let why = format!("no matches for kind {kind:?} in version {api_version:?}");
                return Err(forbidden(a, format!("cannot set blockOwnerDeletion in this case because {what}: {why}")));
            }
            for (resource, is_namespaced) in &resources {
                let namespace = if *is_namespaced { a.namespace } else { "" };
                let asked = Attributes { group, version, resource, namespace, name: text(owner, "/name"), ..base };
                let decision = self.0.authorize(a.registry, &asked).await;
                if !decision.allowed {
                    let what =
                        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on";
                    return Err(forbidden(a, format!("{what}: {}", why(decision))));
                }
            }
        }
        Ok(())
    }
}

/// Reason and error, as Go shows them.
fn why(decision: Decision<'_>) -> String {
    format!("{}, {}", decision.reason, decision.error.as_deref().unwrap_or("<nil>"))
}

/// The resources of a kind, and whether they are in namespaces, here or at another server.
fn resources(registry: &Registry, group: &str, version: &str, kind: &str) -> Vec<(String, bool)> {
    let catalog = registry.catalog();
    if let Some(remote) = catalog.remote(group, version) {
        let all = remote.resources.as_deref().and_then(|list| list["resources"].as_array()).into_iter().flatten();
        let of_kind = all.filter(|one| one["kind"] == kind && !text(one, "/name").contains('/'));
        return of_kind.map(|one| (text(one, "/name").to_owned(), one["namespaced"] == true)).collect();
    }
    let of_kind =
        catalog.iter().map(|served| &served.def).filter(|def| def.group == group && def.version == version && def.kind == kind);
    of_kind.map(|def| (def.plural.to_string(), def.namespaced)).collect()
}

fn owners(object: Option<&Value>) -> &[Value] {
    let references = object.and_then(|object| object.pointer("/metadata/ownerReferences"));
    references.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The references that keep an owner from going, and did not before.
fn blocking<'a>(new: &'a [Value], old: &[Value]) -> Vec<&'a Value> {
    let blocks = |reference: &&Value| reference["blockOwnerDeletion"] == true;
    let before: HashMap<&str, &Value> = old.iter().map(|reference| (text(reference, "/uid"), reference)).collect();
    new.iter().filter(blocks).filter(|reference| !before.get(text(reference, "/uid")).is_some_and(blocks)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Upstream's table (TestBlockOwnerDeletionAdmission).
    #[test]
    fn what_blocks() {
        let reference = |uid: &str, blocks: Value| json!({"uid": uid, "name": uid, "blockOwnerDeletion": blocks});
        let check = |new: &[Value], old: &[Value], expected: &[&str]| {
            let found: Vec<&str> = blocking(new, old).into_iter().map(|reference| text(reference, "/uid")).collect();
            assert_eq!(found, expected, "{new:?} {old:?}");
        };
        let (yes, no, unsaid) =
            (|uid| reference(uid, json!(true)), |uid| reference(uid, json!(false)), |uid| reference(uid, Value::Null));
        check(&[], &[], &[]);
        check(&[unsaid("1"), no("2")], &[], &[]);
        check(&[yes("1"), no("2")], &[], &["1"]);
        check(&[yes("1")], &[yes("1")], &[]);
        check(&[yes("1")], &[no("1")], &["1"]);
        check(&[yes("1")], &[unsaid("1")], &["1"]);
        check(&[yes("1"), yes("2")], &[yes("1")], &["2"]);
        check(&[no("1")], &[yes("1")], &[]);
    }
}
