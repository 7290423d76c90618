#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;

/// A schema with limits where there is one.
fn limited(mut schema: Value, name: &str, limit: Option<u64>) -> Value {
    if let Some(limit) = limit {
        schema[name] = limit.into();
    }
    schema
}

/// A type as upstream's tests name it.
fn of(name: &str) -> Value {
    match name {
        "int-or-string" => json!({"x-kubernetes-int-or-string": true}),
        "duration" | "date" | "date-time" => json!({"type": "string", "format": name}),
        name => json!({"type": name}),
    }
}

fn cost(schema: &Value, rule: &str) -> u64 {
    let mut schema = schema.clone();
    schema["x-kubernetes-validations"] = json!([{"rule": rule}]);
    let node = crate::compile::node(&schema, 0).unwrap();
    let declared = declare(&node, false, "selfType").unwrap();
    let rule = &node.rules[0];
    checked(&rule.program, &rule.source, rule, &declared).unwrap_or_else(|why| panic!("{why}")).cost(&declared)
}

/// What a rule costs where nothing is limited, and where so much is.
#[track_caller]
fn check_costs(schema: impl Fn(Option<u64>) -> Value, rule: &str, unlimited: u64, most: u64, limited: u64) {
    assert_eq!((cost(&schema(None), rule), cost(&schema(Some(most)), rule)), (unlimited, limited), "{rule}");
}

/// Upstream's estimates (`schema/cel/compilation_test.go`, `TestCostEstimation`).
#[test]
fn costs_of_lists_and_maps() {
    let list = |item: &'static str| move |most| limited(json!({"type": "array", "items": of(item)}), "maxItems", most);
    let map = |value: &'static str| {
        move |most| limited(json!({"type": "object", "additionalProperties": of(value)}), "maxProperties", most)
    };
    check_costs(list("number"), "self.all(x, true)", 4_718_591, 10, 32);
    check_costs(list("string"), "self.all(x, true)", 3_145_727, 20, 62);
    check_costs(list("boolean"), "self.all(x, true)", 1_887_437, 5, 17);
    check_costs(list("int-or-string"), "self.all(x, true)", 4_718_591, 10, 32);
    check_costs(list("duration"), "self.all(x, true)", 2_359_295, 5, 17);
    check_costs(list("date"), "self.all(x, true)", 725_936, 15, 47);
    check_costs(list("date-time"), "self.all(x, true)", 428_963, 25, 77);
    check_costs(map("number"), "self.all(x, true)", 1_348_169, 10, 32);
    check_costs(map("string"), "self.all(x, true)", 1_179_647, 3, 11);
    check_costs(map("boolean"), "self.all(x, true)", 943_718, 100, 302);
    check_costs(map("duration"), "self.all(x, true)", 1_048_577, 5, 17);
    check_costs(map("date"), "self.all(x, true)", 524_288, 10, 32);
    check_costs(map("date-time"), "self.all(x, true)", 349_526, 25, 77);
    check_costs(list("number"), "self[1] == 0.0", 2, 5000, 2);
    check_costs(list("string"), "self[1] == self[1]", 314_577, 8, 314_577);
    check_costs(list("int-or-string"), "self[0] == 5", 3, 10, 3);
    check_costs(list("duration"), "self[0].getHours() == 2", 4, 525, 4);
    check_costs(list("number"), "self.all(x, x == 0.0)", 6_291_454, 3 * 1024 * 2048, 25_165_826);
    check_costs(map("number"), "self[\"x\"] == 0.0", 2, 0, 2);
    check_costs(map("integer"), "oldSelf.size() == self.size()", 5, 10, 5);
    check_costs(map("date-time"), "self[\"a\"] == self[\"b\"]", 8, 7, 8);
    let squares = |depth: &str| cost(&list("number")(Some(10)), depth);
    assert_eq!(squares("self.all(x, self.all(y, true))"), 352);
    assert_eq!(squares("self.all(x, self.all(y, self.all(z, true)))"), 3552);
}

