//! What an administrator notices: who wrote what, what comes back, what is shown, what is refused.
#![allow(clippy::unwrap_used)]

use serde_json::json;
use testing::Cluster;

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const NGINX: &str = "127.0.0.1:5000/nginx:1.27";
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";

#[test]
fn objects_say_who_wrote_them_and_tables_look_like_upstreams() {
    let c = Cluster::start(KNARR);
    c.kubectl(&["create", "deployment", "web", "--image", NGINX]);
    c.k("wait --for=condition=Available deployment/web --timeout=60s");
    let pods = c.k("get pods -l app=web -o yaml --show-managed-fields");
    for part in ["manager: kube-controller-manager", "manager: kubelet", "f:dnsPolicy"] {
        assert!(pods.contains(part), "{part} is not in {pods}");
    }
    // What admission adds has no owner, so that nobody who applies it conflicts.
    for part in ["manager: unknown", "f:tolerations", "f:serviceAccount:", "f:kube-api-access"] {
        assert!(!pods.contains(part), "{part} is in {pods}");
    }
    let ready = c.k("get pods -l app=web -o jsonpath={.items[0].status.conditions[?(@.type==\"Ready\")]}");
    assert!(ready.contains(r#""status":"True""#) && !ready.contains("message"), "{ready}");

    let heading = |line: &str, expected: &[&str]| {
        let table = c.k(line);
        assert_eq!(
            table.lines().next().unwrap().split("  ").map(str::trim).filter(|h| !h.is_empty()).collect::<Vec<_>>(),
            expected
        );
    };
    heading("get nodes", &["NAME", "STATUS", "ROLES", "AGE", "VERSION"]);
    heading("get events", &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    heading("get clusterrolebindings", &["NAME", "ROLE", "AGE"]);
    heading("get clusterroles", &["NAME", "CREATED AT"]);
    c.told("", &["NodeReady"]);
}

#[test]
fn the_clusters_own_objects_come_back() {
    let c = Cluster::start(KNARR);
    c.k("delete all --all");
    c.k("wait --for=create service/kubernetes --timeout=30s");
    assert_eq!(c.k("get service kubernetes -o jsonpath={.spec.clusterIP}"), "10.43.0.1");
    c.k("delete endpointslice kubernetes");
    c.k("wait --for=create endpointslice/kubernetes --timeout=30s");
    c.k("delete namespace kube-node-lease");
    c.k("wait --for=create namespace/kube-node-lease --timeout=30s");
}

#[test]
fn a_kind_that_is_not_served_is_named() {
    let c = Cluster::start(KNARR);
    let refused = c.try_k_with("apply -f -", "{apiVersion: example.com/v1, kind: Ship, metadata: {name: s}, spec: {}}");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains(r#"no matches for kind "Ship" in version "example.com/v1""#), "{refused:?}");
}

#[test]
fn who_is_attached_learns_the_exit_code_from_the_pod() {
    let c = Cluster::start(KNARR);
    // Words are split at blanks on the way; the shell's own separators are not.
    let run = format!("run one -i --rm --restart=Never --image={BUSYBOX} -- sh -c read${{IFS}}line;exit${{IFS}}3");
    let ended = c.try_k_with(&run, "one\n");
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(!ended.stderr.contains("couldn't attach"), "{ended:?}");
    let log = std::fs::read_to_string(c.log()).unwrap();
    assert!(!log.contains("exec stream"), "a client that hangs up is no failure: {log}");
}

#[test]
fn killall_leaves_nothing_but_the_objects() {
    let mut c = Cluster::start(KNARR);
    c.kubectl(&["create", "deployment", "idle", "--image", BUSYBOX, "--", "sleep", "100000"]);
    c.k("rollout status deployment/idle --timeout=60s");
    let (status, _) = c.stop_server();
    assert!(status.success());
    let data = c.data_dir();
    let run = c.run_dir().display().to_string();
    let mounts = || {
        let mounts = c.machine().command("cat".as_ref()).arg("/proc/self/mounts").output().unwrap();
        let mounts = String::from_utf8(mounts.stdout).unwrap();
        mounts.lines().filter(|line| line.contains(&format!("{}/", data.display())) || line.contains(&run)).count()
    };
    let left = || [run.as_ref(), data.join("logs").as_path()].map(|path: &std::path::Path| c.machine().path(path).exists());
    assert_eq!((left(), mounts() > 0), ([true, true], true), "what a server leaves");
    let killed = c.knarr(&["killall"]).output().unwrap();
    assert!(killed.status.success(), "{killed:?}");
    assert_eq!((left(), mounts()), ([false, false], 0));
    let pods = c.machine().processes().into_iter().filter(|(_, line)| line.contains("sleep 100000") || line.contains("shim"));
    assert_eq!(pods.collect::<Vec<_>>(), []);
    c.start_server();
    c.k("rollout status deployment/idle --timeout=60s");
}

#[test]
fn another_server_on_the_machine_takes_no_network_away() {
    let c = Cluster::start(KNARR);
    c.kubectl(&["run", "web", "--image", NGINX]);
    c.k("wait --for=condition=Ready pod/web --timeout=60s");
    let other = c.scratch().join("other");
    let of_other = |arguments: &[&str]| {
        let mut command = c.machine().command(KNARR.as_ref());
        command.arg(arguments[0]).arg("--data-dir").arg(&other).args(&arguments[1..]).output().unwrap()
    };
    let refused = of_other(&["server", "--port", "7443", "--kubelet-port", "7444"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    let owner = c.data_dir().join("network").display().to_string();
    assert!(!refused.status.success() && text.contains("is that of another node") && text.contains(&owner), "{text}");
    let table = || c.machine().command("nft".as_ref()).args(["list", "table", "ip", "knarr"]).output().unwrap().stdout;
    let before = table();
    std::fs::create_dir_all(c.machine().path(&other)).unwrap();
    let killed = of_other(&["killall"]);
    let text = String::from_utf8_lossy(&killed.stdout).into_owned();
    assert!(killed.status.success() && text.contains("stays: it is that of the node in"), "{killed:?}");
    assert!(!before.is_empty() && table() == before);
    let address = c.k("get pod web -o jsonpath={.status.podIP}");
    assert!(testing::http::get(&format!("{address}:80"), "/").is_ok(), "the pod is reached by the bridge");
}

/// The page of a path as its lines, comments left out.
fn samples(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter(|line| !line.starts_with('#'))
}

#[test]
fn metrics_have_upstreams_names() {
    let c = Cluster::start(KNARR);
    let has = |page: &str, (name, labels): &(&str, &[&str])| {
        samples(page).any(|line| line.split(['{', ' ']).next() == Some(*name) && labels.iter().all(|label| line.contains(label)))
    };
    // What is counted may be counted behind what it tells of.
    let page_with = |path: &str, expected: &[(&str, &[&str])]| {
        testing::wait::eventually_or(&format!("the page {path}"), || {
            let page = c.k(&format!("get --raw {path}"));
            let missing: Vec<_> = expected.iter().filter(|sample| !has(&page, sample)).collect();
            if missing.is_empty() { Ok(page) } else { Err(format!("{missing:?} is not in {page}")) }
        })
    };
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
    c.k_with("apply -f -", &claim.to_string());
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": {
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "containers": [{"name": "one", "image": BUSYBOX, "command": ["sleep", "100000"],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}], "readinessProbe": {"exec": {"command": ["true"]}}}]}});
    c.k_with("apply -f -", &pod.to_string());
    // This one waits for nothing: that one may be tried before the scheduler has heard of its claim.
    c.kubectl(&["run", "plain", "--image", BUSYBOX, "--", "sleep", "100000"]);
    c.k("wait --for=condition=Ready pod/one pod/plain --timeout=60s");
    c.k("exec one -- nslookup kubernetes.default.svc.cluster.local");
    // What kube-prometheus' rules and dashboards select, as they select it.
    let page = page_with(
        "/metrics",
        &[
            ("apiserver_request_total", &[r#"verb="POST""#, r#"resource="pods""#, r#"code="201""#, r#"scope="resource""#][..]),
            ("apiserver_request_total", &[r#"verb="LIST""#, r#"component="apiserver""#]),
            ("apiserver_request_total", &[r#"verb="APPLY""#, r#"resource="services""#]),
            ("apiserver_request_sli_duration_seconds_bucket", &[r#"verb="LIST""#, r#"scope="cluster""#, r#"le="30""#]),
            ("apiserver_request_duration_seconds_count", &[r#"verb="GET""#, r#"dry_run="""#]),
            ("apiserver_response_sizes_bucket", &[r#"le="1e+06""#]),
            ("apiserver_current_inflight_requests", &[r#"request_kind="readOnly""#]),
            ("apiserver_longrunning_requests", &[r#"verb="WATCH""#, r#"resource="pods""#]),
            ("apiserver_watch_events_total", &[r#"resource="pods""#]),
            ("apiserver_flowcontrol_dispatched_requests_total", &[r#"flow_schema="exempt""#, r#"priority_level="exempt""#]),
            ("apiserver_flowcontrol_request_execution_seconds_count", &[r#"flow_schema="exempt""#, r#"type="regular""#]),
            ("apiserver_flowcontrol_current_executing_seats", &[r#"flow_schema="service-accounts""#]),
            ("apiserver_flowcontrol_nominal_limit_seats", &[r#"priority_level="workload-low""#]),
            ("apiserver_flowcontrol_priority_level_seat_utilization_bucket", &[r#"priority_level="system""#]),
            ("apiserver_storage_objects", &[r#"resource="deployments.apps""#]),
            ("apiserver_resource_objects", &[r#"resource="pods""#]),
            ("apiserver_storage_size_bytes", &[]),
            ("etcd_request_duration_seconds_count", &[r#"operation="create""#, r#"resource="pods""#]),
            ("authentication_attempts", &[r#"result="success""#]),
            ("apiserver_client_certificate_expiration_seconds_bucket", &[r#"le="86400""#]),
            ("authorization_attempts_total", &[r#"result="allowed""#]),
            ("workqueue_depth", &[r#"name="deployment""#]),
            ("workqueue_adds_total", &[r#"name="endpointslice""#]),
            ("workqueue_queue_duration_seconds_bucket", &[r#"name="deployment""#, r#"le="1e-08""#]),
            ("rest_client_requests_total", &[r#"code="200""#, r#"method="GET""#]),
            ("scheduler_schedule_attempts_total", &[r#"result="scheduled""#, r#"profile="default-scheduler""#]),
            ("scheduler_pending_pods", &[r#"queue="active""#]),
            ("scheduler_framework_extension_point_duration_seconds_bucket", &[r#"extension_point="Filter""#, r#"le="0.0001""#]),
            ("scheduler_pod_scheduling_sli_duration_seconds_count", &[r#"attempts="1""#]),
            ("leader_election_master_status", &[r#"name="kube-scheduler""#]),
            ("kubernetes_build_info", &[r#"git_version="v1.36.4""#]),
            ("process_cpu_seconds_total", &[]),
        ],
    );
    // Each series once, and no name of OpenMetrics.
    let mut series: Vec<&str> = samples(&page).filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series).collect();
    let all = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), all, "a series is there twice");
    assert!(!page.contains("# EOF") && page.contains("# TYPE apiserver_request_total counter"));
    // Another port of the node is asked itself, and the kubelet is not (upstream: `ResourceLocation` of nodes).
    assert_eq!(c.k("get --raw /api/v1/nodes/n1:10250/proxy/healthz"), "ok");
    assert!(c.k("get --raw /api/v1/nodes/n1:10256/proxy/healthz").contains("lastUpdated"));
    let nobody = c.try_kubectl(&["get", "--raw", "/api/v1/nodes/https:n1:9/proxy/metrics"]);
    assert!(nobody.stderr.contains("error trying to reach service"), "{nobody:?}");
    // The kubelet's page is the node's own.
    let node = page_with(
        "/api/v1/nodes/n1/proxy/metrics",
        &[
            ("kubernetes_build_info", &[][..]),
            ("knarr_network_nft_elements", &[]),
            ("kubelet_node_name", &[r#"node="n1""#]),
            ("kubelet_running_pods", &[]),
            ("kubelet_running_containers", &[r#"container_state="running""#]),
            ("kubelet_runtime_operations_total", &[r#"operation_type="start_container""#]),
            ("kubelet_runtime_operations_duration_seconds_bucket", &[r#"operation_type="pull_image""#, r#"le="+Inf""#]),
            ("kubelet_pod_start_duration_seconds_count", &[]),
            ("kubelet_image_pull_duration_seconds_count", &[r#"image_size_in_bytes="0-10MB""#]),
            ("kubelet_volume_stats_available_bytes", &[r#"namespace="default""#, r#"persistentvolumeclaim="data""#]),
            ("kubeproxy_sync_proxy_rules_duration_seconds_count", &[]),
            ("coredns_dns_requests_total", &[r#"proto="udp""#, r#"family="1""#]),
            ("coredns_dns_responses_total", &[r#"rcode="NOERROR""#]),
        ],
    );
    let probed = &[r#"probe_type="Readiness""#, r#"result="successful""#, r#"pod="one""#];
    page_with("/api/v1/nodes/n1/proxy/metrics/probes", &[("prober_probe_total", probed)]);
    assert!(!node.contains("apiserver_") && !node.contains("scheduler_"), "{node}");
}

/// Upstream: `test/e2e/apimachinery/health_handlers.go` ("should contain necessary checks").
#[test]
fn health_checks_are_named_as_upstreams() {
    let c = Cluster::start(KNARR);
    let hooks = [
        "start-apiserver-admission-initializer",
        "generic-apiserver-start-informers",
        "start-apiextensions-informers",
        "start-apiextensions-controllers",
        "crd-informer-synced",
        "bootstrap-controller",
        "start-system-namespaces-controller",
        "rbac/bootstrap-roles",
        "scheduling/bootstrap-system-priority-classes",
        "start-legacy-token-tracking-controller",
        "start-cluster-authentication-info-controller",
        "start-kube-aggregator-informers",
        "apiservice-registration-controller",
        "apiservice-status-local-available-controller",
        "apiservice-status-remote-available-controller",
        "kube-apiserver-autoregistration",
        "apiservice-openapi-controller",
    ];
    let hooks = hooks.map(|hook| format!("poststarthook/{hook}"));
    let everywhere = ["ping", "log", "etcd", "autoregister-completion"].map(str::to_owned);
    let ready = ["informer-sync", "etcd-readiness", "controllers", "scheduler", "kubelet"].map(str::to_owned);
    for (endpoint, more) in [("healthz", &[][..]), ("livez", &[][..]), ("readyz", &ready[..])] {
        let verbose = c.k(&format!("get --raw /{endpoint}?verbose"));
        for check in everywhere.iter().chain(&hooks).chain(more) {
            assert!(verbose.contains(&format!("[+]{check} ok\n")), "{check} is not in {verbose}");
            assert_eq!(c.k(&format!("get --raw /{endpoint}/{check}")), "ok");
        }
    }
    let verbose = c.k("get --raw /readyz?verbose");
    assert!(verbose.ends_with("[+]shutdown ok\nreadyz check passed\n"), "{verbose}");
    assert!(!c.k("get --raw /livez?verbose").contains("kubelet"), "a component that is not ready is no reason to restart");
    assert!(c.k("get --raw /livez?verbose&exclude=etcd").contains("[+]etcd excluded: ok\n"));
    let slis = c.k("get --raw /metrics/slis");
    assert!(slis.contains(r#"kubernetes_healthcheck{name="etcd",type="readyz"} 1"#), "{slis}");
}

/// What an administrator sees of API priority and fairness.
#[test]
fn flow_schemas_and_who_waits() {
    let c = Cluster::start(KNARR);
    let schemas = || c.k("get flowschemas --no-headers");
    // Each names a level that exists, and says so soon after it is there.
    testing::eventually("all flow schemas have their levels", || {
        let all = schemas();
        (all.lines().count() == 11 && all.lines().all(|line| line.ends_with("False"))).then_some(())
    });
    let order = c.k("get flowschemas --sort-by=.spec.matchingPrecedence -o name");
    let names: Vec<&str> = order.lines().filter_map(|line| line.split('/').nth(1)).collect();
    assert_eq!((names.first(), names.last()), (Some(&"exempt"), Some(&"catch-all")), "{order}");
    let levels = c.k("get --raw /debug/api_priority_and_fairness/dump_priority_levels");
    assert!(levels.starts_with("PriorityLevelName,") && levels.contains("\nworkload-high,"), "{levels}");
    // Deleted ones come back.
    c.k("delete flowschema global-default");
    testing::eventually("the flow schema is there again", || schemas().contains("global-default").then_some(()));
}
