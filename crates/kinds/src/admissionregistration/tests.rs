use serde_json::{Value, json};

use crate::testing::untyped::{created, prepared, row, updated_through, with};

fn rule() -> Value {
    json!({"operations": ["CREATE"], "apiGroups": ["a"], "apiVersions": ["v1"], "resources": ["b"]})
}

fn hooks(kind: &str, change: (&str, Value)) -> Value {
    let hook = json!({
        "name": "webhook.k8s.io", "rules": [rule()], "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "n", "name": "s"}},
    });
    let object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "config"}, "webhooks": [hook],
    });
    if change.0.is_empty() { object } else { with(object, &format!("/webhooks/0{}", change.0), change.1) }
}

#[track_caller]
fn check_hook(pointer: &str, value: Value, expected: &[&str]) {
    assert_eq!(created(hooks("ValidatingWebhookConfiguration", (pointer, value.clone()))), expected);
    assert_eq!(created(hooks("MutatingWebhookConfiguration", (pointer, value))), expected);
}

/// Cases of upstream's TestValidateValidatingWebhookConfiguration.
#[test]
fn webhooks() {
    check_hook("", json!(null), &[]);
    check_hook("/name", json!(""), &["webhooks[0].name: Required value"]);
    check_hook(
        "/name",
        json!("k8s.io"),
        &["webhooks[0].name: Invalid value: \"k8s.io\": should be a domain with at least three segments separated by dots"],
    );
    check_hook("/sideEffects", json!(null), &["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"]);
    check_hook(
        "/sideEffects",
        json!("Unknown"),
        &["webhooks[0].sideEffects: Unsupported value: \"Unknown\": supported values: \"None\", \"NoneOnDryRun\""],
    );
    check_hook(
        "/admissionReviewVersions",
        json!([]),
        &["webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1"],
    );
    check_hook(
        "/admissionReviewVersions",
        json!(["v1", "v1"]),
        &["webhooks[0].admissionReviewVersions[1]: Invalid value: \"v1\": duplicate version"],
    );
    check_hook(
        "/admissionReviewVersions",
        json!(["invalidversion"]),
        &["webhooks[0].admissionReviewVersions: Invalid value: [\"invalidversion\"]: must include at least one of v1, v1beta1"],
    );
    check_hook(
        "/timeoutSeconds",
        json!(31),
        &["webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"],
    );
    check_hook(
        "/failurePolicy",
        json!("other"),
        &["webhooks[0].failurePolicy: Unsupported value: \"other\": supported values: \"Fail\", \"Ignore\""],
    );
    check_hook(
        "/matchPolicy",
        json!("other"),
        &["webhooks[0].matchPolicy: Unsupported value: \"other\": supported values: \"Equivalent\", \"Exact\""],
    );
    check_hook(
        "/clientConfig",
        json!({}),
        &["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
    );
    check_hook(
        "/clientConfig",
        json!({"url": "https://a", "service": {"namespace": "n", "name": "s"}}),
        &["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
    );
    check_hook(
        "/clientConfig",
        json!({"url": "http://a"}),
        &[
            "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
        ],
    );
    check_hook(
        "/matchConditions",
        json!([{"name": "a", "expression": "true"}, {"name": "a", "expression": " "}, {"expression": "true"}]),
        &[
            "webhooks[0].matchConditions[1].expression: Required value",
            "webhooks[0].matchConditions[1].name: Duplicate value: \"a\"",
            "webhooks[0].matchConditions[2].name: Required value",
        ],
    );
    let twice = hooks("MutatingWebhookConfiguration", ("", json!(null)));
    let hook = twice["webhooks"][0].clone();
    assert_eq!(created(with(twice, "/webhooks", json!([hook, hook]))), ["webhooks[1].name: Duplicate value: \"webhook.k8s.io\""]);
    assert_eq!(
        created(hooks("MutatingWebhookConfiguration", ("/reinvocationPolicy", json!("Other")))),
        ["webhooks[0].reinvocationPolicy: Unsupported value: \"Other\": supported values: \"IfNeeded\", \"Never\"",]
    );
}

#[track_caller]
fn check_rule(pointer: &str, value: Value, expected: &[&str]) {
    let expected: Vec<_> = expected.iter().map(|error| format!("webhooks[0].rules[0].{error}")).collect();
    let found = created(hooks("ValidatingWebhookConfiguration", (&format!("/rules/0{pointer}"), value)));
    assert_eq!(found, expected);
}

#[test]
fn rules_of_webhooks() {
    check_rule("/operations", json!([]), &["operations: Required value"]);
    check_rule(
        "/operations",
        json!(["CREATE", "*"]),
        &["operations: Invalid value: [\"CREATE\",\"*\"]: if '*' is present, must not specify other operations"],
    );
    check_rule(
        "/operations",
        json!(["PATCH"]),
        &[
            "operations[0]: Unsupported value: \"PATCH\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
        ],
    );
    check_rule(
        "/apiGroups",
        json!(["a", "*"]),
        &["apiGroups: Invalid value: [\"a\",\"*\"]: if '*' is present, must not specify other API groups"],
    );
    check_rule("/apiVersions", json!([""]), &["apiVersions[0]: Required value"]);
    check_rule(
        "/scope",
        json!("Other"),
        &["scope: Unsupported value: \"Other\": supported values: \"*\", \"Cluster\", \"Namespaced\""],
    );
    check_rule("/resources", json!(["", "x"]), &["resources[0]: Required value"]);
    check_rule(
        "/resources",
        json!(["a/*", "a/x"]),
        &["resources[1]: Invalid value: \"a/x\": if 'a/*' is present, must not specify a/x"],
    );
    check_rule(
        "/resources",
        json!(["*/a", "x/a"]),
        &["resources[1]: Invalid value: \"x/a\": if '*/a' is present, must not specify x/a"],
    );
    check_rule(
        "/resources",
        json!(["*/*", "a"]),
        &["resources: Invalid value: [\"*/*\",\"a\"]: if '*/*' is present, must not specify other resources"],
    );
    check_rule(
        "/resources",
        json!(["*", "a"]),
        &["resources: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other resources without subresources"],
    );
    check_rule("/resources", json!(["*", "a/b"]), &[]);
}

#[test]
fn defaults_of_webhooks() {
    let (_, object) = prepared(hooks("MutatingWebhookConfiguration", ("", json!(null))));
    let hook = &object["webhooks"][0];
    let fields = ["failurePolicy", "matchPolicy", "reinvocationPolicy", "timeoutSeconds", "namespaceSelector", "objectSelector"];
    assert_eq!(
        fields.map(|field| hook[field].clone()),
        [json!("Fail"), json!("Equivalent"), json!("Never"), json!(10), json!({}), json!({}),]
    );
    assert_eq!((&hook["rules"][0]["scope"], &hook["clientConfig"]["service"]["port"]), (&json!("*"), &json!(443)));
    let (_, object) = prepared(hooks("ValidatingWebhookConfiguration", ("", json!(null))));
    assert_eq!(object["webhooks"][0].get("reinvocationPolicy"), None);
    assert_eq!(row(object), [json!("config"), json!(1)]);
}

fn policy(kind: &str, change: (&str, Value)) -> Value {
    let mut object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "config"},
        "spec": {"matchConstraints": {"resourceRules": [rule()]}},
    });
    if kind.starts_with("Mutating") {
        object["spec"]["mutations"] =
            json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/x'}]"}}]);
        object["spec"]["reinvocationPolicy"] = "Never".into();
    } else {
        object["spec"]["validations"] = json!([{"expression": "object.x < 100"}]);
    }
    if change.0.is_empty() { object } else { with(object, change.0, change.1) }
}