#[test]
fn costs_of_nested_schemas() {
    let object = json!({"type": "object", "required": ["required"], "properties": {
        "required": {"type": "string"}, "optional": {"type": "string"},
    }});
    let list = |item: Value| move |most| limited(json!({"type": "array", "items": item}), "maxItems", most);
    let lists = json!({"type": "array", "items": {"type": "number"}});
    let maps = json!({"type": "object", "additionalProperties": {"type": "number"}});
    check_costs(list(lists.clone()), "self.all(x, true)", 3_145_727, 100, 302);
    check_costs(list(object.clone()), "self.all(x, true)", 555_128, 50, 152);
    check_costs(list(object.clone()), "self[0] == null", 2, 422, 2);
    check_costs(list(lists), "self[0][0] == -1.0", 3, 51, 3);
    check_costs(list(maps.clone()), "self.all(x, x.y == 25.2)", 6_291_452, 12, 74);
    check_costs(list(maps), "self[0].x > 2.0", 4, 3000, 4);
    let nested = list(json!({"type": "object", "additionalProperties": object}));
    check_costs(nested, "self.all(x, x[\"y\"].required == \"z\")", 7_340_027, 10, 72);
    let both = |most| {
        let value = limited(json!({"type": "string"}), "maxLength", most);
        limited(json!({"type": "object", "additionalProperties": value}), "maxProperties", most)
    };
    check_costs(both, "self.all(x, x.contains(self[x]))", 2_752_507, 10, 72);
}

#[test]
fn costs_of_texts_and_functions() {
    let text = |most| limited(json!({"type": "string"}), "maxLength", most);
    check_costs(text, "self.contains('test')", 314_574, 10, 5);
    check_costs(text, "self.startsWith('test')", 2, 15, 2);
    check_costs(text, "size(self + \"hello\") > size(\"hello\")", 314_578, 4, 7);
    check_costs(text, "self.matches(\"x\")", 314_574, 50, 22);
    check_costs(text, "\"\".matches(\"(((((((((())))))))))[0-9]\")", 7, 10, 7);
    check_costs(text, "self.matches(\"\")", 1, 100, 1);
    check_costs(text, "self == \"x\"", 2, 0, 1);
    check_costs(text, "self.find('[0-9]+') == ''", 629_147, 10, 11);
    check_costs(text, "self.lowerAscii() == 'lower!'", 314_575, 10, 6);
    let bytes = |most| limited(json!({"type": "string", "format": "byte"}), "maxLength", most);
    check_costs(bytes, "self == b\"x\"", 2, 0, 1);
    let values = |most| limited(json!({"type": "string", "enum": ["A", "B", "C", "LongValue"]}), "maxLength", most);
    check_costs(values, "self.contains('A')", 2, 1000, 401);
    let texts = move |most| limited(json!({"type": "array", "items": text(most)}), "maxItems", most);
    check_costs(texts, "self.join(' ') == 'aa bb'", 329_853_068_905, 10, 43);
    check_costs(texts, "self.isSorted() == true", 329_854_432_052, 10, 52);
    let replaced = move |most| {
        let of = |most: u64| json!({"type": "string", "maxLength": most});
        json!({"type": "object", "properties": {"str": text(most), "before": of(2), "after": of(4)}})
    };
    check_costs(replaced, "self.str.replace(self.before, self.after) == 'does not matter'", 629_154, 4, 12);
    let split = move |most| json!({"type": "object", "properties": {"str": text(most), "separator": text(most)}});
    check_costs(split, "self.str.split(self.separator) == []", 629_160, 10, 22);
    let quantity = |most| limited(json!({"x-kubernetes-int-or-string": true}), "maxLength", most);
    check_costs(quantity, "isQuantity(self)", 314_574, 20, 9);
}

#[track_caller]
fn check_told(schema: Value, expected: &[&str]) {
    let node = crate::compile::node(&schema, 0).unwrap();
    let found: Vec<String> = check(&node, &Path::new("s")).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found}\n{expected}");
    }
}

/// Upstream refuses these (`apiextensions/validation/validation_test.go`).
#[test]
fn rules_that_cost_too_much() {
    let rule = |rule: &str| json!([{"rule": rule}]);
    let hint = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    let list = |most: Option<u64>, rules: Value| {
        let schema = json!({"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": rules});
        json!({"type": "object", "properties": {"list": limited(schema, "maxItems", most)}})
    };
    let twice = rule("self.all(x, self.all(y, x + y > 0))");
    let dear = format!(
        "s.properties[list].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {hint}"
    );
    let total = "s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x";
    let contributed = "s.properties[list].x-kubernetes-validations[0].rule: Forbidden: contributed to estimated rule cost total";
    check_told(list(None, twice.clone()), &[&dear, contributed, total]);
    check_told(list(Some(100), twice), &[]);
    // Each of many texts, of which as many fit into an object as there is room for, or as may be there.
    let texts = |most: Option<u64>| {
        let item =
            json!({"type": "string", "maxLength": 1000, "x-kubernetes-validations": rule("self.matches('^[a-z]+[0-9]*$')")});
        json!({"type": "object", "properties": {"list": limited(json!({"type": "array", "items": item}), "maxItems", most)}})
    };
    check_told(texts(None), &["estimated rule cost exceeds budget by factor of more than 100x", "contributed", "total"]);
    check_told(texts(Some(100)), &[]);
}

