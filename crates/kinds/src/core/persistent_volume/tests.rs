//! A table per theme.

use k8s_openapi::api::core::v1::PersistentVolume;
use serde_json::{Value, json};

use crate::testing::{check, check_row, check_update, check_warnings, defaulted, with};
use crate::typed::Kind;

fn volume(spec: Value) -> Value {
    let base = json!({"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}});
    json!({"metadata": {"name": "v", "creationTimestamp": "1970-01-01T00:00:00Z"}, "spec": with(&base, spec)})
}

/// A volume of another source.
fn of(source: Value) -> Value {
    volume(with(&json!({"hostPath": null}), source))
}

#[test]
fn defaults() {
    let spec = &defaulted::<PersistentVolume>(volume(json!({})))["spec"];
    assert_eq!((&spec["persistentVolumeReclaimPolicy"], &spec["volumeMode"]), (&json!("Retain"), &json!("Filesystem")));
    assert_eq!(spec["hostPath"], json!({"path": "/data", "type": ""}));
    assert_eq!(defaulted::<PersistentVolume>(of(json!({"iscsi": {}})))["spec"]["iscsi"], json!({"iscsiInterface": "default"}));
    let mut created = volume(json!({}));
    PersistentVolume::prepare_create(&mut created);
    assert_eq!(created["status"], json!({"phase": "Pending", "lastPhaseTransitionTime": "1970-01-01T00:00:00Z"}));
}

/// KEP-3762: "lastPhaseTransitionTime is the time the phase transitioned from one to another and automatically resets to current time
/// everytime a volume phase transitions".
#[test]
fn a_new_phase_has_a_time() {
    let at =
        |phase: &str, time: &str| with(&volume(json!({})), json!({"status": {"phase": phase, "lastPhaseTransitionTime": time}}));
    let old = at("Pending", "2026-01-01T00:00:00Z");
    let time = |mut new: Value| {
        PersistentVolume::prepare_status(&mut new, &old);
        new["status"]["lastPhaseTransitionTime"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(time(at("Pending", "2026-01-01T00:00:00Z")), "2026-01-01T00:00:00Z");
    assert_eq!(time(at("Bound", "2026-01-02T00:00:00Z")), "2026-01-02T00:00:00Z");
    assert!(time(at("Bound", "2026-01-01T00:00:00Z")).as_str() > "2026-01-02");
}

#[test]
fn common_fields() {
    check::<PersistentVolume>(volume(json!({})), &[]);
    check::<PersistentVolume>(
        volume(json!({"capacity": null, "accessModes": null, "hostPath": null})),
        &[
            "spec.accessModes: Required value",
            "spec.capacity: Required value",
            "spec.capacity: Unsupported value: null: supported values: \"storage\"",
            "spec: Required value: must specify a volume type",
        ],
    );
    check::<PersistentVolume>(
        volume(json!({"capacity": {"storage": "-1", "cpu": "1"}})),
        &[
            "spec.capacity: Unsupported value: {\"cpu\":\"1\",\"storage\":\"-1\"}: supported values: \"storage\"",
            "spec.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
            "spec.capacity[storage]: Invalid value: \"-1\": must be greater than zero",
        ],
    );
    let modes = "\"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"";
    check::<PersistentVolume>(
        volume(json!({"accessModes": ["Some", "ReadWriteOncePod", "ReadWriteOnce"]})),
        &[
            &format!("spec.accessModes: Unsupported value: \"Some\": supported values: {modes}"),
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
        ],
    );
    check::<PersistentVolume>(
        volume(json!({"persistentVolumeReclaimPolicy": "Never", "volumeMode": "Fake"})),
        &[
            "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Never\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
            "spec.volumeMode: Unsupported value: \"Fake\": supported values: \"Block\", \"Filesystem\"",
        ],
    );
    check::<PersistentVolume>(
        volume(json!({"persistentVolumeReclaimPolicy": "Recycle", "hostPath": {"path": "/a/.."}})),
        &["spec.hostPath.path: Invalid value: \"/a/..\": must not contain '..'"],
    );
    check::<PersistentVolume>(
        volume(json!({"persistentVolumeReclaimPolicy": "Recycle", "hostPath": {"path": "//"}})),
        &["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"],
    );
    check::<PersistentVolume>(
        volume(json!({"volumeAttributesClassName": ""})),
        &[
            "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
            "spec.csi: Required value: has to be specified when using volumeAttributesClassName",
        ],
    );
    check::<PersistentVolume>(
        volume(json!({"nodeAffinity": {}})),
        &["spec.nodeAffinity.required: Required value: must specify required node constraints"],
    );
}

#[test]
fn sources() {
    let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}});
    check::<PersistentVolume>(of(json!({"local": {"path": "/disk"}, "nodeAffinity": affinity})), &[]);
    check::<PersistentVolume>(
        of(json!({"local": {"path": "/a/../b"}})),
        &[
            "spec.local.path: Invalid value: \"/a/../b\": must not contain '..'",
            "spec.nodeAffinity: Required value: Local volume requires node affinity",
        ],
    );
    check::<PersistentVolume>(
        volume(json!({"nfs": {"server": "s", "path": "/"}})),
        &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
    );
    check::<PersistentVolume>(
        of(json!({"csi": {"driver": "d.example", "volumeHandle": "h", "nodePublishSecretRef": {"name": "s", "namespace": "n"}}})),
        &[],
    );
    check::<PersistentVolume>(
        of(json!({"csi": {"driver": "", "volumeHandle": "", "controllerExpandSecretRef": {}}})),
        &[
            "spec.csi.driver: Required value",
            "spec.csi.driver: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.csi.volumeHandle: Required value",
            "spec.csi.controllerExpandSecretRef.name: Required value",
            "spec.csi.controllerExpandSecretRef.namespace: Required value",
        ],
    );
    check::<PersistentVolume>(of(json!({"gcePersistentDisk": {"pdName": ""}})), &["spec.persistentDisk.pdName: Required value"]);
    check::<PersistentVolume>(
        of(json!({"glusterfs": {"endpoints": "e", "path": "p", "endpointsNamespace": ""}})),
        &[
            "spec.glusterfs.endpointsNamespace: Invalid value: \"\": if the endpointnamespace is set, it must be a valid namespace name",
        ],
    );
    check::<PersistentVolume>(
        of(json!({"azureFile": {"secretName": "", "shareName": "s", "secretNamespace": ""}})),
        &["spec.azureFile.secretName: Required value", "spec.azureFile.secretNamespace: Required value"],
    );
    check::<PersistentVolume>(
        of(json!({"cinder": {"volumeID": "v", "secretRef": {"name": "s"}}})),
        &["spec.cinder.secretRef.namespace: Required value"],
    );
    check::<PersistentVolume>(
        of(
            json!({"iscsi": {"targetPortal": "127.0.0.1", "iqn": "iqn.2015-02.example.com:test", "lun": 0, "chapAuthSession": true, "secretRef": {}}}),
        ),
        &["spec.iscsi.secretRef.name: Required value"],
    );
}

#[test]
fn updates() {
    let check = |old: Value, new: Value, expected: &[&str]| check_update::<PersistentVolume>(old, new, expected);
    check(
        volume(json!({})),
        volume(json!({"capacity": {"storage": "20Gi"}, "claimRef": {"name": "c"}, "persistentVolumeReclaimPolicy": "Delete"})),
        &[],
    );
    check(
        volume(json!({})),
        volume(json!({"hostPath": {"path": "/other"}})),
        &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
    );
    check(
        volume(json!({})),
        volume(json!({"volumeMode": "Block"})),
        &["volumeMode: Invalid value: \"Block\": field is immutable"],
    );
    let csi = |more: Value| of(json!({"csi": with(&json!({"driver": "d", "volumeHandle": "h"}), more)}));
    let secret = json!({"controllerExpandSecretRef": {"name": "s", "namespace": "n"}});
    check(csi(json!({})), csi(secret.clone()), &[]);
    check(
        csi(secret),
        csi(json!({})),
        &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
    );
    let affinity = |key: &str| json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "Exists"}]}]}}});
    check(volume(json!({})), volume(affinity("a")), &[]);
    let fixed = "field is immutable, except for updating from beta label to GA";
    check(volume(affinity("a")), volume(json!({})), &[&format!("nodeAffinity: Invalid value: null: {fixed}")]);
    // Upstream's `TestValidatePersistentVolumeUpdate`: "affinity-*-beta-label-to-GA".
    for (beta, stable) in [
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ] {
        check(volume(affinity(beta)), volume(affinity(stable)), &[]);
        for (old, new) in [(stable, beta), (beta, "topology.kubernetes.io/none"), ("a", stable)] {
            let shown = affinity(new)["nodeAffinity"].to_string();
            check(volume(affinity(old)), volume(affinity(new)), &[&format!("nodeAffinity: Invalid value: {shown}: {fixed}")]);
        }
    }
    let class = |class: Value| of(json!({"csi": {"driver": "d", "volumeHandle": "h"}, "volumeAttributesClassName": class}));
    check(class(json!("a")), class(json!("b")), &[]);
    check(
        class(json!("a")),
        class(json!(null)),
        &["spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"],
    );
}