#[track_caller]
fn check_policy(kind: &str, pointer: &str, value: Value, expected: &[&str]) {
    assert_eq!(created(policy(kind, (pointer, value))), expected);
}

/// Cases of upstream's TestValidateValidatingAdmissionPolicy and TestValidateMutatingAdmissionPolicy.
#[test]
fn policies() {
    for kind in ["ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"] {
        check_policy(kind, "", json!(null), &[]);
        check_policy(
            kind,
            "/spec/failurePolicy",
            json!("other"),
            &["spec.failurePolicy: Unsupported value: \"other\": supported values: \"Fail\", \"Ignore\""],
        );
        check_policy(kind, "/spec/matchConstraints", json!(null), &["spec.matchConstraints: Required value"]);
        check_policy(kind, "/spec/matchConstraints", json!({}), &["spec.matchConstraints.resourceRules: Required value"]);
        check_policy(
            kind,
            "/spec/matchConstraints/resourceRules/0/resourceNames",
            json!(["a", "a", "x/y"]),
            &[
                "spec.matchConstraints.resourceRules[0].resourceNames[1]: Duplicate value: \"a\"",
                "spec.matchConstraints.resourceRules[0].resourceNames[2]: Invalid value: \"x/y\": may not contain '/'",
            ],
        );
        check_policy(kind, "/spec/paramKind", json!({"apiVersion": "v1"}), &["spec.paramKind.kind: Required value"]);
        check_policy(
            kind,
            "/spec/paramKind",
            json!({"apiVersion": "a/b/c", "kind": "K"}),
            &["spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c"],
        );
        check_policy(
            kind,
            "/spec/variables",
            json!([{"name": "4ever", "expression": "1"}, {"name": "in", "expression": " "}]),
            &[
                "spec.variables[0].name: Invalid value: \"4ever\": name is not a valid CEL identifier",
                "spec.variables[1].name: Invalid value: \"in\": name is not a valid CEL identifier",
                "spec.variables[1].expression: Required value: expression is not specified",
            ],
        );
    }
}

