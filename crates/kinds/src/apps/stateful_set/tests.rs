#![allow(clippy::unwrap_used)]
use super::*;
use crate::strategy::Strategy;
use crate::typed::Typed;
use apimachinery::patch;

const ROLLING: &str = "/spec/updateStrategy/rollingUpdate";

fn set(spec: &Value) -> Value {
    let base = json!({"metadata": {"name": "db"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
    let mut object = patch::merge(&base, &json!({"spec": spec})).unwrap();
    StatefulSet::apply_defaults(&mut object);
    object
}

fn typed(object: Value) -> StatefulSet {
    serde_json::from_value(object).unwrap()
}

#[track_caller]
fn check(spec: Value, expected: &[&str]) {
    let (mut errors, set) = (Errors::new(), typed(set(&spec)));
    set.validate(&mut errors);
    set.validate_create(&mut errors);
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{spec}");
}

#[test]
fn defaults() {
    let spec = set(&json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}))["spec"].take();
    assert_eq!(spec["podManagementPolicy"], "OrderedReady");
    assert_eq!(spec["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
    assert_eq!(spec["persistentVolumeClaimRetentionPolicy"], json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}});
    assert_eq!(spec["volumeClaimTemplates"], json!([claim]));
    let spec = set(&json!({"updateStrategy": {"type": "RollingUpdate"}}))["spec"].take();
    assert_eq!(spec["updateStrategy"], json!({"type": "RollingUpdate"}));
}

#[test]
fn policies_and_strategies() {
    check(json!({}), &[]);
    check(
        json!({"podManagementPolicy": "Fast", "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Keep"}}),
        &[
            "spec.podManagementPolicy: Invalid value: \"Fast\": must be 'OrderedReady' or 'Parallel'",
            "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Keep\": supported values: \"Retain\", \"Delete\"",
        ],
    );
    check(
        json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}),
        &["spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'"],
    );
    check(
        json!({"updateStrategy": {"type": "foo"}}),
        &["spec.updateStrategy: Invalid value: {\"type\":\"foo\"}: must be 'RollingUpdate' or 'OnDelete'"],
    );
    check(
        json!({"updateStrategy": {"rollingUpdate": {"partition": -1, "maxUnavailable": "0%"}}, "ordinals": {"start": -2}}),
        &[
            "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": cannot be 0",
            "spec.ordinals.start: Invalid value: -2: must be greater than or equal to 0",
        ],
    );
}

#[test]
fn templates() {
    check(json!({"selector": null}), &["spec.selector: Required value"]);
    check(
        json!({"selector": {"matchLabels": {"a": "c"}}, "replicas": -1}),
        &[
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        json!({"template": {"spec": {"restartPolicy": "Never", "activeDeadlineSeconds": 5}}}),
        &[
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
        ],
    );
    let upper = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    check(json!({"serviceName": "A"}), &[&format!("spec.serviceName: Invalid value: \"A\": {upper}")]);
}

const CLAIM: &str = "data";

fn claim(spec: Value) -> Value {
    json!({"metadata": {"name": CLAIM}, "spec": spec})
}

fn good_claim() -> Value {
    claim(json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}))
}

fn mounting(name: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "x", "volumeMounts": [{"name": name, "mountPath": "/data"}]}]}})
}

