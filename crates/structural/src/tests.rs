#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::Structural;

fn compile(properties: Value) -> Structural {
    Structural::compile(&json!({"type": "object", "properties": properties})).unwrap()
}

#[track_caller]
fn check_pruning(properties: Value, mut object: Value, expected: Value, unknown: &[&str]) {
    let found = compile(properties).decode(&mut object).unwrap();
    assert_eq!((object, found), (expected, unknown.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>()));
}

/// Conformance: [sig-api-machinery] FieldValidation should detect unknown metadata fields in both the root and embedded object of a CR [Conformance]
#[test]
fn pruning() {
    let spec = json!({"spec": {"type": "object", "properties": {"a": {"type": "string"}}}});
    check_pruning(
        spec.clone(),
        json!({"kind": "K", "spec": {"a": "x", "b": {"c": 1}}, "other": 1}),
        json!({"kind": "K", "spec": {"a": "x"}}),
        &["other", "spec.b"],
    );
    check_pruning(spec, json!({"metadata": {"name": "n", "wrong": 1}}), json!({"metadata": {"name": "n"}}), &["metadata.wrong"]);
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "object"}}});
    check_pruning(
        json!({"spec": open}),
        json!({"spec": {"a": {"gone": 1}, "b": {"c": 1}}}),
        json!({"spec": {"a": {}, "b": {"c": 1}}}),
        &["spec.a.gone"],
    );
    let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}});
    check_pruning(
        json!({"pod": embedded}),
        json!({"pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n", "unknown": 1}, "spec": {"x": 1}, "data": 1}}),
        json!({"pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n"}, "spec": {}}}),
        &["pod.data", "pod.metadata.unknown", "pod.spec.x"],
    );
    let map = json!({"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "integer"}}}});
    check_pruning(json!({"m": map}), json!({"m": {"k": {"a": 1, "b": 2}}}), json!({"m": {"k": {"a": 1}}}), &["m.k.b"]);
    let list = json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}});
    check_pruning(json!({"l": list}), json!({"l": [{"a": 1}, {"b": 2}]}), json!({"l": [{"a": 1}, {}]}), &["l[1].b"]);
    let open_list = json!({"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": {"type": "object"}});
    check_pruning(json!({"l": open_list}), json!({"l": [{"b": 2}]}), json!({"l": [{"b": 2}]}), &[]);
    let nulls =
        json!({"a": {"type": "string"}, "b": {"type": "string", "nullable": true}, "c": {"type": "string", "default": "x"}});
    check_pruning(nulls, json!({"a": null, "b": null, "c": null}), json!({"b": null, "c": null}), &[]);
}

/// Conformance: [sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] custom resource defaulting for requests and from storage works [Conformance]
#[test]
fn defaulting() {
    let check = |properties: Value, mut object: Value, expected: Value| {
        compile(properties).apply_defaults(&mut object);
        assert_eq!(object, expected);
    };
    check(json!({"a": {"type": "string", "default": "x"}}), json!({}), json!({"a": "x"}));
    check(json!({"a": {"type": "string", "default": "x"}}), json!({"a": "y"}), json!({"a": "y"}));
    check(json!({"a": {"type": "integer", "default": 1e3}}), json!({}), json!({"a": 1000}));
    check(json!({"a": {"type": "string", "default": "x"}}), json!({"a": null}), json!({"a": "x"}));
    check(json!({"a": {"type": "string", "default": "x", "nullable": true}}), json!({"a": null}), json!({"a": null}));
    let inner = json!({"type": "object", "default": {}, "properties": {"b": {"type": "integer", "default": 1}}});
    check(json!({"a": inner}), json!({}), json!({"a": {"b": 1}}));
    let without = json!({"type": "object", "properties": {"b": {"type": "integer", "default": 1}}});
    check(json!({"a": without}), json!({}), json!({}));
    let list = json!({"type": "array", "items": {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}}});
    check(json!({"l": list}), json!({"l": [{}, {"b": 2}]}), json!({"l": [{"b": 1}, {"b": 2}]}));
    let map = json!({"type": "object", "additionalProperties": {"type": "integer", "default": 7}});
    check(json!({"m": map}), json!({"m": {"k": null, "j": 1}}), json!({"m": {"k": 7, "j": 1}}));
}

