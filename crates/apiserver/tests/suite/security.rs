//! Who may do what, and what hostile requests come to.

use serde_json::{Value, json};

use crate::server::{admin, ask, config_map, grant, namespace, serve, start};

#[tokio::test]
async fn tokens_and_reviews() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}});
    admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts\n\n{account}")).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let issued = admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts/a/token\n\n{request}")).await;
    assert_eq!(issued.code, 201, "{:?}", issued.body);
    let token = issued.json()["status"]["token"].as_str().unwrap().to_owned();
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let me = ask(
        api,
        "",
        &format!("POST /apis/authentication.k8s.io/v1/selfsubjectreviews\nauthorization: Bearer {token}\n\n{review}"),
    )
    .await;
    assert_eq!(me.json()["status"]["userInfo"]["username"], "system:serviceaccount:n:a", "{:?}", me.body);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let reviewed = admin(api, &format!("POST /apis/authentication.k8s.io/v1/tokenreviews\n\n{review}")).await.json();
    assert_eq!(reviewed["status"]["authenticated"], true);
    let may = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "jane", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "n"}}});
    let may = admin(api, &format!("POST /apis/authorization.k8s.io/v1/subjectaccessreviews\n\n{may}")).await.json();
    assert_eq!(may["status"]["allowed"], false);
    let impersonated = admin(api, "GET /api/v1/namespaces/n/pods\nimpersonate-user: jane").await;
    assert_eq!(impersonated.code, 403);
    assert_eq!(admin(api, "DELETE /api/v1/namespaces/n/serviceaccounts/a").await.code, 200);
    assert_eq!(ask(api, "", &format!("GET /api\nauthorization: Bearer {token}")).await.code, 401, "the account is gone");
}

/// KEP-5284: "an impersonator can be limited to impersonate another user only for specific actions on specific resources".
#[tokio::test]
async fn impersonation_is_constrained() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "n").await;
    let get = async |caller: &str, wanted: &str, path: &str| {
        let answer = ask(api, caller, &format!("GET {path}\nimpersonate-user: {wanted}")).await;
        (answer.code, answer.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    let (maps, pods) = ("/api/v1/namespaces/n/configmaps", "/api/v1/namespaces/n/pods");
    let may_list = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps", "pods"]}]);
    grant(api, "jane", may_list, &format!("GET {maps}")).await;
    let (code, why) = get("deputy", "jane", maps).await;
    let lacks =
        "User \"deputy\" cannot impersonate-on:user-info:list resource \"configmaps\" in API group \"\" in the namespace \"n\"";
    assert!(code == 403 && why.contains(lacks), "{why}");
    let constrained = json!([
        {"verbs": ["impersonate:user-info"], "apiGroups": ["authentication.k8s.io"], "resources": ["users"], "resourceNames": ["jane"]},
        {"verbs": ["impersonate-on:user-info:list"], "apiGroups": [""], "resources": ["configmaps"]},
    ]);
    grant(api, "deputy", constrained, &format!("GET {maps}\nimpersonate-user: jane")).await;
    assert_eq!(get("deputy", "jane", maps).await.0, 200);
    assert_eq!(get("deputy", "jane", pods).await.0, 403, "jane may list pods, and the deputy may not as her");
    let (code, why) = get("deputy", "joe", maps).await;
    let lacks = "cannot impersonate:user-info resource \"users\" in API group \"authentication.k8s.io\" at the cluster scope";
    assert!(code == 403 && why.contains(lacks), "{why}");
    // The verb that was there before allows all, as ever.
    let legacy = json!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["jane"]}]);
    grant(api, "old", legacy, &format!("GET {maps}\nimpersonate-user: jane")).await;
    assert_eq!(get("old", "jane", pods).await.0, 200);
}

