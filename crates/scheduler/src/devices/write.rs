//! Writes the devices of a pod's claims before the pod is bound, and gives them back when it cannot be.

use client::Api;
use client::kube;
use client::kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use client::{Client, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pods::claims;
use serde_json::{Value, json};

use super::{Reservation, binding, extended};
use crate::pod::PodInfo;

/// How often a claim is written that others write too.
const ATTEMPTS: usize = 5;

/// Why the claims of a pod are not reserved for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}", client::why(.0))]
    Api(#[from] kube::Error),
    #[error("claim {0} got deleted in the meantime")]
    Gone(Key),
    #[error("claim {0} got allocated elsewhere in the meantime")]
    Allocated(Key),
    #[error("claim {0} got deallocated elsewhere in the meantime")]
    Deallocated(Key),
    #[error("resourceclaim in use")]
    InUse,
}

/// Reserves claims for a pod, with the devices that were chosen, and makes the one for its extended resources. `written` gets those that have
/// been.
pub(crate) async fn reserve(
    client: &Client,
    pod: &PodInfo,
    reservations: &[Reservation],
    written: &mut Vec<ResourceClaim>,
) -> Result<(), Error> {
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), pod.namespace());
    for reservation in reservations {
        if !reservation.is_new() {
            let claim = reservation.claim.as_ref().clone();
            written.push(reserve_latest(&api, pod, reservation, claim).await?);
            continue;
        }
        let made = api.create(&PostParams::default(), &extended::fresh(&reservation.claim)).await?;
        // From here on it has to be deleted when anything fails.
        written.push(made.clone());
        let done = reserve_latest(&api, pod, reservation, made).await?;
        let status = json!({"resourceClaimName": done.metadata.name, "requestMappings": reservation.mappings});
        written.pop();
        written.push(done);
        note(client, pod, &status).await?;
    }
    Ok(())
}

/// Writes into the pod's status which claim stands for its extended resources, or that none does.
async fn note(client: &Client, pod: &PodInfo, status: &Value) -> kube::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), pod.namespace());
    let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"extendedResourceClaimStatus": status}});
    pods.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

/// Reserves a claim that others may write too.
async fn reserve_latest(
    api: &Api<ResourceClaim>,
    pod: &PodInfo,
    reservation: &Reservation,
    mut claim: ResourceClaim,
) -> Result<ResourceClaim, Error> {
    let known = claim.clone();
    for _ in 1..ATTEMPTS {
        match reserve_one(api, pod, reservation, claim).await {
            Err(Error::Api(kube::Error::Api(status))) if status.is_conflict() => claim = latest(api, &known).await?,
            other => return other,
        }
    }
    reserve_one(api, pod, reservation, claim).await
}

/// A claim as it is now.
async fn latest(api: &Api<ResourceClaim>, known: &ResourceClaim) -> Result<ResourceClaim, Error> {
    let key = Key::of(known);
    let latest = api.get_opt(&key.name).await?.filter(|latest| latest.metadata.uid == known.metadata.uid);
    latest.ok_or(Error::Gone(key))
}

async fn reserve_one(
    api: &Api<ResourceClaim>,
    pod: &PodInfo,
    reservation: &Reservation,
    mut claim: ResourceClaim,
) -> Result<ResourceClaim, Error> {
    let key = Key::of(&claim);
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(Error::Gone(key));
    }
    match (&reservation.allocation, claims::is_allocated(&claim)) {
        (Some(_), true) => return Err(Error::Allocated(key)),
        (None, false) => return Err(Error::Deallocated(key)),
        _ if claims::is_reserved_for(&claim, pod.uid()) => return Ok(claim),
        _ if claims::consumers(&claim).len() >= claims::MAX_CONSUMERS => return Err(Error::InUse),
        _ => {}
    }
    let is_kept = |claim: &ResourceClaim| claim.metadata.finalizers.iter().flatten().any(|one| one == claims::FINALIZER);
    if reservation.allocation.is_some() && !is_kept(&claim) {
        claim.metadata.finalizers.get_or_insert_default().push(claims::FINALIZER.to_owned());
        claim = api.replace(&key.name, &PostParams::default(), &claim).await?;
    }
    let status = claim.status.get_or_insert_default();
    if let Some(allocation) = &reservation.allocation {
        let at = Timestamp::now();
        let allocation_timestamp = Some(Time(Timestamp::from_second(at.as_second()).unwrap_or(at)));
        status.allocation = Some(AllocationResult { allocation_timestamp, ..allocation.clone() });
    }
    status.reserved_for.get_or_insert_default().push(claims::consumer(pod.name(), pod.uid()));
    Ok(api.replace_status(&key.name, &PostParams::default(), &claim).await?)
}

