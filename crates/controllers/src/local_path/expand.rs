//! Claims that grow. A directory has as much room as its file system, whatever its volume says: growing changes what volume and claim
//! say, and nothing in the directory.

use client::Api;
use client::events::Type;
use client::kube::api::{Patch, PatchParams};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pods::volumes;
use serde_json::json;

use super::{LocalPath, home};
use crate::controller::{Cx, Error};
use crate::meta;

/// What has to say the new size.
struct Growth {
    size: Quantity,
    volume: bool,
}

/// What a claim has to get, if its volume is ours and it asks for more than it has.
fn growth(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Growth> {
    let is_ours = home(volume).is_some() && volumes::is_for(volume, claim) && volumes::is_usable(claim) && !meta::ends(claim);
    let requested = volumes::requested(claim);
    if !is_ours || volumes::held(claim) >= requested {
        return None;
    }
    let resources = claim.spec.as_ref()?.resources.as_ref()?;
    let size = resources.requests.as_ref()?.get("storage")?.clone();
    Some(Growth { size, volume: volumes::capacity(volume) < requested })
}

impl LocalPath {
    /// Gives a claim that grew what it asks for.
    pub(super) async fn expand(&self, cx: &Cx, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let Some(volume) = self.volumes.get(None, volumes::volume_of(claim)) else { return Ok(()) };
        let Some(Growth { size, volume: grows }) = growth(claim, &volume) else { return Ok(()) };
        let capacity = json!({"capacity": {"storage": size}});
        let params = PatchParams::default();
        if grows {
            let api: Api<PersistentVolume> = Api::all(cx.client.clone());
            api.patch(meta::name(volume.as_ref()), &params, &Patch::Merge(json!({"spec": capacity}))).await?;
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(cx.client.clone(), meta::namespace(claim));
        api.patch_status(meta::name(claim), &params, &Patch::Merge(json!({"status": capacity}))).await?;
        let message = format!("Resize volume succeeded: {}; its capacity is not enforced", size.0);
        cx.events.about(claim, Type::Normal, "VolumeResizeSuccessful", message);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::{NODE, PROVISIONER};
    use super::*;
    use crate::testing::object;
    use pods::volumes::{BIND_COMPLETED, PROVISIONED_BY};

    #[test]
    fn claims_grow_whose_volume_is_ours() {
        let claim = |requested: &str, has: &str, phase: &str| -> PersistentVolumeClaim {
            object(json!({"metadata": {"namespace": "a", "name": "data", "uid": "u", "annotations": {BIND_COMPLETED: "yes"}},
                "spec": {"volumeName": "v", "resources": {"requests": {"storage": requested}}},
                "status": {"phase": phase, "capacity": {"storage": has}}}))
        };
        let volume = |capacity: &str, provisioner: &str, uid: &str| -> PersistentVolume {
            object(json!({"metadata": {"name": "v", "annotations": {PROVISIONED_BY: provisioner, NODE: "n"}},
                "spec": {"local": {"path": "/data/v"}, "capacity": {"storage": capacity},
                    "claimRef": {"namespace": "a", "name": "data", "uid": uid}}}))
        };
        let check = |claim: &PersistentVolumeClaim, volume: &PersistentVolume, expected: Value| {
            let found = growth(claim, volume).map(|growth| json!([growth.size, growth.volume]));
            assert_eq!(found.unwrap_or(Value::Null), expected);
        };
        let ours = volume("1Gi", PROVISIONER, "u");
        check(&claim("2Gi", "1Gi", "Bound"), &ours, json!(["2Gi", true]));
        check(&claim("2Gi", "1Gi", "Bound"), &volume("2Gi", PROVISIONER, "u"), json!(["2Gi", false]));
        check(&claim("1024Mi", "1Gi", "Bound"), &ours, Value::Null);
        check(&claim("2Gi", "1Gi", "Lost"), &ours, Value::Null);
        check(&claim("2Gi", "1Gi", "Bound"), &volume("1Gi", "other", "u"), Value::Null);
        check(&claim("2Gi", "1Gi", "Bound"), &volume("1Gi", PROVISIONER, "another"), Value::Null);
    }
}