#[tokio::test]
async fn roles_apply_and_do_not_escalate() {
    let mut server = start(true).await;
    let service = server.service.take().unwrap();
    let (api, tasks) = (server.api.clone(), server.tasks.clone());
    server.tasks.spawn("apiserver", base::tasks::OnFailure::Log, async move { service.run(tasks).await });
    namespace(&api, "n").await;
    let role = |name: &str, verbs: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name},
        "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["configmaps"]}]})
    };
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/n";
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    let bound = admin(&api, &format!("POST {path}/rolebindings\n\n{binding}")).await;
    assert_eq!(bound.code, 201, "{:?}", bound.body);
    // The index follows the commit; how soon is not promised.
    while ask(&api, "jane", "GET /api/v1/namespaces/n/configmaps").await.code != 200 {
        tokio::task::yield_now().await;
    }
    let good = ask(&api, "jane", &format!("POST {path}/roles\n\n{}", role("r", json!(["get"])))).await;
    assert_eq!(good.code, 201, "{:?}", good.body);
    let bad = ask(&api, "jane", &format!("POST {path}/roles\n\n{}", role("s", json!(["*"])))).await;
    let message = bad.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains(
            r#"user "jane" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held"#
        ),
        "{message}"
    );
    assert!(message.contains(r#"{APIGroups:[""], Resources:["configmaps"], Verbs:["*"]}"#), "{message}");
    assert!(server.tasks.drain(std::time::Duration::from_secs(60)).await);
}

#[tokio::test]
async fn admission() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "priorityClassName": "system-node-critical"});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    let refused = admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{pod}")).await;
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("error looking up service account n/default"), "{message}");
    // A namespace and a pod of one file: the default account is made while the pod is looked at.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let (pods, accounts) =
        (format!("POST /api/v1/namespaces/n/pods\n\n{pod}"), format!("POST /api/v1/namespaces/n/serviceaccounts\n\n{account}"));
    let (made, _) = tokio::join!(biased; admin(api, &pods), admin(api, &accounts));
    let spec = &made.json()["spec"];
    assert_eq!(
        (made.code, &spec["priority"], &spec["serviceAccountName"]),
        (201, &json!(2_000_001_000), &json!("default")),
        "{:?}",
        made.body
    );
    assert!(spec["volumes"][0]["name"].as_str().unwrap().starts_with("kube-api-access-"));
    assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(2));
    let missing = admin(api, &format!("POST /api/v1/namespaces/none/configmaps\n\n{}", config_map("m"))).await;
    assert_eq!((missing.code, missing.json()["message"].as_str()), (404, Some("namespaces \"none\" not found")));
    let kept = admin(api, "DELETE /api/v1/namespaces/kube-system").await;
    assert_eq!(
        (kept.code, kept.json()["message"].as_str()),
        (403, Some("namespaces \"kube-system\" is forbidden: this namespace may not be deleted"))
    );
    assert_eq!(admin(api, "GET /api/v1/namespaces/default/services/kubernetes").await.json()["spec"]["clusterIP"], "10.43.0.1");
}

