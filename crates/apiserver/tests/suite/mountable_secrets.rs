//! Pods whose ServiceAccount limits the secrets that they may use, and mirror pods, which use none.

use serde_json::{Value, json};

use crate::server::{Answer, admin, populated_namespace, start};

fn pod(name: &str, variables: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"serviceAccountName": "limited",
        "containers": [{"name": "c", "image": "i", "envFrom": variables}]}})
}

/// Kubernetes documentation, "Well-Known Labels, Annotations and Taints", `kubernetes.io/enforce-mountable-secrets`: pods with that
/// account "can only reference secrets specified in its `secrets` field", which upstream also asks of ephemeral containers.
#[tokio::test]
async fn accounts_that_limit_their_secrets() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "secrets": [{"name": "own"}],
        "metadata": {"name": "limited", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}});
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts\n\n{account}")).await.code, 201);
    let pods = "/api/v1/namespaces/n/pods";
    let post = async |pod: Value| admin(api, &format!("POST {pods}\n\n{pod}")).await;
    let refused = |answer: Answer, expected: &str| {
        assert_eq!((answer.code, answer.json()["message"].as_str().unwrap()), (403, expected));
    };
    let of = |name: &str| json!([{"secretRef": {"name": name}}]);
    assert_eq!(post(pod("p", of("own"))).await.code, 201, "its token is in a projected volume, and no secret");
    let why = "is not allowed because service account limited does not reference that secret";
    let what = "with envFrom referencing secret.secretName=\"other\"";
    refused(post(pod("q", of("other"))).await, &format!("pods \"q\" is forbidden: container c {what} {why}"));
    let debug = |secret: &str| {
        let debug = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i", "envFrom": of(secret)}]}});
        format!("PATCH {pods}/p/ephemeralcontainers\ncontent-type: application/strategic-merge-patch+json\n\n{debug}")
    };
    refused(admin(api, &debug("other")).await, &format!("pods \"p\" is forbidden: ephemeral container e {what} {why}"));
    assert_eq!(admin(api, &debug("own")).await.code, 200);
    let mut free = pod("r", of("other"));
    free["spec"]["serviceAccountName"] = json!("default");
    assert_eq!(post(free).await.code, 201);
}

#[tokio::test]
async fn mirror_pods_use_no_secrets() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let post = async |spec: Value| {
        let metadata = json!({"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"}});
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        pod["spec"]["nodeName"] = json!("n");
        pod["spec"]["containers"] = json!([{"name": "c", "image": "i"}]);
        let answer = admin(api, &format!("POST /api/v1/namespaces/n/pods?dryRun=All\n\n{pod}")).await;
        let message = answer.json()["message"].as_str().unwrap_or_default().replace("pods \"m\" is forbidden: ", "");
        (answer.code, message)
    };
    let check = async |spec: Value, expected: &str| assert_eq!(post(spec).await, (403, expected.to_owned()));
    check(json!({"serviceAccountName": "default"}), "a mirror pod may not reference service accounts").await;
    let secret = json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]});
    check(secret, "a mirror pod may not reference secrets").await;
    let token = json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]});
    check(token, "a mirror pod may not use ServiceAccountToken volume projections").await;
    assert_eq!(post(json!({})).await.0, 201);
}
