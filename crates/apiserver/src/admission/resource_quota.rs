//! ResourceQuota: nothing is created that takes more than its namespace may have.
//!
//! What a request takes is added to the quota's status before the object is written, with the resource version that was
//! read: of two requests for the last of something one tries again and is refused. The controller counts what is there, and
//! gives back what was added for an object that was not written after all.

mod decide;
mod limited;

use std::sync::Arc;

use apimachinery::{Status, meta};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
use pods::quota::devices;
use registry::{Admission, Context, ListOptions, Operation, Request, User};
use serde_json::Value;

use super::{forbidden, is};
use decide::{Asked, Devices};
pub(super) use limited::{Limited, parse};

/// How often it is tried again when another request was counted meanwhile.
const ATTEMPTS: usize = 50;

/// With what nobody may have without a quota.
pub(super) struct ResourceQuota(pub(super) Vec<Limited>);

#[async_trait]
impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        let counted = a.resource.def.namespaced && !is(a, "", "events") && !is(a, "events.k8s.io", "events");
        let grows = is(a, "", "services") || is(a, "", "persistentvolumeclaims");
        let resizes = is(a, "", "pods") && (a.subresource == "resize" || (a.subresource.is_empty() && gets_deadline(a)));
        match a.operation {
            Operation::Create => counted && a.subresource.is_empty(),
            Operation::Update => resizes || (a.subresource.is_empty() && grows),
            Operation::Delete | Operation::Connect => false,
        }
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let Some(object) = a.object() else { return Ok(()) };
        let quotas = quotas(a).await;
        if quotas.is_empty() && self.0.is_empty() {
            return Ok(());
        }
        let (group, plural) = (&a.resource.def.group, &a.resource.def.plural);
        let mut asked = Asked::new(group, plural, object, a.old, Timestamp::now());
        if let Some(claim) = asked.claim() {
            asked.devices = named_by(a, claim).await;
        }
        limited::check(&self.0, &asked, &quotas).map_err(|lacking| lacking.status(|why| forbidden(a, why)))?;
        charge(a, &asked, quotas).await
    }
}

/// Whether a pod comes into the scope of what ends by itself, or leaves it.
fn gets_deadline(a: &Request<'_>) -> bool {
    let has = |pod: &Value| pod.pointer("/spec/activeDeadlineSeconds").is_some_and(Value::is_number);
    a.object().map(has) != a.old.map(has)
}

/// What says under which names of quotas the devices of a claim count.
async fn named_by(a: &Request<'_>, claim: &ResourceClaim) -> Devices {
    let classes = a.registry.resource("resource.k8s.io", "v1", "deviceclasses");
    let list = match &classes {
        Some(classes) => a.registry.list(classes, None, &ListOptions::default()).await.ok(),
        None => None,
    };
    let classes = list.iter().flat_map(|list| &list.entries).filter_map(|class| codec::from_value(class.value()).ok());
    let extended = devices::extended(classes.collect::<Vec<DeviceClass>>().iter());
    let owner = match (devices::owner(claim), a.registry.resource("", "v1", "pods")) {
        (Some(name), Some(pods)) => a.registry.get(&pods, a.namespace, name, None).await.ok(),
        _ => None,
    };
    Devices { extended, owner: owner.and_then(|pod| codec::from_value(pod.value()).ok()) }
}

/// The quotas of the namespace.
async fn quotas(a: &Request<'_>) -> Vec<Value> {
    let Some(resource) = a.registry.resource("", "v1", "resourcequotas") else { return Vec::new() };
    let list = a.registry.list(&resource, Some(a.namespace), &ListOptions::default()).await;
    list.map(|list| list.entries.iter().map(|entry| entry.value()).collect()).unwrap_or_default()
}

/// Adds what is asked for to all quotas, or refuses it. All are asked before one is charged, so that who is refused by one takes nothing
/// of another; those that were changed meanwhile are asked again.
async fn charge(a: &Request<'_>, asked: &Asked<'_>, mut quotas: Vec<Value>) -> Result<(), Status> {
    let Some(resource) = a.registry.resource("", "v1", "resourcequotas") else { return Ok(()) };
    for _ in 0..ATTEMPTS {
        let charged = decide::all(asked, &quotas).map_err(|why| forbidden(a, why))?;
        if a.dry_run {
            return Ok(());
        }
        quotas.clear();
        for charged in charged {
            let name = meta::name(&charged).to_owned();
            match a.registry.update(&context(), &resource, "status", a.namespace, &name, charged).await {
                Err(status) if status.code == 409 => {
                    let entry = a.registry.get(&resource, a.namespace, &name, None).await;
                    quotas.extend(entry.ok().map(|entry| entry.value()));
                }
                // It was deleted meanwhile.
                Err(status) if status.code == 404 => {}
                other => drop(other?),
            }
        }
        if quotas.is_empty() {
            return Ok(());
        }
    }
    let message = format!("the quota {} is being changed by many requests, try again", meta::name(&quotas[0]));
    Err(Status::conflict(&a.resource.group_resource, a.name, message))
}

/// The API server itself writes what it has counted.
fn context() -> Context {
    let user = User { name: "system:apiserver".to_owned(), groups: vec!["system:masters".to_owned()], ..User::default() };
    Context { user: Arc::new(user), manager: "knarr".to_owned(), ..Context::default() }
}
