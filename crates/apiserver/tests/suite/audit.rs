//! The audit log, as a policy says.

mod answers;
mod losses;

use std::sync::Arc;
use std::time::Duration;

use apiserver::{AuditOptions, LogOptions, WebhookOptions};
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Empty};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::https::Https;
use crate::server::{admin, ask, config_map, namespace, start_with};

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, nonResourceURLs: ['/readyz*']}
- {level: RequestResponse, omitManagedFields: true, resources: [{group: '', resources: [configmaps]}], verbs: [create]}
- {level: Metadata, omitStages: []}
";

/// The documentation, "Auditing": who did what, to what, when, and what came of it.
#[tokio::test]
async fn what_the_policy_says_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, path) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let log = LogOptions { path: path.clone(), ..LogOptions::default() };
    let server = start_with(|options| options.audit = Some(AuditOptions { policy, log: Some(log), webhook: None })).await;
    let api = &server.api;
    namespace(api, "n").await;
    let maps = "/api/v1/namespaces/n/configmaps";
    let create = format!("POST {maps}\nuser-agent: test/1\naudit-id: my-id\nx-forwarded-for: 10.1.2.3\n\n{}", config_map("m"));
    let made = admin(api, &create).await;
    assert_eq!((made.code, made.headers["audit-id"].to_str().unwrap()), (201, "my-id"));
    assert_eq!(admin(api, &format!("GET {maps}/none\nimpersonate-user: jane")).await.code, 403);
    assert_eq!(ask(api, "", "GET /version\nauthorization: Bearer x").await.code, 401);
    admin(api, "GET /readyz").await;
    assert_eq!(admin(api, "GET /api/v1/namespaces/n/endpoints").await.code, 200);
    let deleted = admin(api, "DELETE /api/v1/namespaces/n/configmaps/m").await;
    assert_eq!(deleted.code, 200);
    let events = loop {
        let text = std::fs::read_to_string(&path).unwrap();
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if events.iter().any(|event| event["verb"] == "delete") {
            break events;
        }
        tokio::task::yield_now().await;
    };
    let of = |uri: &str| events.iter().find(|event| event["requestURI"] == uri).unwrap();
    let gone = events.iter().find(|event| event["verb"] == "delete").unwrap();
    assert_eq!(gone["auditID"], deleted.headers["audit-id"].to_str().unwrap());
    let created = events.iter().find(|event| event["auditID"] == "my-id").unwrap();
    assert_eq!(
        (&created["level"], &created["stage"], &created["verb"]),
        (&json!("RequestResponse"), &json!("ResponseComplete"), &json!("create"))
    );
    assert_eq!(
        (&created["user"]["username"], &created["userAgent"], &created["sourceIPs"]),
        (&json!("admin"), &json!("test/1"), &json!(["10.1.2.3"]))
    );
    let named = json!({"resource": "configmaps", "namespace": "n", "apiVersion": "v1", "name": "m"});
    assert_eq!(created["objectRef"], named, "a creation has the name that stands in its body");
    assert_eq!((&created["responseStatus"]["code"], &created["requestObject"]["data"]), (&json!(201), &json!({"a": "b"})));
    assert_eq!(
        (&created["responseObject"]["metadata"]["name"], created["responseObject"]["metadata"].get("managedFields")),
        (&json!("m"), None)
    );
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    let refused = of(&format!("{maps}/none"));
    assert_eq!(
        (&refused["impersonatedUser"]["username"], &refused["annotations"]["authorization.k8s.io/decision"]),
        (&json!("jane"), &json!("forbid"))
    );
    // KEP-5284: the event says which constrained verb was used.
    assert_eq!(refused["authenticationMetadata"], json!({"impersonationConstraint": "impersonate:user-info"}));
    assert_eq!((&refused["responseStatus"]["code"], &refused["responseStatus"]["reason"]), (&json!(403), &json!("Forbidden")));
    // KEP-1693: "k8s.io/deprecated":"true"
    assert_eq!(of("/api/v1/namespaces/n/endpoints")["annotations"]["k8s.io/deprecated"], "true");
    let unknown = of("/version");
    assert_eq!((&unknown["responseStatus"]["code"], unknown["user"].get("username")), (&json!(401), None));
    assert!(!events.iter().any(|event| event["requestURI"] == "/readyz" || event["stage"] == "RequestReceived"));
}

