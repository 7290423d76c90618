//! ResourceQuota: nothing is created that takes more than its namespace may have.
//!
//! What a request takes is added to the quota's status before the object is written, with the resource version that was
//! read: of two requests for the last of something one tries again and is refused. The controller counts what is there, and
//! gives back what was added for an object that was not written after all.

mod decide;

use std::sync::Arc;

use apimachinery::{Status, meta};
use async_trait::async_trait;
use jiff::Timestamp;
use registry::{Admission, Context, ListOptions, Operation, Request, User};
use serde_json::Value;

use super::{forbidden, is};
use decide::{Asked, Verdict};

/// How often it is tried again when another request was counted meanwhile.
const ATTEMPTS: usize = 50;

pub(super) struct ResourceQuota;

#[async_trait]
impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        let counted = a.resource.def.namespaced && !is(a, "", "events") && !is(a, "events.k8s.io", "events");
        let grows = is(a, "", "services") || is(a, "", "persistentvolumeclaims");
        let resizes = is(a, "", "pods") && a.subresource == "resize";
        match a.operation {
            Operation::Create => counted && a.subresource.is_empty(),
            Operation::Update => resizes || (a.subresource.is_empty() && grows),
            Operation::Delete | Operation::Connect => false,
        }
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let Some(object) = a.object() else { return Ok(()) };
        let quotas = quotas(a).await;
        if quotas.is_empty() {
            return Ok(());
        }
        let (group, plural) = (&a.resource.def.group, &a.resource.def.plural);
        let asked = Asked::new(group, plural, object, a.old, Timestamp::now());
        for quota in quotas {
            self.charge(a, &asked, quota).await?;
        }
        Ok(())
    }
}

/// The quotas of the namespace.
async fn quotas(a: &Request<'_>) -> Vec<Value> {
    let Some(resource) = a.registry.resource("", "v1", "resourcequotas") else { return Vec::new() };
    let list = a.registry.list(&resource, Some(a.namespace), &ListOptions::default()).await;
    list.map(|list| list.entries.iter().map(|entry| entry.value()).collect()).unwrap_or_default()
}

impl ResourceQuota {
    /// Adds what is asked for to the quota, or refuses it.
    async fn charge(&self, a: &Request<'_>, asked: &Asked<'_>, mut quota: Value) -> Result<(), Status> {
        let Some(resource) = a.registry.resource("", "v1", "resourcequotas") else { return Ok(()) };
        let name = meta::name(&quota).to_owned();
        for _ in 0..ATTEMPTS {
            let charged = match decide::decide(asked, &quota) {
                Verdict::Free => return Ok(()),
                Verdict::Refused(why) => return Err(forbidden(a, why)),
                Verdict::Charged(_) if a.dry_run => return Ok(()),
                Verdict::Charged(charged) => charged,
            };
            match a.registry.update(&context(), &resource, "status", a.namespace, &name, charged).await {
                Ok(_) => return Ok(()),
                Err(status) if status.code == 409 => {}
                // It was deleted meanwhile.
                Err(status) if status.code == 404 => return Ok(()),
                Err(status) => return Err(status),
            }
            match a.registry.get(&resource, a.namespace, &name, None).await {
                Ok(entry) => quota = entry.value(),
                Err(_) => return Ok(()),
            }
        }
        let message = format!("the quota {name} is being changed by many requests, try again");
        Err(Status::conflict(&a.resource.group_resource, a.name, message))
    }
}

/// The API server itself writes what it has counted.
fn context() -> Context {
    let user = User { name: "system:apiserver".to_owned(), groups: vec!["system:masters".to_owned()], ..User::default() };
    Context { user: Arc::new(user), manager: "knarr".to_owned(), ..Context::default() }
}
