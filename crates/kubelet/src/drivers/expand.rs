//! File systems that grow while they are used: the volume has become larger, and the claim does not say so yet.

use client::Api;
use client::events::Type;
use csi::messages::{CapacityRange, NodeExpandVolumeRequest};
use grpc::Code;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition};
use kube::Resource;
use kube::api::{Patch, PatchParams};
use pods::volumes as rules;
use serde_json::{Value, json};

use super::records;
use super::source::Source;
use crate::context::Context;
use crate::pod::conditions::seconds;
use crate::spec::Model;

/// The reason of events of file systems that stay as they are.
const FAILED: &str = "FileSystemResizeFailed";
/// The code with which a driver says that a volume cannot grow as long as it is used.
const FAILED_PRECONDITION: Code = Code::Other(9);

/// The code with which a driver says that it cannot make a volume as large.
const OUT_OF_RANGE: Code = Code::Other(11);

/// Conditions of a claim that end with its growth.
const ENDING: [&str; 4] = ["FileSystemResizePending", "Resizing", "ControllerResizeError", ERROR];
/// The condition of a claim whose volume could not grow on a node.
const ERROR: &str = "NodeResizeError";

/// Growth on a node, in a claim's `allocatedResourceStatuses` (KEP-1790).
const IN_PROGRESS: &str = "NodeResizeInProgress";
const PENDING: &str = "NodeResizePending";
const INFEASIBLE: &str = "NodeResizeInfeasible";

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

/// What is said of the growth of a claim's volume.
fn state(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.allocated_resource_statuses.as_ref()?.get("storage").map(String::as_str)
}

/// Whether it is the node's turn. Infeasible growth is not tried again before the controller, which hears of another size, says so. Older
/// controllers say nothing at all.
fn is_due(claim: &PersistentVolumeClaim) -> bool {
    match state(claim) {
        Some(state) => matches!(state, PENDING | IN_PROGRESS),
        None => {
            let status = claim.status.as_ref();
            status.and_then(|status| status.allocated_resources.as_ref()).is_none_or(|sizes| !sizes.contains_key("storage"))
        }
    }
}

fn conditions(claim: &PersistentVolumeClaim) -> Vec<PersistentVolumeClaimCondition> {
    claim.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default()
}

/// What the claim says afterwards.
fn grown(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Value {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage").cloned());
    let left: Vec<_> = conditions(claim).into_iter().filter(|condition| !ENDING.contains(&condition.type_.as_str())).collect();
    json!({"status": {
        "capacity": {"storage": capacity},
        "conditions": left,
        "allocatedResourceStatuses": {"storage": null},
    }})
}

/// What the claim says of a driver's error (KEP-1790). None while it is not known whether the volume has grown.
fn failed(claim: &PersistentVolumeClaim, error: &grpc::Error, now: Timestamp) -> Option<Value> {
    if error.code.is_uncertain() {
        return None;
    }
    let mut conditions = conditions(claim);
    if !conditions.iter().any(|condition| condition.type_ == ERROR && condition.status == "True") {
        conditions.retain(|condition| condition.type_ != ERROR);
        conditions.push(PersistentVolumeClaimCondition {
            type_: ERROR.to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(seconds(now)),
            message: Some(format!("failed to expand pvc with Expander.NodeExpand failed to expand the volume: {error}")),
            ..PersistentVolumeClaimCondition::default()
        });
    }
    let mut status = json!({"conditions": conditions});
    if matches!(error.code, Code::InvalidArgument | Code::NotFound | OUT_OF_RANGE) {
        status["allocatedResourceStatuses"] = json!({"storage": INFEASIBLE});
    }
    Some(json!({"status": status}))
}

async fn say(cx: &Context, model: &Model, claim: &PersistentVolumeClaim, status: Value) -> Result<(), String> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let claims = Api::<PersistentVolumeClaim>::namespaced(cx.options.client.clone(), model.namespace());
    let said = claims.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
    said.map(drop).map_err(|error| client::why(&error))
}

