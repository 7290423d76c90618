//! Admission policies: rules in CEL that refuse and change objects.

use serde_json::{Value, json};

use crate::custom::{define, definition};
use crate::server::{Server, ask, grant, namespace, serve, start};
use crate::webhooks::{CONFIG_MAPS, GROUP, answer_of, config_map, send};

/// Writes a policy and its binding, which has the same name.
pub(crate) async fn put_in_force(server: &Server, kind: &str, name: &str, spec: Value, binding: Value) {
    let plural = if kind == "Validating" { "validatingadmissionpolicies" } else { "mutatingadmissionpolicies" };
    let (policy, kind) = (format!("{kind}AdmissionPolicy"), kind.to_lowercase());
    let object =
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": policy, "metadata": {"name": name}, "spec": spec});
    send(&server.api, 201, &format!("POST {GROUP}/{plural}"), &object).await;
    let mut binding = binding;
    binding["policyName"] = name.into();
    let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{policy}Binding"),
        "metadata": {"name": name}, "spec": binding});
    send(&server.api, 201, &format!("POST {GROUP}/{kind}admissionpolicybindings"), &object).await;
}

/// What a policy matches: these operations on one kind.
pub(crate) fn constraints(operations: &[&str], resource: &str) -> Value {
    json!({"resourceRules": [{"operations": operations, "apiGroups": ["*"], "apiVersions": ["*"], "resources": [resource]}]})
}

/// A validating policy for creations and changes of ConfigMaps with these validations; fields of `change` are set besides.
pub(crate) fn validating(validations: Value, change: Value) -> Value {
    let mut spec = json!({"matchConstraints": constraints(&["CREATE", "UPDATE"], "configmaps"), "validations": validations});
    change.as_object().into_iter().flatten().for_each(|(key, value)| spec[key] = value.clone());
    spec
}

