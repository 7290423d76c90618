//! Tokens and reviews.

use serde_json::json;

use super::send;
use crate::server::{grant, namespace, serve, start};

/// Conformance: [sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview [Conformance]
#[tokio::test]
async fn a_token_and_its_review() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}});
    let account = send(api, 201, "POST /api/v1/namespaces/n/serviceaccounts", &account).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
    let token = send(api, 201, "POST /api/v1/namespaces/n/serviceaccounts/a/token", &request).await;
    assert!(token["status"]["expirationTimestamp"].is_string(), "{token}");
    let review = async |token: &str| {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        send(api, 201, "POST /apis/authentication.k8s.io/v1/tokenreviews", &review).await["status"].clone()
    };
    let token = token["status"]["token"].as_str().unwrap();
    let status = review(token).await;
    assert_eq!((&status["authenticated"], &status["error"]), (&json!(true), &serde_json::Value::Null), "{status}");
    assert_eq!(
        (&status["user"]["username"], &status["user"]["uid"]),
        (&json!("system:serviceaccount:n:a"), &account["metadata"]["uid"])
    );
    let groups = status["user"]["groups"].as_array().unwrap();
    for group in ["system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"] {
        assert!(groups.contains(&json!(group)), "{groups:?}");
    }
    // One changed letter of the signature.
    let at = token.len() - 8;
    let other = if token[at..].starts_with('A') { "B" } else { "A" };
    let forged = format!("{}{other}{}", &token[..at], &token[at + 1..]);
    assert_ne!(review(&forged).await["authenticated"], true);
    send(api, 200, "DELETE /api/v1/namespaces/n/serviceaccounts/a", &serde_json::Value::Null).await;
    assert_ne!(review(token).await["authenticated"], true, "the account is gone");
}

/// Conformance: [sig-auth] SubjectReview should support SubjectReview API operations [Conformance]
#[tokio::test]
async fn reviews_say_what_requests_get() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "n").await;
    let user = "system:serviceaccount:n:a";
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]);
    grant(api, user, rules, "GET /api/v1/namespaces/n/configmaps").await;
    for (verb, resource, path, allowed) in [
        ("list", "configmaps", "/api/v1/namespaces/n/configmaps", true),
        ("list", "secrets", "/api/v1/namespaces/n/secrets", false),
    ] {
        let attributes = json!({"namespace": "n", "verb": verb, "resource": resource});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": attributes}});
        let cluster = send(api, 201, "POST /apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await;
        assert_eq!((cluster["status"]["allowed"] == true, &cluster["spec"]["user"]), (allowed, &json!(user)), "{cluster}");
        let mut local = review.clone();
        (local["kind"], local["metadata"]) = (json!("LocalSubjectAccessReview"), json!({"namespace": "n"}));
        let local = send(api, 201, "POST /apis/authorization.k8s.io/v1/namespaces/n/localsubjectaccessreviews", &local).await;
        assert_eq!(local["status"]["allowed"] == true, allowed, "{local}");
        let impersonated = crate::server::admin(api, &format!("GET {path}\nimpersonate-user: {user}")).await;
        assert_eq!(impersonated.code, if allowed { 200 } else { 403 });
    }
}