#[tokio::test]
async fn other_verbs_do_not_create_or_escalate() {
    let mut server = start(true).await;
    let service = server.service.take().unwrap();
    let (api, tasks) = (server.api.clone(), server.tasks.clone());
    server.tasks.spawn("apiserver", base::tasks::OnFailure::Log, async move { service.run(tasks).await });
    namespace(&api, "n").await;
    let rbac = "rbac.authorization.k8s.io";
    let write = json!([
        {"verbs": ["get", "update", "patch"], "apiGroups": ["", "coordination.k8s.io", rbac], "resources": ["configmaps", "leases", "clusterroles"]},
    ]);
    grant(&api, "jane", write, "GET /api/v1/namespaces/n/configmaps/none").await;
    let check = async |request: String, code: u16| {
        let answer = ask(&api, "jane", &request).await;
        assert_eq!(answer.code, code, "{request}: {:?}", answer.body);
    };
    // Apply and PUT create what is missing, for those who may create it.
    let apply = "fieldManager=m\ncontent-type: application/apply-patch+yaml";
    let maps = "/api/v1/namespaces/n/configmaps";
    check(format!("PATCH {maps}/m?{apply}\n\n{}", config_map("m")), 403).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/n/leases";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}});
    check(format!("PUT {leases}/l\n\n{lease}"), 403).await;
    let lease = admin(&api, &format!("PUT {leases}/l\n\n{lease}")).await;
    assert_eq!((lease.code, &lease.json()["metadata"]["name"]), (201, &json!("l")));
    let lease = lease.json();
    assert_eq!(admin(&api, &format!("PATCH {maps}/m?{apply}\n\n{}", config_map("m"))).await.code, 201);
    check(format!("PATCH {maps}/m?force=true&{apply}\n\n{}", config_map("m")), 200).await;
    check(format!("PUT {leases}/l\n\n{lease}"), 200).await;
    // A label would make the rules of a role part of another one.
    let roles = format!("/apis/{rbac}/v1/clusterroles");
    let label = format!(r#"{{"metadata":{{"labels":{{"{rbac}/aggregate-to-view":"true"}}}}}}"#);
    check(format!("PATCH {roles}/cluster-admin\ncontent-type: application/merge-patch+json\n\n{label}"), 403).await;
    let finalizer = r#"{"metadata":{"finalizers":["example.com/x"]}}"#;
    check(format!("PATCH {roles}/cluster-admin\ncontent-type: application/merge-patch+json\n\n{finalizer}"), 200).await;
}

#[tokio::test]
async fn hostile_requests_do_no_harm() {
    use base64::Engine as _;
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts\n\n{account}")).await;
    for (plural, object) in [
        ("configmaps", config_map("m")),
        (
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "x", "containers": [{"name": "c", "image": "i"}]}}),
        ),
    ] {
        let made = admin(api, &format!("POST /api/v1/namespaces/n/{plural}\n\n{object}")).await;
        assert_eq!(made.code, 201, "{:?}", made.body);
    }
    let check = async |request: &str| {
        let answer = admin(api, request).await;
        let shown: String = request.chars().take(200).collect();
        assert!(answer.code < 500, "{shown}: {} {:?}", answer.code, answer.body);
    };
    for path in [
        "//api//v1//pods",
        "/api/v1/../../metrics",
        "/livez/../metrics",
        "/api/v1/namespaces/n/configmaps/..%2f..%2fm",
        "/api/v1/namespaces/n/configmaps/m/../../secrets",
        "/api/v1/namespaces/%2e%2e/configmaps/m",
        "/api/v1/namespaces/n%2fconfigmaps/m/x",
        "/api/v1/namespaces/n/configmaps/m%00",
        "/api/v1/namespaces/n/configmaps/%ff%fe",
        "/api/v1/namespaces/n/pods/p/log?container=%00",
        "/api/v1/namespaces/n/pods/p:99999999/proxy/",
        "/api/v1/namespaces/n/services/https:x:y:z/proxy/",
        "/api/v1/pods?limit=99999999999999999999",
        "/api/v1/pods?resourceVersion=-1",
        "/api/v1/pods?resourceVersion=x&watch=1",
        "/api/v1/pods?labelSelector=((((",
        "/api/v1/pods?fieldSelector=a=b",
        "/api/v1/pods?continue=%00",
        "/api/v1/pods?sendInitialEvents=true",
    ] {
        check(&format!("GET {path}")).await;
    }
    check(&format!("GET /api/v1/namespaces/n/configmaps/{}", "a".repeat(60_000))).await;
    let token = |rv: i64, start: &str| {
        let text = json!({"v": "meta.k8s.io/v1", "rv": rv, "start": start}).to_string();
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    // A forged token gives nothing of other namespaces.
    for (rv, start) in [(1, ""), (1, "zzz"), (-1, "a"), (-9, "n/"), (i64::MAX, "n"), (3, "../x"), (3, "\0")] {
        let list = admin(api, &format!("GET /api/v1/namespaces/kube-system/configmaps?continue={}", token(rv, start))).await;
        // One from the future is answered as any version that is too large.
        let refused = list.code < 500 || (list.code == 504 && rv == i64::MAX);
        assert!(refused && !String::from_utf8_lossy(&list.body).contains("\"m\""), "{rv} {start}: {:?}", list.body);
    }
    let bodies = [
        "",
        "null",
        "[]",
        "\"x\"",
        "1",
        "{",
        "{\"metadata\":[]}",
        "{\"metadata\":{\"name\":5}}",
        "{\"data\":{\"a\":1e400}}",
        "\u{0}",
    ];
    for body in bodies {
        check(&format!("POST /api/v1/namespaces/n/configmaps\n\n{body}")).await;
        check(&format!("PUT /api/v1/namespaces/n/configmaps/m\n\n{body}")).await;
        check(&format!("POST /api/v1/namespaces/n/configmaps\ncontent-type: application/vnd.kubernetes.protobuf\n\nk8s\0{body}"))
            .await;
        check(&format!(
            "PATCH /api/v1/namespaces/n/configmaps/m?fieldManager=a\ncontent-type: application/apply-patch+yaml\n\n{body}"
        ))
        .await;
        check(&format!("PATCH /api/v1/namespaces/n/configmaps/m\ncontent-type: application/json-patch+json\n\n[{body}]")).await;
    }
    for (kind, body) in [
        ("json-patch", r#"[{"op":"remove","path":"/metadata"}]"#),
        ("json-patch", r#"[{"op":"replace","path":"","value":1}]"#),
        ("json-patch", r#"[{"op":"replace","path":"/metadata/name","value":{}}]"#),
        ("merge-patch", r#"{"metadata":[]}"#),
        ("merge-patch", r#"{"metadata":{"name":null}}"#),
        ("merge-patch", r#"{"kind":"Secret"}"#),
        ("strategic-merge-patch", r#"{"metadata":{"finalizers":{"$patch":"replace"}}}"#),
        ("strategic-merge-patch", r#"{"data":[{"$patch":"delete"}]}"#),
    ] {
        check(&format!("PATCH /api/v1/namespaces/n/configmaps/m\ncontent-type: application/{kind}+json\n\n{body}")).await;
    }
    check("DELETE /api/v1/namespaces/n/configmaps/m\n\n{\"preconditions\":{\"uid\":\"5\"}}").await;
    assert_eq!(admin(api, "DELETE /api/v1/namespaces/n/configmaps/m\n\n[]").await.code, 400);
    // Seconds beyond the calendar.
    let deleted = admin(api, "DELETE /api/v1/namespaces/n/pods/p?gracePeriodSeconds=9223372036854775807").await;
    assert_eq!(deleted.code, 200, "{:?}", deleted.body);
    let watch = "GET /api/v1/namespaces/n/pods?watch=1&resourceVersion=0&timeoutSeconds=1";
    assert_eq!(admin(api, watch).await.code, 200);
    assert_eq!(admin(api, "GET /api/v1/namespaces/n/configmaps/m").await.code, 200);
}

/// KEP-4935: "the node can only request service account tokens for audiences" that its pods' volumes name; others need the verb
/// `request-serviceaccounts-token-audience` on the audience.
#[tokio::test]
async fn kubelets_ask_for_tokens_of_other_audiences_by_a_right_of_their_own() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "n").await;
    let make = async |path: &str, object: Value| {
        let made = admin(api, &format!("POST {path}\n\n{object}")).await;
        assert_eq!(made.code, 201, "{:?}", made.body);
        made.json()
    };
    let of = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    for name in ["crew", "mate"] {
        make("/api/v1/namespaces/n/serviceaccounts", of("ServiceAccount", name)).await;
    }
    let mut uids = Vec::new();
    for account in ["crew", "mate"] {
        let mut pod = of("Pod", account);
        pod["spec"] = json!({"nodeName": "n1", "serviceAccountName": account, "containers": [{"name": "c", "image": "i"}],
            "automountServiceAccountToken": false});
        uids.push(make("/api/v1/namespaces/n/pods", pod).await["metadata"]["uid"].clone());
    }
    let request = async |account: &str, audience: &str| {
        let uid = &uids[usize::from(account == "mate")];
        let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": account, "uid": uid});
        let spec = json!({"audiences": [audience], "boundObjectRef": bound});
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let head = "impersonate-user: system:node:n1\nimpersonate-group: system:nodes";
        let answer = admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts/{account}/token\n{head}\n\n{request}")).await;
        (answer.code, answer.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    let refused = async |account: &str, audience: &str| {
        let (code, why) = request(account, audience).await;
        let expected = format!(
            "audience \"{audience}\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience"
        );
        assert!(code == 403 && why.contains(&expected), "{code} {why}");
    };
    refused("crew", "registry").await;
    let group = "rbac.authorization.k8s.io";
    let rule = json!({"verbs": ["request-serviceaccounts-token-audience"], "apiGroups": [""], "resources": ["registry"],
        "resourceNames": ["crew"]});
    let meta = json!({"name": "audience"});
    let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": meta, "rules": [rule]});
    make("/apis/rbac.authorization.k8s.io/v1/namespaces/n/roles", role).await;
    let binding = json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": meta,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "audience"},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": "system:nodes"}]});
    make("/apis/rbac.authorization.k8s.io/v1/namespaces/n/rolebindings", binding).await;
    while request("crew", "registry").await.0 == 403 {
        tokio::task::yield_now().await;
    }
    assert_eq!(request("crew", "registry").await, (201, String::new()));
    refused("crew", "vault").await;
    refused("mate", "registry").await;
}

/// Upstream: `TokenRequestServiceAccountUIDValidation`.
#[tokio::test]
async fn tokens_are_of_the_account_that_is_named() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "crew"}});
    let made = admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts\n\n{account}")).await.json();
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let request = async |metadata: Value| {
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": metadata, "spec": {}});
        let issued = admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts/crew/token\n\n{request}")).await;
        (issued.code, issued.json())
    };
    for metadata in [json!({}), json!({"uid": uid}), json!({"uid": uid, "name": "crew", "namespace": "n"})] {
        let (code, issued) = request(metadata).await;
        assert_eq!((code, &issued["metadata"]["uid"]), (201, &json!(uid)), "{issued}");
    }
    let other = format!("the UID in the token request (other) does not match the UID of the service account ({uid})");
    for (metadata, code, why) in [
        (
            json!({"uid": "other"}),
            409,
            format!("Operation cannot be fulfilled on TokenRequest.authentication.k8s.io \"crew\": {other}"),
        ),
        (
            json!({"name": "mate"}),
            422,
            "metadata.name: Invalid value: \"mate\": must match the service account name if specified".to_owned(),
        ),
    ] {
        let (found, refused) = request(metadata).await;
        let message = refused["message"].as_str().unwrap();
        assert!(found == code && message.contains(&why), "{found} {message}");
    }
}