/// A short list may be gigabytes long with its defaults. It is filled until it is larger than anything that is stored, and no further.
#[test]
fn defaults_of_a_list_are_bounded() {
    let text = "x".repeat(10_000);
    let item = json!({"type": "object", "properties": {"a": {"type": "string", "default": text}}});
    let filled = |items: usize| {
        let mut object = json!({"l": vec![json!({}); items]});
        compile(json!({"l": {"type": "array", "items": item}})).apply_defaults(&mut object);
        object.to_string().len()
    };
    assert!((1_000_000..1_010_000).contains(&filled(100)), "all of what fits");
    let (most, stored) = (filled(100_000), 3 << 19);
    assert!(stored < most && most < 4 << 20, "{most}");
    // The last one that is filled in fills the room, however large it is.
    let large = json!({"type": "string", "default": "x".repeat(1_400_000)});
    let mut object = json!({});
    compile(json!({"a": large, "b": large, "c": large})).apply_defaults(&mut object);
    assert_eq!((object.get("b").is_some(), object.get("c").is_some()), (true, false));
}

#[track_caller]
fn check_rules(spec: Value, value: Value, expected: &[&str]) {
    let schema = compile(json!({"spec": spec}));
    let found: Vec<String> = schema.validate(&json!({"spec": value})).iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

#[test]
fn types() {
    let check = |kind: &str, value: Value, given: &str| {
        let wrong = format!("spec: Invalid value: \"{given}\": spec in body must be of type {kind}: \"{given}\"");
        let expected: &[&str] = if given.is_empty() { &[] } else { &[&wrong] };
        check_rules(json!({"type": kind}), value, expected);
    };
    check("string", json!("x"), "");
    check("string", json!(1), "integer");
    check("integer", json!(1), "");
    check("integer", json!(1.0), "");
    check("integer", json!("1"), "string");
    check("number", json!(1), "");
    check("number", json!(1.5), "");
    check("boolean", json!("true"), "string");
    check("object", json!([]), "array");
    check("object", Value::Null, "null");
    check_rules(json!({"type": "object", "nullable": true}), Value::Null, &[]);
    let either = json!({"x-kubernetes-int-or-string": true});
    check_rules(either.clone(), json!("10%"), &[]);
    check_rules(either.clone(), json!(10), &[]);
    let wrong = "spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\"";
    check_rules(either, json!(true), &[wrong]);
}

#[test]
fn limits() {
    let number = json!({"type": "integer", "minimum": 1, "maximum": 5});
    check_rules(number.clone(), json!(3), &[]);
    check_rules(number.clone(), json!(0), &["spec: Invalid value: 0: spec in body should be greater than or equal to 1"]);
    check_rules(number, json!(6), &["spec: Invalid value: 6: spec in body should be less than or equal to 5"]);
    let beyond = |format: &str| format!("<nil>: Invalid value: \"\": Checked value must be of type {format} in spec");
    // v1.36: "CRD validation now strictly enforces ranges for numeric formats".
    let small = json!({"type": "integer", "format": "int32"});
    check_rules(small.clone(), json!(2_147_483_647_i64), &[]);
    check_rules(small.clone(), json!(2_147_483_648_i64), &[&beyond("integer with format int32")]);
    check_rules(small, json!(true), &["spec: Invalid value: \"\": spec in body must be of type int32: \"\""]);
    let large = json!({"type": "integer", "format": "int64"});
    check_rules(large.clone(), json!(i64::MIN), &[]);
    check_rules(large, json!(u64::MAX), &[&beyond("integer with format int64")]);
    check_rules(json!({"type": "integer"}), json!(u64::MAX), &[&beyond("integer (default format)")]);
    check_rules(json!({"type": "integer", "format": "uint8"}), json!(256), &[]);
    let float = json!({"type": "number", "format": "float"});
    check_rules(float.clone(), json!(3.4e38), &[]);
    check_rules(float, json!(3.5e38), &[&beyond("number with format float")]);
    check_rules(json!({"type": "number", "format": "double"}), json!(3.5e38), &[]);
    let limit = json!({"type": "integer", "format": "int32", "maximum": 4_294_967_295_i64});
    let text = "<nil>: Invalid value: \"\": Maximum boundary value must be of type integer with format int32 in spec";
    check_rules(limit, json!(1), &[text]);
    let open = json!({"type": "number", "minimum": 0.5, "exclusiveMinimum": true, "multipleOf": 0.5});
    check_rules(open.clone(), json!(0.5), &["spec: Invalid value: 0.5: spec in body should be greater than 0.5"]);
    check_rules(open, json!(0.7), &["spec: Invalid value: 0.7: spec in body should be a multiple of 0.5"]);
    let text = json!({"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^a"});
    check_rules(text.clone(), json!("a"), &["spec: Invalid value: \"a\": spec in body should be at least 2 chars long"]);
    check_rules(text.clone(), json!("aaaa"), &["spec: Too long: may not be more than 3 bytes"]);
    check_rules(text.clone(), json!("bb"), &["spec: Invalid value: \"bb\": spec in body should match '^a'"]);
    check_rules(text, json!("a\u{e9}\u{e9}"), &[]);
    let values = json!({"type": "string", "enum": ["a", "b"]});
    check_rules(values.clone(), json!("a"), &[]);
    check_rules(values, json!("c"), &["spec: Unsupported value: \"c\": supported values: \"a\", \"b\""]);
    let format = json!({"type": "string", "format": "ipv4"});
    check_rules(format, json!("x"), &["spec: Invalid value: \"x\": spec in body must be of type ipv4: \"x\""]);
    let list = json!({"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "integer"}});
    check_rules(list.clone(), json!([]), &["spec: Invalid value: 0: spec in body should have at least 1 items"]);
    check_rules(list.clone(), json!([1, 2, 3]), &["spec: Too many: 3: must have at most 2 items"]);
    check_rules(list, json!(["x"]), &["spec[0]: Invalid value: \"string\": spec[0] in body must be of type integer: \"string\""]);
    let object =
        json!({"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    check_rules(object, json!({"a": "x"}), &["spec.b: Required value"]);
    let sized = json!({"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": {"type": "string"}});
    check_rules(sized.clone(), json!({}), &["spec: Invalid value: 0: spec in body should have at least 1 properties"]);
    check_rules(sized.clone(), json!({"a": "", "b": ""}), &["spec: Too many: 2: must have at most 1 item"]);
    // What is in an object is told of all the same.
    let wrong = "spec.b: Invalid value: \"integer\": spec.b in body must be of type string: \"integer\"";
    check_rules(sized, json!({"a": "", "b": 1}), &["spec: Too many: 2: must have at most 1 item", wrong]);
    let address = json!({"type": "string", "format": "ipv4"});
    check_rules(address.clone(), json!(1), &["spec: Invalid value: \"int64\": spec in body must be of type ipv4: \"int64\""]);
    check_rules(
        address.clone(),
        json!(1.5),
        &["spec: Invalid value: \"float64\": spec in body must be of type ipv4: \"float64\""],
    );
    check_rules(address, json!({}), &["spec: Invalid value: \"\": spec in body must be of type ipv4: \"\""]);
    let time = |format: &str| json!({"type": "string", "format": format});
    check_rules(time("date-time"), json!("1h"), &["spec: Invalid value: \"1h\": spec in body must be of type date-time: \"1h\""]);
    check_rules(time("datetime"), json!("1h"), &["spec: Invalid value: \"1h\": spec in body must be of type datetime: \"1h\""]);
}

/// Numbers are shown and compared as upstream's Go does it.
#[test]
fn limits_of_numbers() {
    let number = |limit: &str, of: f64| json!({"type": "number", limit: of});
    check_rules(number("maximum", 3.0), json!(4.0), &["spec: Invalid value: 4: spec in body should be less than or equal to 3"]);
    let large = "spec: Invalid value: 2e+06: spec in body should be less than or equal to 1e+06";
    check_rules(number("maximum", 1e6), json!(2e6), &[large]);
    check_rules(
        number("maximum", 1e6),
        json!(2_000_000),
        &["spec: Invalid value: 2000000: spec in body should be less than or equal to 1000000"],
    );
    check_rules(number("minimum", 0.0), json!(-0.0), &[]);
    check_rules(number("multipleOf", 0.1), json!(0.3), &[]);
    check_rules(
        number("multipleOf", 0.5),
        json!(1),
        &["spec: Invalid value: 0: factor MultipleOf declared for spec must be positive: 0"],
    );
    let whole = json!({"type": "integer", "maximum": 2.5});
    let boundary = "<nil>: Invalid value: \"\": Maximum boundary value must be of type integer (default format) in spec";
    check_rules(whole.clone(), json!(2), &[boundary]);
    let checked = "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in spec";
    let ty = "spec: Invalid value: \"number\": spec in body must be of type integer: \"number\"";
    check_rules(json!({"type": "integer"}), json!(1.5), &[ty, checked]);
}

#[test]
fn junctors() {
    let kinds = |name: &str| {
        json!({"type": "object", name: [{"required": ["a"]}, {"required": ["b"]}],
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}}})
    };
    check_rules(kinds("oneOf"), json!({"a": ""}), &[]);
    check_rules(
        kinds("oneOf"),
        json!({}),
        &[
            "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
            "spec.a: Required value",
        ],
    );
    let both = "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives";
    check_rules(kinds("oneOf"), json!({"a": "", "b": ""}), &[both]);
    check_rules(kinds("anyOf"), json!({"b": ""}), &[]);
    let none = "<nil>: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)";
    check_rules(kinds("anyOf"), json!({}), &[none, "spec.a: Required value"]);
    let all = "<nil>: Invalid value: \"\": \"spec\" must validate all the schemas (allOf)";
    check_rules(kinds("allOf"), json!({"a": ""}), &["spec.b: Required value", all]);
    let not = json!({"type": "object", "not": {"required": ["a"]}, "properties": {"a": {"type": "string"}}});
    check_rules(not.clone(), json!({}), &[]);
    check_rules(not, json!({"a": ""}), &["<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)"]);
}

#[test]
fn unique_elements() {
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    check_rules(set.clone(), json!(["a", "b"]), &[]);
    check_rules(set, json!(["a", "b", "a", "a"]), &["spec[2]: Duplicate value: \"a\""]);
    let fields = json!({"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}});
    let map = |keys: Value| json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys, "items": fields});
    let twice = json!([{"name": "a", "port": 1}, {"name": "a", "port": 2}]);
    check_rules(map(json!(["name"])), twice.clone(), &["spec[1]: Duplicate value: {\"name\":\"a\"}"]);
    check_rules(map(json!(["name", "port"])), twice, &[]);
}

#[test]
fn embedded_objects() {
    let embedded =
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
    check_rules(embedded.clone(), json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}), &[]);
    check_rules(
        embedded.clone(),
        json!({"apiVersion": "a/b/c"}),
        &["spec.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c", "spec.kind: Required value"],
    );
    let found = compile(json!({"spec": embedded}))
        .validate(&json!({"spec": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a/b"}}}));
    assert!(found.to_string().starts_with("spec.metadata.name: Invalid value"), "{found}");
}

/// KEP-4008: "unchanged values are not validated again".
#[test]
fn ratcheting() {
    let items = json!({"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer", "maximum": 5}}});
    let list = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": items});
    let schema = compile(json!({"a": {"type": "string", "maxLength": 1}, "b": {"type": "string"}, "l": list}));
    let check = |old: Value, new: Value, expected: &[&str]| {
        let found: Vec<String> = schema.validate_update(&new, &old).iter().map(|error| error.path.to_string()).collect();
        assert_eq!(found, expected, "{old} {new}");
    };
    check(json!({"a": "long"}), json!({"a": "long", "b": "x"}), &[]);
    check(json!({"a": "long"}), json!({"a": "longer"}), &["a"]);
    check(json!({"a": "s"}), json!({"a": "long"}), &["a"]);
    let wrong = json!({"name": "x", "n": 6});
    check(json!({"l": [wrong]}), json!({"l": [{"name": "y", "n": 1}, wrong]}), &[]);
    check(json!({"l": [wrong]}), json!({"l": [{"name": "x", "n": 7}]}), &["l[0].n"]);
    // An object with fields that the schema does not tell is never the same as before, so what is required of it is; what is told of is.
    let told = json!({"type": "object", "required": ["x"], "properties": {"y": {"type": "string"}}});
    let mut open = told.clone();
    open["x-kubernetes-preserve-unknown-fields"] = json!(true);
    let schema = compile(json!({"told": told, "open": open}));
    let check = |object: Value, expected: &[&str]| {
        let found: Vec<String> = schema.validate_update(&object, &object).iter().map(|error| error.path.to_string()).collect();
        assert_eq!(found, expected, "{object}");
    };
    check(json!({"told": {"y": "a"}}), &[]);
    check(json!({"open": {"y": "a"}}), &[]);
    check(json!({"open": {"y": "a", "z": 1}}), &["open.x"]);
}

#[test]
fn no_schemas() {
    let check = |schema: Value| assert!(Structural::compile(&schema).is_err(), "{schema}");
    check(json!("x"));
    check(json!({"type": "thing"}));
    let deep = (0..200).fold(json!({"type": "object"}), |inner, _| json!({"type": "object", "properties": {"a": inner}}));
    check(deep);
}

/// As much as a body holds: what looks at each for each does not end within the test's time.
#[test]
fn large_objects() {
    let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}});
    let schema = compile(json!({"l": set, "m": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 1}}}));
    let many: Vec<u32> = (0..200_000).collect();
    let map: serde_json::Map<_, _> = (0..50_000).map(|n| (format!("k{n}"), json!("xx"))).collect();
    let object = json!({"l": many, "m": map});
    assert!(schema.validate(&object).is_full());
    assert!(schema.validate_update(&object, &object).is_empty());
}

