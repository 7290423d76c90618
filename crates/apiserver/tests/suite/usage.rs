//! The metrics API over a kubelet.

use serde_json::{Value, json};

use crate::connect::serve_kubelet;
use crate::server::{Server, admin, ask, serve};

async fn put(server: &Server, path: &str, object: Value) {
    let answer = admin(&server.api, &format!("POST {path}\ncontent-type: application/json\n\n{object}")).await;
    assert_eq!(answer.code, 201, "{:?}", answer.body);
}

/// A node whose kubelet answers, one whose kubelet does not, and a pod on each.
async fn cluster() -> Server {
    let server = serve().await;
    let kubelet = serve_kubelet(&server.authority, &server.tasks).await;
    put(&server, "/api/v1/namespaces", json!({"metadata": {"name": "ns"}})).await;
    put(&server, "/api/v1/namespaces/ns/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    for (node, pod, port) in [("n1", "busy", kubelet.port()), ("n2", "lost", 1)] {
        let status = json!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
        put(&server, "/api/v1/nodes", json!({"metadata": {"name": node, "labels": {"node": node}}, "status": status})).await;
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
        put(&server, "/api/v1/namespaces/ns/pods", json!({"metadata": {"name": pod, "labels": {"app": pod}}, "spec": spec}))
            .await;
        let path = format!("PATCH /api/v1/namespaces/ns/pods/{pod}/status\ncontent-type: application/merge-patch+json");
        assert_eq!(admin(&server.api, &format!("{path}\n\n{}", json!({"status": {"phase": "Running"}}))).await.code, 200);
    }
    server
}

const GROUP: &str = "/apis/metrics.k8s.io/v1beta1";

#[tokio::test]
async fn nodes_and_pods_are_measured_when_somebody_asks() {
    let server = cluster().await;
    let get = async |path: &str| admin(&server.api, &format!("GET {GROUP}{path}")).await;
    let nodes = get("/nodes").await.json();
    assert_eq!((&nodes["kind"], nodes["items"].as_array().unwrap().len()), (&json!("NodeMetricsList"), 1));
    let node = &nodes["items"][0];
    let cores = |usage: &Value| apimachinery::quantity::Quantity::from_value(&usage["cpu"]).unwrap().as_milli();
    assert_eq!((&node["metadata"]["name"], &node["usage"]["memory"]), (&json!("n1"), &json!("1Mi")));
    assert!((490..=510).contains(&cores(&node["usage"])), "{node}");
    // One more question costs no second look: the answer is from the same moment.
    assert_eq!(get("/nodes/n1").await.json()["timestamp"], node["timestamp"]);

    let pods = get("/namespaces/ns/pods").await.json();
    assert_eq!(pods["items"].as_array().unwrap().len(), 1, "{pods}");
    let container = &pods["items"][0]["containers"][0];
    assert_eq!((&container["name"], &container["usage"]["memory"]), (&json!("c"), &json!("2Ki")));
    assert!((490..=510).contains(&cores(&container["usage"])), "{container}");

    let count = async |path: &str| get(path).await.json()["items"].as_array().unwrap().len();
    for (path, expected) in [
        ("/pods", 1),
        ("/pods?labelSelector=app%3Dbusy", 1),
        ("/pods?labelSelector=app%3Dlost", 0),
        ("/pods?fieldSelector=metadata.name%3Dother", 0),
        ("/namespaces/default/pods", 0),
        ("/nodes?labelSelector=node%3Dn2", 0),
    ] {
        assert_eq!(count(path).await, expected, "{path}");
    }
    for (path, code) in
        [("/namespaces/ns/pods/busy", 200), ("/namespaces/ns/pods/lost", 404), ("/nodes/n2", 404), ("/nodes/x", 404)]
    {
        assert_eq!(get(path).await.code, code, "{path}");
    }
    let lost = get("/namespaces/ns/pods/lost").await.json();
    assert_eq!(lost["message"], "podmetrics.metrics.k8s.io \"ns/lost\" not found");
}

#[tokio::test]
async fn the_metrics_api_is_an_api_like_others() {
    let server = cluster().await;
    let get = async |path: &str| admin(&server.api, &format!("GET {path}")).await;
    let resources = get(GROUP).await.json();
    let shown: Vec<_> =
        resources["resources"].as_array().unwrap().iter().map(|one| (&one["name"], &one["kind"], &one["verbs"])).collect();
    let read = json!(["get", "list"]);
    assert_eq!(shown, [(&json!("nodes"), &json!("NodeMetrics"), &read), (&json!("pods"), &json!("PodMetrics"), &read)]);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = admin(&server.api, &format!("GET {GROUP}/nodes\nAccept: {table}")).await.json();
    let headings: Vec<_> = table["columnDefinitions"].as_array().unwrap().iter().map(|column| &column["name"]).collect();
    assert_eq!(headings, ["Name", "CPU", "Memory", "Window"]);
    assert_eq!((&table["rows"][0]["cells"][0], &table["rows"][0]["cells"][2]), (&json!("n1"), &json!("1Mi")));
    assert!(get(&format!("/openapi/v3{GROUP}")).await.json()["paths"].get(format!("{GROUP}/nodes")).is_some());
    for request in ["POST", "DELETE"] {
        assert_eq!(admin(&server.api, &format!("{request} {GROUP}/namespaces/ns/pods\n\n{{}}")).await.code, 405, "{request}");
    }
    assert_eq!(get(&format!("{GROUP}/pods?watch=true")).await.code, 405);
    assert_eq!(ask(&server.api, "somebody", &format!("GET {GROUP}/nodes")).await.code, 403);
    // As with metrics-server, who may view a namespace may also see what its pods use.
    let binding = json!({"metadata": {"name": "v"}, "subjects": [{"kind": "User", "name": "somebody", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}});
    put(&server, "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/rolebindings", binding).await;
    let allowed = async || ask(&server.api, "somebody", &format!("GET {GROUP}/namespaces/ns/pods")).await.code;
    while allowed().await != 200 {
        tokio::task::yield_now().await;
    }
}

/// An APIService with a service takes the API over from this server, and gives it back when it goes.
#[tokio::test]
async fn an_installed_metrics_server_is_asked_instead() {
    let server = cluster().await;
    let until = async |code: u16| {
        while admin(&server.api, &format!("GET {GROUP}/nodes")).await.code != code {
            tokio::task::yield_now().await;
        }
    };
    until(200).await;
    let services = "/apis/apiregistration.k8s.io/v1/apiservices";
    let spec = json!({"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
        "insecureSkipTLSVerify": true, "service": {"namespace": "kube-system", "name": "metrics-server"}});
    put(&server, services, json!({"metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": spec})).await;
    // There is no such service yet.
    until(503).await;
    assert_eq!(admin(&server.api, &format!("DELETE {services}/v1beta1.metrics.k8s.io")).await.code, 200);
    until(200).await;
}