#[tokio::test]
async fn tokens_end_with_what_they_are_bound_to() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let make = async |plural: &str, object: &Value| {
        let made = admin(api, &format!("POST /api/v1/namespaces/n/{plural}\n\n{object}")).await;
        assert_eq!(made.code, 201, "{:?}", made.body);
    };
    let request = async |spec: Value, code: u16| {
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let issued = admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts/default/token\n\n{request}")).await;
        assert_eq!(issued.code, code, "{:?}", issued.body);
        issued.json()["status"]["token"].as_str().unwrap_or_default().to_owned()
    };
    let check = async |token: &str, code: u16| {
        assert_eq!(ask(api, "", &format!("GET /api\nauthorization: Bearer {token}")).await.code, code);
    };
    make("serviceaccounts", &account).await;
    for (kind, plural, object) in [("Pod", "pods", &pod), ("Secret", "secrets", &secret)] {
        make(plural, object).await;
        let name = object["metadata"]["name"].as_str().unwrap();
        let token = request(json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name}}), 201).await;
        check(&token, 200).await;
        // Another one of the same name is not the same.
        assert_eq!(admin(api, &format!("DELETE /api/v1/namespaces/n/{plural}/{name}?gracePeriodSeconds=0")).await.code, 200);
        check(&token, 401).await;
        make(plural, object).await;
        check(&token, 401).await;
    }
    let account_token = request(json!({}), 201).await;
    check(&account_token, 200).await;
    check(&request(json!({"audiences": ["vault"]}), 201).await, 401).await;
    request(json!({"expirationSeconds": 599}), 422).await;
    request(json!({"expirationSeconds": (1_i64 << 32) + 1}), 422).await;
    request(json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "other"}}), 409).await;
    request(json!({"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "m"}}), 400).await;
    request(json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "apps/v1", "name": "p"}}), 400).await;
    request(json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v2", "name": "p"}}), 201).await;
    assert_eq!(admin(api, "DELETE /api/v1/namespaces/n/serviceaccounts/default").await.code, 200);
    make("serviceaccounts", &account).await;
    check(&account_token, 401).await;
}