#[test]
fn rules() {
    let rule = |rule: Value| {
        json!({"type": "object", "x-kubernetes-validations": [rule], "properties": {
            "a": {"type": "integer"}, "b": {"type": "integer"}, "since": {"type": "string", "format": "date-time"},
            "l": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'bad'"}]}},
        }})
    };
    let less = json!({"rule": "self.a <= self.b"});
    check_rules(rule(less.clone()), json!({"a": 1, "b": 2}), &[]);
    check_rules(rule(less.clone()), json!({"a": 3, "b": 2}), &["spec: Invalid value: failed rule: self.a <= self.b"]);
    check_rules(
        rule(less.clone()),
        json!({"a": 3}),
        &["spec: Invalid value: \"object\": no such key: b evaluating rule: self.a <= self.b"],
    );
    check_rules(
        rule(less),
        json!({"a": 1, "b": 2, "l": ["bad"]}),
        &["spec.l[0]: Invalid value: \"bad\": failed rule: self != 'bad'"],
    );
    let told =
        json!({"rule": "self.a <= self.b", "message": "a is at most b", "reason": "FieldValueForbidden", "fieldPath": ".a"});
    check_rules(rule(told), json!({"a": 3, "b": 2}), &["spec.a: Forbidden: a is at most b"]);
    let elsewhere = json!({"rule": "self.a <= self.b", "message": "no", "fieldPath": ".c"});
    check_rules(rule(elsewhere), json!({"a": 3, "b": 2}), &["spec: Invalid value: no"]);
    let made = json!({"rule": "self.a <= self.b", "messageExpression": "'a is %d'.format([self.a])"});
    check_rules(rule(made), json!({"a": 3, "b": 2}), &["spec: Invalid value: a is 3"]);
    let typed = json!({"rule": "self.since.getFullYear() > 2000"});
    check_rules(rule(typed), json!({"since": "2026-01-01T00:00:00Z"}), &[]);
    let wrong = rule(json!({"rule": "self.a <"}));
    let found = compile(json!({"spec": wrong})).validate_rules(&apimachinery::field::Path::new("schema"));
    assert!(found.to_string().starts_with("schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: \"self.a <\": compilation failed: ERROR: <input>:1:9: Syntax error: "), "{found}");
}

