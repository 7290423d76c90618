//! The Pod Security Standards, as a namespace's labels ask for them.

use serde_json::{Value, json};

use crate::server::{Answer, admin, ask, populated_namespace, start, start_with};

fn warnings(answer: &Answer) -> Vec<String> {
    answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

fn labels(values: Value) -> String {
    let labels = values.as_object().unwrap().iter();
    let labels: serde_json::Map<String, Value> =
        labels.map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), value.clone())).collect();
    json!({"metadata": {"labels": labels}}).to_string()
}

async fn label(api: &apiserver::Api, values: Value) -> Answer {
    admin(api, &format!("PATCH /api/v1/namespaces/n\ncontent-type: application/merge-patch+json\n\n{}", labels(values))).await
}

fn pod(name: &str, security: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "containers": [{"name": "c", "image": "i", "securityContext": security}]}})
}

/// Kubernetes documentation, "Pod Security Admission": what is enforced is refused, what is warned of is accepted with a warning.
#[tokio::test]
async fn pods_are_refused_and_workloads_are_warned_of() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let pods = "/api/v1/namespaces/n/pods";
    let before = admin(api, &format!("POST {pods}\n\n{}", pod("before", json!({"privileged": true})))).await;
    assert_eq!((before.code, warnings(&before)), (201, Vec::new()));
    let labelled = label(api, json!({"enforce": "baseline"})).await;
    let told = r#"299 - "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"""#;
    assert_eq!((labelled.code, warnings(&labelled)), (200, vec![told.into(), r#"299 - "before: privileged""#.into()]));
    let refused = admin(api, &format!("POST {pods}\n\n{}", pod("p", json!({"privileged": true})))).await.json();
    assert_eq!((&refused["code"], &refused["reason"]), (&json!(403), &json!("Forbidden")));
    assert_eq!(
        refused["message"],
        r#"pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)"#
    );
    let milder = label(api, json!({"enforce": "privileged", "warn": "restricted", "warn-version": "v1.25"})).await;
    assert_eq!((milder.code, warnings(&milder)), (200, Vec::new()), "what gets milder is not looked at");
    let would = r#"299 - "would violate PodSecurity \"restricted:v1.25\": allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")""#;
    let made = admin(api, &format!("POST {pods}\n\n{}", pod("p", json!({})))).await;
    assert_eq!((made.code, warnings(&made)), (201, vec![would.into()]));
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("p", json!({}))["spec"]});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let made = admin(api, &format!("POST /apis/apps/v1/namespaces/n/deployments\n\n{deployment}")).await;
    assert_eq!((made.code, warnings(&made)), (201, vec![would.into()]));
    let scaled = r#"{"spec":{"replicas":2}}"#;
    let scale = "/apis/apps/v1/namespaces/n/deployments/d/scale";
    let scaled = admin(api, &format!("PATCH {scale}\ncontent-type: application/merge-patch+json\n\n{scaled}")).await;
    assert_eq!((scaled.code, warnings(&scaled)), (200, Vec::new()));
    // A label of a pod is nobody's concern; a debugging container is.
    label(api, json!({"enforce": "baseline", "warn": null})).await;
    let change = "content-type: application/merge-patch+json\n\n{\"metadata\":{\"labels\":{\"x\":\"y\"}}}";
    assert_eq!(admin(api, &format!("PATCH {pods}/before\n{change}")).await.code, 200);
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i", "securityContext": {"privileged": true}}]}});
    let debug = format!("PATCH {pods}/p/ephemeralcontainers\ncontent-type: application/strategic-merge-patch+json\n\n{debug}");
    let refused = admin(api, &debug).await;
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(refused.code == 403 && message.contains(r#"privileged (container "e" must not"#), "{message}");
    assert_eq!(admin(api, &format!("PATCH {pods}/before/status\n{change}")).await.code, 200, "a status is no specification");
}

#[tokio::test]
async fn labels_are_checked() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let refused = label(api, json!({"enforce": "strict", "warn-version": "1.25"})).await.json();
    assert_eq!(
        (&refused["code"], refused["message"].as_str().unwrap()),
        (
            &json!(422),
            "Namespace \"n\" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted, metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"1.25\": must be \"latest\" or \"v1.x\"]"
        )
    );
    let wrong = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "m", "labels": {"pod-security.kubernetes.io/audit": "x"}}});
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces\n\n{wrong}")).await.code, 422);
}

/// The token that admission mounts lives a year and says when it is stale; its owner is told the time that was asked for.
#[tokio::test]
async fn mounted_tokens_are_extended() {
    use base64::Engine;
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{}", pod("p", json!({})))).await;
    let claims = async |seconds: i64| {
        let spec = json!({"expirationSeconds": seconds, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}});
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let issued = admin(api, &format!("POST /api/v1/namespaces/n/serviceaccounts/default/token\n\n{request}")).await.json();
        assert_eq!(issued["spec"]["expirationSeconds"], seconds);
        let token = issued["status"]["token"].as_str().unwrap().to_owned();
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&payload).unwrap();
        let told: jiff::Timestamp = issued["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
        let (from, told) = (claims["iat"].as_i64().unwrap(), told.as_second());
        assert!((told - from - seconds).abs() <= 2, "{told} {from}");
        let stale = claims["kubernetes.io"]["warnafter"].as_i64().map(|stale| stale - from);
        assert_eq!(ask(api, "", &format!("GET /version\nauthorization: Bearer {token}")).await.code, 200);
        (claims["exp"].as_i64().unwrap() - from, stale)
    };
    assert_eq!(claims(3607).await, (31_536_000, Some(3607)));
    assert_eq!(claims(3600).await, (3600, None));
}

/// KEP-2579: "cluster-wide defaults and exemptions" by the configuration of the plugin.
#[tokio::test]
async fn defaults_hold_for_all_but_those_who_are_exempt() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("admission.yaml");
    let configuration = json!({"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": "baseline"},
        "exemptions": {"namespaces": ["system"], "usernames": ["root"], "runtimeClasses": ["kata"]}});
    let whole = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": "PodSecurity", "configuration": configuration}]});
    std::fs::write(&file, whole.to_string()).unwrap();
    let server = start_with(|options| options.admission = Some(file)).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    populated_namespace(api, "system").await;
    let create = async |user: &str, namespace: &str, pod: &Value| {
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        let user = registry::User { name: user.into(), groups: vec!["system:masters".into()], ..registry::User::default() };
        let request = http::Request::post(path).body(http_body_util::Full::<bytes::Bytes>::from(pod.to_string())).unwrap();
        tower::Service::call(&mut api.as_user(user), request).await.unwrap().status().as_u16()
    };
    let bad = pod("p", json!({"privileged": true}));
    assert_eq!(create("jane", "n", &bad).await, 403);
    assert_eq!(create("jane", "system", &bad).await, 201);
    assert_eq!(create("root", "n", &bad).await, 201);
    label(api, json!({"enforce": "privileged"})).await;
    assert_eq!(create("jane", "n", &bad).await, 201, "labels say otherwise");
    let page = String::from_utf8(admin(api, "GET /metrics").await.body.to_vec()).unwrap();
    for line in [
        "pod_security_evaluations_total{decision=\"deny\",mode=\"enforce\",policy_level=\"baseline\",policy_version=\"latest\",request_operation=\"create\",resource=\"pod\",subresource=\"\"}",
        "pod_security_exemptions_total{request_operation=\"create\",resource=\"pod\",subresource=\"\"}",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
}
