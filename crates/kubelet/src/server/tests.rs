use super::*;
use crate::testing::Cell;
use base::tls;
use kube::api::DeleteParams;
use serde_json::json;
use std::net::SocketAddr;

#[test]
fn routes() {
    let check = |path: &str, expected: Option<Route>| assert_eq!(route(path), expected, "{path}");
    let own = |word: &str| word.to_owned();
    let exec = |attach| Some(Route::Exec { attach, namespace: own("n"), pod: own("p"), container: own("c") });
    check("/exec/n/p/c", exec(false));
    check("/exec/n/p/uid/c", exec(false));
    check("/attach/n/p/c", exec(true));
    check("/containerLogs/n/p/c", Some(Route::Logs { namespace: own("n"), pod: own("p"), container: own("c") }));
    check("/portForward/n/p", Some(Route::PortForward { namespace: own("n"), pod: own("p") }));
    check("/stats/summary", Some(Route::Usage(Usage::Summary)));
    check("/metrics/resource", Some(Route::Usage(Usage::Resource)));
    check("/metrics/cadvisor", Some(Route::Usage(Usage::Cadvisor)));
    check("/metrics/probes", Some(Route::Probes));
    check("/metrics/other", None);
    check("/run/n/p/c", None);
    check("/", None);
}

/// An authority, the endpoint's part of the options, and where it listens.
async fn endpoint() -> (Arc<tls::Authority>, Server) {
    let authority = Arc::new(tls::Authority::in_memory("test").unwrap());
    let request = tls::Request::Server { name: "n1".to_owned(), sans: vec!["127.0.0.1".to_owned()] };
    let resolver = tls::Resolver::memory(authority.clone(), request).unwrap();
    let verifier = tls::Verifier::new(authority.bundle()).unwrap();
    let listen: SocketAddr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = tls::server(resolver, Some(verifier.clone())).unwrap();
    (authority, Server { listen, tls: config, verifier, callers: vec!["kube-apiserver-kubelet-client".to_owned()] })
}

/// A kubelet that serves, who vouches for its callers, and where it is.
async fn serving() -> (Cell, Arc<tls::Authority>, SocketAddr) {
    let (authority, server) = endpoint().await;
    let address = server.listen;
    let cell = Cell::new();
    cell.fake.serve("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", false);
    cell.start_with(Some(server)).await;
    (cell, authority, address)
}

