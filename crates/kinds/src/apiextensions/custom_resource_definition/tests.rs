use serde_json::{Value, json};

use crate::testing::untyped::{created, prepared, updated, with};

fn definition(schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "plurals.group.com"},
        "spec": {
            "group": "group.com", "scope": "Namespaced", "names": {"plural": "plurals", "kind": "Plural"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

fn plain() -> Value {
    definition(json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}))
}

#[track_caller]
fn check(pointer: &str, value: Value, expected: &[&str]) {
    assert_eq!(created(with(plain(), pointer, value)), expected);
}

#[test]
fn defaults() {
    let (strategy, mut object) = prepared(plain());
    let names = &object["spec"]["names"];
    assert_eq!((&names["singular"], &names["listKind"]), (&json!("plural"), &json!("PluralList")));
    assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
    strategy.prepare_create(&mut object);
    assert_eq!((&object["status"]["storedVersions"], &object["status"]["conditions"]), (&json!(["v1"]), &json!([])));
    let old = object.clone();
    let mut second = object["spec"]["versions"][0].clone();
    (second["name"], object["spec"]["versions"][0]["storage"]) = ("v2".into(), false.into());
    second["storage"] = true.into();
    object["spec"]["versions"].as_array_mut().expect("versions").push(second);
    strategy.prepare_update(&mut object, &old);
    assert_eq!(object["status"]["storedVersions"], json!(["v1", "v2"]));
}

