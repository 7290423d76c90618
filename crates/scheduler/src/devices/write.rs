//! Writes the devices of a pod's claims before the pod is bound, and gives them back when it cannot be.

use client::kube::api::PostParams;
use client::kube::{self, Api};
use client::{Client, Key};
use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pods::claims;

use super::{Reservation, binding};
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

/// Reserves claims for a pod, with the devices that were chosen. `written` gets those that have been.
pub(crate) async fn reserve(
    client: &Client,
    pod: &PodInfo,
    reservations: &[Reservation],
    written: &mut Vec<ResourceClaim>,
) -> Result<(), Error> {
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), pod.namespace());
    for reservation in reservations {
        let mut claim = reservation.claim.as_ref().clone();
        let (key, uid) = (Key::of(&claim), claim.metadata.uid.clone());
        for attempt in 1.. {
            match reserve_one(&api, pod, reservation, claim).await {
                Ok(done) => {
                    written.push(done);
                    break;
                }
                Err(Error::Api(kube::Error::Api(status))) if status.is_conflict() && attempt < ATTEMPTS => {
                    let latest = api.get_opt(&key.name).await?;
                    claim = latest.filter(|latest| latest.metadata.uid == uid).ok_or_else(|| Error::Gone(key.clone()))?;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
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

/// Takes back what [`reserve`] has written. A claim that cannot be written keeps its devices until its next pod has ended.
pub(crate) async fn give_back(client: &Client, pod: &PodInfo, reservations: &[Reservation], written: &mut [ResourceClaim]) {
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), pod.namespace());
    for (claim, reservation) in written.iter_mut().zip(reservations) {
        match give_back_one(&api, pod, reservation, claim).await {
            Ok(done) => *claim = done,
            Err(error) => tracing::warn!(pod = %pod.key(), %error, "a claim keeps its devices"),
        }
    }
}

/// Drivers may have written the claim meanwhile.
async fn give_back_one(
    api: &Api<ResourceClaim>,
    pod: &PodInfo,
    reservation: &Reservation,
    claim: &ResourceClaim,
) -> Result<ResourceClaim, Error> {
    let (key, uid) = (Key::of(claim), claim.metadata.uid.clone());
    let mut next = claim.clone();
    for attempt in 1.. {
        // Devices that have not become ready are given to nobody as they are.
        let frees = reservation.allocation.is_some() || binding::has_conditions(&next);
        let status = next.status.get_or_insert_default();
        status.reserved_for.get_or_insert_default().retain(|consumer| consumer.uid != pod.uid());
        if frees && status.reserved_for.as_ref().is_none_or(Vec::is_empty) {
            (status.allocation, status.devices, status.reserved_for) = (None, None, None);
        }
        match api.replace_status(&key.name, &PostParams::default(), &next).await {
            Ok(done) => return Ok(done),
            Err(kube::Error::Api(status)) if status.is_conflict() && attempt < ATTEMPTS => {
                let latest = api.get_opt(&key.name).await?;
                next = latest.filter(|latest| latest.metadata.uid == uid).ok_or_else(|| Error::Gone(key.clone()))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Gone(key))
}
