//! One table of specs and errors per theme.

#![allow(clippy::unwrap_used)]

mod containers;
mod placement;
mod security;
mod volumes;

use apimachinery::patch;
use serde_json::{Value, json};

use super::*;
use crate::core::pod::defaults::default_pod;

/// Merges the snippet into the spec of a pod that is right, fills in defaults and says what is wrong.
pub(super) fn problems(spec: Value) -> Vec<String> {
    pod_problems(json!({"spec": spec}))
}

pub(super) fn pod_problems(snippet: Value) -> Vec<String> {
    let base = json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"name": "c", "image": "x:1"}], "serviceAccountName": "default"},
    });
    let mut pod = patch::merge(&base, &snippet).unwrap();
    default_pod(&mut pod);
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let mut errors = Errors::new();
    validate_pod(&pod, &mut errors);
    validate_new_pod(&pod, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

/// The spec has exactly these errors.
pub(super) fn check(spec: Value, expected: &[&str]) {
    assert_eq!(problems(spec.clone()), expected, "{spec}");
}

/// The one container of the pod has exactly these errors; their paths leave out `spec.containers[0].`.
pub(super) fn check_container(container: Value, expected: &[&str]) {
    let mut whole = json!({"name": "c", "image": "x:1"});
    whole.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    let spec = json!({"containers": [whole], "volumes": [
        {"name": "v", "emptyDir": {}}, {"name": "claim", "persistentVolumeClaim": {"claimName": "a"}}]});
    let expected: Vec<String> = expected.iter().map(|text| format!("spec.containers[0].{text}")).collect();
    assert_eq!(problems(spec), expected, "{container}");
}

#[test]
fn a_plain_pod_is_right() {
    check(json!({}), &[]);
}