#[test]
fn rules_of_the_wrong_types() {
    let spec = |rule: &str, message: &str| {
        let mut told = json!({"rule": rule});
        if !message.is_empty() {
            told["messageExpression"] = message.into();
        }
        json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": [told], "properties": {
            "n": {"type": "integer"}, "s": {"type": "string", "maxLength": 10}, "f": {"type": "number"}, "at": {"type": "string", "format": "date-time"},
            "l": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 5}},
        }}}})
    };
    let check = |rule: &str, expected: &[&str]| check_told(spec(rule, ""), expected);
    check("self.n > 1 && self.f > 1 && self.n < self.f && self.at > timestamp('2020-01-01T00:00:00Z')", &[]);
    check(
        "self.s == self.n",
        &["found no matching overload for '_==_' applied to '(string, int)'\n | self.s == self.n\n | .......^"],
    );
    check(
        "self.s.startsWith(1)",
        &["ERROR: <input>:1:18: found no matching overload for 'startsWith' applied to 'string.(int)'"],
    );
    check("self.s", &["cel expression must evaluate to a bool"]);
    check("self.l.all(x, x)", &["expected type 'bool' but found 'string'"]);
    check("self.n.size() > 1", &["found no matching overload for 'size' applied to 'int.()'"]);
    check("self.s.x == ''", &["type 'string' does not support field selection"]);
    check("self.l.exists(x, x == 1)", &["'_==_' applied to '(string, int)'"]);
    check("self.n in self.l", &["found no matching overload for '@in' applied to '(int, list(string))'"]);
    check("self.n + self.f > 1.0", &["found no matching overload for '_+_' applied to '(int, double)'"]);
    check("self.s.matches('[')", &["invalid matches argument"]);
    check("self.l.map(x, x + 'a').filter(x, x != 'b').size() == self.l.size()", &[]);
    check("self.?s.orValue('') == '' || self.?n.hasValue() && [1, self.n].max() > 0", &[]);
    check("self.nothing == 1 || other == 2", &["undeclared reference to 'other' (in container '')"]);
    check_told(spec("true", "self.s + 'a'"), &[]);
    check_told(
        spec("true", "self.n"),
        &["messageExpression: Invalid value: \"self.n\": messageExpression must evaluate to a string"],
    );
    check_told(spec("true", "self.x"), &["messageExpression compilation failed: ERROR: <input>:1:5: undefined field 'x'"]);
    let untyped = json!({"type": "object", "properties": {"x": {"x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-validations": [{"rule": "true"}]}}});
    check_told(untyped, &["unable to convert structural schema to CEL declarations"]);
}

/// Upstream: `apiextensions/validation/validation_test.go`, "x-kubernetes-validations rule with uncorrelatable oldSelf".
#[test]
fn rules_about_changes_need_something_to_compare_with() {
    let rules = json!([{"rule": "self == oldSelf"}]);
    let text = json!({"type": "string", "maxLength": 5, "x-kubernetes-validations": rules});
    let list = |kind: &str| {
        let item =
            json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string", "maxLength": 5}, "v": text}});
        let list = json!({"type": "array", "maxItems": 3, "items": item, "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": ["k"]});
        json!({"type": "object", "properties": {"l": list}})
    };
    check_told(list("map"), &[]);
    let within = "rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[l]";
    check_told(list("atomic"), &[within]);
    let atomic = json!({"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"v": text}});
    check_told(json!({"type": "object", "properties": {"l": atomic}}), &[within]);
    let optional = json!([{"rule": "self != 'a'", "optionalOldSelf": true}]);
    let schema = json!({"type": "string", "maxLength": 5, "x-kubernetes-validations": optional});
    check_told(
        json!({"type": "object", "properties": {"v": schema}}),
        &["optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"],
    );
}