/// A field that may be null has no members then: upstream's rules find none there (cel-go, `refQualify`).
#[test]
fn rules_about_members_of_null() {
    let spec = |rule: &str| {
        json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
            "o": {"type": "object", "nullable": true, "properties": {"a": {"type": "string"}}}}})
    };
    check_rules(spec("!has(self.o.a) || self.o.a == 'x'"), json!({"o": null}), &[]);
    check_rules(spec("!has(self.o) || !has(self.o.a)"), json!({"o": null}), &[]);
    check_rules(
        spec("self.o.a == 'x'"),
        json!({"o": null}),
        &["spec: Invalid value: \"object\": no such key: a evaluating rule: self.o.a == 'x'"],
    );
}

/// Upstream: "undefined field" is what rules are refused for that speak of what the schema does not declare.
#[test]
fn rules_about_fields_that_there_are_not() {
    let check = |rule: &str, expected: Option<&str>| {
        let item = json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}}});
        let spec = json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
            "a-b": {"type": "integer"}, "if": {"type": "integer"}, "items": {"type": "array", "maxItems": 9, "items": item}, "byName": {"type": "object", "maxProperties": 9, "additionalProperties": item},
            "one": item, "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"x": {"type": "string"}}},
            "port": {"x-kubernetes-int-or-string": true},
        }});
        let errors = compile(json!({"spec": spec})).validate_rules(&apimachinery::field::Path::new("schema"));
        let found = errors.iter().next().map(|error| error.to_string());
        let expected = expected.map(|field| format!("undefined field '{field}'"));
        match (&found, &expected) {
            (Some(found), Some(expected)) => assert!(found.contains(expected), "{rule}: {found}"),
            _ => assert_eq!(found, expected, "{rule}"),
        }
    };
    check("self.one.name == 'a'", None);
    check("self.one.nam == 'a'", Some("nam"));
    check("has(self.two)", Some("two"));
    check("self.a__dash__b > 1 && self.__if__ > 1", None);
    check("self.a__dash__c > 1", Some("a__dash__c"));
    check("self.items.all(i, i.name != '' && i.name.size() > 0)", None);
    check("self.items.all(i, i.nam != '')", Some("nam"));
    check("self.items.filter(i, i.name != '').exists(i, i.nam == '')", Some("nam"));
    check("self.items[0].nam == ''", Some("nam"));
    check("self.items.map(i, i.name).exists(n, n == 'a')", None);
    check("self.byName.all(k, self.byName[k].name == k)", None);
    check("self.byName.a.name == 'a' && self.byName['b'].nam == ''", Some("nam"));
    check("self.any.x == '' && self.port.x == 1", None);
    check("self.any.y == 1", Some("y"));
    check("self.?one.?nam.orValue('') == ''", Some("nam"));
    check("[self.one].exists(o, o.nam == '')", Some("nam"));
    check("self.one == oldSelf.two", Some("two"));
    check("[self.one].all(o, o.nam == '')", Some("nam"));
    let root = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.metadata.name != '' && self.spek == 1"}],
        "properties": {"spec": {"type": "object"}}});
    let found = Structural::compile(&root).unwrap().validate_rules(&apimachinery::field::Path::new("schema")).to_string();
    assert!(found.contains("undefined field 'spek'"), "{found}");
}

