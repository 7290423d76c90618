use super::*;
use crate::sharing::Sharing;
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
    check("/logs/", Some(Route::NodeLogs(String::new())));
    check("/logs", Some(Route::NodeLogs(String::new())));
    check("/logs/pods/a/", Some(Route::NodeLogs(own("pods/a/"))));
    check("/logsx", None);
    check("/metrics/other", None);
    check("/run/n/p/c", None);
    check("/checkpoint/n/p/c", Some(Route::Checkpoint { namespace: own("n"), pod: own("p"), container: own("c") }));
    check("/checkpoint/n/p", None);
    check("/knarr/images/layers", Some(Route::Shared(Question::Layers)));
    check("/knarr/images/layers/sha256:1", Some(Route::Shared(Question::Layer(own("sha256:1")))));
    check("/knarr/images/imported", Some(Route::Shared(Question::Imported)));
    check("/knarr/images/layers/a/b", None);
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
    serving_with(None).await
}

async fn serving_with(sharing: Option<Sharing>) -> (Cell, Arc<tls::Authority>, SocketAddr) {
    let (authority, server) = endpoint().await;
    let address = server.listen;
    let cell = Cell { sharing, ..Cell::new() };
    cell.fake.serve("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", false);
    cell.start_with(Some(server)).await;
    (cell, authority, address)
}

