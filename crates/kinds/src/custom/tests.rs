#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{AcceptedNames, accept, conditions, finish, has_its_names, is_established, versions};
use crate::strategy::Strategy;

fn definition(plural: &str, kind: &str) -> Value {
    json!({
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    })
}

const NOW: &str = "2026-01-01T00:00:00Z";

fn found(definition: &Value) -> Vec<String> {
    let text = |condition: &Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    let line = |condition: &Value| {
        format!(
            "{}={} {}: {}",
            text(condition, "type"),
            text(condition, "status"),
            text(condition, "reason"),
            text(condition, "message")
        )
    };
    conditions(definition).iter().map(line).collect()
}

fn names_of(definitions: &[Value]) -> AcceptedNames {
    let mut names = AcceptedNames::default();
    for definition in definitions {
        names.set(definition);
    }
    names
}

#[track_caller]
fn check(definition: &Value, others: &[Value], expected: &[&str]) -> Value {
    let accepted = accept(definition, &names_of(others), NOW);
    assert_eq!(found(&accepted), expected);
    accepted
}

const ACCEPTED: [&str; 2] = [
    "NamesAccepted=True NoConflicts: no conflicts found",
    "Established=True InitialNamesAccepted: the initial names have been accepted",
];

#[test]
fn names_are_accepted_once() {
    let first = check(&definition("foos", "Foo"), &[], &ACCEPTED);
    assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
    // It keeps its names.
    check(&first, std::slice::from_ref(&first), &ACCEPTED);
    let mut other = definition("bars", "Foo");
    other["spec"]["names"]["singular"] = "bar".into();
    let not = "Established=False NotAccepted: not all names are accepted";
    let refused = check(
        &other,
        std::slice::from_ref(&first),
        &["NamesAccepted=False ListKindConflict: \"FooList\" is already in use", not],
    );
    assert_eq!(refused["status"]["acceptedNames"], json!({"plural": "bars", "singular": "bar"}));
    // Once the other is gone, the names are free.
    check(&refused, &[], &ACCEPTED);
    let mut short = definition("bars", "Bar");
    short["spec"]["names"]["shortNames"] = json!(["foo", "foos", "b"]);
    let expected = "NamesAccepted=False ShortNamesConflict: [\"foo\" is already in use, \"foos\" is already in use]";
    check(&short, std::slice::from_ref(&first), &[expected, not]);
    let mut elsewhere = first.clone();
    elsewhere["spec"]["group"] = "other.com".into();
    check(&definition("foos", "Foo"), &[elsewhere], &ACCEPTED);
}

/// Names come and go with the definitions that have them.
#[test]
fn names_are_free_when_nobody_has_them() {
    let first = check(&definition("foos", "Foo"), &[], &ACCEPTED);
    let mut renamed = first.clone();
    renamed["status"]["acceptedNames"]["singular"] = "food".into();
    let mut names = names_of(std::slice::from_ref(&first));
    let wants = |names: &AcceptedNames| {
        let mut other = definition("bars", "Bar");
        other["spec"]["names"]["shortNames"] = json!(["foo"]);
        has_its_names(&accept(&other, names, NOW))
    };
    assert!(!wants(&names));
    assert!(!names.set(&first), "nothing has changed");
    assert!(names.set(&renamed) && wants(&names));
    assert!(names.set(&first) && !wants(&names));
    names.remove("foos.example.com");
    assert!(wants(&names));
}

#[test]
fn established_kinds_keep_being_served_under_their_names() {
    let first = check(&definition("foos", "Foo"), &[], &ACCEPTED);
    let mut second = check(&definition("bars", "Bar"), std::slice::from_ref(&first), &ACCEPTED);
    second["spec"]["names"]["shortNames"] = json!(["foo"]);
    let refused = check(&second, &[first], &["NamesAccepted=False ShortNamesConflict: \"foo\" is already in use", ACCEPTED[1]]);
    assert_eq!(refused["status"]["acceptedNames"].get("shortNames"), None);
}