/// KEP-4193: "the `authentication.kubernetes.io/issued-credential-id` audit annotation" says which token was issued, and what is asked for with
/// it has the same identifier.
#[tokio::test]
async fn who_issued_a_token_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, path) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let log = LogOptions { path: path.clone(), ..LogOptions::default() };
    let server = start_with(|options| options.audit = Some(AuditOptions { policy, log: Some(log), webhook: None })).await;
    let (api, accounts) = (&server.api, "/api/v1/namespaces/n/serviceaccounts");
    namespace(api, "n").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    assert_eq!(admin(api, &format!("POST {accounts}\n\n{account}")).await.code, 201);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let issued = admin(api, &format!("POST {accounts}/robot/token\n\n{request}")).await;
        tokens.push(issued.json()["status"]["token"].as_str().unwrap().to_owned());
    }
    for token in &tokens {
        assert_eq!(ask(api, "", &format!("GET /version\nauthorization: Bearer {token}")).await.code, 200);
    }
    let is = |event: &&Value, uri: &str| event["stage"] == "ResponseComplete" && event["requestURI"] == uri;
    let ids = loop {
        let text = std::fs::read_to_string(&path).unwrap();
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let used = events.iter().filter(|event| is(event, "/version"));
        let used: Vec<_> = used.map(|event| &event["user"]["extra"]["authentication.kubernetes.io/credential-id"][0]).collect();
        if used.len() < 2 {
            tokio::task::yield_now().await;
            continue;
        }
        let issued = events.iter().filter(|event| is(event, &format!("{accounts}/robot/token")));
        let issued = issued.map(|event| &event["annotations"]["authentication.kubernetes.io/issued-credential-id"]);
        assert_eq!(issued.collect::<Vec<_>>(), used);
        break used.into_iter().cloned().collect::<Vec<_>>();
    };
    assert!(ids[0] != ids[1] && ids[0].as_str().unwrap().strip_prefix("JTI=").is_some_and(|id| id.len() == 36), "{ids:?}");
}

/// What a namespace only wants to know of its pods stands in the log.
#[tokio::test]
async fn what_violates_the_standards_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, path) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let log = LogOptions { path: path.clone(), ..LogOptions::default() };
    let server = start_with(|options| options.audit = Some(AuditOptions { policy, log: Some(log), webhook: None })).await;
    let api = &server.api;
    crate::server::populated_namespace(api, "n").await;
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/audit": "baseline"}}});
    let labelled =
        admin(api, &format!("PATCH /api/v1/namespaces/n\ncontent-type: application/merge-patch+json\n\n{labels}")).await;
    assert_eq!(labelled.code, 200);
    let spec = json!({"hostPID": true, "containers": [{"name": "c", "image": "i"}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{pod}")).await.code, 201);
    let annotations = loop {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(event) = events.find(|event| event["objectRef"]["resource"] == "pods") {
            break event["annotations"].clone();
        }
        tokio::task::yield_now().await;
    };
    let told = &annotations["pod-security.kubernetes.io/audit-violations"];
    assert_eq!(*told, "would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)");
    assert_eq!(annotations["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
}

/// `LogRequestObject`: what is told is the decoded object, whatever it was written in; of a patch the patch.
#[tokio::test]
async fn bodies_are_told_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, path) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    let rules = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: Request, resources: [{group: '', resources: [configmaps]}]}]}";
    std::fs::write(&policy, rules).unwrap();
    let log = LogOptions { path: path.clone(), ..LogOptions::default() };
    let server = start_with(|options| options.audit = Some(AuditOptions { policy, log: Some(log), webhook: None })).await;
    let api = &server.api;
    namespace(api, "n").await;
    let mut count = 0;
    let mut check = async |request: &str, code: u16, expected: Option<Value>| {
        assert_eq!(admin(api, request).await.code, code, "{request}");
        count += 1;
        let event = loop {
            let text = std::fs::read_to_string(&path).unwrap();
            if let Some(line) = text.lines().nth(count - 1).filter(|_| text.ends_with('\n')) {
                break serde_json::from_str::<Value>(line).unwrap();
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(event.get("requestObject"), expected.as_ref(), "{request}");
    };
    let maps = "/api/v1/namespaces/n/configmaps";
    let object = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}});
    let yaml = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: b}}\n");
    check(&format!("POST {maps}\n\n{}", object("json")), 201, Some(object("json"))).await;
    check(&format!("POST {maps}\ncontent-type: application/yaml\n\n{}", yaml("yaml")), 201, Some(object("yaml"))).await;
    // The envelope of protobuf: metadata.name in field 1, data in field 2.
    let raw = "\n\u{7}\n\u{5}proto\u{12}\u{6}\n\u{1}a\u{12}\u{1}b";
    let protobuf = format!("k8s\0\n\u{f}\n\u{2}v1\u{12}\u{9}ConfigMap\u{12}\u{11}{raw}");
    let head = format!("POST {maps}\ncontent-type: application/vnd.kubernetes.protobuf");
    check(&format!("{head}\n\n{protobuf}"), 201, Some(object("proto"))).await;
    let patches = [
        ("application/merge-patch+json", json!({"data": {"c": "d"}})),
        ("application/json-patch+json", json!([{"op": "add", "path": "/data/e", "value": "f"}])),
    ];
    for (kind, patch) in patches {
        check(&format!("PATCH {maps}/json\ncontent-type: {kind}\n\n{patch}"), 200, Some(patch)).await;
    }
    let head = format!("PATCH {maps}/yaml?fieldManager=m&force=true\ncontent-type: application/apply-patch+yaml");
    check(&format!("{head}\n\n{}", yaml("yaml")), 200, Some(object("yaml"))).await;
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    check(&format!("DELETE {maps}/yaml\n\n{options}"), 200, Some(options)).await;
    check(&format!("POST {maps}\n\n{{"), 400, None).await;
    check(&format!("GET {maps}/json"), 200, None).await;
}