/// Upstream's TestAdmit of NodeRestriction: CSINodes and requests for certificates; and pod ranges, by which other nodes send packets.
#[tokio::test]
async fn kubelets_write_what_is_theirs() {
    let server = serve().await;
    let api = &server.api;
    let head = "impersonate-user: system:node:n1\nimpersonate-group: system:nodes";
    let check = async |method: &str, path: &str, body: &Value, expected: Result<(), &str>| {
        let kind = if method == "PATCH" { "\ncontent-type: application/merge-patch+json" } else { "" };
        let answer = admin(api, &format!("{method} {path}\n{head}{kind}\n\n{body}")).await;
        let why = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        match expected {
            Ok(()) => assert!(answer.code < 300, "{method} {path} {body}: {why}"),
            Err(expected) => assert!(answer.code == 403 && why.contains(expected), "{method} {path} {body}: {why}"),
        }
    };
    let nodes = "/api/v1/nodes";
    let node = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec});
    let ranges = Err("is not allowed to set spec.podCIDRs");
    check("POST", nodes, &node("n1", json!({"podCIDR": "192.0.2.1/32", "podCIDRs": ["192.0.2.1/32"]})), ranges).await;
    check("POST", nodes, &node("n1", json!({"podCIDRs": ["192.0.2.1/32"]})), ranges).await;
    check("POST", nodes, &node("n1", json!({"podCIDRs": []})), Ok(())).await;
    let patch = |ranges: Value| json!({"spec": {"podCIDRs": ranges}});
    check("PATCH", "/api/v1/nodes/n1", &patch(json!(["192.0.2.1/32"])), ranges).await;
    let given = json!({"spec": {"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.1.0/24"]}});
    let given = admin(api, &format!("PATCH /api/v1/nodes/n1\ncontent-type: application/merge-patch+json\n\n{given}")).await;
    assert_eq!(given.code, 200, "{:?}", given.body);
    check("PATCH", "/api/v1/nodes/n1", &json!({"metadata": {"annotations": {"a": "b"}}}), Ok(())).await;

    let drivers = "/apis/storage.k8s.io/v1/csinodes";
    let drivers_of = |name: &str| json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": name}, "spec": {"drivers": []}});
    check("POST", drivers, &drivers_of("n2"), Err("can only access CSINode with the same name as the requesting node")).await;
    check("POST", drivers, &drivers_of("n1"), Ok(())).await;
    check("DELETE", &format!("{drivers}/n1"), &json!({}), Ok(())).await;

    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let request = |signer: &str, name: &str, usage: &str| {
        use base64::Engine as _;
        let wanted = base::tls::Request::Client { user: name.to_owned(), groups: vec!["system:nodes".to_owned()] };
        let request = base::tls::request(&base::tls::generate_key().unwrap(), &wanted).unwrap();
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"generateName": "csr-"},
            "spec": {"signerName": signer, "usages": [usage], "request": base64::engine::general_purpose::STANDARD.encode(request)}})
    };
    let other = Err("can only create a node CSR with CN=system:node:n1");
    for (signer, usage) in
        [("kubernetes.io/kube-apiserver-client-kubelet", "client auth"), ("kubernetes.io/kubelet-serving", "server auth")]
    {
        check("POST", requests, &request(signer, "system:node:n1", usage), Ok(())).await;
        check("POST", requests, &request(signer, "system:node:n2", usage), other).await;
        check("POST", requests, &request(signer, "jane", usage), other).await;
    }
    check("POST", requests, &request("kubernetes.io/kube-apiserver-client", "jane", "client auth"), Ok(())).await;
}

