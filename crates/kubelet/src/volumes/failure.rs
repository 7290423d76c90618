//! Why a volume cannot be had, and what its pod is told: rendered here alone, in upstream's words (`operation_generator.go`).

use super::used;
use crate::spec::Model;

/// The reason of events about volumes, and about devices.
pub const MOUNT: &str = "FailedMount";
const MAP: &str = "FailedMapVolume";

/// A step on the way to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is checked whether this node may use it.
    Affinity,
    /// Its mount options are checked.
    Options,
    /// What is at its path is looked at.
    Look,
    /// It is attached to the node.
    Attach,
    /// It is made ready for all pods of the node.
    Stage,
    /// It is shown to the pod.
    SetUp,
}

/// Why a volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What the pod claims is not there, or is not what the pod takes it for: there is no volume to wait for.
    #[error("{0}")]
    Claim(String),
    /// A step on the way to it fails.
    #[error("{why}")]
    Step {
        /// The step.
        step: Step,
        /// The cause.
        why: String,
        /// The name of its specification: that of the PersistentVolume. None is the pod's own volume.
        name: Option<String>,
    },
}

/// The last step is the usual one.
impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::at(Step::SetUp, why)
    }
}

/// What the pod is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The reason of the event.
    pub reason: &'static str,
    /// Its message.
    pub message: String,
}

impl Failure {
    /// Of a step.
    pub fn at(step: Step, why: impl Into<String>) -> Self {
        Self::Step { step, why: why.into(), name: None }
    }

    /// The same, of a PersistentVolume.
    pub fn of(self, volume: &str) -> Self {
        match self {
            Self::Step { step, why, name: None } => Self::Step { step, why, name: Some(volume.to_owned()) },
            other => other,
        }
    }

    /// What the pod is told of its volume.
    pub fn told(self, model: &Model, volume: &str) -> Told {
        let (step, why, name) = match self {
            Self::Claim(why) => return Told { reason: MOUNT, message: unusable(volume, &why) },
            Self::Step { step, why, name } => (step, why, name),
        };
        let is_device = used::is_device(model, volume);
        let words = match (step, is_device) {
            (Step::Affinity, false) => "MountVolume.NodeAffinity check failed",
            (Step::Affinity, true) => "MapVolume.NodeAffinity check failed",
            (Step::Options, _) => "MountVolume.MountOptionSupport check failed",
            (Step::Look, false) => "MountVolume.NewMounter initialization failed",
            (Step::Look, true) => "MapVolume.NewBlockVolumeMapper initialization failed",
            (Step::Attach, false) => "MountVolume.WaitForAttach failed",
            (Step::Attach, true) => "MapVolume.WaitForAttach failed",
            (Step::Stage, false) => "MountVolume.MountDevice failed",
            (Step::Stage, true) => "MapVolume.SetUpDevice failed",
            (Step::SetUp, false) => "MountVolume.SetUp failed",
            (Step::SetUp, true) => "MapVolume.MapPodDevice failed",
        };
        // Upstream calls also the check of a device so.
        let reason = if is_device && step != Step::Affinity { MAP } else { MOUNT };
        Told { reason, message: format!("{words} for volume {:?} : {why}", name.as_deref().unwrap_or(volume)) }
    }
}

/// What an event says of a claim that cannot be used: upstream's volume manager has no such volume to wait for.
fn unusable(volume: &str, error: &str) -> String {
    format!(
        "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process volumes=[{volume}]: {error}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::model;
    use serde_json::json;

    /// Upstream's `GenerateMountVolumeFunc` and `GenerateMapVolumeFunc`, and `GenerateMsg` of volumes.
    #[test]
    fn what_pods_are_told() {
        let model = model(json!({
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "x"}}, {"name": "m", "persistentVolumeClaim": {"claimName": "y"}}],
            "containers": [{"name": "a", "volumeMounts": [{"name": "m", "mountPath": "/m"}]},
                {"name": "b", "volumeDevices": [{"name": "d", "devicePath": "/dev/x"}]}]}));
        let check = |volume: &str, failure: Failure, reason: &'static str, message: &str| {
            assert_eq!(failure.told(&model, volume), Told { reason, message: message.to_owned() });
        };
        let at = |step: Step| Failure::at(step, "why").of("pvc-1");
        check("m", "why".to_owned().into(), "FailedMount", "MountVolume.SetUp failed for volume \"m\" : why");
        check("m", at(Step::SetUp), "FailedMount", "MountVolume.SetUp failed for volume \"pvc-1\" : why");
        check("d", at(Step::SetUp), "FailedMapVolume", "MapVolume.MapPodDevice failed for volume \"pvc-1\" : why");
        check("m", at(Step::Stage), "FailedMount", "MountVolume.MountDevice failed for volume \"pvc-1\" : why");
        check("d", at(Step::Stage), "FailedMapVolume", "MapVolume.SetUpDevice failed for volume \"pvc-1\" : why");
        check("m", at(Step::Attach), "FailedMount", "MountVolume.WaitForAttach failed for volume \"pvc-1\" : why");
        check("d", at(Step::Attach), "FailedMapVolume", "MapVolume.WaitForAttach failed for volume \"pvc-1\" : why");
        check("m", at(Step::Look), "FailedMount", "MountVolume.NewMounter initialization failed for volume \"pvc-1\" : why");
        let mapper = "MapVolume.NewBlockVolumeMapper initialization failed for volume \"pvc-1\" : why";
        check("d", at(Step::Look), "FailedMapVolume", mapper);
        check("m", at(Step::Affinity), "FailedMount", "MountVolume.NodeAffinity check failed for volume \"pvc-1\" : why");
        check("d", at(Step::Affinity), "FailedMount", "MapVolume.NodeAffinity check failed for volume \"pvc-1\" : why");
        check("m", at(Step::Options), "FailedMount", "MountVolume.MountOptionSupport check failed for volume \"pvc-1\" : why");
        let claim =
            "Unable to attach or mount volumes: unmounted volumes=[d], unattached volumes=[], failed to process volumes=[d]: why";
        check("d", Failure::Claim("why".to_owned()).of("pvc-1"), "FailedMount", claim);
    }
}