/// Each variable may use those before it, and their types may be made of each other: thousands of them are checked one after the other, and neither
/// their number nor how they nest stops the server.
#[test]
fn many_variables() {
    let check = |expression: &dyn Fn(usize) -> String| {
        let later = (1..10_000).map(|n| json!({"name": format!("v{n}"), "expression": expression(n - 1)}));
        let all: Vec<Value> = std::iter::once(json!({"name": "v0", "expression": "1"})).chain(later).collect();
        check_policy("ValidatingAdmissionPolicy", "/spec/variables", json!(all), &[]);
    };
    check(&|_| "variables".to_owned());
    check(&|before| format!("[variables.v{before}]"));
    check(&|before| format!("{{'a': variables.v{before}, 'b': variables.v{before}}}"));
    check(&|before| format!("optional.of(variables.v{before})"));
    check(&|before| format!("type(variables.v{before})"));
}

/// What nests too much may be anything to later expressions; other types are still known.
#[test]
fn types_of_variables() {
    let check = |first: &str, second: &str, expected: &[&str]| {
        let all = json!([{"name": "a", "expression": first}, {"name": "b", "expression": second}]);
        check_policy("ValidatingAdmissionPolicy", "/spec/variables", all, expected);
    };
    let wrong = "spec.variables[1].expression: Invalid value: \"variables.a.x\": compilation failed: ERROR: <input>:1:12: type 'int' does not support field selection\n | variables.a.x\n | ...........^";
    check("1", "variables.a.x", &[wrong]);
    check("variables", "variables.a.x", &[]);
    check("[variables]", "variables.a[0].x", &[]);
}

#[test]
fn validations() {
    let check =
        |pointer: &str, value: Value, expected: &[&str]| check_policy("ValidatingAdmissionPolicy", pointer, value, expected);
    check(
        "/spec/validations",
        json!([]),
        &[
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ],
    );
    check(
        "/spec/validations/0",
        json!({"expression": " ", "message": "a\nb", "messageExpression": " ", "reason": "Other"}),
        &[
            "spec.validations[0].expression: Required value: expression is not specified",
            "spec.validations[0].messageExpression: Invalid value: \" \": must be non-empty if specified",
            "spec.validations[0].message: Invalid value: \"a\\nb\": message must not contain line breaks",
            "spec.validations[0].reason: Unsupported value: \"Other\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
        ],
    );
    check(
        "/spec/auditAnnotations",
        json!([{"key": "k", "valueExpression": "'v'"}, {"key": "k", "valueExpression": ""}]),
        &[
            "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
            "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
        ],
    );
    assert_eq!(
        row(policy("ValidatingAdmissionPolicy", ("/spec/paramKind", json!({"apiVersion": "a/v1", "kind": "K"})))),
        [json!("config"), json!(1), json!("a/v1/K"),]
    );
}

#[test]
fn mutations() {
    let check =
        |pointer: &str, value: Value, expected: &[&str]| check_policy("MutatingAdmissionPolicy", pointer, value, expected);
    check("/spec/mutations", json!([]), &["spec.mutations: Required value: mutations must contain at least one item"]);
    check("/spec/reinvocationPolicy", json!(null), &["spec.reinvocationPolicy: Required value"]);
    check(
        "/spec/mutations/0",
        json!({"applyConfiguration": {"expression": "Object{}"}}),
        &["spec.mutations[0].patchType: Required value"],
    );
    check(
        "/spec/mutations/0",
        json!({"patchType": "JSONPatch", "applyConfiguration": {"expression": "Object{}"}}),
        &[
            "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when patchType is JSONPatch",
            "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
        ],
    );
    check(
        "/spec/mutations/0/jsonPatch/expression",
        json!(" "),
        &["spec.mutations[0].jsonPatch.expression: Required value: expression is not specified"],
    );
    // What a mutation has to be (`admission/plugin/policy/mutating/patch`).
    let expression = |text: &str, got: &str| {
        let told = format!(
            "spec.mutations[0].jsonPatch.expression: Invalid value: \"{text}\": must evaluate to list(JSONPatch) but got {got}"
        );
        check("/spec/mutations/0/jsonPatch/expression", json!(text), &[&told]);
    };
    expression("[]", "list(dyn)");
    expression("Object{}", "Object");
    expression("JSONPatch{op: 'remove', path: '/x'}", "JSONPatch");
    let apply = |text: &str| json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": text}});
    check("/spec/mutations/0", apply("object.spec.replicas > 1 ? Object{} : Object{spec: Object.spec{replicas: 1}}"), &[]);
    check(
        "/spec/mutations/0",
        apply("object"),
        &["spec.mutations[0].applyConfiguration.expression: Invalid value: \"object\": must evaluate to Object but got dyn"],
    );
    check(
        "/spec/matchConstraints/resourceRules/0/operations",
        json!(["DELETE"]),
        &[
            "spec.matchConstraints.resourceRules[0].operations[0]: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
        ],
    );
}