async fn with_namespace() -> Server {
    let server = start(true).await;
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns", "labels": {"team": "a"}}});
    send(&server.api, 201, "POST /api/v1/namespaces", &object).await;
    server
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/ns/deployments";

fn deployment(name: &str, replicas: u32) -> Value {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": template}})
}

/// Conformance: [sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should validate against a Deployment [Conformance]
/// Conformance: [sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should allow expressions to refer variables. [Conformance]
#[tokio::test]
async fn deployments() {
    let server = with_namespace().await;
    let variables = json!([{"name": "replicas", "expression": "object.spec.replicas"},
        {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}]);
    let validations = json!([
        {"expression": "object.spec.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"},
        {"expression": "variables.oddReplicas || variables.replicas < 4", "message": "too even", "reason": "Forbidden"},
    ]);
    let spec = json!({"matchConstraints": constraints(&["CREATE", "UPDATE"], "deployments"), "variables": variables, "validations": validations});
    let selector = json!({"namespaceSelector": {"matchLabels": {"team": "a"}}});
    put_in_force(&server, "Validating", "replicas", spec, json!({"validationActions": ["Deny"], "matchResources": selector}))
        .await;
    let refused = send(&server.api, 422, &format!("POST {DEPLOYMENTS}"), &deployment("one", 1)).await;
    let text = "ValidatingAdmissionPolicy 'replicas' with binding 'replicas' denied request: wants replicas > 1, got 1";
    assert_eq!(refused["message"], format!("deployments.apps \"one\" is forbidden: {text}"));
    assert_eq!((&refused["reason"], &refused["details"]["causes"][0]["message"]), (&json!("Invalid"), &json!(text)));
    send(&server.api, 201, &format!("POST {DEPLOYMENTS}"), &deployment("two", 2)).await;
    let refused = send(&server.api, 403, &format!("PATCH {DEPLOYMENTS}/two"), &json!({"spec": {"replicas": 4}})).await;
    assert!(refused["message"].as_str().unwrap().ends_with("denied request: too even"), "{refused}");
    send(&server.api, 200, &format!("PATCH {DEPLOYMENTS}/two"), &json!({"spec": {"replicas": 5}})).await;
    // Another namespace is not selected.
    namespace(&server.api, "other").await;
    send(&server.api, 201, "POST /apis/apps/v1/namespaces/other/deployments", &deployment("one", 1)).await;
}

/// What a policy with one validation says of a ConfigMap `c` with the data `a: b`: the code, and a part of the message.
async fn check(validation: &str, change: Value, code: u16, expected: &str) {
    let server = with_namespace().await;
    let spec = validating(json!([{"expression": validation}]), change);
    put_in_force(&server, "Validating", "policy", spec, json!({"validationActions": ["Deny"]})).await;
    let answer = answer_of(&server.api, &format!("POST {CONFIG_MAPS}"), &config_map("c", json!({"a": "b"}))).await;
    let body = answer.json();
    assert_eq!(answer.code, code, "{validation}: {body}");
    let message = body["message"].as_str().unwrap_or_default();
    assert!(message.contains(expected), "{validation}: {message}");
}

#[tokio::test]
async fn what_expressions_see() {
    check("object.data.a == 'b' && oldObject == null", json!({}), 201, "").await;
    check("request.operation == 'UPDATE'", json!({}), 422, "denied request: failed expression: request.operation == 'UPDATE'")
        .await;
    check(
        "request.userInfo.username == 'admin' && request.resource.resource == 'configmaps' && !request.dryRun",
        json!({}),
        201,
        "",
    )
    .await;
    check("namespaceObject.metadata.labels.team == 'a'", json!({}), 201, "").await;
    check("authorizer.group('').resource('secrets').namespace('x').check('get').allowed()", json!({}), 201, "").await;
    // What is created has no old object, and null has no members.
    check("!has(oldObject.metadata)", json!({}), 201, "").await;
    let updates = json!({"matchConditions": [{"name": "updates", "expression": "has(oldObject.metadata)"}]});
    check("false", updates, 201, "").await;
    check("oldObject.metadata.name == 'c'", json!({}), 422, "no such key: metadata").await;
    check("authorizer.requestResource.check('create').allowed()", json!({}), 201, "").await;
    check("!authorizer.serviceAccount('ns', 'default').group('').resource('secrets').check('get').allowed()", json!({}), 201, "")
        .await;
}

#[tokio::test]
async fn failures_follow_the_policy() {
    let missing = "denied request: expression 'object.spec.x == 1' resulted in error: no such key: spec";
    check("object.spec.x == 1", json!({}), 422, missing).await;
    check("object.spec.x == 1", json!({"failurePolicy": "Ignore"}), 201, "").await;
    let conditions = json!([{"name": "never", "expression": "object.metadata.name != 'c'"}]);
    check("false", json!({"matchConditions": conditions}), 201, "").await;
    let kind = json!({"paramKind": {"apiVersion": "example.com/v1", "kind": "None"}});
    check("params != null", kind, 422, "denied request: failed expression: params != null").await;
    let list = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]";
    let endless = (0..7).fold("true".to_owned(), |inner, level| format!("{list}.all(v{level}, {inner})"));
    check(&endless, json!({}), 422, "running out of cost budget").await;
}

/// Bindings bring parameters: by name, by selector, from the namespace of the request or another one.
#[tokio::test]
async fn parameters() {
    let server = with_namespace().await;
    namespace(&server.api, "limits").await;
    let param = |name: &str, forbidden: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"limit": "yes"}}, "data": {"forbidden": forbidden}});
    let limits = "/api/v1/namespaces/limits/configmaps";
    let check = async |reference: Value, body: &Value, code: u16, expected: &str| {
        let validation = json!([{"expression": "object.metadata.name != params.data.forbidden", "messageExpression": "'not ' + params.metadata.name"}]);
        let spec = validating(validation, json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}));
        put_in_force(&server, "Validating", "params", spec, json!({"validationActions": ["Deny"], "paramRef": reference})).await;
        let answer = answer_of(&server.api, &format!("POST {CONFIG_MAPS}?dryRun=All"), body).await;
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.code, code, "{reference}: {message}");
        assert!(message.ends_with(expected), "{reference}: {message}");
        for plural in ["validatingadmissionpolicies", "validatingadmissionpolicybindings"] {
            send(&server.api, 200, &format!("DELETE {GROUP}/{plural}/params"), &Value::Null).await;
        }
    };
    let (bad, worse, good) = (config_map("bad", json!({})), config_map("worse", json!({})), config_map("good", json!({})));
    let none = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    let named = |action: &str| json!({"name": "first", "namespace": "limits", "parameterNotFoundAction": action});
    check(named("Deny"), &good, 422, none).await;
    check(named("Allow"), &bad, 201, "").await;
    send(&server.api, 201, &format!("POST {limits}"), &param("first", "bad")).await;
    send(&server.api, 201, &format!("POST {limits}"), &param("second", "worse")).await;
    check(named("Deny"), &bad, 422, "denied request: not first").await;
    check(named("Deny"), &good, 201, "").await;
    let selected =
        json!({"selector": {"matchLabels": {"limit": "yes"}}, "namespace": "limits", "parameterNotFoundAction": "Deny"});
    check(selected.clone(), &worse, 422, "denied request: not second").await;
    check(selected, &good, 201, "").await;
    check(json!({"name": "first", "parameterNotFoundAction": "Deny"}), &good, 422, none).await;
}

