//! Admission plugins that work only where they are enabled.

use serde_json::{Value, json};

use crate::server::{admin, populated_namespace, start, start_with};

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent"}]}})
}

fn service(name: &str, addresses: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "externalIPs": addresses}})
}

/// Docs "Admission Control in Kubernetes": AlwaysPullImages, DenyServiceExternalIPs, EventRateLimit.
#[tokio::test]
async fn work_where_they_are_enabled() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("admission.yaml");
    let limits = json!({"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration",
        "limits": [{"type": "Namespace", "qps": 1, "burst": 2}]});
    let configuration = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": "EventRateLimit", "configuration": limits}]});
    std::fs::write(&file, configuration.to_string()).unwrap();
    let server = start_with(|options| {
        options.admission = Some(file);
        options.admission_plugins =
            ["AlwaysPullImages", "DenyServiceExternalIPs", "EventRateLimit", "Priority"].map(str::to_owned).into();
    })
    .await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let made = admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{}", pod("p"))).await.json();
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let refused = admin(api, &format!("POST /api/v1/namespaces/n/services\n\n{}", service("s", &["192.0.2.1"]))).await.json();
    let why = "services \"s\" is forbidden: Use of external IPs is denied by admission control";
    assert_eq!((&refused["code"], &refused["message"]), (&json!(403), &json!(why)));
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/services\n\n{}", service("s", &[]))).await.code, 201);
    let event =
        |name: usize| json!({"metadata": {"name": format!("e{name}")}, "involvedObject": {"namespace": "n", "name": "x"}});
    let mut codes = Vec::new();
    for name in 0..20 {
        codes.push(admin(api, &format!("POST /api/v1/namespaces/n/events\n\n{}", event(name))).await.code);
    }
    assert_eq!(codes[..2], [201, 201]);
    assert!(codes.contains(&429), "{codes:?}");
}

/// Without being asked for they change nothing, and a name that nobody knows is refused.
#[tokio::test]
async fn are_off_by_themselves() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let made = admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{}", pod("p"))).await.json();
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/services\n\n{}", service("s", &["192.0.2.1"]))).await.code, 201);
}

/// Docs "Resource Quotas", "Limit Priority Class consumption by default": pods of a class need a quota that covers it.
#[tokio::test]
async fn what_is_limited_needs_a_quota() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("admission.yaml");
    let scope = json!({"scopeName": "PriorityClass", "operator": "In", "values": ["system-cluster-critical"]});
    let limits = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "ResourceQuotaConfiguration",
        "limitedResources": [{"resource": "pods", "matchScopes": [scope]}, {"resource": "secrets", "matchContains": ["secrets"]}]});
    let configuration = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": "ResourceQuota", "configuration": limits}]});
    std::fs::write(&file, configuration.to_string()).unwrap();
    let server = start_with(|options| options.admission = Some(file)).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let mut critical = pod("p");
    critical["spec"]["priorityClassName"] = json!("system-cluster-critical");
    let create = async |plural: &str, object: &Value| {
        let made = admin(api, &format!("POST /api/v1/namespaces/n/{plural}\n\n{object}")).await;
        (made.code, made.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    let why = "insufficient quota to match these scopes: [{PriorityClass In [system-cluster-critical]}]";
    assert_eq!(create("pods", &critical).await, (500, why.to_owned()));
    assert_eq!(create("pods", &pod("plain")).await.0, 201);
    let secret = json!({"metadata": {"name": "s"}});
    let why = "secrets \"s\" is forbidden: insufficient quota to consume: count/secrets,secrets";
    assert_eq!(create("secrets", &secret).await, (403, why.to_owned()));
    let mut quota =
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [scope]}}});
    assert_eq!(create("resourcequotas", &quota).await.0, 201);
    quota["status"] = json!({"hard": {"pods": "1"}, "used": {"pods": "0"}});
    assert_eq!(admin(api, &format!("PUT /api/v1/namespaces/n/resourcequotas/q/status\n\n{quota}")).await.code, 200);
    assert_eq!(create("pods", &critical).await.0, 201);
    critical["metadata"]["name"] = json!("second");
    assert_eq!(create("pods", &critical).await.0, 403);
}
