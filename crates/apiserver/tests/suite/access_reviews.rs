//! What access reviews answer.

use serde_json::{Value, json};

use crate::server::{admin, ask, grant, namespace, serve};

const GROUP: &str = "/apis/authorization.k8s.io/v1";

/// Upstream's status of SubjectAccessReviews: who is allowed learns by what, and what was not understood is told.
#[tokio::test]
async fn reviews_give_reasons() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "n").await;
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]);
    grant(api, "jane", rules, "GET /api/v1/namespaces/n/pods").await;
    let review = async |spec: Value| {
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let answer = admin(api, &format!("POST {GROUP}/subjectaccessreviews\n\n{review}")).await;
        (answer.code, answer.json())
    };
    let check = async |user: &str, about: Value, expected: Value| {
        let (code, reviewed) = review(json!({"user": user, "resourceAttributes": about})).await;
        assert_eq!((code, &reviewed["status"]), (201, &expected), "{about}");
    };
    let list = |more: Value| {
        let mut about = json!({"verb": "list", "resource": "pods", "namespace": "n"});
        about.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        about
    };
    let reason = "RBAC: allowed by ClusterRoleBinding \"jane\" of ClusterRole \"jane\" to User \"jane\"";
    check("jane", list(json!({})), json!({"allowed": true, "reason": reason})).await;
    check("joe", list(json!({})), json!({"allowed": false})).await;
    let odd = json!({"labelSelector": {"rawSelector": "a=b=c"}});
    let ignored = "spec.resourceAttributes.labelSelector ignored due to parse error";
    check("jane", list(odd), json!({"allowed": true, "reason": reason, "evaluationError": ignored})).await;
    // The node authorizer looks at the selector, in either form.
    let node = async |selector: Value, expected: bool| {
        let about = list(json!({"fieldSelector": selector}));
        let spec = json!({"user": "system:node:a", "groups": ["system:nodes"], "resourceAttributes": about});
        let (_, reviewed) = review(spec).await;
        assert_eq!(reviewed["status"]["allowed"], expected, "{about}: {reviewed}");
    };
    node(json!({"rawSelector": "spec.nodeName=a"}), true).await;
    node(json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["a"]}]}), true).await;
    node(json!({"rawSelector": "spec.nodeName=b"}), false).await;
    let refused = async |spec: Value, expected: &str| {
        let (code, status) = review(spec).await;
        let message = status["message"].as_str().unwrap_or_default().to_owned();
        assert!(code == 422 && message.contains(expected), "{code} {message}");
    };
    let path = json!({"path": "/", "verb": "get"});
    refused(json!({"user": "jane"}), "spec.resourceAttributes: Invalid value: null: exactly one of").await;
    let both = json!({"user": "jane", "resourceAttributes": list(json!({})), "nonResourceAttributes": path});
    refused(both, "cannot be specified in combination with resourceAttributes").await;
    refused(json!({"nonResourceAttributes": path}), "spec.user: Invalid value: \"\": at least one of user or group").await;
    let both = json!({"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "Exists"}]});
    let twice = list(json!({"labelSelector": both}));
    refused(json!({"user": "jane", "resourceAttributes": twice}), "may not specified at the same time as requirements").await;
}

/// Upstream's TestValidateSubjectAccessReview and its siblings (`pkg/apis/authorization/validation`): what is answered and never kept has
/// no metadata, besides what the server wipes (`WipeObjectMetaSystemFields`) and managed fields.
#[tokio::test]
async fn reviews_have_no_metadata() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "n").await;
    let check = async |kind: &str, path: &str, metadata: Value, expected: Result<(), &str>| {
        let mut spec = json!({"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "n"}});
        if kind != "SelfSubjectAccessReview" {
            spec["user"] = "jane".into();
        }
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec});
        let answer = admin(api, &format!("POST {GROUP}/{path}\n\n{review}")).await;
        let (code, told) = (answer.code, answer.json());
        let found = if code == 201 { Ok(()) } else { Err((code, told["message"].as_str().unwrap_or_default())) };
        match expected {
            Ok(()) => assert_eq!(found, Ok(()), "{kind} {metadata}"),
            Err(why) => {
                let (code, message) = found.unwrap_err();
                assert!(code == 422 && message.contains("metadata: Invalid value: {"), "{code} {message}");
                assert!(message.ends_with(why), "{message}");
            }
        }
    };
    let own = "namespaces/n/localsubjectaccessreviews";
    for (kind, path, why) in [
        ("SubjectAccessReview", "subjectaccessreviews", "must be empty"),
        ("SelfSubjectAccessReview", "selfsubjectaccessreviews", "must be empty"),
        ("LocalSubjectAccessReview", own, "must be empty except for namespace"),
    ] {
        for metadata in [
            json!({}),
            json!({"name": "", "labels": {}, "finalizers": [], "generation": 0}),
            json!({"creationTimestamp": "2026-01-01T00:00:00Z", "uid": "u"}),
            json!({"managedFields": [{"manager": "m", "operation": "Update", "apiVersion": "v1"}]}),
        ] {
            check(kind, path, metadata, Ok(())).await;
        }
        for metadata in [json!({"name": "a"}), json!({"labels": {"a": "b"}}), json!({"generateName": "a-"})] {
            check(kind, path, metadata, Err(why)).await;
        }
    }
    check("LocalSubjectAccessReview", own, json!({"namespace": "n"}), Ok(())).await;
    check("LocalSubjectAccessReview", own, json!({"namespace": "n", "name": "a"}), Err("must be empty except for namespace"))
        .await;
}

/// "Incomplete is true when the rules returned by this call are incomplete": those of a node are not listed.
#[tokio::test]
async fn what_a_node_may_is_not_all_listed() {
    let server = serve().await;
    let rules = async |user: &str, head: &str| {
        let review =
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "n"}});
        let answer = ask(&server.api, user, &format!("POST {GROUP}/selfsubjectrulesreviews{head}\n\n{review}")).await;
        answer.json()["status"].clone()
    };
    let status = rules(
        "admin",
        "\nimpersonate-user: system:node:a\nimpersonate-group: system:nodes\nimpersonate-group: system:authenticated",
    )
    .await;
    assert_eq!(
        (&status["incomplete"], &status["evaluationError"]),
        (&json!(true), &json!("node authorizer does not support user rule resolution"))
    );
    let status = rules("jane", "").await;
    assert_eq!((&status["incomplete"], status.get("evaluationError")), (&json!(false), None));
}