/// Cases of upstream's TestValidateCustomResourceDefinition.
#[test]
fn definitions() {
    assert_eq!(created(plain()), Vec::<String>::new());
    check(
        "/metadata/name",
        json!("other"),
        &["metadata.name: Invalid value: \"other\": must be spec.names.plural+\".\"+spec.group"],
    );
    check(
        "/spec/scope",
        json!("Other"),
        &["spec.scope: Unsupported value: \"Other\": supported values: \"Cluster\", \"Namespaced\""],
    );
    let group =
        |group: &str| with(with(plain(), "/spec/group", json!(group)), "/metadata/name", json!(format!("plurals.{group}")));
    assert_eq!(created(group("com")), ["spec.group: Invalid value: \"com\": should be a domain with at least one dot"]);
    check(
        "/spec/names/listKind",
        json!("Plural"),
        &["spec.names.listKind: Invalid value: \"Plural\": kind and listKind may not be the same"],
    );
    check(
        "/spec/names/shortNames",
        json!(["A"]),
        &[
            "spec.names.shortNames[0]: Invalid value: \"A\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    check("/spec/versions/0/schema", json!(null), &["spec.versions[0].schema.openAPIV3Schema: Required value"]);
    check(
        "/spec/versions/0/deprecationWarning",
        json!("old"),
        &["spec.versions[0].deprecationWarning: Invalid value: \"old\": can only be set for deprecated versions"],
    );
    check(
        "/spec/preserveUnknownFields",
        json!(true),
        &[
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ],
    );
    let unstored = created(with(plain(), "/spec/versions/0/storage", json!(false)));
    assert!(unstored[0].ends_with("must have exactly one version marked as storage version"), "{unstored:?}");
    assert_eq!(
        unstored[1..],
        ["status.storedVersions: Invalid value: null: must have at least one stored version".replace("null", "[]")]
    );
}

#[test]
fn protected_groups_need_an_approval() {
    let with_approval = |annotation: Value| {
        let object = with(with(plain(), "/spec/group", json!("my.k8s.io")), "/metadata/name", json!("plurals.my.k8s.io"));
        created(with(object, "/metadata/annotations", annotation))
    };
    let at = "metadata.annotations[api-approved.kubernetes.io]";
    assert_eq!(
        with_approval(json!(null)),
        [format!(
            "{at}: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111"
        )]
    );
    assert_eq!(with_approval(json!({"api-approved.kubernetes.io": "bad"})).len(), 1);
    assert_eq!(
        with_approval(json!({"api-approved.kubernetes.io": "https://github.com/kubernetes/kubernetes/pull/1"})),
        Vec::<String>::new()
    );
    assert_eq!(with_approval(json!({"api-approved.kubernetes.io": "unapproved, experimental-only"})), Vec::<String>::new());
}

#[test]
fn conversions() {
    let check = |conversion: Value, expected: &[&str]| check("/spec/conversion", conversion, expected);
    let service = json!({"service": {"namespace": "n", "name": "s"}});
    check(json!({"strategy": "Webhook", "webhook": {"clientConfig": service, "conversionReviewVersions": ["v1"]}}), &[]);
    check(
        json!({"strategy": "Other"}),
        &["spec.conversion.strategy: Unsupported value: \"Other\": supported values: \"None\", \"Webhook\""],
    );
    check(
        json!({"strategy": "None", "webhook": {"clientConfig": service, "conversionReviewVersions": ["v1"]}}),
        &[
            "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook",
            "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook",
        ],
    );
    check(
        json!({"strategy": "Webhook"}),
        &[
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions: Required value",
        ],
    );
    check(
        json!({"strategy": "Webhook", "webhook": {"clientConfig": {}, "conversionReviewVersions": ["v9"]}}),
        &[
            "spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required",
            "spec.conversion.conversionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
        ],
    );
}

#[test]
fn subresources_and_columns() {
    check(
        "/spec/versions/0/subresources",
        json!({"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": "status"}}),
        &["spec.subresources.scale.statusReplicasPath: Invalid value: \"status\": must be a simple json path starting with ."],
    );
    check(
        "/spec/versions/0/subresources",
        json!({"scale": {"specReplicasPath": ".status.a", "statusReplicasPath": ".status.b", "labelSelectorPath": ".x"}}),
        &[
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.a\": should be a json path under .spec",
            "spec.subresources.scale.labelSelectorPath: Invalid value: \".x\": should be a json path under either .spec or .status",
        ],
    );
    check(
        "/spec/versions/0/additionalPrinterColumns",
        json!([{"name": "", "type": "text", "format": "f", "jsonPath": "spec"}]),
        &[
            "spec.additionalPrinterColumns[0].name: Required value",
            "spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
            "spec.additionalPrinterColumns[0].format: Invalid value: \"f\": must be one of byte,date,date-time,double,float,int32,int64,password",
            "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"spec\": must be a simple json path starting with .",
        ],
    );
    check(
        "/spec/versions/0/selectableFields",
        json!([{"jsonPath": ".spec.size"}, {"jsonPath": ".spec.size"}, {"jsonPath": ".spec"}, {"jsonPath": ".x"}]),
        &[
            "spec.selectableFields[1].jsonPath: Duplicate value: \".spec.size\"",
            "spec.selectableFields[2].jsonPath: Invalid value: \".spec\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            "spec.selectableFields[3].jsonPath: Invalid value: \".x\": is an invalid path: does not refer to a valid field",
        ],
    );
}

#[track_caller]
fn check_schema(schema: Value, expected: &[&str]) {
    let expected: Vec<_> = expected.iter().map(|error| format!("spec.validation.openAPIV3Schema{error}")).collect();
    assert_eq!(created(definition(schema)), expected);
}

fn with_field(field: Value) -> Value {
    json!({"type": "object", "properties": {"f": field}})
}

#[track_caller]
fn check_field(field: Value, expected: &[&str]) {
    let expected: Vec<_> = expected.iter().map(|error| format!("spec.validation.openAPIV3Schema.properties[f]{error}")).collect();
    assert_eq!(created(definition(with_field(field))), expected);
}

/// Cases of upstream's TestValidateStructuralInvariants and TestValidateStructuralCompleteness.
#[test]
fn structural_schemas() {
    check_schema(json!({}), &[".type: Required value: must not be empty at the root"]);
    check_schema(json!({"type": "string"}), &[".type: Invalid value: \"string\": must be object at the root"]);
    check_schema(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), &[]);
    check_schema(json!({"type": "object", "nullable": true}), &[".nullable: Forbidden: nullable cannot be true at the root"]);
    check_schema(
        json!({"type": "object", "additionalProperties": {"type": "string"}}),
        &[".additionalProperties: Forbidden: must not be used at the root"],
    );
    check_field(json!({}), &[".type: Required value: must not be empty for specified object fields"]);
    check_field(json!({"type": "array"}), &[".items: Required value: must be specified"]);
    check_field(
        json!({"type": "array", "items": {}}),
        &[".items.type: Required value: must not be empty for specified array items"],
    );
    check_field(json!({"x-kubernetes-int-or-string": true}), &[]);
    check_field(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}), &[]);
    check_field(
        json!({"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}]}),
        &[],
    );
    check_field(
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "string"}, {"type": "integer"}]}),
        &[
            ".anyOf[0].type: Forbidden: must be empty to be structural",
            ".anyOf[1].type: Forbidden: must be empty to be structural",
        ],
    );
    check_field(
        json!({"type": "object", "x-kubernetes-embedded-resource": true}),
        &[
            ".properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ],
    );
    check_schema(
        json!({"type": "object", "oneOf": [{"properties": {"x": {}}, "required": ["x"]}]}),
        &[".properties[x]: Required value: because it is defined in spec.validation.openAPIV3Schema.oneOf[0].properties[x]"],
    );
    check_field(
        json!({"type": "array", "items": {"type": "string"}, "not": {"items": {"nullable": true, "description": "d"}}}),
        &[
            ".not.items.description: Forbidden: must be empty to be structural",
            ".not.items.nullable: Forbidden: must be false to be structural",
        ],
    );
    let metadata = |metadata: Value| json!({"type": "object", "properties": {"metadata": metadata}});
    check_schema(metadata(json!({"type": "object"})), &[]);
    check_schema(metadata(json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}}})), &[]);
    check_schema(
        metadata(json!({"type": "object", "properties": {"labels": {"type": "object"}}})),
        &[
            ".properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ],
    );
    check_schema(
        metadata(json!({"type": "object", "default": {}})),
        &[".properties[metadata].default: Forbidden: must not be set in top-level metadata"],
    );
}