#[test]
fn rules_about_changes() {
    let spec = json!({"type": "object", "properties": {
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]},
        "once": {"type": "string", "x-kubernetes-validations": [
            {"rule": "!oldSelf.hasValue() || oldSelf.value() == self", "optionalOldSelf": true, "message": "is set once"},
        ]},
        "small": {"type": "integer", "x-kubernetes-validations": [{"rule": "self < 5"}]}, "other": {"type": "integer"},
    }});
    let schema = compile(json!({"spec": spec}));
    let check = |old: Value, new: Value, expected: &[&str]| {
        let found = schema.validate_update(&json!({"spec": new}), &json!({"spec": old}));
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{old} {new}");
    };
    check(json!({"fixed": "a"}), json!({"fixed": "a"}), &[]);
    check(json!({"fixed": "a"}), json!({"fixed": "b"}), &["spec.fixed: Invalid value: \"b\": is immutable"]);
    check(json!({}), json!({"fixed": "b"}), &[]);
    check(json!({}), json!({"once": "a"}), &[]);
    check(json!({"once": "a"}), json!({"once": "b"}), &["spec.once: Invalid value: \"b\": is set once"]);
    // What was wrong before stays as it is.
    check(json!({"small": 9}), json!({"small": 9, "other": 1}), &[]);
    check(json!({"small": 9}), json!({"small": 8}), &["spec.small: Invalid value: 8: failed rule: self < 5"]);
    assert!(schema.validate(&json!({"spec": {"fixed": "a"}})).is_empty());
}