async fn request(cx: &Context, model: &Model, source: &Source, bytes: i64) -> Result<NodeExpandVolumeRequest, String> {
    let target = records::target(&cx.pod_dir(model.uid()), &source.name);
    let staging = records::staging(&cx.options.data_dir, &source.driver, &source.handle);
    let staged = tokio::fs::try_exists(&staging).await.unwrap_or(false);
    Ok(NodeExpandVolumeRequest {
        volume_id: source.handle.clone(),
        volume_path: target.display().to_string(),
        capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
        staging_target_path: if staged { staging.display().to_string() } else { String::new() },
        volume_capability: Some(source.capability(false, None)),
        secrets: super::mount::secrets(cx, source.expand_secret.as_ref()).await?,
    })
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
    let Some(bytes) = wanted(claim, volume).filter(|_| is_due(claim)) else { return Ok(true) };
    let stays = |why: String| {
        let message = format!("MountVolume.NodeExpandVolume failed for volume {:?} {why}", source.name);
        cx.pod_event(model, Type::Warning, FAILED, message.as_str());
        cx.recorder.event(&claim.object_ref(&()), Type::Warning, FAILED, message);
        Ok(false)
    };
    if let Some(why) = obstacle(source.read_only, None) {
        return stays(why);
    }
    let request = request(cx, model, source, bytes).await?;
    let _one = cx.drivers.lock(records::staging(&cx.options.data_dir, &source.driver, &source.handle)).await;
    let driver = cx.drivers.find(&source.driver)?;
    if state(claim) == Some(PENDING) {
        let begun = say(cx, model, claim, json!({"status": {"allocatedResourceStatuses": {"storage": IN_PROGRESS}}})).await;
        begun.map_err(|why| format!("MountVolume.NodeExpandVolume failed to mark node expansion in progress: {why}"))?;
    }
    if let Err(error) = driver.expand(&request).await {
        if let Some(status) = failed(claim, &error, Timestamp::now())
            && let Err(why) = say(cx, model, claim, status).await
        {
            tracing::warn!(volume = source.name, why, "the claim does not say that its volume could not grow");
        }
        if let Some(why) = obstacle(false, Some(&error)) {
            return stays(why);
        }
        let message = format!("NodeExpandVolume.NodeExpandVolume failed for volume {:?} : {error}", source.name);
        cx.pod_event(model, Type::Warning, "VolumeResizeFailed", message.as_str());
        return Err(message);
    }
    say(cx, model, claim, grown(claim, volume)).await?;
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

    fn said(status: Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"status": status})).unwrap()
    }

    /// KEP-1790: what the claim calls infeasible is not tried again by the node.
    #[test]
    fn infeasible_growth_waits_for_the_controller() {
        let check = |status: Value, expected: bool| assert_eq!(is_due(&said(status.clone())), expected, "{status}");
        check(json!({}), true);
        check(json!({"allocatedResources": {"storage": "2Gi"}}), false);
        let states =
            [PENDING, IN_PROGRESS, INFEASIBLE, "NodeResizeFailed", "ControllerResizeInProgress", "ControllerResizeInfeasible"];
        for state in states {
            let status = json!({"allocatedResources": {"storage": "2Gi"}, "allocatedResourceStatuses": {"storage": state}});
            check(status, [PENDING, IN_PROGRESS].contains(&state));
        }
    }

    #[test]
    fn errors_of_drivers_are_told_by_the_claim() {
        let error = |code: Code| grpc::Error { code, message: "no".to_owned() };
        let told = |claim: Value, code: Code| failed(&said(claim), &error(code), Timestamp::UNIX_EPOCH);
        for code in [Code::InvalidArgument, Code::NotFound, Code::Other(11)] {
            let status = told(json!({}), code).unwrap();
            assert_eq!(status["status"]["allocatedResourceStatuses"]["storage"], INFEASIBLE);
            assert_eq!(status["status"]["conditions"][0]["type"], ERROR);
        }
        for code in [Code::Other(13), FAILED_PRECONDITION] {
            let status = told(json!({"conditions": [{"type": "Other", "status": "True"}]}), code).unwrap();
            assert_eq!(status["status"].get("allocatedResourceStatuses"), None, "it is tried again");
            assert_eq!(status["status"]["conditions"][0]["type"], "Other");
            let message = status["status"]["conditions"][1]["message"].as_str().unwrap();
            assert!(
                message.starts_with("failed to expand pvc with Expander.NodeExpand failed to expand the volume: rpc error"),
                "{message}"
            );
        }
        assert_eq!(told(json!({}), Code::Unavailable), None, "it may have grown");
        let before = json!({"conditions": [{"type": ERROR, "status": "True", "message": "first"}]});
        assert_eq!(told(before, Code::Other(13)).unwrap()["status"]["conditions"][0]["message"], "first");
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
        let conditions = json!([{"type": "FileSystemResizePending", "status": "True"}, {"type": "NodeResizeError", "status": "True"}, {"type": "Other", "status": "True"}]);
        let after = grown(&claim(json!({"conditions": conditions})), &volume("2Gi"));
        assert_eq!(after["status"]["capacity"]["storage"], "2Gi");
        assert_eq!(after["status"]["conditions"], json!([{"type": "Other", "status": "True"}]));
    }
}