/// Bindings say what comes of a denial.
#[tokio::test]
async fn actions() {
    let server = with_namespace().await;
    let spec = validating(json!([{"expression": "false", "message": "never"}]), json!({}));
    put_in_force(&server, "Validating", "warn", spec, json!({"validationActions": ["Warn", "Audit"]})).await;
    let answer = answer_of(&server.api, &format!("POST {CONFIG_MAPS}"), &config_map("a", json!({}))).await;
    let warnings: Vec<_> = answer.headers.get_all("warning").iter().map(|text| text.to_str().unwrap().to_owned()).collect();
    let text = "299 - \"Validation failed for ValidatingAdmissionPolicy 'warn' with binding 'warn': never\"";
    assert_eq!((answer.code, warnings), (201, vec![text.to_owned()]));
    let metrics = ask(&server.api, "admin", "GET /metrics").await;
    let page = String::from_utf8_lossy(&metrics.body).into_owned();
    let counted = "apiserver_validating_admission_policy_check_total{policy=\"warn\",policy_binding=\"warn\",error_type=\"no_error\",enforcement_action=\"warn\"} ";
    assert!(page.contains(counted), "{page}");
    // Policies keep nobody from changing policies.
    let all = json!({"matchConstraints": constraints(&["*"], "*/*"), "validations": [{"expression": "false"}]});
    put_in_force(&server, "Validating", "all", all, json!({"validationActions": ["Deny"]})).await;
    send(&server.api, 422, &format!("DELETE {CONFIG_MAPS}/a"), &Value::Null).await;
    send(&server.api, 200, &format!("DELETE {GROUP}/validatingadmissionpolicybindings/all"), &Value::Null).await;
    send(&server.api, 200, &format!("DELETE {CONFIG_MAPS}/a"), &Value::Null).await;
}

/// A policy asks what the very user of the request may do.
#[tokio::test]
async fn authorizers() {
    let server = serve().await;
    namespace(&server.api, "ns").await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "list"]}]);
    grant(&server.api, "jane", rules, &format!("GET {CONFIG_MAPS}")).await;
    let validation =
        json!([{"expression": "authorizer.group('').resource('configmaps').namespace('ns').check('delete').allowed()"}]);
    put_in_force(&server, "Validating", "may", validating(validation, json!({})), json!({"validationActions": ["Deny"]})).await;
    let body = config_map("a", json!({}));
    assert_eq!(ask(&server.api, "jane", &format!("POST {CONFIG_MAPS}\n\n{body}")).await.code, 422);
    assert_eq!(ask(&server.api, "admin", &format!("POST {CONFIG_MAPS}\n\n{body}")).await.code, 201);
}

