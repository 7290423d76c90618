//! File systems that grow while they are used: the volume has become larger, and the claim does not say so yet.

use client::Api;
use client::events::Type;
use csi::messages::{CapacityRange, NodeExpandVolumeRequest};
use grpc::Code;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Resource;
use kube::api::{Patch, PatchParams};
use pods::volumes as rules;
use serde_json::{Value, json};

use super::records;
use super::source::Source;
use crate::context::Context;
use crate::spec::Model;

/// The reason of events of file systems that stay as they are.
const FAILED: &str = "FileSystemResizeFailed";
/// The code with which a driver says that a volume cannot grow as long as it is used.
const FAILED_PRECONDITION: Code = Code::Other(9);

/// Conditions of a claim that end with its growth.
const PENDING: [&str; 2] = ["FileSystemResizePending", "Resizing"];

/// Why a file system does not grow here, which keeps nobody from using it as it is: it is only read, or it cannot grow while it is used
/// (CSI specification, NodeExpandVolume). None for other errors of drivers.
fn obstacle(read_only: bool, error: Option<&grpc::Error>) -> Option<String> {
    if read_only {
        return Some("requested read-only file system".to_owned());
    }
    error.filter(|error| error.code == FAILED_PRECONDITION).map(|error| format!(": {error}"))
}

/// The size that the file system shall have, bytes; none when it has it.
fn wanted(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<i64> {
    let told = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage").cloned());
    let told = told.map(|amount| crate::units::whole(&amount))?;
    Some(rules::capacity(volume)).filter(|capacity| *capacity > told)
}

/// What the claim says afterwards.
fn status(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Value {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage").cloned());
    let conditions = claim.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let left: Vec<_> = conditions.into_iter().filter(|condition| !PENDING.contains(&condition.type_.as_str())).collect();
    json!({"status": {
        "capacity": {"storage": capacity},
        "conditions": left,
        "allocatedResourceStatuses": {"storage": null},
    }})
}

/// Lets the file system of a volume grow that a pod has, if it has to, and says so. False when it cannot grow here, which keeps nobody from
/// using it: there is no use in trying again.
///
/// # Errors
/// The driver failed, which it may not the next time.
pub async fn expand(
    cx: &Context,
    model: &Model,
    source: &Source,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Result<bool, String> {
    let Some(bytes) = wanted(claim, volume) else { return Ok(true) };
    let stays = |why: String| {
        let message = format!("MountVolume.NodeExpandVolume failed for volume {:?} {why}", source.name);
        cx.pod_event(model, Type::Warning, FAILED, message.as_str());
        cx.recorder.event(&claim.object_ref(&()), Type::Warning, FAILED, message);
        Ok(false)
    };
    if let Some(why) = obstacle(source.read_only, None) {
        return stays(why);
    }
    let target = records::target(&cx.pod_dir(model.uid()), &source.name);
    let staging = records::staging(&cx.options.data_dir, &source.driver, &source.handle);
    let staged = tokio::fs::try_exists(&staging).await.unwrap_or(false);
    let request = NodeExpandVolumeRequest {
        volume_id: source.handle.clone(),
        volume_path: target.display().to_string(),
        capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
        staging_target_path: if staged { staging.display().to_string() } else { String::new() },
        volume_capability: Some(source.capability(false, None)),
        secrets: super::mount::secrets(cx, source.expand_secret.as_ref()).await?,
    };
    let _one = cx.drivers.lock(staging).await;
    let driver = cx.drivers.find(&source.driver)?;
    if let Err(error) = driver.expand(&request).await {
        if let Some(why) = obstacle(false, Some(&error)) {
            return stays(why);
        }
        let message = format!("NodeExpandVolume.NodeExpandVolume failed for volume {:?} : {error}", source.name);
        cx.pod_event(model, Type::Warning, "VolumeResizeFailed", message.as_str());
        return Err(message);
    }
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let claims = Api::<PersistentVolumeClaim>::namespaced(cx.options.client.clone(), model.namespace());
    let patch = Patch::Merge(status(claim, volume));
    claims.patch_status(name, &PatchParams::default(), &patch).await.map_err(|error| client::why(&error))?;
    let message = format!("MountVolume.NodeExpandVolume succeeded for volume {:?}", source.name);
    cx.pod_event(model, Type::Normal, "FileSystemResizeSuccessful", message);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_grow_is_used_as_it_is() {
        let error = |code: i32| grpc::Error { code: Code::Other(code), message: "in use".to_owned() };
        assert_eq!(obstacle(true, None).as_deref(), Some("requested read-only file system"));
        assert_eq!(obstacle(false, None), None);
        let in_use = "rpc error: code = FailedPrecondition desc = in use";
        assert_eq!(obstacle(false, Some(&error(9))), Some(format!(": {in_use}")));
        assert_eq!(obstacle(false, Some(&error(13))), None);
    }

    #[test]
    fn growth() {
        let volume = |size: &str| serde_json::from_value(json!({"spec": {"capacity": {"storage": size}}})).unwrap();
        let claim = |status: Value| -> PersistentVolumeClaim { serde_json::from_value(json!({"status": status})).unwrap() };
        let told = |size: &str| claim(json!({"capacity": {"storage": size}}));
        assert_eq!(wanted(&told("1Gi"), &volume("2Gi")), Some(2 << 30));
        assert_eq!(wanted(&told("2Gi"), &volume("2Gi")), None);
        assert_eq!(wanted(&told("3Gi"), &volume("2Gi")), None);
        assert_eq!(wanted(&claim(json!({})), &volume("2Gi")), None, "it is not bound yet");
        let conditions = json!([{"type": "FileSystemResizePending", "status": "True"}, {"type": "Other", "status": "True"}]);
        let after = status(&claim(json!({"conditions": conditions})), &volume("2Gi"));
        assert_eq!(after["status"]["capacity"]["storage"], "2Gi");
        assert_eq!(after["status"]["conditions"], json!([{"type": "Other", "status": "True"}]));
    }
}