fn binding(kind: &str, change: (&str, Value)) -> Value {
    let mut object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "config"},
        "spec": {"policyName": "xyzlimit-scale.example.com", "paramRef": {"name": "p"}},
    });
    if kind.starts_with("Validating") {
        object["spec"]["validationActions"] = json!(["Deny"]);
    }
    if change.0.is_empty() { object } else { with(object, change.0, change.1) }
}

/// Cases of upstream's TestValidateValidatingAdmissionPolicyBinding.
#[test]
fn bindings() {
    for kind in ["ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicyBinding"] {
        let check =
            |pointer: &str, value: Value, expected: &[&str]| assert_eq!(created(binding(kind, (pointer, value))), expected);
        check("", json!(null), &[]);
        check("/spec/policyName", json!(""), &["spec.policyName: Required value"]);
        check("/spec/paramRef", json!({}), &["spec.paramRef: Required value: one of name or selector must be specified"]);
        check(
            "/spec/paramRef/selector",
            json!({}),
            &[
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
            ],
        );
        check(
            "/spec/paramRef/parameterNotFoundAction",
            json!("Other"),
            &["spec.paramRef.parameterNotFoundAction: Unsupported value: \"Other\": supported values: \"Deny\", \"Allow\""],
        );
        check("/spec/matchResources", json!({}), &[]);
        let cell = |pointer: &str, value: Value| row(binding(kind, (pointer, value)))[2].clone();
        assert_eq!(cell("", json!(null)), "*/p");
        assert_eq!(cell("/spec/paramRef/namespace", json!("n")), "n/p");
        assert_eq!(cell("/spec/paramRef", json!({"selector": {"matchLabels": {"a": "b"}}})), "a=b");
        assert_eq!(cell("/spec/paramRef", json!(null)), "<unset>");
    }
    let check = |value: Value, expected: &[&str]| {
        assert_eq!(created(binding("ValidatingAdmissionPolicyBinding", ("/spec/validationActions", value))), expected);
    };
    check(json!([]), &["spec.validationActions: Required value: at least one validation action is required"]);
    check(
        json!(["Deny", "Warn"]),
        &[
            "spec.validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        ],
    );
    check(
        json!(["Audit", "Audit", "Other"]),
        &[
            "spec.validationActions[1]: Duplicate value: \"Audit\"",
            "spec.validationActions[2]: Unsupported value: \"Other\": supported values: \"Audit\", \"Deny\", \"Warn\"",
        ],
    );
}

#[test]
fn status_of_policies() {
    let check = |status: Value, expected: &[&str]| {
        let old = policy("ValidatingAdmissionPolicy", ("", json!(null)));
        let new = with(old.clone(), "/status", status);
        assert_eq!(updated_through("status", old, new), expected);
    };
    let time = "2026-01-01T00:00:00Z";
    check(
        json!({"conditions": [{"type": "A", "status": "True", "reason": "R", "message": "", "lastTransitionTime": time}]}),
        &[],
    );
    check(
        json!({"typeChecking": {"expressionWarnings": [{"fieldRef": "", "warning": ""}]}}),
        &[
            "status.typeChecking.expressionWarnings[0].warning: Required value",
            "status.typeChecking.expressionWarnings[0].fieldRef: Required value",
        ],
    );
    check(
        json!({"conditions": [{"type": "A", "status": "Yes", "reason": "", "message": "", "lastTransitionTime": null}]}),
        &[
            "status.conditions[0].status: Unsupported value: \"Yes\": supported values: \"False\", \"True\", \"Unknown\"",
            "status.conditions[0].lastTransitionTime: Required value",
            "status.conditions[0].reason: Required value",
        ],
    );
}