/// Takes back what [`reserve`] has written, so that what is left in `written` is what there is. A claim that cannot be written keeps its
/// devices until its next pod has ended.
pub(crate) async fn give_back(client: &Client, pod: &PodInfo, reservations: &[Reservation], written: &mut Vec<ResourceClaim>) {
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), pod.namespace());
    let mut left = Vec::new();
    for (claim, reservation) in written.drain(..).zip(reservations) {
        let given = match reservation.is_new() {
            true => discard(client, pod, &claim).await.map(|()| None),
            false => give_back_one(&api, pod, reservation, &claim).await.map(Some),
        };
        left.extend(given.unwrap_or_else(|error| {
            tracing::warn!(pod = %pod.key(), %error, "a claim keeps its devices");
            Some(claim)
        }));
    }
    *written = left;
}

/// Takes the devices of a claim away, which is written whole: it fails if anything has changed since.
pub(crate) async fn deallocate(client: &Client, claim: &ResourceClaim) -> kube::Result<()> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), namespace);
    let mut next = claim.clone();
    free(&mut next);
    api.replace_status(claim.metadata.name.as_deref().unwrap_or_default(), &PostParams::default(), &next).await.map(drop)
}

/// Leaves a claim without devices, and without anybody who uses them.
fn free(claim: &mut ResourceClaim) {
    let status = claim.status.get_or_insert_default();
    (status.allocation, status.devices, status.reserved_for) = (None, None, None);
}

/// Deletes a claim that was made for a pod's extended resources when the pod is not bound with it. Idempotent.
pub(crate) async fn discard(client: &Client, pod: &PodInfo, claim: &ResourceClaim) -> Result<(), Error> {
    // First, for the pod's node must not wait for a claim that is gone. Another pod of this name knows nothing of it.
    fine_without(note(client, pod, &Value::Null).await)?;
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), pod.namespace());
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let patch = json!({"metadata": {"uid": claim.metadata.uid, "$deleteFromPrimitiveList/finalizers": [claims::FINALIZER]}});
    fine_without(api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop))?;
    let same = Preconditions { uid: claim.metadata.uid.clone(), resource_version: None };
    fine_without(api.delete(name, &DeleteParams::default().preconditions(same)).await.map(drop))?;
    Ok(())
}

/// What is gone, or another one of the name, is what was wanted.
fn fine_without(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other,
    }
}

/// Drivers may have written the claim meanwhile.
async fn give_back_one(
    api: &Api<ResourceClaim>,
    pod: &PodInfo,
    reservation: &Reservation,
    claim: &ResourceClaim,
) -> Result<ResourceClaim, Error> {
    let (key, mut next) = (Key::of(claim), claim.clone());
    for attempt in 1.. {
        // Devices that have not become ready are given to nobody as they are.
        let frees = reservation.allocation.is_some() || binding::has_conditions(&next);
        let status = next.status.get_or_insert_default();
        status.reserved_for.get_or_insert_default().retain(|consumer| consumer.uid != pod.uid());
        if frees && status.reserved_for.as_ref().is_none_or(Vec::is_empty) {
            free(&mut next);
        }
        match api.replace_status(&key.name, &PostParams::default(), &next).await {
            Ok(done) => return Ok(done),
            Err(kube::Error::Api(status)) if status.is_conflict() && attempt < ATTEMPTS => next = latest(api, claim).await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Gone(key))
}
