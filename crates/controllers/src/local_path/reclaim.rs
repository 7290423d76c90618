//! Volumes that are no longer used. A finalizer keeps the object of a volume until what is in it is gone, whichever of claim and volume
//! is deleted first and whatever becomes of the server meanwhile (KEP-2644).

use client::Api;
use client::events::Type;
use client::kube;
use client::kube::api::{Patch, PatchParams};
use k8s_openapi::api::core::v1::PersistentVolume;
use pods::volumes;
use serde_json::json;

use super::{LocalPath, ask, home};
use crate::controller::{Cx, Error};
use crate::{meta, write};

/// On volumes that take along what is in them. The name is the one that other provisioners use.
pub(super) const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

/// What to do about a volume of ours.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// It gets the finalizer: made before there was one, or kept until now.
    Hold,
    /// It loses the finalizer, and keeps what is in it.
    Release,
    /// What is in it goes, and then the object.
    Remove,
}

/// `is_claimed`: the claim that it is for has it.
fn plan(volume: &PersistentVolume, is_claimed: bool) -> Step {
    let (held, ends) = (is_held(volume), meta::ends(volume));
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let is_free = phase == Some("Released") || (ends && phase != Some("Bound") && !is_claimed);
    match deletes(volume) {
        true if is_free => Step::Remove,
        true if !held && !ends => Step::Hold,
        false if held => Step::Release,
        _ => Step::Nothing,
    }
}

/// Whether a volume takes what is in it along.
fn deletes(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().is_some_and(|spec| spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete"))
}

fn is_held(volume: &PersistentVolume) -> bool {
    volume.metadata.finalizers.iter().flatten().any(|one| one == FINALIZER)
}

impl LocalPath {
    /// Holds a volume as long as its data is to go with it, and removes both when its claim is gone.
    pub(super) async fn reclaim(&self, cx: &Cx, volume: &PersistentVolume) -> Result<(), Error> {
        let Some(node) = home(volume) else { return Ok(()) };
        let api: Api<PersistentVolume> = Api::all(cx.client.clone());
        match plan(volume, self.is_claimed(volume)) {
            Step::Nothing => Ok(()),
            Step::Hold => set_held(&api, volume, true).await,
            Step::Release => set_held(&api, volume, false).await,
            Step::Remove => {
                // With a node that is gone went what was there.
                if self.has_node(node)
                    && let Err(error) = ask(cx, http::Method::DELETE, node, meta::name(volume)).await
                {
                    cx.events.about(volume, Type::Warning, "VolumeFailedDelete", error.to_string());
                    return Err(error);
                }
                write::delete(&api, volume).await?;
                let left = api.get_opt(meta::name(volume)).await?;
                match left.filter(|left| meta::uid(left) == meta::uid(volume) && is_held(left)) {
                    Some(left) => set_held(&api, &left, false).await,
                    None => Ok(()),
                }
            }
        }
    }

    fn is_claimed(&self, volume: &PersistentVolume) -> bool {
        let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
        let claim = self.claims.get(reference.namespace.as_deref(), reference.name.as_deref().unwrap_or_default());
        claim.is_some_and(|claim| volumes::is_for(volume, &claim) && volumes::volume_of(&claim) == meta::name(volume))
    }
}

/// Gives a volume the finalizer or takes it away, if nobody has changed the volume meanwhile.
async fn set_held(api: &Api<PersistentVolume>, volume: &PersistentVolume, held: bool) -> Result<(), Error> {
    let mut finalizers = volume.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|one| one != FINALIZER);
    finalizers.extend(held.then(|| FINALIZER.to_owned()));
    let meta = json!({"finalizers": finalizers, "uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version});
    match api.patch(meta::name(volume), &PatchParams::default(), &Patch::Merge(json!({"metadata": meta}))).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::object;

    #[test]
    fn what_becomes_of_volumes() {
        let check = |policy: &str, phase: &str, (held, ends, is_claimed): (bool, bool, bool), expected: Step| {
            let finalizers = if held { json!([FINALIZER]) } else { Value::Null };
            let deleted = if ends { json!("2026-01-01T00:00:00Z") } else { Value::Null };
            let volume: PersistentVolume =
                object(json!({"metadata": {"name": "v", "finalizers": finalizers, "deletionTimestamp": deleted},
                    "spec": {"persistentVolumeReclaimPolicy": policy}, "status": {"phase": phase}}));
            assert_eq!(plan(&volume, is_claimed), expected, "{policy} {phase} {held} {ends} {is_claimed}");
        };
        check("Delete", "Bound", (true, false, true), Step::Nothing);
        check("Delete", "Bound", (false, false, true), Step::Hold);
        check("Delete", "Pending", (false, false, false), Step::Hold);
        check("Delete", "Released", (true, false, false), Step::Remove);
        check("Delete", "Released", (false, false, false), Step::Remove);
        // Deleted before its claim: it stays as long as somebody uses it.
        check("Delete", "Bound", (true, true, true), Step::Nothing);
        check("Delete", "Bound", (true, true, false), Step::Nothing);
        check("Delete", "Pending", (true, true, true), Step::Nothing);
        check("Delete", "Available", (true, true, false), Step::Remove);
        check("Delete", "Released", (true, true, false), Step::Remove);
        check("Retain", "Released", (false, false, false), Step::Nothing);
        check("Retain", "Bound", (true, false, true), Step::Release);
        check("Retain", "Released", (true, true, false), Step::Release);
    }
}
