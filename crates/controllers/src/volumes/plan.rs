//! What becomes of a claim and of a volume. Pure.

use std::sync::Arc;

use client::events::Type;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use pods::volumes::{self, BIND_COMPLETED, PROVISIONED_BY, SELECTED_NODE, Wish};

use crate::meta;

/// Pods that an event names.
const MAX_NAMED: usize = 16;

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Notice {
    pub(super) kind: Type,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Notice {
    fn new(kind: Type, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, reason, message: message.into() }
    }
}

/// What the caches say of a claim.
pub(super) struct Observed<'a> {
    pub(super) claim: &'a PersistentVolumeClaim,
    /// The volumes that it might get.
    pub(super) volumes: Vec<Arc<PersistentVolume>>,
    /// The volume that it names.
    pub(super) named: Option<Arc<PersistentVolume>>,
    pub(super) class: Option<Arc<StorageClass>>,
    /// The class of claims that leave the choice open.
    pub(super) default: Option<String>,
    /// Pods that have the claim and no node yet. They may be many, and few claims ask for them.
    pub(super) unscheduled: &'a (dyn Fn() -> Vec<String> + Sync),
}

/// What becomes of a claim.
#[derive(Debug, PartialEq)]
pub(super) enum ForClaim {
    /// It waits, perhaps with a word about what for.
    Pend(Option<Notice>),
    /// It gets the default class.
    Classify(String),
    /// The provisioner is asked for a volume.
    Ask(String),
    /// It has or gets this volume.
    Bind(Arc<PersistentVolume>),
    /// Its volume is lost.
    Lose(Notice),
}

pub(super) fn for_claim(observed: &Observed<'_>) -> ForClaim {
    if meta::annotation(observed.claim, BIND_COMPLETED).is_some() {
        bound(observed)
    } else if volumes::volume_of(observed.claim).is_empty() {
        unbound(observed)
    } else {
        named(observed)
    }
}

fn bound(observed: &Observed<'_>) -> ForClaim {
    let lost = |reason, message: &str| ForClaim::Lose(Notice::new(Type::Warning, reason, message));
    match &observed.named {
        _ if volumes::volume_of(observed.claim).is_empty() => {
            lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
        }
        None => lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
        Some(volume) if is_free(volume) || volumes::is_for(volume, observed.claim) => ForClaim::Bind(volume.clone()),
        Some(_) => lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly"),
    }
}

fn is_free(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none())
}

fn waits(class: Option<&Arc<StorageClass>>) -> bool {
    class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}

/// What a claim waits for that is bound when its first consumer has a node.
pub(super) fn waiting(unscheduled: &[String]) -> (&'static str, String) {
    match unscheduled {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        pods => {
            let (named, more) = pods.split_at(pods.len().min(MAX_NAMED));
            let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            ("WaitForPodScheduled", format!("waiting for pods {}{more} to be scheduled", named.join(",")))
        }
    }
}

fn unbound(observed: &Observed<'_>) -> ForClaim {
    let waits = waits(observed.class.as_ref());
    let best = Wish::new(observed.claim, waits).best(observed.volumes.iter().map(Arc::as_ref), None);
    if let Some(best) = best
        && let Some(volume) = observed.volumes.iter().find(|volume| std::ptr::eq(volume.as_ref(), best))
    {
        return ForClaim::Bind(volume.clone());
    }
    let pend = |kind, reason, message: String| ForClaim::Pend(Some(Notice::new(kind, reason, message)));
    let (class, default) = (volumes::class_of_claim(observed.claim), &observed.default);
    match (class.unwrap_or_default(), &observed.class) {
        ("", _) => match default.clone().filter(|_| class.is_none()) {
            Some(default) => ForClaim::Classify(default),
            None => {
                let text = "no persistent volumes available for this claim and no storage class is set";
                pend(Type::Normal, "FailedBinding", text.to_owned())
            }
        },
        (name, None) => pend(Type::Warning, "ProvisioningFailed", format!("storageclass.storage.k8s.io {name:?} not found")),
        (_, Some(_)) if waits && meta::annotation(observed.claim, SELECTED_NODE).is_none() => {
            let (reason, message) = waiting(&(observed.unscheduled)());
            pend(Type::Normal, reason, message)
        }
        (_, Some(class)) if class.provisioner == volumes::NO_PROVISIONER => {
            pend(Type::Warning, "ProvisioningFailed", "no volume plugin matched".to_owned())
        }
        (_, Some(class)) => ForClaim::Ask(class.provisioner.clone()),
    }
}