#[test]
fn warnings() {
    check_warnings::<PersistentVolume>(volume(json!({})), &[]);
    let notes = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "a", "volume.beta.kubernetes.io/mount-options": "ro"}}});
    check_warnings::<PersistentVolume>(
        with(&volume(json!({"persistentVolumeReclaimPolicy": "Recycle"})), notes),
        &[
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
            "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use \"mountOptions\" attribute instead",
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
        ],
    );
    check_warnings::<PersistentVolume>(
        of(json!({"cephfs": {"monitors": ["m"]}, "capacity": {"storage": "100m"}})),
        &[
            "spec.cephfs: deprecated in v1.28, non-functional in v1.31+",
            "spec.capacity[storage]: fractional byte value \"100m\" is invalid, must be an integer",
        ],
    );
}

#[test]
fn the_table() {
    let stored = defaulted::<PersistentVolume>(with(
        &volume(json!({"accessModes": ["ReadWriteMany", "ReadWriteOnce"]})),
        json!({"status": {"phase": "Available"}}),
    ));
    check_row::<PersistentVolume>(stored.clone(), "v|10Gi|RWO,RWX|Retain|Available|||<unset>||60s|[Filesystem]");
    let bound = json!({"metadata": {"deletionTimestamp": "1970-01-01T00:00:10Z"}, "spec": {"claimRef": {"namespace": "ns", "name": "c"}, "storageClassName": "fast"}});
    check_row::<PersistentVolume>(with(&stored, bound), "v|10Gi|RWO,RWX|Retain|Terminating|ns/c|fast|<unset>||60s|[Filesystem]");
}
