//! What webhooks answer, and what comes of it.
#![allow(clippy::unwrap_used)]

use super::*;

fn object(version: &str, change: &Value) -> Value {
    let mut object = json!({"apiVersion": format!("a.b/{version}"), "kind": "Foo",
        "metadata": {"name": "n", "namespace": "s", "uid": "u", "labels": {"l": "1"}, "generation": 3}});
    for (pointer, value) in change.as_object().unwrap() {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match value {
            Value::Null => drop(object.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key)),
            value => object.pointer_mut(parent).unwrap()[key] = value.clone(),
        }
    }
    object
}

#[test]
fn objects_stay_the_objects_that_they_are() {
    let check = |change: Value, expected: Result<Value, &str>| {
        let accepted = accept(&[object("v1", &json!({}))], vec![object("v2", &change)], "a.b/v2");
        let expected = expected.map(|change| vec![object("v2", &change)]);
        assert_eq!(accepted, expected.map_err(|why| format!("returned invalid converted object at index 0: {why}")), "{change}");
    };
    check(json!({"/spec": {"a": 1}}), Ok(json!({"/spec": {"a": 1}})));
    check(json!({"/metadata/labels": {"x": "y"}}), Ok(json!({"/metadata/labels": {"x": "y"}})));
    check(json!({"/metadata/labels": null}), Ok(json!({"/metadata/labels": null})));
    check(json!({"/metadata/annotations": {"x": "y"}}), Ok(json!({"/metadata/annotations": {"x": "y"}})));
    check(json!({"/metadata/generation": 9}), Ok(json!({})));
    check(json!({"/metadata/finalizers": ["x"]}), Ok(json!({})));
    check(json!({"/metadata/name": "m"}), Err("must have the same name: n != m"));
    check(json!({"/metadata/namespace": "t"}), Err("must have the same namespace: s != t"));
    check(json!({"/metadata/uid": "v"}), Err("must have the same UID: u != v"));
    check(json!({"/kind": "Bar"}), Err("invalid kind (expected Foo, received Bar)"));
    check(json!({"/apiVersion": "a.b/v3"}), Err("invalid groupVersion (expected a.b/v2, received a.b/v3)"));
    check(json!({"/metadata": null}), Err("invalid metadata of type <nil> in converted object"));
    check(json!({"/metadata/labels": {"x": 1}}), Err("invalid labels in converted object: they are no map of texts"));
    let name = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let wrong = format!("metadata.labels: Invalid value: \"x y\": {name}");
    check(json!({"/metadata/labels": {"x y": "z"}}), Err(&wrong));
    let wrong = format!("metadata.annotations: Invalid value: \"x y\": {name}");
    check(json!({"/metadata/annotations": {"x y": "z"}}), Err(&wrong));
}

#[test]
fn none_is_lost_and_none_is_added() {
    let one = || object("v1", &json!({}));
    assert_eq!(accept(&[one(), one()], vec![one()], "a.b/v1").unwrap_err(), "returned 1 objects, expected 2");
    assert_eq!(accept(&[one()], vec![], "a.b/v1").unwrap_err(), "returned 0 objects, expected 1");
}

#[test]
fn answers() {
    let check = |response: Value, expected: Result<usize, &str>| {
        let review = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response});
        assert_eq!(
            super::response(&review, "v1", "u").map(|objects| objects.len()),
            expected.map_err(str::to_owned),
            "{response}"
        );
    };
    check(json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{}, {}]}), Ok(2));
    check(json!({"uid": "u", "result": {"status": "Failed", "message": "no"}}), Err("no"));
    check(json!({"uid": "u", "result": {"status": "Failed"}}), Err("response.result.status was 'Failed', not 'Success'"));
    check(json!({"uid": "u"}), Err("response.result.status was '', not 'Success'"));
    check(json!({"uid": "v", "result": {"status": "Success"}}), Err("expected response.uid \"u\", got \"v\""));
    check(Value::Null, Err("no response provided"));
    let other = super::response(&json!({"apiVersion": "v1", "kind": "Pod"}), "v1", "u").unwrap_err();
    assert_eq!(other, "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /v1, Kind=Pod");
}

/// Upstream (`webhook_converter.go`): "v1beta1 processing did not verify GVK or UID".
#[test]
fn reviews_have_the_version_that_the_webhook_names_first() {
    let check = |versions: Value, expected: &str| {
        let definition = json!({"spec": {"conversion": {"webhook": {"conversionReviewVersions": versions}}}});
        assert_eq!(review_version(&definition), expected, "{versions}");
    };
    check(json!(["v1"]), "v1");
    check(json!(["v1beta1"]), "v1beta1");
    check(json!(["v2", "v1beta1", "v1"]), "v1beta1");
    let bare = json!({"response": {"result": {"status": "Success"}, "convertedObjects": [{}]}});
    assert_eq!(response(&bare, "v1beta1", "u").map(|objects| objects.len()), Ok(1));
    assert!(response(&bare, "v1", "u").is_err());
    assert_eq!(response(&json!({}), "v1beta1", "u"), Err("no response provided".to_owned()));
}