/// Somebody has chosen a volume for the claim.
fn named(observed: &Observed<'_>) -> ForClaim {
    let warn = |reason, message| ForClaim::Pend(Some(Notice::new(Type::Warning, reason, message)));
    match &observed.named {
        None => ForClaim::Pend(None),
        Some(volume) if volumes::is_for(volume, observed.claim) => ForClaim::Bind(volume.clone()),
        Some(volume) if is_free(volume) => match mismatch(observed.claim, volume) {
            None => ForClaim::Bind(volume.clone()),
            Some(why) => {
                warn("VolumeMismatch", format!("Cannot bind to requested volume {:?}: {why}", meta::name(volume.as_ref())))
            }
        },
        Some(volume) => {
            warn("FailedBinding", format!("volume {:?} already bound to a different claim.", meta::name(volume.as_ref())))
        }
    }
}

fn mismatch(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<&'static str> {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    let offered = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    if volumes::capacity(volume) < volumes::requested(claim) {
        Some("requested PV is too small")
    } else if volumes::class_of_volume(volume) != volumes::class_of_claim(claim).unwrap_or_default() {
        Some("storageClassName does not match")
    } else if !volumes::same_mode(claim, volume) {
        Some("incompatible volumeMode")
    } else if !modes.iter().all(|mode| offered.contains(mode)) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// The claim that a volume names.
pub(super) enum OfClaim {
    None,
    There(Arc<PersistentVolumeClaim>),
    Gone,
}

/// What becomes of a volume.
#[derive(Debug, PartialEq)]
pub(super) enum ForVolume {
    Nothing,
    Phase(&'static str),
    /// Nobody can do with it what its reclaim policy says.
    Fail(Notice),
    /// It is free again.
    Unbind,
}

pub(super) fn for_volume(volume: &PersistentVolume, claim: &OfClaim) -> ForVolume {
    let uid = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.uid.as_deref()).unwrap_or_default();
    let own = match claim {
        // Meant for a claim that has not come yet is as free as meant for none.
        _ if uid.is_empty() => return ForVolume::Phase("Available"),
        OfClaim::There(claim) if meta::uid(claim.as_ref()) == uid => Some(claim),
        _ => None,
    };
    let Some(claim) = own else { return released(volume) };
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    match volumes::volume_of(claim) {
        // The look at the claim binds it.
        "" => ForVolume::Nothing,
        name if name == meta::name(volume) => ForVolume::Phase("Bound"),
        _ if meta::annotation(volume, PROVISIONED_BY).is_some() && policy == Some("Delete") => released(volume),
        _ => ForVolume::Unbind,
    }
}

/// A volume without its claim.
fn released(volume: &PersistentVolume) -> ForVolume {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    if !matches!(phase, Some("Released" | "Failed")) {
        return ForVolume::Phase("Released");
    }
    let fail = |reason, message: String| ForVolume::Fail(Notice::new(Type::Warning, reason, message));
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    match policy {
        // Whoever made it removes it.
        Some("Delete") if meta::annotation(volume, PROVISIONED_BY).is_some() => ForVolume::Nothing,
        Some("Delete") => {
            let name = meta::name(volume);
            let text = format!("error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched");
            fail("VolumeFailedDelete", text)
        }
        // Upstream recycles hostPath and NFS volumes by a pod of an image of its own, which removes what is there: deprecated since v1.11.
        Some("Recycle") => {
            let text = "volumes are not recycled here: what it holds is kept until the volume is deleted; instead, let volumes be provisioned";
            fail("VolumeFailedRecycle", text.to_owned())
        }
        _ => ForVolume::Nothing,
    }
}
