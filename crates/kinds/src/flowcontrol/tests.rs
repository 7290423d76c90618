use serde_json::{Value, json};

use super::{bootstrap, is_obsolete};
use crate::testing::untyped::{created, prepared, row, updated_through, with};

fn schema(change: (&str, Value)) -> Value {
    let object = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "fs"},
        "spec": {
            "matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "pl"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "noxu"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/a/*"]}],
            }],
        },
    });
    if change.0.is_empty() { object } else { with(object, change.0, change.1) }
}

/// Cases of upstream's TestFlowSchemaValidation.
#[test]
fn flow_schemas() {
    let check = |pointer: &str, value: Value, expected: &[&str]| assert_eq!(created(schema((pointer, value))), expected);
    check("", json!(null), &[]);
    check("/spec/matchingPrecedence", json!(null), &[]);
    check("/spec/matchingPrecedence", json!(-1), &["spec.matchingPrecedence: Invalid value: -1: must be a positive value"]);
    check(
        "/spec/matchingPrecedence",
        json!(10001),
        &["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"],
    );
    check(
        "/spec/matchingPrecedence",
        json!(1),
        &["spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1"],
    );
    check(
        "/spec/priorityLevelConfiguration/name",
        json!(""),
        &["spec.priorityLevelConfiguration.name: Required value: must reference a priority level"],
    );
    check(
        "/spec/distinguisherMethod",
        json!({"type": "Other"}),
        &["spec.distinguisherMethod.type: Unsupported value: \"Other\": supported values: \"ByNamespace\", \"ByUser\""],
    );
    check(
        "/spec/rules/0",
        json!({"subjects": []}),
        &[
            "spec.rules[0].subjects: Required value: subjects must contain at least one value",
            "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
        ],
    );
    check(
        "/spec/rules/0/subjects/0",
        json!({"kind": "Other"}),
        &[
            "spec.rules[0].subjects[0].kind: Unsupported value: \"Other\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
        ],
    );
    check(
        "/spec/rules/0/subjects/0",
        json!({"kind": "Group", "user": {"name": "a"}}),
        &[
            "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
            "spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'",
        ],
    );
    check(
        "/spec/rules/0/subjects/0",
        json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": ""}}),
        &["spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account"],
    );
    check(
        "/spec/rules/0/resourceRules/0",
        json!({"verbs": ["feed"], "apiGroups": ["*", "a"], "resources": [], "namespaces": []}),
        &[
            "spec.rules[0].resourceRules[0].verbs: Unsupported value: [\"feed\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
            "spec.rules[0].resourceRules[0].apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other api groups",
            "spec.rules[0].resourceRules[0].resources: Required value: resource rules must supply at least one resource",
            "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
        ],
    );
    let url = |url: &str, why: &str| {
        let expected = format!("spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: {url:?}: {why}");
        check("/spec/rules/0/nonResourceRules/0/nonResourceURLs", json!([url]), &[&expected]);
    };
    url("", "must not be empty");
    url("a", "must start with slash");
    url("/a b", "must not contain white-space");
    url("/a//b", "must not contain double slash");
    url("/a*", "wildcard can only do suffix matching");
    assert_eq!(row(schema(("", json!(null)))), [json!("fs"), json!("pl"), json!(50), json!("<none>"), json!("?")]);
}

#[test]
fn status_of_flow_schemas() {
    let old = schema(("", json!(null)));
    let new = with(old.clone(), "/status", json!({"conditions": [{"type": "A"}, {"type": "A"}, {}]}));
    assert_eq!(
        updated_through("status", old, new),
        ["status.conditions[1].type: Duplicate value: \"A\"", "status.conditions[2].type: Required value: must not be empty",]
    );
}

fn level(spec: Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": "pl"},
        "spec": spec,
    })
}