/// A name that no Node had was certified for whoever had a join token; the machine that then joins has it alone.
#[tokio::test]
async fn a_nodes_name_is_of_the_key_that_joined() {
    use tower::Service as _;
    let server = serve().await;
    let api = &server.api;
    let check = async |key: Option<&str>, expected: u16| {
        let user = registry::User {
            name: "system:node:n3".into(),
            groups: vec!["system:nodes".into()],
            extra: key.map(|key| (base::tls::NODE_KEY.to_owned(), vec![key.to_owned()])).into_iter().collect(),
            ..registry::User::default()
        };
        let request = http::Request::get("/api/v1/services").body(http_body_util::Full::new(bytes::Bytes::new())).unwrap();
        let answer = api.as_user(user).call(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{key:?}");
    };
    let make = async |annotations: Value| {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n3", "annotations": annotations}});
        assert_eq!(admin(api, &format!("POST /api/v1/nodes\n\n{node}")).await.code, 201);
    };
    // Nobody has joined, and a node that says nothing of its key, as other kubelets' nodes.
    check(Some("f00d"), 200).await;
    make(json!({})).await;
    check(Some("f00d"), 200).await;
    assert_eq!(admin(api, "DELETE /api/v1/nodes/n3").await.code, 200);
    make(json!({base::tls::NODE_KEY: "beef"})).await;
    check(Some("beef"), 200).await;
    check(Some("f00d"), 401).await;
    // The node of the server's own process has no certificate.
    check(None, 200).await;
    assert_eq!(admin(api, "DELETE /api/v1/nodes/n3").await.code, 200);
    check(Some("f00d"), 200).await;
}