#[tokio::test]
async fn policies_that_cannot_be_compiled() {
    let server = with_namespace().await;
    let check = async |change: Value, expected: &str| {
        let spec = validating(json!([{"expression": "true"}]), change);
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "bad"}, "spec": spec});
        let refused = send(&server.api, 422, &format!("POST {GROUP}/validatingadmissionpolicies"), &object).await;
        assert!(refused["message"].as_str().unwrap().contains(expected), "{refused}");
    };
    check(
        json!({"validations": [{"expression": "object.a =="}]}),
        "spec.validations[0].expression: Invalid value: \"object.a ==\": compilation failed: ",
    )
    .await;
    check(json!({"validations": [{"expression": "params.a"}]}), "undeclared reference to 'params'").await;
    check(json!({"validations": [{"expression": "variables.a"}]}), "undefined field 'a'").await;
    check(json!({"validations": [{"expression": "request.name.size()"}]}), "must evaluate to bool but got int").await;
    check(
        json!({"validations": [{"expression": "request.name == 1"}]}),
        "no matching overload for '_==_' applied to '(string, int)'",
    )
    .await;
    check(json!({"validations": [{"expression": "true", "messageExpression": "x"}]}), "spec.validations[0].messageExpression")
        .await;
    let variables = json!([{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}]);
    check(json!({"variables": variables}), "spec.variables[0].expression").await;
    check(json!({"auditAnnotations": [{"key": "k", "valueExpression": "x"}]}), "spec.auditAnnotations[0].valueExpression").await;
    check(json!({"matchConditions": [{"name": "c", "expression": "variables.a"}]}), "spec.matchConditions[0].expression").await;
}

/// Upstream's end-to-end test "should type check a CRD" and its neighbour (`test/e2e/apimachinery/validatingadmissionpolicy.go`), and
/// `validating/typechecking_test.go`: what the types of matched kinds say becomes a warning in the status.
#[tokio::test]
async fn what_types_say_of_expressions_is_told() {
    let server = serve().await;
    let api = &server.api;
    let schema =
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}});
    define(api, &definition("foos", "Foo", schema)).await;
    let told = async |name: &str, groups: [&str; 2], resource: &str, spec: Value| {
        let matched =
            json!([{"operations": ["CREATE"], "apiGroups": [groups[0]], "apiVersions": [groups[1]], "resources": [resource]}]);
        let mut spec = spec;
        spec["matchConstraints"] = json!({"resourceRules": matched});
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec});
        send(api, 201, &format!("POST {GROUP}/validatingadmissionpolicies"), &object).await;
        loop {
            let policy = ask(api, "admin", &format!("GET {GROUP}/validatingadmissionpolicies/{name}")).await.json();
            if policy["status"]["observedGeneration"] == policy["metadata"]["generation"] {
                return policy["status"]["typeChecking"].clone();
            }
            tokio::task::yield_now().await;
        }
    };
    let validations = json!({"validations": [
        {"expression": "object.spec.replicas > '1'"},
        {"expression": "object.spec.template.spec.containers.all(c, c.image.startsWith('a'))", "messageExpression": "string(object.spec.maxRetries)"},
    ]});
    let warnings = told("typed", ["apps", "v1"], "deployments", validations).await;
    let of = "apps/v1, Kind=Deployment: ERROR: <input>:1:";
    let overload = "found no matching overload for '_>_' applied to '(int, string)'";
    let (first, second) = ("object.spec.replicas > '1'", "string(object.spec.maxRetries)");
    let expected = json!({"expressionWarnings": [
        {"fieldRef": "spec.validations[0].expression", "warning": format!("{of}22: {overload}\n | {first}\n | .....................^\n")},
        {"fieldRef": "spec.validations[1].messageExpression",
            "warning": format!("{of}19: undefined field 'maxRetries'\n | {second}\n | ..................^\n")},
    ]});
    assert_eq!(warnings, expected);
    let variables = json!({
        "variables": [{"name": "n", "expression": "object.spec.replicas"}, {"name": "m", "expression": "object.spec.nothing"}],
        "validations": [{"expression": "variables.n > 1 && variables.m > 'a'"}, {"expression": "variables.n == 'a'"}],
    });
    let warnings = told("custom", ["example.com", "v1"], "foos", variables).await;
    let all: Vec<&str> =
        warnings["expressionWarnings"].as_array().unwrap().iter().map(|one| one["fieldRef"].as_str().unwrap()).collect();
    assert_eq!(all, ["spec.validations[1].expression"], "{warnings}");
    // What matches everything is of no type.
    let any = json!({"validations": [{"expression": "object.spec.nothing == 1"}]});
    assert_eq!(told("any", ["*", "*"], "*", any).await, json!({}));
}

