//! Events of upstream's controllers: who watches for a reason finds it here too.
//!
//! This is an inventory: it says that a controller has the text of each reason somewhere, so that none is forgotten or mistyped. When an event
//! is told is for the tests of its controller.

use std::path::Path;

/// Reasons by what they are about. Those of parts of words (`SuccessfulCreate` of `tell`) stand where they are whole.
const REASONS: &[(&str, &[&str])] = &[
    (
        "PersistentVolumeClaim, PersistentVolume",
        &[
            "ClaimLost",
            "ClaimMisbound",
            "ExternalExpanding",
            "ExternalProvisioning",
            "FailedBinding",
            "ProvisioningFailed",
            "ProvisioningSucceeded",
            "VolumeFailedDelete",
            "VolumeFailedRecycle",
            "VolumeMismatch",
            "WaitForFirstConsumer",
            "WaitForPodScheduled",
        ],
    ),
    ("StatefulSet", &["FailedCreate", "RecreatingFailedPod", "RecreatingTerminatedPod", "SuccessfulCreate"]),
    ("Job", &["Completed", "Resumed", "SuccessfulDelete", "Suspended", "TooManySucceededPods"]),
    (
        "CronJob",
        &[
            "FailedGet",
            "InvalidSchedule",
            "JobAlreadyActive",
            "MissSchedule",
            "MissingJob",
            "SawCompletedJob",
            "TooManyMissedTimes",
            "UnexpectedJob",
            "UnknownTimeZone",
            "UnparseableSchedule",
        ],
    ),
    ("DaemonSet", &["FailedDaemonPod", "SelectingAll", "SucceededDaemonPod"]),
    ("Deployment", &["ReplicaSetCreateError", "ScalingReplicaSet"]),
    ("HorizontalPodAutoscaler", &["FailedComputeMetricsReplicas", "FailedGetScale", "FailedRescale", "SuccessfulRescale"]),
    ("PodDisruptionBudget", &["CalculateExpectedPodCountFailed", "NoPods", "NotDeleted", "UnmanagedPods"]),
    ("Pod", &["MultiplePodDisruptionBudgets"]),
    (
        "Node, Pod",
        &[
            "CIDRAssignmentFailed",
            "CIDRNotAvailable",
            "FailedAttachVolume",
            "NodeNotReady",
            "RegisteredNode",
            "RemovingNode",
            "SuccessfulAttachVolume",
            "TaintManagerEviction",
        ],
    ),
    ("any object", &["FailedResourceClaimCreation", "OwnerRefInvalidNamespace"]),
];

/// The text of all files but tests and this one.
fn sources(directory: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            text += &sources(&path);
        } else if name != "tests.rs" && name != "reasons.rs" {
            let file = std::fs::read_to_string(&path).unwrap_or_default();
            text += file.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        }
    }
    text
}

#[test]
fn events_have_the_reasons_of_upstream() {
    let text = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    for (about, reasons) in REASONS {
        for reason in *reasons {
            assert!(text.contains(&format!("\"{reason}\"")), "no event of {about} has the reason {reason}");
        }
    }
}