/// Upstream's `ValidatePodTemplateSpec` for StatefulSets (issue 60619), whose claims are volumes.
#[test]
fn pods_of_templates() {
    let template = |spec: Value| json!({"template": {"spec": spec}});
    check(template(json!({"containers": []})), &["spec.template.spec.containers: Required value"]);
    check(
        template(json!({"containers": [{"name": "c", "ports": [{"containerPort": 99999}],
            "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]})),
        &[
            "spec.template.spec.containers[0].image: Required value",
            "spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive",
            "spec.template.spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    let unknown = "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\"";
    check(json!({"template": mounting(CLAIM)}), &[unknown]);
    check(json!({"template": mounting(CLAIM), "volumeClaimTemplates": [good_claim()]}), &[]);
    check(json!({"template": mounting(CLAIM), "volumeClaimTemplates": [good_claim(), good_claim()]}), &[]);
    let mut template = mounting(CLAIM);
    template["spec"]["volumes"] = json!([{"name": CLAIM, "hostPath": {"path": ""}}, {"name": "more", "hostPath": {"path": ""}}]);
    check(
        json!({"template": template, "volumeClaimTemplates": [good_claim()]}),
        &["spec.template.spec.volumes[1].hostPath.path: Required value"],
    );
}

/// Upstream's issue 132211.
#[test]
fn templates_of_claims() {
    check(
        json!({"volumeClaimTemplates": [good_claim(), claim(json!({}))]}),
        &[
            "spec.volumeClaimTemplates[1].spec.accessModes: Required value: at least 1 access mode is required",
            "spec.volumeClaimTemplates[1].spec.resources[storage]: Required value",
        ],
    );
}

#[test]
fn sets_from_before_these_rules_may_be_changed() {
    let check = |old: Value, new: Value, expected: &str| {
        let mut errors = Errors::new();
        typed(set(&new)).validate_update(&typed(set(&old)), &mut errors);
        assert_eq!(errors.to_string(), expected);
    };
    let (good, bad) = (mounting(CLAIM), mounting("other"));
    let with = |template: &Value, claim: Value, replicas: i32| json!({"template": template, "volumeClaimTemplates": [claim], "replicas": replicas});
    let unknown = "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"other\"";
    check(with(&good, good_claim(), 1), with(&bad, good_claim(), 1), unknown);
    check(with(&bad, good_claim(), 1), with(&bad, good_claim(), 2), "");
    check(with(&good, claim(json!({})), 1), with(&good, claim(json!({})), 2), "");
    check(with(&good, claim(json!({})), 1), with(&bad, claim(json!({})), 2), unknown);
}

#[test]
fn what_may_change() {
    let check = |spec: Value, expected: &str| {
        let mut errors = Errors::new();
        typed(set(&spec)).validate_update(&typed(set(&json!({}))), &mut errors);
        assert_eq!(errors.to_string(), expected, "{spec}");
    };
    let image = json!({"template": {"spec": {"containers": [{"name": "c", "image": "y"}]}}});
    check(image, "");
    check(json!({"replicas": 3, "minReadySeconds": 5, "ordinals": {"start": 2}, "revisionHistoryLimit": 1}), "");
    check(json!({"updateStrategy": {"type": "OnDelete"}, "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}}), "");
    check(json!({"serviceName": "other"}), &format!("spec: Forbidden: {UPDATABLE}"));
    check(json!({"podManagementPolicy": "Parallel"}), &format!("spec: Forbidden: {UPDATABLE}"));
}

#[test]
fn max_unavailable_is_dropped_while_its_gate_is_off() {
    let with = set(&json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}}));
    let check = |old: &Value, expected: Value| {
        let mut new = with.clone();
        Typed::<StatefulSet>::new().prepare_update(&mut new, old);
        assert_eq!(new.pointer(ROLLING), Some(&expected));
    };
    check(&set(&json!({})), json!({"partition": 0}));
    check(&with, json!({"partition": 0, "maxUnavailable": 2}));
    let mut new = with.clone();
    Typed::<StatefulSet>::new().prepare_create(&mut new);
    assert_eq!((new.pointer(ROLLING), &new["status"]["replicas"]), (Some(&json!({"partition": 0})), &json!(0)));
}

#[test]
fn statuses() {
    let check = |old: Value, new: Value, expected: &str| {
        let of = |status: Value| typed(json!({"status": status}));
        let mut errors = Errors::new();
        of(new).validate_sub("status", &of(old), &mut errors);
        assert_eq!(errors.to_string(), expected);
    };
    check(json!({}), json!({"replicas": 2, "readyReplicas": 1, "currentReplicas": 2, "availableReplicas": 1}), "");
    check(
        json!({}),
        json!({"replicas": 3, "readyReplicas": 1, "availableReplicas": 2}),
        "status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas",
    );
    check(
        json!({"collisionCount": 2}),
        json!({"collisionCount": 1}),
        "status.collisionCount: Invalid value: 1: cannot be decremented",
    );
}

#[test]
fn warnings() {
    let claim = json!({"spec": {"resources": {"requests": {"storage": "1500m"}}}});
    let shown = typed(set(&json!({"revisionHistoryLimit": -1, "volumeClaimTemplates": [claim]})));
    let expected = [
        "spec.volumeClaimTemplates[0].Spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer",
        "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
    ];
    assert_eq!(shown.warnings(), expected);
}