/// A watch is told when it begins, and when it ends.
#[tokio::test]
async fn watches_are_told_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, path) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(&policy, "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata, verbs: [watch]}]}").unwrap();
    let log = LogOptions { path: path.clone(), ..LogOptions::default() };
    let server = start_with(|options| options.audit = Some(AuditOptions { policy, log: Some(log), webhook: None })).await;
    let stages = async |last: &str| loop {
        let text = std::fs::read_to_string(&path).unwrap();
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let stages: Vec<String> = events.iter().map(|event| event["stage"].as_str().unwrap().to_owned()).collect();
        if stages.last().is_some_and(|stage| stage == last) {
            break stages;
        }
        tokio::task::yield_now().await;
    };
    let watch = crate::watch::Watch::start(&server.api, "/api/v1/namespaces").await;
    assert_eq!(stages("ResponseStarted").await, ["RequestReceived", "ResponseStarted"]);
    drop(watch);
    assert_eq!(stages("ResponseComplete").await, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
}

/// Events are sent many at once, and again when the webhook has not taken them.
#[tokio::test]
async fn a_webhook_is_sent_what_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.yaml");
    let rules = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: Metadata, resources: [{group: ''}], verbs: [create]}]}";
    std::fs::write(&policy, rules).unwrap();
    // Batches, the first of which is refused.
    let batches: Arc<Mutex<Vec<Value>>> = Arc::default();
    let seen = batches.clone();
    let https = Https::start("localhost", None, 0, move |request, _| {
        let seen = seen.clone();
        Box::pin(async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut batches = seen.lock();
            batches.push(serde_json::from_slice(&body).unwrap());
            let code = if batches.len() == 1 { 500 } else { 200 };
            Response::builder().status(code).body(Empty::<Bytes>::new().boxed()).unwrap()
        })
    });
    let https = https.await;
    let webhook = WebhookOptions {
        file: https.kubeconfig(dir.path()),
        buffer: 100,
        batch: 3,
        wait: Duration::from_millis(200),
        backoff: Duration::from_millis(10),
    };
    let server = start_with(|options| options.audit = Some(AuditOptions { policy, log: None, webhook: Some(webhook) })).await;
    let api = &server.api;
    namespace(api, "n").await;
    for name in ["a", "b", "c"] {
        assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/configmaps\n\n{}", config_map(name))).await.code, 201);
    }
    let names = |batch: &Value| -> Vec<String> {
        let items = batch["items"].as_array().unwrap();
        items.iter().map(|event| event["objectRef"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let all = loop {
        let all = batches.lock().clone();
        // The first batch was sent twice.
        if all.iter().skip(1).map(|batch| names(batch).len()).sum::<usize>() == 4 {
            break all;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((&all[0]["kind"], &all[0]["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
    assert_eq!(names(&all[0]), names(&all[1]), "what was refused is sent again");
    assert_eq!(all[1..].iter().flat_map(names).collect::<Vec<_>>(), ["n", "a", "b", "c"]);
}