/// Upstream: `statusStrategy.ValidateUpdate` looks at one field by its schema, and at the whole object for what is unique in lists and for rules.
#[test]
fn a_field_that_is_written_alone() {
    let conditions = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "items": {
        "type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}}});
    let spec = json!({"type": "object", "properties": {"n": {"type": "integer", "maximum": 5}}});
    let status = json!({"type": "object", "properties": {"n": {"type": "integer"}, "conditions": conditions}});
    let rules = json!([{"rule": "!has(self.status) || self.status.n <= self.spec.n"}, {"rule": "has(self.status) || !has(oldSelf.status)"}]);
    let schema = |properties: Value| {
        let source = json!({"type": "object", "properties": properties, "x-kubernetes-validations": rules});
        Structural::compile(&source).unwrap()
    };
    let whole = schema(json!({"spec": spec, "status": status}));
    let check = |schema: &Structural, old: Value, new: Value, expected: &[&str]| {
        let found = schema.validate_field("status", &new, &old);
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{old} {new}");
    };
    let with = |status: Value| json!({"spec": {"n": 3}, "status": status});
    let twice = || json!({"n": 1, "conditions": [{"type": "Ready"}, {"type": "Ready"}]});
    check(&whole, json!({"spec": {"n": 3}}), with(json!({"n": 3, "conditions": [{"type": "Ready"}]})), &[]);
    let duplicate = "status.conditions[1]: Duplicate value: {\"type\":\"Ready\"}";
    check(&whole, json!({"spec": {"n": 3}}), with(twice()), &[duplicate]);
    check(&whole, with(twice()), with(twice()), &[]);
    let beyond = "<nil>: Invalid value: failed rule: !has(self.status) || self.status.n <= self.spec.n";
    check(&whole, json!({"spec": {"n": 3}}), with(json!({"n": 4})), &[beyond]);
    let gone = "<nil>: Invalid value: failed rule: has(self.status) || !has(oldSelf.status)";
    check(&whole, with(json!({"n": 1})), json!({"spec": {"n": 3}}), &[gone]);
    // What is wrong elsewhere is not the status's fault.
    check(&whole, json!({"spec": {"n": 9}}), json!({"spec": {"n": 9}, "status": {"n": 1}}), &[]);
}

/// Upstream: `schema/defaulting/validation.go` holds each default against the rules of its part of the schema.
#[test]
fn defaults_keep_the_rules() {
    let check = |field: Value, expected: &[&str]| {
        let schema = compile(json!({"f": field}));
        let path = apimachinery::field::Path::new("schema");
        assert!(schema.validate_default(&path).is_empty() && schema.validate_rules(&path).is_empty(), "{field}");
        let found = schema.validate_default_rules(&path);
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{field}");
    };
    let number = |default: i64| json!({"type": "integer", "default": default, "x-kubernetes-validations": [{"rule": "self > 1", "message": "more than one"}]});
    check(number(2), &[]);
    check(number(1), &["schema.properties[f].default: Invalid value: 1: more than one"]);
    // A rule around the default is asked of a default around it.
    let object = |default: Value| {
        json!({"type": "object", "default": default, "properties": {"a": {"type": "integer", "default": 1}, "b": number(2)},
            "x-kubernetes-validations": [{"rule": "self.a < self.b"}]})
    };
    check(object(json!({})), &[]);
    check(
        object(json!({"b": 1})),
        &[
            "schema.properties[f].default: Invalid value: failed rule: self.a < self.b",
            "schema.properties[f].default.b: Invalid value: 1: more than one",
        ],
    );
    let items = json!({"type": "array", "items": number(1)});
    check(items, &["schema.properties[f].items.default: Invalid value: 1: more than one"]);
    // Nothing was there before.
    check(json!({"type": "integer", "default": 1, "x-kubernetes-validations": [{"rule": "self > oldSelf"}]}), &[]);
    let embedded = |default: Value| json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true, "default": default});
    check(embedded(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}})), &[]);
    check(embedded(json!({"kind": "Pod"})), &["schema.properties[f].default.apiVersion: Required value"]);
    // All of them share one budget: what a definition may cost has a bound, however many defaults it has.
    let costly = json!({"type": "array", "maxItems": 400, "items": {"type": "integer"}, "default": (0..400).collect::<Vec<_>>(),
        "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a + b >= 0))"}]});
    let many: Value = Value::Object((0..40).map(|n| (format!("f{n}"), costly.clone())).collect());
    let found = compile(many).validate_default_rules(&apimachinery::field::Path::new("schema")).to_string();
    assert!(found.contains("running out of cost budget"), "{found}");
}

