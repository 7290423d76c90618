//! A table per theme.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::RESIZE_STATES;
use crate::testing::{check, check_row, check_status, check_update, check_warnings, defaulted, with};
use crate::typed::Kind;

fn claim(spec: Value) -> Value {
    let base = json!({"resources": {"requests": {"storage": "10Gi"}}, "accessModes": ["ReadWriteOnce"]});
    json!({"metadata": {"name": "c", "namespace": "ns", "creationTimestamp": "1970-01-01T00:00:00Z"}, "spec": with(&base, spec)})
}

#[test]
fn rules() {
    assert_eq!(defaulted::<PersistentVolumeClaim>(claim(json!({})))["spec"]["volumeMode"], "Filesystem");
    check::<PersistentVolumeClaim>(claim(json!({"storageClassName": ""})), &[]);
    check::<PersistentVolumeClaim>(
        claim(json!({"accessModes": [], "resources": null})),
        &["spec.accessModes: Required value: at least 1 access mode is required", "spec.resources[storage]: Required value"],
    );
    check::<PersistentVolumeClaim>(
        claim(json!({"resources": {"requests": {"storage": "0"}}, "volumeMode": "Tape"})),
        &[
            "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
            "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
        ],
    );
    check_warnings::<PersistentVolumeClaim>(
        claim(json!({"resources": {"requests": {"storage": "1500m"}}})),
        &["spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer"],
    );
}

fn created(spec: Value) -> Value {
    let mut claim = claim(spec);
    PersistentVolumeClaim::prepare_create(&mut claim);
    claim["spec"].take()
}

/// KEP-1495: "If one of them is empty and the other is non-empty, the API server copies".
#[test]
fn data_sources() {
    let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    let other = json!({"apiGroup": "x.example", "kind": "Image", "name": "i"});
    let both = |spec: Value| (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    assert_eq!(both(created(json!({"dataSource": snapshot}))), (snapshot.clone(), snapshot.clone()));
    assert_eq!(both(created(json!({"dataSourceRef": other}))), (other.clone(), other.clone()));
    assert_eq!(both(created(json!({"dataSource": other}))), (Value::Null, Value::Null));
    assert_eq!(both(created(json!({"dataSourceRef": with(&other, json!({"namespace": "ns"}))}))), (Value::Null, Value::Null));
    check::<PersistentVolumeClaim>(
        claim(json!({"dataSourceRef": {"kind": "", "name": ""}})),
        &[
            "spec.dataSource.name: Required value",
            "spec.dataSource.kind: Required value",
            "spec.dataSource: Invalid value: \"\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            "spec.dataSourceRef.name: Required value",
            "spec.dataSourceRef.kind: Required value",
            "spec.dataSourceRef: Invalid value: \"\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
        ],
    );
    check::<PersistentVolumeClaim>(
        claim(json!({"dataSource": snapshot, "dataSourceRef": other})),
        &["spec: Invalid value: \"spec.dataSource\": must match dataSourceRef"],
    );
}

#[test]
fn updates() {
    const IMMUTABLE: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    let check = |old: Value, new: Value, expected: &[&str]| check_update::<PersistentVolumeClaim>(old, new, expected);
    let bound = |spec: Value| with(&claim(spec), json!({"status": {"phase": "Bound", "capacity": {"storage": "8Gi"}}}));
    let size = |size: &str| json!({"resources": {"requests": {"storage": size}}});
    check(claim(json!({})), claim(json!({"volumeName": "v"})), &[]);
    check(claim(json!({"volumeName": "v"})), claim(json!({"volumeName": "w"})), &[IMMUTABLE]);
    check(claim(json!({})), claim(json!({"accessModes": ["ReadWriteMany"]})), &[IMMUTABLE]);
    check(claim(json!({})), claim(size("20Gi")), &[IMMUTABLE]);
    check(bound(json!({})), bound(size("20Gi")), &[]);
    check(bound(json!({})), bound(size("9Gi")), &[]);
    check(
        bound(json!({})),
        bound(size("8Gi")),
        &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"],
    );
    check(claim(json!({})), claim(json!({"storageClassName": "a"})), &[]);
    check(claim(json!({"storageClassName": "a"})), claim(json!({"storageClassName": "b"})), &[IMMUTABLE]);
    let note = |class: &str, spec: Value| {
        with(&claim(spec), json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": class}}}))
    };
    check(note("a", json!({})), claim(json!({"storageClassName": "a"})), &[]);
    check(
        note("a", json!({})),
        note("b", json!({})),
        &["metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: \"b\": field is immutable"],
    );
    classes_of_attributes(&check, IMMUTABLE);
    check(
        claim(json!({})),
        claim(json!({"volumeMode": "Block"})),
        &[IMMUTABLE, "volumeMode: Invalid value: \"Block\": field is immutable"],
    );
}

/// Only bound claims get another class of attributes, and one that was never applied may be taken back.
fn classes_of_attributes(check: &dyn Fn(Value, Value, &[&str]), immutable: &str) {
    let unbound = |class: Value| claim(json!({"volumeAttributesClassName": class}));
    let bound = |class: Value, current: Value| {
        with(&unbound(class), json!({"status": {"phase": "Bound", "currentVolumeAttributesClassName": current}}))
    };
    let (none, applied) = (json!(null), json!("a"));
    for new in [json!("b"), json!(""), json!(null)] {
        check(unbound(json!("a")), unbound(new.clone()), &[immutable]);
        check(bound(json!("a"), none.clone()), bound(new, none.clone()), &[]);
    }
    check(unbound(none.clone()), unbound(json!("a")), &[immutable]);
    check(bound(none.clone(), none.clone()), bound(json!("a"), none.clone()), &[]);
    check(bound(json!("a"), applied.clone()), bound(json!("b"), applied.clone()), &[]);
    for (new, named) in [(json!(null), "nil"), (json!(""), "empty string")] {
        let refused = format!(
            "spec.volumeAttributesClassName: Forbidden: update to {named} is forbidden when status.currentVolumeAttributesClassName is not nil"
        );
        check(bound(json!("a"), applied.clone()), bound(new.clone(), applied.clone()), &[&refused]);
        check(bound(new.clone(), applied.clone()), bound(new, applied.clone()), &[]);
    }
}

#[test]
fn statuses() {
    let check = |status: Value, expected: &[&str]| check_status::<PersistentVolumeClaim>(claim(json!({})), status, expected);
    check(json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "allocatedResources": {"storage": "1Gi"}}), &[]);
    check(
        json!({"capacity": {"storage": "-1"}}),
        &["status.capacity[storage]: Invalid value: -1: must be a valid resource quantity"],
    );
    check(
        json!({"allocatedResourceStatuses": {"storage": "Odd", "cpu": "NodeResizePending"}}),
        &[
            "status.allocatedResourceStatus: Unsupported value: \"cpu\": supported values: \"storage\"",
            "status.allocatedResourceStatus: Unsupported value: \"storage\": supported values: \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \"NodeResizeInfeasible\", \"NodeResizePending\"",
        ],
    );
    check(
        json!({"allocatedResources": {"a.example/disks": "1", "memory": "1"}}),
        &["status.allocatedResources: Unsupported value: \"memory\": supported values: \"storage\""],
    );
}