async fn get(authority: &Arc<tls::Authority>, user: Option<&str>, address: SocketAddr, path: &str) -> (u16, String) {
    let identity = user.map(|user| {
        let request = tls::Request::Client { user: user.to_owned(), groups: vec![] };
        tls::Resolver::memory(authority.clone(), request).unwrap()
    });
    let config = Arc::new(tls::client(authority.bundle(), identity).unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::get(path).body(Full::<Bytes>::default()).unwrap();
    crate::probes::http::beside(connection, async {
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    })
    .await
}

#[tokio::test]
async fn the_api_server_reads_logs_and_others_are_asked_about() {
    let (cell, authority, address) = serving().await;
    cell.put("p", json!({"containers": [{"name": "a"}]}));
    cell.ready("p").await;
    let log = cell.directory.path().join("logs/ns_p_uid-p/a/0.log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(&log, "2026-01-01T00:00:00Z stdout F hello\n").unwrap();
    cell.runtime.world.lock().containers.values_mut().for_each(|container| container.log_path = log.clone());

    let caller = Some("kube-apiserver-kubelet-client");
    let check = async |user: Option<&str>, path: &str, expected: (u16, &str)| {
        let (status, body) = get(&authority, user, address, path).await;
        assert_eq!((status, body.as_str()), expected, "{user:?} {path}");
    };
    check(caller, "/containerLogs/ns/p/a", (200, "hello\n")).await;
    check(caller, "/healthz", (200, "ok")).await;
    let (status, body) = get(&authority, caller, address, "/configz").await;
    let config: serde_json::Value = serde_json::from_str(&body).unwrap();
    let config = &config["kubeletconfig"];
    assert_eq!((status, &config["kind"], &config["maxPods"]), (200, &json!("KubeletConfiguration"), &json!(110)), "{body}");
    assert_eq!(
        (&config["evictionHard"]["memory.available"], &config["evictionHard"]["pid.available"]),
        (&json!("104857600"), &json!("5%"))
    );
    let (status, body) = get(&authority, caller, address, "/runningpods/").await;
    let pods: serde_json::Value = serde_json::from_str(&body).unwrap();
    let first = &pods["items"][0];
    assert_eq!(
        (status, &first["metadata"]["name"], &first["spec"]["containers"][0]["name"]),
        (200, &json!("p"), &json!("a")),
        "{body}"
    );
    check(caller, "/containerLogs/ns/p/x", (400, "container x is not valid for pod p")).await;
    check(caller, "/containerLogs/ns/q/a", (404, "pod \"q\" not found")).await;
    let previous = "previous terminated container \"a\" in pod \"p\" not found";
    check(caller, "/containerLogs/ns/p/a?previous=true", (400, previous)).await;
    check(caller, "/exec/ns/p/b?command=ls", (404, "container not found (\"b\")")).await;
    let denied = "Forbidden (user=somebody, verb=get, resource=nodes, subresource(s)=[proxy])";
    check(Some("somebody"), "/containerLogs/ns/p/a", (403, denied)).await;
    check(None, "/healthz", (401, "Unauthorized")).await;
}

/// "Kubelet authentication/authorization": `/stats/*` needs nodes/stats, `/metrics/*` nodes/metrics.
#[tokio::test]
async fn usage_is_read_when_it_is_asked_for() {
    let (cell, authority, address) = serving().await;
    cell.put("p", json!({"containers": [{"name": "a"}]}));
    cell.ready("p").await;
    let use_cpu = |nanoseconds| cell.runtime.world.lock().usage.cpu.total = nanoseconds;
    let check = async |user: &str, path: &str, expected: (u16, &str)| {
        let (status, body) = get(&authority, Some(user), address, path).await;
        assert!(status == expected.0 && body.contains(expected.1), "{user} {path}: {status} {body}");
    };
    use_cpu(2_500_000_000);
    let caller = "kube-apiserver-kubelet-client";
    let labels = "{container=\"a\",namespace=\"ns\",pod=\"p\"}";
    check(caller, "/metrics/resource", (200, &format!("container_cpu_usage_seconds_total{labels} 2.5 "))).await;
    check(caller, "/metrics/cadvisor", (200, "namespace=\"ns\",pod=\"p\"} 2.5 ")).await;
    check(caller, "/stats/summary", (200, "\"usageCoreNanoSeconds\":2500000000")).await;
    use_cpu(3_000_000_000);
    check(caller, "/stats/summary", (200, "\"usageCoreNanoSeconds\":3000000000")).await;
    let denied = |sub: &str| format!("Forbidden (user=somebody, verb=get, resource=nodes, subresource(s)=[{sub}])");
    check("somebody", "/stats/summary", (403, &denied("stats"))).await;
    check("somebody", "/metrics/cadvisor", (403, &denied("metrics"))).await;
}

/// The community's alerts and dashboards of the kubelet go by these names (kubernetes-mixin).
#[tokio::test]
async fn the_page_has_what_dashboards_ask_for() {
    let (cell, authority, address) = serving().await;
    cell.put("figures", json!({"containers": [{"name": "a", "readinessProbe": {"exec": {"command": ["true"]}}}]}));
    cell.ready("figures").await;
    let page = async |path: &str| get(&authority, Some("kube-apiserver-kubelet-client"), address, path).await.1;
    let node = page("/metrics").await;
    let value = |sample: &str| node.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse::<f64>().ok());
    let present = [
        "kubelet_node_name{node=\"n1\"}",
        "kubelet_running_pods",
        "kubelet_desired_pods{static=\"\"}",
        "kubelet_active_pods{static=\"\"}",
        "kubelet_running_containers{container_state=\"running\"}",
    ];
    for sample in present {
        assert_eq!(value(sample), Some(1.0), "{sample}: {node}");
    }
    // Other tests of this process count as well.
    let counted = [
        "kubelet_runtime_operations_total{operation_type=\"create_container\"}",
        "kubelet_runtime_operations_duration_seconds_count{operation_type=\"run_podsandbox\"}",
        "kubelet_run_podsandbox_duration_seconds_count{runtime_handler=\"\"}",
        "kubelet_started_pods_total",
        "kubelet_started_containers_total{container_type=\"container\"}",
        "kubelet_pod_start_duration_seconds_count",
    ];
    for sample in counted {
        assert!(value(sample).is_some_and(|value| value >= 1.0), "{sample}: {node}");
    }
    let labels = "container=\"a\",pod=\"figures\",namespace=\"ns\"";
    let found = format!("prober_probe_total{{probe_type=\"Readiness\",result=\"successful\",{labels},pod_uid=\"");
    let probes = page("/metrics/probes").await;
    assert!(probes.contains(&found), "{probes}");
    assert!(probes.contains(&format!("prober_probe_duration_seconds_count{{probe_type=\"Readiness\",{labels}}}")), "{probes}");
    // Figures go on when a container is made again.
    let count = |probes: &str| probes.lines().find(|line| line.starts_with(&found))?.rsplit_once(' ')?.1.parse::<f64>().ok();
    cell.runtime.end("a", 1);
    cell.until("figures", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    cell.ready("figures").await;
    assert!(count(&page("/metrics/probes").await) > count(&probes));
    // What is gone leaves the page.
    cell.pods().delete("figures", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    let gone = async { while page("/metrics/probes").await.contains("figures") {} };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
}