/// Upstream: `TestInvalidCABundle`, `TestValidCABundle` and `TestMissingCABundle` of apiextensions' `test/integration/conversion`.
#[test]
fn a_definition_is_established_when_the_bundle_of_its_webhook_can_be_read() {
    let with = |bundle: Value| {
        let mut own = definition("foos", "Foo");
        own["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"clientConfig": {"caBundle": bundle}}});
        own
    };
    let invalid = [ACCEPTED[0], "Established=False InvalidCABundle: The conversion webhook CABundle is invalid"];
    // cert-manager's placeholder, which its injector replaces.
    let mut waits = check(&with("Cg==".into()), &[], &invalid);
    assert!(!is_established(&waits));
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let encode = |text: String| Value::String(STANDARD.encode(text));
    check(&with(encode(key.serialize_pem())), &[], &invalid);
    check(&with(encode("-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n".to_owned())), &[], &invalid);
    // Of several blocks one that can be read is enough.
    check(&with(encode(format!("{}{}", key.serialize_pem(), certificate.pem()))), &[], &ACCEPTED);
    check(&with("".into()), &[], &ACCEPTED);
    waits["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"] = encode(certificate.pem());
    assert!(is_established(&check(&waits, &[], &ACCEPTED)));
}

#[test]
fn groups_of_the_community_say_whether_they_are_approved() {
    let mut own = definition("foos", "Foo");
    own["spec"]["group"] = "foo.k8s.io".into();
    let condition = |annotation: &str| {
        let mut own = own.clone();
        own["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": annotation});
        found(&accept(&own, &AcceptedNames::default(), NOW)).pop().unwrap()
    };
    let (url, reason) = ("https://github.com/kubernetes/kubernetes/pull/1", "unapproved, a test");
    let approved = format!("KubernetesAPIApprovalPolicyConformant=True ApprovedAnnotation: approved in {url}");
    assert_eq!(condition(url), approved);
    let bypassed = "KubernetesAPIApprovalPolicyConformant=False UnapprovedAnnotation: not approved: \"unapproved, a test\"";
    assert_eq!(condition(reason), bypassed);
}

#[test]
fn a_definition_goes_when_its_objects_are_gone() {
    let mut gone = accept(&definition("foos", "Foo"), &AcceptedNames::default(), NOW);
    gone["metadata"]["finalizers"] = json!([crate::apiextensions::CLEANUP, "other/one"]);
    finish(&mut gone, NOW);
    assert_eq!(gone["metadata"]["finalizers"], json!(["other/one"]));
    assert_eq!(found(&gone)[2], "Terminating=False InstanceDeletionCompleted: removed all instances");
}

fn kind(version: Value) -> std::sync::Arc<dyn Strategy> {
    let mut definition = accept(&definition("foos", "Foo"), &AcceptedNames::default(), NOW);
    let base = &mut definition["spec"]["versions"][0];
    version.as_object().unwrap().iter().for_each(|(key, value)| base[key] = value.clone());
    versions(&definition, false).unwrap().remove(0).kind
}

#[test]
fn facts() {
    let kind = kind(json!({
        "deprecated": true, "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
    }));
    let def = kind.def();
    assert_eq!((&*def.group, &*def.plural, &*def.kind, &*def.list_kind()), ("example.com", "foos", "Foo", "FooList"));
    assert!(def.has_status() && def.scale().is_some_and(|paths| paths.replicas == "/spec/n" && paths.selector.is_none()));
    assert_eq!(def.deprecated.as_deref(), Some("example.com/v1 Foo is deprecated"));
    assert_eq!(def.label(), ("", "", "customresources"));
}