/// KEP-1790, "Allocated resource statuses", with the names that v1.31 gave them (kubernetes/kubernetes#126108).
#[test]
fn growing_has_states() {
    let with = |state: &str| json!({"phase": "Bound", "allocatedResourceStatuses": {"storage": state}});
    for state in RESIZE_STATES {
        check_status::<PersistentVolumeClaim>(claim(json!({})), with(state), &[]);
    }
    for state in ["ControllerResizeFailed", "NodeResizeFailed"] {
        let mut old = claim(json!({}));
        old["status"] = with(state);
        check_status::<PersistentVolumeClaim>(old.clone(), with(state), &[]);
        let refused = format!(
            "status.allocatedResourceStatus: Unsupported value: \"storage\": supported values: {}",
            RESIZE_STATES.map(|state| format!("{state:?}")).join(", ")
        );
        check_status::<PersistentVolumeClaim>(claim(json!({})), with(state), &[&refused]);
    }
}

#[test]
fn the_table() {
    let pending = defaulted::<PersistentVolumeClaim>(with(
        &claim(json!({"storageClassName": "fast"})),
        json!({"status": {"phase": "Pending"}}),
    ));
    check_row::<PersistentVolumeClaim>(pending.clone(), "c|Pending||||fast|<unset>|60s|[Filesystem]");
    let bound = json!({"spec": {"volumeName": "v"}, "status": {"phase": "Bound", "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}});
    check_row::<PersistentVolumeClaim>(with(&pending, bound), "c|Bound|v|10Gi|RWO,ROX|fast|<unset>|60s|[Filesystem]");
}