#[test]
fn rules_have_a_budget() {
    let list = json!({"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [{"rule": "self.all(a, self.all(b, a + b >= 0))"}]});
    let schema = compile(json!({"spec": list}));
    let many: Vec<u32> = (0..100_000).collect();
    let found = schema.validate(&json!({"spec": many})).to_string();
    assert!(found.contains("call cost exceeds limit for rule: self.all(a"), "{found}");
    let blocked = json!({"type": "object", "required": ["a"], "x-kubernetes-validations": [{"rule": "false"}]});
    let found = compile(json!({"spec": blocked})).validate(&json!({"spec": {}}));
    assert_eq!(found.iter().map(|error| error.path.to_string()).collect::<Vec<_>>(), ["spec.a", "<nil>"]);
}

/// Upstream's table (`TestValidateFieldPath`): fields by their names, entries of maps by their keys, and nothing of lists.
#[test]
fn paths_of_fields() {
    let schema = json!({"type": "object", "properties": {
        "foo": {"type": "object", "properties": {
            "bar": {"type": "object", "additionalProperties": {"type": "object", "properties": {"sub": {"type": "string"}}}},
            "a.b": {"type": "string"}, "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string"}}}},
            "any": {"type": "object", "additionalProperties": true},
            "it's": {"type": "string"},
        }},
    }});
    let compiled = Structural::compile(&schema).unwrap();
    let check = |path: &str, expected: Option<&str>| {
        assert_eq!(crate::field_path(&compiled.root, path).as_deref(), expected, "{path}");
    };
    check(".foo", Some("foo"));
    check(".foo.bar", Some("foo.bar"));
    check("['foo']['bar']", Some("foo.bar"));
    check(".foo['a.b']", Some("foo.a.b"));
    check(r".foo['it\'s']", Some("foo.it's"));
    check(".foo.bar.key", Some("foo.bar[key]"));
    check(".foo.bar['key'].sub", Some("foo.bar[key].sub"));
    check(".foo.any.key", Some("foo.any[key]"));
    for wrong in [
        "foo",
        " .foo",
        ".",
        ".foo.",
        ".nope",
        ".foo.nope",
        ".foo.bar.key.nope",
        ".foo.any.key.more",
        ".foo.list[0]",
        ".foo.list.x",
        ".foo['a.b",
        ".foo['a.b'",
        ".foo[a]",
        r".foo['\q']",
        ".foo]",
        "..foo",
        ".foo.a.b",
    ] {
        check(wrong, None);
    }
}