/// Cases of upstream's TestPriorityLevelConfigurationValidation.
#[test]
fn priority_levels() {
    let check = |spec: Value, expected: &[&str]| assert_eq!(created(level(spec)), expected);
    let queue = |queuing: Value| json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}});
    check(queue(json!({})), &[]);
    check(json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}}}), &[]);
    check(
        json!({"type": "Exempt", "limited": {"limitResponse": {"type": "Reject"}}}),
        &[
            "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'",
            "spec.limited: Forbidden: must be nil if the type is not Limited",
        ],
    );
    check(
        json!({"type": "Limited", "exempt": {}}),
        &[
            "spec.exempt: Forbidden: must be nil if the type is Limited",
            "spec.limited: Required value: must not be empty when type is Limited",
        ],
    );
    check(json!({"type": "Other"}), &["spec.type: Unsupported value: \"Other\": supported values: \"Exempt\", \"Limited\""]);
    check(
        json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": -1, "lendablePercent": 101, "borrowingLimitPercent": -1,
            "limitResponse": {"type": "Reject", "queuing": {}},
        }}),
        &[
            "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
            "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
            "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited",
            "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
        ],
    );
    check(
        queue(json!({"queues": 512, "handSize": 8, "queueLengthLimit": -1})),
        &[
            "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive",
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize 512 and handSize 8 should not be greater than 60",
        ],
    );
    check(
        queue(json!({"queues": 7})),
        &["spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (7)"],
    );
    let (_, object) = prepared(level(queue(json!({}))));
    assert_eq!(
        object["spec"]["limited"],
        json!({
            "nominalConcurrencyShares": 30, "lendablePercent": 0,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50}},
        })
    );
    assert_eq!(row(object), [json!("pl"), json!("Limited"), json!(30), json!(64), json!(8), json!(50)]);
}

#[test]
fn every_cluster_has_valid_ones() {
    for one in bootstrap() {
        let (_, with_defaults) = prepared(one.object.clone());
        assert_eq!(with_defaults["spec"], one.object["spec"], "defaults change nothing");
        assert_eq!(created(one.object), Vec::<String>::new());
    }
    let names: Vec<_> =
        bootstrap().iter().filter(|one| one.mandatory).map(|one| one.object["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["exempt", "catch-all", "exempt", "catch-all"]);
}

#[test]
fn mandatory_ones_are_fixed() {
    let find = |plural: &str, name: &str| {
        let found = bootstrap().into_iter().find(|one| one.plural == plural && one.object["metadata"]["name"] == name);
        found.map(|one| one.object).unwrap_or_default()
    };
    let changed = with(find("flowschemas", "catch-all"), "/spec/matchingPrecedence", json!(9999));
    let errors = created(changed);
    assert!(errors[0].ends_with("spec of 'catch-all' must equal the fixed value"), "{errors:?}");
    let larger = with(find("prioritylevelconfigurations", "exempt"), "/spec/exempt/lendablePercent", json!(50));
    assert_eq!(created(larger), Vec::<String>::new(), "how large the exempt level is, is for the administrator to say");
}

#[test]
fn objects_follow_the_list_until_somebody_says_otherwise() {
    let all = bootstrap();
    let one = |name: &str| all.iter().find(|one| one.object["metadata"]["name"] == name && one.plural == "flowschemas");
    let (suggested, mandatory) = (one("probes").expect("a suggested one"), one("catch-all").expect("a mandatory one"));
    let annotation = "/metadata/annotations/apf.kubernetes.io~1autoupdate-spec";
    let changed = |object: &Value| with(object.clone(), "/spec/matchingPrecedence", json!(7));
    assert_eq!(suggested.update(&suggested.object), None);
    assert_eq!(suggested.update(&changed(&suggested.object)), Some(suggested.object.clone()));
    let mut own = changed(&suggested.object);
    *own.pointer_mut(annotation).expect("the annotation") = "false".into();
    assert_eq!(suggested.update(&own), None);
    let mut touched = changed(&mandatory.object);
    *touched.pointer_mut(annotation).expect("the annotation") = "false".into();
    assert_eq!(mandatory.update(&touched), Some(mandatory.object.clone()));
    let mut unmarked = with(changed(&suggested.object), "/metadata/annotations", json!(null));
    unmarked["metadata"]["generation"] = 2.into();
    let kept = suggested.update(&unmarked).expect("the annotation is added");
    assert_eq!((kept.pointer(annotation), &kept["spec"]), (Some(&json!("false")), &unmarked["spec"]));
}

#[test]
fn what_the_list_has_lost_goes() {
    let check = |name: &str, annotation: Value, expected: bool| {
        let object = json!({"metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": annotation}}});
        assert_eq!(is_obsolete(&bootstrap(), "flowschemas", &object), expected, "{object}");
    };
    check("old", json!("true"), true);
    check("old", json!("false"), false);
    check("old", json!(null), false);
    check("probes", json!("true"), false);
    // Of the other kind.
    check("workload-low", json!("true"), true);
}