/// A mutating policy for creations of one kind.
fn mutating(resource: &str, mutations: Value) -> Value {
    json!({"matchConstraints": constraints(&["CREATE"], resource), "mutations": mutations, "reinvocationPolicy": "Never"})
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn json_patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

/// Conformance: [sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment [Conformance]
/// Conformance: [sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment with annotations [Conformance]
#[tokio::test]
async fn deployments_are_changed() {
    let server = with_namespace().await;
    let replicas = mutating("deployments", json!([apply("Object{spec: Object.spec{replicas: 3}}")]));
    put_in_force(&server, "Mutating", "replicas", replicas, json!({})).await;
    let annotations = mutating(
        "deployments",
        json!([
            apply("Object{metadata: Object.metadata{annotations: {'my-annotation': 'from ' + request.userInfo.username}}}"),
            json_patch(
                "[JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('example.com/team'), value: namespaceObject.metadata.labels.team}]"
            ),
        ]),
    );
    put_in_force(&server, "Mutating", "annotations", annotations, json!({})).await;
    let made = send(&server.api, 201, &format!("POST {DEPLOYMENTS}"), &deployment("d", 1)).await;
    assert_eq!(made["spec"]["replicas"], 3);
    assert_eq!(made["metadata"]["annotations"], json!({"my-annotation": "from admin", "example.com/team": "a"}));
}

/// Upstream's `EnsureObjectNamespaceMatchesRequestNamespace` and `WipeObjectMetaSystemFields` come before admission: an object has the namespace
/// of its path, whatever its body says, and nothing that only the server says.
#[tokio::test]
async fn objects_have_their_namespace_before_they_are_changed() {
    let server = with_namespace().await;
    let seen = "object.metadata.namespace + (has(object.metadata.uid) ? ' with an UID' : '')";
    let label = json!([apply(&format!("Object{{metadata: Object.metadata{{annotations: {{'seen': {seen}}}}}}}"))]);
    put_in_force(&server, "Mutating", "where", mutating("configmaps", label), json!({})).await;
    for said in [json!({}), json!({"namespace": "ns", "uid": "made-up"})] {
        let mut object = json!({"metadata": {"generateName": "c-"}});
        said.as_object().unwrap().iter().for_each(|(key, value)| object["metadata"][key] = value.clone());
        let made = send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &object).await;
        assert_eq!(made["metadata"]["annotations"]["seen"], "ns", "{made}");
    }
}

/// Of two policies the one that comes first is evaluated again when it wants to be, once.
#[tokio::test]
async fn mutating_policies_follow_each_other() {
    let append = |letter: &str| {
        json_patch(&format!("[JSONPatch{{op: 'replace', path: '/data/seen', value: object.data.seen + '{letter}'}}]"))
    };
    let only_once =
        "[JSONPatch{op: 'test', path: '/data/seen', value: 'a'}, JSONPatch{op: 'replace', path: '/data/seen', value: 'ab'}]";
    for (policy, expected) in [("Never", "ab"), ("IfNeeded", "aba")] {
        let server = with_namespace().await;
        for (name, mutation) in [("a", append("a")), ("b", json_patch(only_once))] {
            let mut spec = mutating("configmaps", json!([mutation]));
            spec["reinvocationPolicy"] = policy.into();
            put_in_force(&server, "Mutating", name, spec, json!({})).await;
        }
        let made = send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &config_map("c", json!({"seen": ""}))).await;
        assert_eq!(made["data"]["seen"], expected, "{policy}");
    }
}