async fn connect(
    authority: &tls::Authority,
    identity: Option<Arc<tls::Resolver>>,
    address: SocketAddr,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = Arc::new(tls::client(authority.bundle(), identity).unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap()
}

async fn get(authority: &Arc<tls::Authority>, user: Option<&str>, address: SocketAddr, path: &str) -> (u16, String) {
    ask(Method::GET, authority, user, address, path).await
}

async fn ask(
    method: Method,
    authority: &Arc<tls::Authority>,
    user: Option<&str>,
    address: SocketAddr,
    path: &str,
) -> (u16, String) {
    let identity = user.map(|user| {
        let groups = user.starts_with("system:node:").then(|| "system:nodes".to_owned());
        let request = tls::Request::Client { user: user.to_owned(), groups: groups.into_iter().collect() };
        tls::Resolver::memory(authority.clone(), request).unwrap()
    });
    let stream = connect(authority, identity, address).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::builder().method(method).uri(path).body(Full::<Bytes>::default()).unwrap();
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
    for name in ["ping", "log", "syncloop"] {
        check(caller, &format!("/healthz/{name}"), (200, "ok")).await;
    }
    check(caller, "/healthz/other", (404, "404 page not found")).await;
    check(caller, "/healthz?verbose", (200, "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n")).await;
    let (status, body) = get(&authority, caller, address, "/configz").await;
    let config: serde_json::Value = serde_json::from_str(&body).unwrap();
    let config = &config["kubeletconfig"];
    assert_eq!((status, &config["kind"], &config["maxPods"]), (200, &json!("KubeletConfiguration"), &json!(110)), "{body}");
    assert_eq!(
        (&config["evictionHard"]["memory.available"], &config["evictionHard"]["pid.available"]),
        (&json!("104857600"), &json!("5%"))
    );
    for (page, expected) in [("/statusz", "\nkubelet statusz\n"), ("/flagz", "\nkubelet flags\n")] {
        let (status, body) = get(&authority, caller, address, page).await;
        assert!(status == 200 && body.starts_with(expected), "{status}: {body}");
    }
    let (status, body) = get(&authority, caller, address, "/runningpods/").await;
    let pods: serde_json::Value = serde_json::from_str(&body).unwrap();
    let first = &pods["items"][0];
    assert_eq!(
        (status, &first["metadata"]["name"], &first["spec"]["containers"][0]["name"]),
        (200, &json!("p"), &json!("a")),
        "{body}"
    );
    check(caller, "/logs/ns_p_uid-p/a/0.log", (200, "2026-01-01T00:00:00Z stdout F hello\n")).await;
    let denied = "Forbidden (user=somebody, verb=get, resource=nodes, subresource(s)=[log])";
    check(Some("somebody"), "/logs/ns_p_uid-p/a/0.log", (403, denied)).await;
    check(caller, "/containerLogs/ns/p/x", (400, "container x is not valid for pod p")).await;
    check(caller, "/containerLogs/ns/q/a", (404, "pod \"q\" not found")).await;
    let previous = "previous terminated container \"a\" in pod \"p\" not found";
    check(caller, "/containerLogs/ns/p/a?previous=true", (400, previous)).await;
    check(caller, "/exec/ns/p/b?command=ls", (404, "container not found (\"b\")")).await;
    let denied = "Forbidden (user=somebody, verb=get, resource=nodes, subresource(s)=[proxy])";
    check(Some("somebody"), "/containerLogs/ns/p/a", (403, denied)).await;
    check(None, "/healthz", (401, "Unauthorized")).await;
}

/// Upstream's `test/e2e_node/checkpoint_container.go` skips what a runtime does not have by these words; docs page "Kubelet Checkpoint API".
#[tokio::test]
async fn checkpoints_are_refused_as_by_a_runtime_without_them() {
    let (cell, authority, address) = serving().await;
    cell.put("p", json!({"containers": [{"name": "a"}]}));
    cell.ready("p").await;
    let check = async |method: Method, path: &str, expected: (u16, &str)| {
        let (status, body) = ask(method, &authority, Some("kube-apiserver-kubelet-client"), address, path).await;
        assert!(status == expected.0 && body.starts_with(expected.1), "{path}: {status} {body}");
    };
    let none =
        "checkpointing of ns/p/a failed (rpc error: code = Unimplemented desc = method CheckpointContainer not implemented)";
    check(Method::POST, "/checkpoint/ns/p/a", (500, none)).await;
    check(Method::POST, "/checkpoint/ns/p/a?timeout=x&timeout=5", (500, none)).await;
    check(Method::POST, "/checkpoint/ns/p/a?timeout=x", (404, "cannot parse value of timeout parameter")).await;
    check(Method::POST, "/checkpoint/ns/p/x", (404, "container x does not exist")).await;
    check(Method::POST, "/checkpoint/ns/q/a", (404, "pod does not exist")).await;
    check(Method::GET, "/checkpoint/ns/p/a", (405, "only POST is served")).await;
}

/// Upstream's kubelet verifies the certificate of a connection at each request.
#[tokio::test]
async fn certificates_end_while_connections_last() {
    let (_cell, authority, address) = serving().await;
    let request = tls::Request::Client { user: "kube-apiserver-kubelet-client".to_owned(), groups: vec![] };
    let identity = authority.issue_for(&request, Duration::from_secs(4)).unwrap();
    let verifier = tls::Verifier::new(authority.bundle()).unwrap();
    let credential = verifier.peer(Some(&identity.certified().unwrap().cert)).credential().cloned().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let paths = (directory.path().join("a.crt"), directory.path().join("a.key"));
    identity.store(&paths.0, &paths.1).unwrap();
    let stream = connect(&authority, Some(tls::Resolver::files(&paths.0, &paths.1).unwrap()), address).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let asking = async {
        let mut codes = Vec::new();
        for path in ["/healthz", "/healthz", "/knarr/images/layers"] {
            if sender.ready().await.is_err() {
                break;
            }
            let request = Request::get(path).body(Full::<Bytes>::default()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            codes.push(response.status().as_u16());
            response.into_body().collect().await.unwrap();
            credential.ended().await;
        }
        codes
    };
    // The connection ends with the refusal.
    let (codes, _) = tokio::join!(asking, connection);
    assert_eq!(codes, [200, 401]);
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
    let (authority, server) = endpoint().await;
    let (cell, address) = (Cell::new(), server.listen);
    cell.fake.serve("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", false);
    let directory = cell.directory.path().join("manifests");
    std::fs::create_dir_all(&directory).unwrap();
    let fixed = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fixed"},
        "spec": {"containers": [{"name": "f", "image": "img", "imagePullPolicy": "IfNotPresent"}]}});
    std::fs::write(directory.join("fixed.yaml"), fixed.to_string()).unwrap();
    let adjust = |options: &mut crate::Options| (options.server, options.static_pods) = (Some(server), Some(directory.clone()));
    cell.start_as(adjust).await;
    cell.until("fixed-n1", |status| crate::testing::condition(status, "Ready") == "True").await;
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let container = json!({"name": "a", "readinessProbe": {"exec": {"command": ["true"]}}, "volumeMounts": mounts});
    let volumes = json!([{"name": "v", "emptyDir": {}}, {"name": "unused", "emptyDir": {}}]);
    cell.put("figures", json!({"containers": [container], "volumes": volumes}));
    cell.ready("figures").await;
    let page = async |path: &str| get(&authority, Some("kube-apiserver-kubelet-client"), address, path).await.1;
    let node = page("/metrics").await;
    let value = |sample: &str| node.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse::<f64>().ok());
    let present = [
        "kubelet_node_name{node=\"n1\"}",
        "kubelet_desired_pods{static=\"\"}",
        "kubelet_active_pods{static=\"\"}",
        "kubelet_desired_pods{static=\"true\"}",
        "kubelet_active_pods{static=\"true\"}",
        "volume_manager_total_volumes{plugin_name=\"kubernetes.io/empty-dir\",state=\"desired_state_of_world\"}",
        "volume_manager_total_volumes{plugin_name=\"kubernetes.io/empty-dir\",state=\"actual_state_of_world\"}",
    ];
    for sample in present {
        assert_eq!(value(sample), Some(1.0), "{sample}: {node}");
    }
    for sample in ["kubelet_running_pods", "kubelet_running_containers{container_state=\"running\"}"] {
        assert_eq!(value(sample), Some(2.0), "{sample}: {node}");
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

/// Images of another kind: one layer, and an image that was imported as `app:1`.
struct Images;

#[async_trait::async_trait]
impl runtime::Shared for Images {
    async fn layers(&self, diff_ids: Vec<String>) -> runtime::api::Result<Vec<String>> {
        Ok(diff_ids.into_iter().filter(|id| id == "sha256:1").collect())
    }

    async fn layer(&self, diff_id: &str) -> runtime::api::Result<runtime::LayerStream> {
        match diff_id {
            "sha256:1" => Ok(futures::stream::iter([Ok(Bytes::from_static(b"layer"))]).boxed()),
            "sha256:2" => Ok(futures::stream::pending().boxed()),
            _ => Err(runtime::api::Error::NotFound(format!("layer {diff_id}"))),
        }
    }

    async fn imported(&self, name: &str) -> runtime::api::Result<Option<(runtime::api::Image, Bytes)>> {
        let image = runtime::api::Image { id: "sha256:9".to_owned(), ..Default::default() };
        Ok((name == "docker.io/library/app:1").then(|| (image, Bytes::from_static(b"{}"))))
    }
}

#[tokio::test]
async fn nodes_get_images_and_nobody_else_does() {
    let sharing = Sharing { images: Arc::new(Images), names: true };
    let (cell, authority, address) = serving_with(Some(sharing)).await;
    let check = async |user: Option<&str>, path: &str, expected: (u16, &str)| {
        let (status, body) = get(&authority, user, address, path).await;
        assert_eq!((status, body.as_str()), expected, "{user:?} {path}");
    };
    let (node, app) = (Some("system:node:n2"), "/knarr/images/imported?name=docker.io/library/app:1");
    check(node, "/knarr/images/layers/sha256:1", (200, "layer")).await;
    check(node, "/knarr/images/layers/sha256:3", (404, "layer sha256:3 not found")).await;
    check(node, "/knarr/images/layers", (405, "only POST is served")).await;
    check(node, app, (200, "{}")).await;
    check(node, "/knarr/images/imported?name=docker.io/library/app:2", (404, "image \"docker.io/library/app:2\" not found"))
        .await;
    check(node, "/knarr/images/imported", (404, "image \"\" not found")).await;
    for user in [None, Some("jane"), Some("kube-apiserver-kubelet-client")] {
        check(user, "/knarr/images/layers/sha256:1", (403, "Forbidden: for nodes only")).await;
        check(user, app, (403, "Forbidden: for nodes only")).await;
    }
    drop(cell);

    let (_cell, authority, address) = serving().await;
    let (status, body) = get(&authority, node, address, "/knarr/images/layers/sha256:1").await;
    assert_eq!((status, body.as_str()), (404, "this node shares no images"));
}

/// KEP-2535: an image that a kubelet has pulled with credentials is used by nobody without them, on whichever node.
#[tokio::test]
async fn images_that_need_credentials_are_given_by_no_name() {
    use crate::images::access::Access;
    use crate::images::sources::Source;
    let sharing = Sharing { images: Arc::new(Images), names: true };
    let records = |cell: &Cell| crate::images::records::Records::load(&cell.directory.path().join("kubelet")).unwrap();
    let (authority, server) = endpoint().await;
    let (address, cell) = (server.listen, Cell { sharing: Some(sharing), ..Cell::new() });
    let secret = crate::images::sources::PullSecret {
        uid: "u".into(),
        namespace: "n".into(),
        name: "s".into(),
        credential_hash: "h".into(),
    };
    let records = records(&cell);
    records.begin("docker.io/library/app:1").await.unwrap();
    records.end("docker.io/library/app:1", Some(("sha256:9", Access::by(Source::Secret(secret))))).await.unwrap();
    cell.runtime.world.lock().images.push("sha256:9".to_owned());
    cell.start_with(Some(server)).await;
    let (status, _) =
        get(&authority, Some("system:node:n2"), address, "/knarr/images/imported?name=docker.io/library/app:1").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_node_serves_few_layers_at_a_time() {
    let sharing = Sharing { images: Arc::new(Images), names: false };
    let (_cell, authority, address) = serving_with(Some(sharing)).await;
    let node = Some("system:node:n2");
    let mut held = Vec::new();
    for _ in 0..sharing::OF_NODE {
        held.push(begin(&authority, "system:node:n3", address, "/knarr/images/layers/sha256:2").await);
    }
    // One node does not have all of the places.
    assert_eq!(get(&authority, Some("system:node:n3"), address, "/knarr/images/layers/sha256:1").await.0, 503);
    for _ in sharing::OF_NODE..sharing::PLACES {
        held.push(begin(&authority, "system:node:n2", address, "/knarr/images/layers/sha256:2").await);
    }
    let (status, _) = get(&authority, node, address, "/knarr/images/layers/sha256:1").await;
    assert_eq!(status, 503);
    // Who goes away in the middle leaves its place.
    held.pop();
    let free = async { while get(&authority, node, address, "/knarr/images/layers/sha256:1").await.0 != 200 {} };
    tokio::time::timeout(Duration::from_secs(60), free).await.unwrap();
    let (status, _) = get(&authority, node, address, "/knarr/images/imported?name=docker.io/library/app:1").await;
    assert_eq!(status, 404, "names are not given");
}

/// A connection on which an answer has begun.
async fn begin(authority: &Arc<tls::Authority>, user: &str, address: SocketAddr, path: &str) -> impl Sized {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = tls::Request::Client { user: user.to_owned(), groups: vec!["system:nodes".to_owned()] };
    let identity = tls::Resolver::memory(authority.clone(), request).unwrap();
    let config = Arc::new(tls::client(authority.bundle(), Some(identity)).unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: n1\r\n\r\n").as_bytes()).await.unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head, *b"HTTP/1.1 200 OK");
    stream
}
