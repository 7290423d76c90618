//! NamespaceAutoProvision and NamespaceExists, where they are enabled: a namespace comes with the first object in it, or everything that names a
//! namespace which is not there is refused, also what NamespaceLifecycle lets through.

use apimachinery::status::Reason;
use apimachinery::{Status, meta};
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::json;

use super::namespace::makes;
use super::{failed, forbidden, is, namespace_of};
use crate::bootstrap::context;

pub(super) struct NamespaceAutoProvision;

#[async_trait]
impl Admission for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    /// A request that writes nothing makes no namespace either.
    fn handles(&self, a: &Request<'_>) -> bool {
        makes(a) && !a.dry_run
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        if namespace_of(a).await.is_ok() {
            return Ok(());
        }
        let resource = a.registry.resource("", "v1", "namespaces").ok_or_else(|| failed("no namespaces are served"))?;
        let mut namespace = json!({"apiVersion": "v1", "kind": "Namespace"});
        meta::set(&mut namespace, "name", a.namespace);
        resource.decode(&context(), "", &mut namespace, Vec::new())?;
        match a.registry.create(&context(), &resource, "", None, namespace).await {
            Err(status) if !status.is(Reason::AlreadyExists) => Err(forbidden(a, status.message)),
            _ => Ok(()),
        }
    }
}

pub(super) struct NamespaceExists;

#[async_trait]
impl Admission for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        let changes = matches!(a.operation, Operation::Create | Operation::Update | Operation::Delete);
        changes && !a.namespace.is_empty() && !is(a, "", "namespaces")
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        namespace_of(a).await.map(drop)
    }
}