#[tokio::test]
async fn mutations_that_cannot_be() {
    let check = async |resource: &str, mutation: Value, policy: &str, code: u16, expected: &str| {
        let server = with_namespace().await;
        let mut spec = mutating(resource, json!([mutation]));
        spec["failurePolicy"] = policy.into();
        put_in_force(&server, "Mutating", "bad", spec, json!({})).await;
        let (path, body) = match resource {
            "configmaps" => (CONFIG_MAPS, config_map("c", json!({"a": "b"}))),
            _ => (DEPLOYMENTS, deployment("d", 1)),
        };
        let answer = answer_of(&server.api, &format!("POST {path}"), &body).await;
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.code, code, "{mutation}: {message}");
        assert!(message.starts_with(expected), "{mutation}: {message}");
    };
    let denied = "policy 'bad' with binding 'bad' denied request: ";
    let missing = "[JSONPatch{op: 'remove', path: '/none'}]";
    let why = "JSON Patch: error in remove for path: '/none': unable to remove nonexistent key: none: missing value";
    check("configmaps", json_patch(missing), "Fail", 403, &format!("{denied}{why}")).await;
    check("configmaps", json_patch(missing), "Ignore", 201, "").await;
    let nowhere = "[JSONPatch{op: 'remove', path: object.spec.x}]";
    let why = format!("{denied}expression '{nowhere}' resulted in error: ");
    check("configmaps", json_patch(nowhere), "Fail", 403, &why).await;
    check("deployments", apply("Object{spec: Object.spec{none: 1}}"), "Fail", 403, &format!("{denied}error applying patch: "))
        .await;
    let wrong = "Object{spec: Object.spec{replicas: 'many'}}";
    check("deployments", apply(wrong), "Fail", 403, denied).await;
    let moved = "[JSONPatch{op: 'add', path: '/metadata/namespace', value: 'kube-system'}]";
    let why = "the namespace of the provided object does not match the namespace sent on the request";
    check("configmaps", json_patch(moved), "Fail", 400, why).await;
}

