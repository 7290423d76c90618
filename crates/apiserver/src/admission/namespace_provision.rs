//! NamespaceAutoProvision, where it is enabled: a namespace comes with the first object in it.

use apimachinery::status::Reason;
use apimachinery::{Status, meta};
use async_trait::async_trait;
use registry::{Admission, Request};
use serde_json::json;

use super::namespace::makes;
use super::{failed, forbidden, namespace_of};
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
        resource.decode(&context(), "", &mut namespace)?;
        match a.registry.create(&context(), &resource, "", None, namespace).await {
            Err(status) if !status.is(Reason::AlreadyExists) => Err(forbidden(a, status.message)),
            _ => Ok(()),
        }
    }
}