#[test]
fn schemas() {
    check_field(
        json!({"type": "bool"}),
        &[
            ".type: Unsupported value: \"bool\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ],
    );
    check_field(json!({"type": "string", "$ref": "#/x"}), &[".$ref: Forbidden: $ref is not supported"]);
    check_field(
        json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}),
        &[".uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"],
    );
    check_field(
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false}),
        &[".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
    );
    check_field(json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": true}), &[]);
    check_field(
        json!({"type": "string", "x-kubernetes-validations": [{"rule": " "}, {"rule": "a\nb"}, {"rule": "true", "message": "a\nb"}, {"rule": "true", "reason": "Other"}, {"rule": "true", "fieldPath": ".a"}]}),
        &[
            ".x-kubernetes-validations[0].rule: Required value: rule is not specified",
            ".x-kubernetes-validations[1].message: Required value: message must be specified if rule contains line breaks",
            ".x-kubernetes-validations[2].message: Invalid value: \"a\\nb\": must not contain line breaks",
            ".x-kubernetes-validations[3].reason: Unsupported value: \"Other\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
            ".x-kubernetes-validations[4].fieldPath: Invalid value: \".a\": must be a valid path",
        ],
    );
}

#[test]
fn lists_and_maps() {
    let items = json!({"type": "object", "properties": {"k": {"type": "string"}, "o": {"type": "object"}}, "required": ["k"]});
    let list = |kind: &str, keys: Value, items: &Value| json!({"type": "array", "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": keys, "items": items});
    check_field(list("map", json!(["k"]), &items), &[]);
    check_field(
        list("map", json!([]), &items),
        &[".x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"],
    );
    check_field(
        list("map", json!(["k", "k", "x"]), &items),
        &[
            ".x-kubernetes-list-map-keys: Invalid value: [\"k\",\"k\",\"x\"]: must not contain duplicate entries",
            ".x-kubernetes-list-map-keys: Invalid value: [\"k\",\"k\",\"x\"]: entries must all be names of item properties",
        ],
    );
    check_field(
        list("map", json!(["o"]), &items),
        &[
            ".items.properties[o].type: Invalid value: \"object\": must be a scalar type if parent array's x-kubernetes-list-type is map",
            ".items.properties[o].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ],
    );
    check_field(
        list("set", json!(["k"]), &json!({"type": "string", "nullable": true})),
        &[
            ".x-kubernetes-list-type: Invalid value: \"set\": must be map if x-kubernetes-list-map-keys is non-empty",
            ".items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is set",
        ],
    );
    check_field(
        json!({"type": "array", "x-kubernetes-list-type": "set", "items": items}),
        &[".items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set"],
    );
    check_field(
        json!({"type": "string", "x-kubernetes-map-type": "other"}),
        &[
            ".type: Invalid value: \"string\": must be object if x-kubernetes-map-type is specified",
            ".x-kubernetes-map-type: Unsupported value: \"other\": supported values: \"atomic\", \"granular\"",
        ],
    );
}

#[test]
fn a_status_of_its_own_restricts_the_root() {
    let object = with(plain(), "/spec/versions/0/subresources", json!({"status": {}}));
    assert_eq!(created(object.clone()), Vec::<String>::new());
    let any_of = with(object, "/spec/versions/0/schema/openAPIV3Schema/anyOf", json!([{"required": ["spec"]}]));
    let found = created(any_of);
    assert!(
        found.len() == 1
            && found[0].contains("fields are allowed at the root of the schema if the status subresource is enabled"),
        "{found:?}"
    );
}

#[test]
fn versions_that_differ_are_reported_each() {
    let mut object = plain();
    let mut second = object["spec"]["versions"][0].clone();
    (second["name"], second["storage"]) = ("v2".into(), false.into());
    second["schema"]["openAPIV3Schema"]["properties"]["more"] = json!({});
    object["spec"]["versions"].as_array_mut().expect("versions").push(second);
    assert_eq!(
        created(object),
        [
            "spec.versions[1].schema.openAPIV3Schema.properties[more].type: Required value: must not be empty for specified object fields",
        ]
    );
}

#[test]
fn what_objects_are_stored_under_never_changes() {
    let stored = with(plain(), "/status", json!({"storedVersions": ["v1"]}));
    assert_eq!(
        updated(stored.clone(), with(stored.clone(), "/spec/names/plural", json!("others"))),
        ["spec.names.plural: Invalid value: \"others\": field is immutable",]
    );
    assert_eq!(updated(stored.clone(), with(stored.clone(), "/spec/scope", json!("Cluster"))), Vec::<String>::new());
    let established = with(stored, "/status/conditions", json!([{"type": "Established", "status": "True"}]));
    assert_eq!(
        updated(established.clone(), with(established.clone(), "/spec/scope", json!("Cluster"))),
        ["spec.scope: Invalid value: \"Cluster\": field is immutable",]
    );
    let gone = updated(established.clone(), with(established, "/spec/versions/0/name", json!("v2")));
    assert!(gone[1].starts_with("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions"), "{gone:?}");
}

/// Upstream: the cases of `allowInvalidCABundle` in `TestValidateCustomResourceDefinitionUpdate`.
#[test]
fn a_readable_bundle_does_not_become_an_unreadable_one() {
    let object = with(plain(), "/status", json!({"storedVersions": ["v1"]}));
    let with_bundle = |object: &Value, bundle: &str| {
        let client = json!({"url": "https://example.com", "caBundle": bundle});
        let webhook = json!({"clientConfig": client, "conversionReviewVersions": ["v1"]});
        with(object.clone(), "/spec/conversion", json!({"strategy": "Webhook", "webhook": webhook}))
    };
    let established = with(object.clone(), "/status/conditions", json!([{"type": "Established", "status": "True"}]));
    let refused = [
        "spec.conversion.webhookClientConfig.caBundle: Invalid value: \"Cg==\": unable to load root certificates: unable to parse bytes as PEM block",
    ];
    let none = Vec::<String>::new();
    assert_eq!(updated(with_bundle(&established, ""), with_bundle(&established, "Cg==")), refused);
    assert_eq!(updated(established.clone(), with_bundle(&established, "Cg==")), refused);
    assert_eq!(updated(with_bundle(&established, "YWJj"), with_bundle(&established, "Cg==")), none);
    assert_eq!(updated(with_bundle(&object, ""), with_bundle(&object, "Cg==")), none);
    assert_eq!(updated(with_bundle(&established, "Cg=="), with_bundle(&established, "")), none);
}

#[test]
fn warnings() {
    let warnings = |field: Value| {
        let (strategy, mut object) = prepared(definition(with_field(field)));
        strategy.prepare_create(&mut object);
        let mut warnings = Vec::new();
        assert!(strategy.validate(&object, &mut warnings).is_empty());
        warnings
    };
    assert_eq!(warnings(json!({"type": "string", "format": "date-time"})), Vec::<String>::new());
    assert_eq!(warnings(json!({"type": "string", "format": "shout"})), ["unrecognized format \"shout\""]);
    assert_eq!(warnings(json!({"type": "integer", "format": "int16"})), ["unrecognized format \"int16\""]);
}

#[test]
fn defaults_and_patterns_are_checked() {
    let check = |field: Value, expected: &[&str]| {
        let (strategy, mut object) = prepared(definition(with_field(field)));
        strategy.prepare_create(&mut object);
        let found: Vec<String> = strategy.validate(&object, &mut Vec::new()).iter().map(|error| error.path.to_string()).collect();
        assert_eq!(found, expected);
    };
    let at = "spec.validation.openAPIV3Schema.properties[f]";
    check(json!({"type": "string", "pattern": "^a$", "default": "a"}), &[]);
    check(json!({"type": "string", "pattern": "("}), &[&format!("{at}.pattern")]);
    check(json!({"type": "string", "default": 1}), &[&format!("{at}.default")]);
    check(json!({"type": "object", "default": {"a": 1}}), &[&format!("{at}.default")]);
    let ruled = |default: i64| json!({"type": "integer", "default": default, "x-kubernetes-validations": [{"rule": "self > 1"}]});
    check(ruled(2), &[]);
    check(ruled(1), &[&format!("{at}.default")]);
    // What has been accepted stays.
    let (strategy, mut object) = prepared(definition(with_field(ruled(1))));
    strategy.prepare_create(&mut object);
    assert!(strategy.validate_update(&object, &object, &mut Vec::new()).is_empty());
}
