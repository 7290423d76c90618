#![allow(clippy::unwrap_used)]
use super::*;
use apimachinery::patch;

fn set(spec: &Value) -> Value {
    let base = json!({"metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
    let mut object = patch::merge(&base, &json!({"spec": spec})).unwrap();
    DaemonSet::apply_defaults(&mut object);
    object
}

fn typed(object: Value) -> DaemonSet {
    serde_json::from_value(object).unwrap()
}

#[track_caller]
fn check(spec: Value, expected: &[&str]) {
    let mut errors = Errors::new();
    typed(set(&spec)).validate(&mut errors);
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{spec}");
}

#[test]
fn defaults() {
    let spec = set(&json!({}))["spec"].take();
    assert_eq!(spec["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}));
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(set(&json!({"updateStrategy": {"type": "OnDelete"}}))["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
}

#[test]
fn selectors_and_templates() {
    check(json!({}), &[]);
    check(
        json!({"selector": {"matchLabels": {"a": "c"}}, "minReadySeconds": -1, "revisionHistoryLimit": -2}),
        &[
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.revisionHistoryLimit: Invalid value: -2: must be greater than or equal to 0",
        ],
    );
    let unmatched = "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`";
    check(json!({"selector": null}), &[unmatched]);
    check(
        json!({"template": {"spec": {"restartPolicy": "OnFailure", "activeDeadlineSeconds": 5}}}),
        &[
            "spec.template.spec.restartPolicy: Unsupported value: \"OnFailure\": supported values: \"Always\"",
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported",
        ],
    );
}

#[test]
fn strategies() {
    let rolling = |unavailable: Value, surge: Value| json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}}});
    let at = "spec.updateStrategy.rollingUpdate";
    check(rolling(json!("50%"), json!(0)), &[]);
    check(rolling(json!(0), json!("100%")), &[]);
    check(rolling(json!(0), json!("0%")), &[&format!("{at}.maxUnavailable: Required value: cannot be 0 when maxSurge is 0")]);
    check(
        rolling(json!(1), json!(1)),
        &[&format!("{at}.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero")],
    );
    check(
        rolling(json!("101%"), json!(0)),
        &[&format!("{at}.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%")],
    );
    check(
        json!({"updateStrategy": {"type": "Slow"}}),
        &["spec.updateStrategy: Unsupported value: {\"type\":\"Slow\"}: supported values: \"RollingUpdate\", \"OnDelete\""],
    );
}

#[test]
fn templates_are_counted() {
    let mut old = set(&json!({}));
    DaemonSet::prepare_create(&mut old);
    let count = |object: &Value| template_generation(object);
    assert_eq!(count(&old), 1);
    let mut same = set(&json!({"minReadySeconds": 3}));
    DaemonSet::prepare_update(&mut same, &old);
    assert_eq!(count(&same), 1);
    let mut new = set(&json!({"template": {"spec": {"hostNetwork": true}}}));
    DaemonSet::prepare_update(&mut new, &old);
    assert_eq!(count(&new), 2);
}

#[test]
fn what_may_change() {
    let mut errors = Errors::new();
    let other = json!({"selector": {"matchLabels": {"a": "b", "c": "d"}}});
    typed(set(&other)).validate_update(&typed(set(&json!({}))), &mut errors);
    assert_eq!(
        errors.to_string(),
        "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}: field is immutable"
    );
}

#[test]
fn statuses() {
    let of = |status: Value| typed(json!({"status": status}));
    let counts = |ready: i32| json!({"currentNumberScheduled": 1, "numberMisscheduled": 0, "desiredNumberScheduled": 1, "numberReady": ready, "collisionCount": 1});
    let mut errors = Errors::new();
    of(counts(1)).validate_sub("status", &of(counts(0)), &mut errors);
    assert_eq!(errors.to_string(), "");
    let mut old = counts(0);
    old["collisionCount"] = json!(2);
    of(counts(-1)).validate_sub("status", &of(old), &mut errors);
    let expected = [
        "status.numberReady: Invalid value: -1: must be greater than or equal to 0",
        "status.collisionCount: Invalid value: 1: cannot be decremented",
    ];
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
}
