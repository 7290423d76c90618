//! Metrics that upstream documents as stable or beta.

use apiserver::Api;
use serde_json::json;

use crate::custom::{define, definition};
use crate::server::{admin, ask, config_map, namespace, populated_namespace, serve, start};
use crate::watch::Watch;

async fn page(api: &Api, path: &str) -> String {
    let answer = admin(api, &format!("GET {path}")).await;
    assert_eq!(answer.code, 200, "{path}");
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The value of the first sample of that name whose labels have all of these.
fn sample(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let is_it = |line: &&str| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
        rest.is_some_and(|rest| labels.iter().all(|label| rest.contains(label)))
    };
    page.lines().find(is_it)?.rsplit_once(' ')?.1.parse().ok()
}

/// Upstream, "Show/hide kube-scheduler metrics": `/metrics/resources` tells what pods ask for and may take.
#[tokio::test]
async fn resources_of_pods() {
    let server = start(true).await;
    let api = &server.api;
    populated_namespace(api, "n").await;
    let resources = json!({"requests": {"cpu": "250m"}, "limits": {"memory": "1Mi"}});
    let spec = json!({"containers": [{"name": "c", "image": "i", "resources": resources}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    assert_eq!(admin(api, &format!("POST /api/v1/namespaces/n/pods\n\n{pod}")).await.code, 201);
    let text = page(api, "/metrics/resources").await;
    let of = |resource| [r#"namespace="n""#, r#"pod="p""#, r#"scheduler="default-scheduler""#, r#"priority="0""#, resource];
    let request = |resource| sample(&text, "kube_pod_resource_request", &of(resource));
    assert_eq!(request(r#"resource="cpu",unit="cores""#), Some(0.25), "{text}");
    assert_eq!(request(r#"resource="memory",unit="bytes""#), Some(1_048_576.0), "what is limited is asked for");
    assert_eq!(sample(&text, "kube_pod_resource_limit", &of(r#"resource="memory""#)), Some(1_048_576.0));
    assert_eq!(ask(api, "jane", "GET /metrics/resources").await.code, 403);
    let open = admin(api, "GET /metrics/resources\nAccept: application/openmetrics-text").await;
    assert!(String::from_utf8_lossy(&open.body).ends_with("# EOF\n"));
}

/// `apiserver_cel_compilation_duration_seconds` and `apiserver_cel_evaluation_duration_seconds` are of the rules of definitions.
#[tokio::test]
async fn rules_are_timed() {
    let server = serve().await;
    let api = &server.api;
    namespace(api, "ns").await;
    let rule = json!([{"rule": "self.a > 0"}]);
    let spec = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "x-kubernetes-validations": rule});
    define(api, &definition("timeds", "Timed", json!({"type": "object", "properties": {"spec": spec}}))).await;
    let figures = async || {
        let text = page(api, "/metrics").await;
        ["compilation", "evaluation"]
            .map(|of| sample(&text, &format!("apiserver_cel_{of}_duration_seconds_count"), &[]).unwrap_or_default())
    };
    let before = figures().await;
    assert!(before[0] > 0.0);
    let object = json!({"apiVersion": "example.com/v1", "kind": "Timed", "metadata": {"name": "t"}, "spec": {"a": 1}});
    assert_eq!(admin(api, &format!("POST /apis/example.com/v1/namespaces/ns/timeds\n\n{object}")).await.code, 201);
    assert!(figures().await[1] > before[1]);
}

/// KEP-3157: `apiserver_watch_list_duration_seconds` tells how long a watch takes to show what there is.
#[tokio::test]
async fn watches_that_list_are_timed() {
    let server = serve().await;
    let api = &server.api;
    let count = async || {
        let labels = [r#"resource="configmaps""#, r#"scope="namespace""#, r#"version="v1""#];
        let text = page(api, "/metrics").await;
        sample(&text, "apiserver_watch_list_duration_seconds_count", &labels).unwrap_or_default() as u64
    };
    namespace(api, "ns").await;
    let path = "/api/v1/namespaces/ns/configmaps";
    assert_eq!(admin(api, &format!("POST {path}\n\n{}", config_map("c"))).await.code, 201);
    let mut plain = Watch::start(api, &format!("{path}?resourceVersion=0&allowWatchBookmarks=true")).await;
    plain.next().await;
    assert_eq!(count().await, 0);
    let query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = Watch::start(api, &format!("{path}?{query}")).await;
    while watch.next().await["type"] != "BOOKMARK" {}
    assert_eq!(count().await, 1);
}
