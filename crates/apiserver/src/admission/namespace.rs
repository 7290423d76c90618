//! NamespaceLifecycle: nothing is made in a namespace that does not exist or is going, and some namespaces stay.

use apimachinery::status::Cause;
use apimachinery::{GroupResource, Status, meta};
use async_trait::async_trait;
use registry::{Admission, Operation, Request};

use super::{find, forbidden, is};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

/// Whether the namespace exists and is not ending, by its encoded form: neither word of an ending occurs in it. Every create
/// asks this, and hardly ever needs more.
async fn is_settled(a: &Request<'_>) -> bool {
    let Some(resource) = a.registry.resource("", "v1", "namespaces") else { return false };
    let Ok(namespace) = a.registry.get(&resource, "", a.namespace, None).await else { return false };
    let has = |word: &str| memchr::memmem::find(&namespace.json, word.as_bytes()).is_some();
    !has("deletionTimestamp") && !has("Terminating")
}

/// Whether a request makes something that is kept in a namespace.
pub(super) fn makes(a: &Request<'_>) -> bool {
    !is(a, "", "namespaces") && !a.namespace.is_empty() && a.operation == Operation::Create && a.resource.def.stored
}

/// Refuses to make something in a namespace that does not exist or is going.
async fn check(a: &Request<'_>) -> Result<(), Status> {
    if is_settled(a).await {
        return Ok(());
    }
    let Some(namespace) = find(a, "", "namespaces", "", a.namespace).await else {
        return Err(Status::not_found(&GroupResource::new("", "namespaces"), a.namespace));
    };
    // What already exists may still be acted on.
    if !a.subresource.is_empty()
        || !(meta::is_deleting(&namespace) || namespace.pointer("/status/phase").is_some_and(|p| p == "Terminating"))
    {
        return Ok(());
    }
    let mut status =
        forbidden(a, format!("unable to create new content in namespace {} because it is being terminated", a.namespace));
    if let Some(details) = &mut status.details {
        details.causes.push(Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {} is being terminated", a.namespace),
            field: "metadata.namespace".into(),
        });
    }
    Err(status)
}

/// The same, asked again after those who take what time they like: a namespace that has gone while a webhook thought would leave an object that
/// nobody deletes.
pub(super) struct NamespaceStays;

#[async_trait]
impl Admission for NamespaceStays {
    fn name(&self) -> &'static str {
        "NamespaceStays"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        makes(a)
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        check(a).await
    }
}

#[async_trait]
impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        let own = is(a, "", "namespaces");
        own && a.operation == Operation::Delete || makes(a)
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        if a.operation == Operation::Create { check(a).await } else { Ok(()) }
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        if a.operation == Operation::Delete && IMMORTAL.contains(&a.name) {
            return Err(forbidden(a, "this namespace may not be deleted"));
        }
        Ok(())
    }
}