/// Upstream: `TestAuthorization` of the policies and their bindings. What a policy reads it can show: whoever has it read must be able to read it.
#[tokio::test]
async fn nobody_has_parameters_read_that_they_may_not_read() {
    let server = serve().await;
    let api = &server.api;
    let rule =
        |verbs: &[&str], group: &str, resources: &[&str]| json!({"verbs": verbs, "apiGroups": [group], "resources": resources});
    let write = rule(&["*"], "admissionregistration.k8s.io", &["*"]);
    let named = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"]});
    let until = format!("GET {GROUP}/validatingadmissionpolicies/none");
    grant(api, "writer", json!([write, named, rule(&["get"], "", &["configmaps"])]), &until).await;
    grant(api, "reader", json!([write, rule(&["get", "list"], "", &["secrets"])]), &until).await;
    grant(api, "all", json!([write, rule(&["get"], "*", &["*"])]), &until).await;
    for kind in ["Validating", "Mutating"] {
        let plurals =
            (format!("{}admissionpolicies", kind.to_lowercase()), format!("{}admissionpolicybindings", kind.to_lowercase()));
        let object = |name: &str, suffix: &str, spec: Value| {
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}AdmissionPolicy{suffix}"),
                "metadata": {"name": name}, "spec": spec})
        };
        let answered = |answer: &crate::server::Answer, what: &str, field: &str, why: &str| {
            let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
            match why {
                "" => assert!((200..202).contains(&answer.code), "{what}: {message}"),
                why => {
                    let expected = format!("spec.{field}: Forbidden: {why}");
                    assert!(answer.code == 422 && message.ends_with(&expected), "{what}: {message}");
                }
            }
        };
        let check = async |user: &str, request: String, object: &Value, field: &str, why: &str| {
            let answer = ask(api, user, &format!("{request}\n\n{object}")).await;
            answered(&answer, &format!("{user} {request} {object}"), field, why);
        };
        let policy = |name: &str, param: Value| {
            let mutation = json_patch("[JSONPatch{op: 'remove', path: '/data/none'}]");
            let spec = match kind {
                "Validating" => validating(json!([{"expression": "true"}]), json!({})),
                _ => json!({"matchConstraints": constraints(&["CREATE"], "configmaps"), "mutations": [mutation],
                    "failurePolicy": "Fail", "reinvocationPolicy": "Never"}),
            };
            let mut policy = object(name, "", spec);
            policy["spec"]["paramKind"] = param;
            policy
        };
        let of = |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind});
        let all = |user: &str, version: &str, kind: &str| {
            format!(
                "user {user:?} must have \"get\" permission on all objects of the referenced paramKind (kind={kind}, apiVersion={version})"
            )
        };
        let post = || format!("POST {GROUP}/{}", plurals.0);
        for (user, name, param, why) in [
            ("writer", "none", Value::Null, String::new()),
            ("writer", "maps", of("v1", "ConfigMap"), String::new()),
            ("writer", "secrets", of("v1", "Secret"), all("writer", "v1", "Secret")),
            ("writer", "unknown", of("v1", "None"), all("writer", "v1", "None")),
            ("reader", "maps2", of("v1", "ConfigMap"), all("reader", "v1", "ConfigMap")),
            ("reader", "secrets", of("v1", "Secret"), String::new()),
            ("reader", "unknown", of("example.com/v1", "None"), all("reader", "example.com/v1", "None")),
            ("all", "unknown", of("example.com/v1", "None"), String::new()),
            ("admin", "unknown2", of("example.com/v1", "None"), String::new()),
        ] {
            check(user, post(), &policy(name, param), "paramKind", &why).await;
        }
        // What was there before is not asked for again; what comes is.
        let put = async |user: &str, plural: &str, name: &str, change: &dyn Fn(&mut Value), field: &str, why: &str| {
            let path = format!("{GROUP}/{plural}/{name}");
            let answer = loop {
                let mut object = ask(api, "admin", &format!("GET {path}")).await.json();
                change(&mut object);
                let answer = ask(api, user, &format!("PUT {path}\n\n{object}")).await;
                // The status of a policy is written beside this.
                if answer.code != 409 {
                    break answer;
                }
            };
            answered(&answer, &format!("{user} {path}"), field, why);
        };
        let label = |object: &mut Value| object["metadata"]["labels"]["a"] = "b".into();
        put("writer", &plurals.0, "secrets", &label, "paramKind", "").await;
        let other = |object: &mut Value| object["spec"]["paramKind"] = of("v1", "Secret");
        put("writer", &plurals.0, "maps", &other, "paramKind", &all("writer", "v1", "Secret")).await;

        let binding = |name: &str, policy: &str, reference: Value| {
            let mut spec = json!({"policyName": policy, "paramRef": reference});
            if kind == "Validating" {
                spec["validationActions"] = json!(["Deny"]);
            }
            object(name, "Binding", spec)
        };
        let one = |name: &str| json!({"name": name, "namespace": "ns", "parameterNotFoundAction": "Deny"});
        let selected = || json!({"selector": {}, "parameterNotFoundAction": "Deny"});
        let not = |user: &str, verb: &str| {
            format!("user {user:?} does not have \"{verb}\" permission on the object referenced by paramRef")
        };
        for (user, name, policy, reference, why) in [
            ("writer", "plain", "none", Value::Null, String::new()),
            ("writer", "own", "secrets", one("one"), String::new()),
            ("writer", "two", "secrets", one("two"), not("writer", "get")),
            ("writer", "all", "secrets", selected(), not("writer", "list")),
            ("writer", "maps", "maps", one("two"), String::new()),
            ("writer", "nothing", "missing", one("one"), not("writer", "get")),
            ("reader", "all", "secrets", selected(), String::new()),
            ("admin", "nothing", "missing", one("one"), String::new()),
        ] {
            check(user, format!("POST {GROUP}/{}", plurals.1), &binding(name, policy, reference), "paramRef", &why).await;
        }
        put("writer", &plurals.1, "all", &label, "paramRef", "").await;
        let other = |object: &mut Value| object["spec"]["paramRef"] = one("two");
        put("writer", &plurals.1, "own", &other, "paramRef", &not("writer", "get")).await;
        let other = |object: &mut Value| object["spec"]["policyName"] = "secrets".into();
        put("writer", &plurals.1, "maps", &other, "paramRef", &not("writer", "get")).await;
    }
}

/// "Ten validating policies on every write add under 100 us": measured by hand with --release; here only that all ten are met.
#[tokio::test]
async fn many_policies() {
    let server = with_namespace().await;
    for index in 0..10 {
        let validation = json!([{"expression": format!("!has(object.data.stop) || object.data.stop != '{index}'")}]);
        put_in_force(
            &server,
            "Validating",
            &format!("p{index}"),
            validating(validation, json!({})),
            json!({"validationActions": ["Deny"]}),
        )
        .await;
    }
    let started = std::time::Instant::now();
    for index in 0..50 {
        send(&server.api, 201, &format!("POST {CONFIG_MAPS}"), &config_map(&format!("c{index}"), json!({"a": "b"}))).await;
    }
    println!("50 writes under ten policies took {:?}", started.elapsed());
    let refused = send(&server.api, 422, &format!("POST {CONFIG_MAPS}"), &config_map("c", json!({"stop": "7"}))).await;
    assert!(refused["message"].as_str().unwrap().contains("'p7'"), "{refused}");
}