/// Upstream: `ValidateScaleSpec` and `ValidateScaleStatus` of `registry/customresource/validator.go`; the second alone for a write of the status.
#[test]
fn what_a_scale_is_made_of() {
    let open = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let kind = kind(json!({"schema": open, "subresources": {"status": {}, "scale": {
        "specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n", "labelSelectorPath": ".status.selector"}}}));
    let check = |object: Value, whole: &[&str], status: &[&str]| {
        let told = |errors: apimachinery::field::Errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (old, mut warnings) = (json!({"metadata": {"name": "a"}}), Vec::new());
        assert_eq!(told(kind.validate(&object, &mut warnings)), whole, "{object}");
        assert_eq!(told(kind.validate_update(&object, &old, &mut warnings)), whole, "{object}");
        assert_eq!(told(kind.validate_sub("scale", &object, &old, &mut warnings)), whole, "{object}");
        assert_eq!(told(kind.validate_sub("status", &object, &old, &mut warnings)), status, "{object}");
    };
    check(json!({"spec": {"n": 3}, "status": {"n": 2, "selector": "a=b"}}), &[], &[]);
    check(json!({}), &[], &[]);
    let negative = |field: &str| format!("{field}: Invalid value: -1: should be a non-negative integer");
    let many = ".status.n: Invalid value: 2147483648: should be less than or equal to 2147483647";
    check(json!({"spec": {"n": -1}, "status": {"n": 2_147_483_648_i64}}), &[&negative(".spec.n"), many], &[many]);
    check(json!({"status": {"n": -1}}), &[&negative(".status.n")], &[&negative(".status.n")]);
    let text = ".spec.n: Invalid value: 0: .spec.n accessor error: 3 is of the type string, expected int64";
    let number =
        ".status.selector: Invalid value: \"\": .status.selector accessor error: 1 is of the type int64, expected string";
    check(json!({"spec": {"n": "3"}, "status": {"selector": 1}}), &[text, number], &[number]);
}

#[test]
fn columns_and_fields() {
    let columns = json!([
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Since", "type": "date", "jsonPath": ".spec.since"}, {"name": "None", "type": "string", "jsonPath": ".spec.none"},
    ]);
    let kind = kind(
        json!({"additionalPrinterColumns": columns, "selectableFields": [{"jsonPath": ".spec.size"}, {"jsonPath": ".spec.none"}]}),
    );
    let object = json!({"metadata": {"name": "n"}, "spec": {"size": 3, "since": NOW},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let row = kind.row(&object, "2026-01-01T00:05:00Z".parse().unwrap());
    assert_eq!(row, [json!("n"), json!(3), json!("True"), json!("5m"), Value::Null]);
    let names: Vec<_> = kind.columns().into_iter().map(|column| column.name).collect();
    assert_eq!(names, ["Name", "Size", "Ready", "Since", "None"]);
    assert_eq!(kind.fields(&object), [(0, "3".to_owned())]);
    assert_eq!(kind.selectable().iter().collect::<Vec<_>>(), ["spec.size", "spec.none"]);
}

#[test]
fn several_versions() {
    let mut definition = accept(&definition("foos", "Foo"), &AcceptedNames::default(), NOW);
    let version = definition["spec"]["versions"][0].clone();
    let named = |name: &str, storage: bool| {
        let mut version = version.clone();
        version["name"] = name.into();
        version["storage"] = storage.into();
        version
    };
    definition["spec"]["versions"] = json!([named("v1beta1", true), named("v1", false)]);
    let names: Vec<String> = versions(&definition, true).unwrap().iter().map(|one| one.kind.def().version.to_string()).collect();
    assert_eq!(names, ["v1", "v1beta1"]);
    let verbs = |terminating| versions(&definition, terminating).unwrap()[0].kind.def().offered().names();
    assert_eq!(verbs(true), ["delete", "deletecollection", "get", "list", "watch"]);
    assert_eq!(verbs(false).len(), 8);
    definition["spec"]["conversion"] = json!({"strategy": "Webhook"});
    assert_eq!(versions(&definition, false).unwrap().len(), 2, "whoever converts them");
}
