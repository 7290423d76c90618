//! Bad input: each is answered with the Status that upstream gives.
#![allow(clippy::unwrap_used)]

use http::Method;
use serde_json::{Value, json};
use testing::Cluster;

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";

#[test]
fn bad_requests_get_a_status() {
    let c = Cluster::start(KNARR);
    let check = |method: Method, path: &str, content: &str, body: &str, code: u16, reason: &str, message: &str| {
        let answer = c.api().send(method.clone(), path, content, body.to_owned());
        let status = answer.json();
        let head = &body[..body.len().min(80)];
        assert_eq!(
            (answer.status, &status["kind"], &status["code"]),
            (code, &json!("Status"), &json!(code)),
            "{method} {path} {head}: {status}"
        );
        assert_eq!(status["reason"], reason, "{method} {path} {head}: {status}");
        assert!(status["message"].as_str().unwrap().contains(message), "{method} {path} {head}: {status}");
    };
    let post = |path: &str, body: Value, code: u16, reason: &str, message: &str| {
        check(Method::POST, path, JSON, &body.to_string(), code, reason, message)
    };
    let get = |path: &str, code: u16, reason: &str, message: &str| check(Method::GET, path, JSON, "", code, reason, message);
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});

    check(Method::POST, MAPS, JSON, "{", 400, "BadRequest", "");
    check(Method::POST, MAPS, "application/yaml", "a: [", 400, "BadRequest", "");
    check(Method::POST, MAPS, "text/plain", "{}", 415, "UnsupportedMediaType", "");
    check(
        Method::POST,
        MAPS,
        JSON,
        &format!("{{\"a\":\"{}\"}}", "x".repeat(4 << 20)),
        413,
        "RequestEntityTooLarge",
        "limit is 3145728",
    );
    post(MAPS, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": 7}), 400, "BadRequest", "");
    post(
        &format!("{MAPS}?fieldValidation=Strict"),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "colour": 1}),
        400,
        "BadRequest",
        "strict decoding error: unknown field \"colour\"",
    );
    post(MAPS, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}), 400, "BadRequest", "");
    post(MAPS, map("Not_A_Name"), 422, "Invalid", "ConfigMap \"Not_A_Name\" is invalid: metadata.name: Invalid value");
    post(
        MAPS,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}),
        422,
        "Invalid",
        "name or generateName is required",
    );
    post("/api/v1/namespaces/none/configmaps", map("a"), 404, "NotFound", "namespaces \"none\" not found");
    post(
        MAPS,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "other"}}),
        400,
        "BadRequest",
        "the namespace of the provided object does not match the namespace sent on the request",
    );
    post(
        "/api/v1/namespaces/default/pods",
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": []}}),
        422,
        "Invalid",
        "spec.containers: Required value",
    );
    get(&format!("{MAPS}/none"), 404, "NotFound", "configmaps \"none\" not found");
    get(&format!("{MAPS}?labelSelector=a%20b%20c"), 400, "BadRequest", "");
    get(&format!("{MAPS}?fieldSelector=data.key%3Dx"), 400, "BadRequest", "is not a known field selector");
    get(&format!("{MAPS}?continue=nonsense&limit=1"), 400, "BadRequest", "continue key is not valid");
    get(&format!("{MAPS}?resourceVersion=x"), 400, "BadRequest", "");
    // What no handler knows is not an object's business: upstream's mux answers in plain text.
    let unknown = c.api().get("/apis/none/v1/things");
    assert_eq!(
        (unknown.status, unknown.body.as_ref()),
        (
            404,
            b"404 page not found
"
            .as_slice()
        )
    );

    assert_eq!(c.api().post(MAPS, &map("here")).status, 201);
    post(MAPS, map("here"), 409, "AlreadyExists", "configmaps \"here\" already exists");
    let stale =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "here", "resourceVersion": "1"}}).to_string();
    check(
        Method::PUT,
        &format!("{MAPS}/here"),
        JSON,
        &stale,
        409,
        "Conflict",
        "the object has been modified; please apply your changes to the latest version and try again",
    );
    let patch = |content: &str, body: &str, code: u16, reason: &str| {
        check(Method::PATCH, &format!("{MAPS}/here"), content, body, code, reason, "")
    };
    patch("application/json-patch+json", r#"[{"op":"test","path":"/data/x","value":"y"}]"#, 422, "Invalid");
    patch("application/merge-patch+json", "[", 400, "BadRequest");
    patch("application/unknown", "{}", 415, "UnsupportedMediaType");
    let wrong = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}}).to_string();
    check(
        Method::DELETE,
        &format!("{MAPS}/here"),
        JSON,
        &wrong,
        409,
        "Conflict",
        "the UID in the precondition (other) does not match the UID in record",
    );
}
