//! Probes of every kind.

use serde_json::{Value, json};
use testing::Cluster;

use super::containers::{SERVER, condition, main_status, restarts, see};
use super::{KNARR, NGINX, core, create, exec, extend, pod, reaches};

/// Each probe counts itself, so that what does not happen is known after so many of them.
///
/// Conformance: [sig-node] Probing container should *not* be restarted with a /healthz http liveness probe [NodeConformance] [Conformance]
/// Conformance: [sig-node] Probing container should *not* be restarted with a exec "cat /tmp/health" liveness probe [NodeConformance] [Conformance]
/// Conformance: [sig-node] Probing container should *not* be restarted with a tcp:8080 liveness probe [NodeConformance] [Conformance]
/// Conformance: [sig-node] Probing container should be restarted with a /healthz http liveness probe [NodeConformance] [Conformance]
/// Conformance: [sig-node] Probing container should be restarted with a exec "cat /tmp/health" liveness probe [NodeConformance] [Conformance]
/// Conformance: [sig-node] Probing container with readiness probe should not be ready before initial delay and never restart [NodeConformance] [Conformance]
/// Conformance: [sig-node] Probing container with readiness probe that fails should never be ready and never restart [NodeConformance] [Conformance]
#[test]
fn probes() {
    let c = Cluster::start(KNARR);
    let often = |probe: Value| {
        let mut probe = probe;
        extend(&mut probe, &json!({"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 10}));
        probe
    };
    let liveness = |probe: Value| json!({"livenessProbe": often(probe)});
    // A program that has not begun yet is not one that has failed: how long that takes is the machine's business.
    let begins = |mut container: Value, action: Value| {
        container["startupProbe"] = action;
        extend(&mut container["startupProbe"], &json!({"periodSeconds": 1, "failureThreshold": 60, "timeoutSeconds": 10}));
        container
    };
    let with_startup = |container: Value| begins(container, json!({"tcpSocket": {"port": 8080}}));
    let http = json!({"httpGet": {"path": "/healthz", "port": 8080}});
    let health = json!({"exec": {"command": ["sh", "-c", "echo probed >> /tmp/probes; cat /tmp/health"]}});
    let healthy = "echo ok > /tmp/health; exec sleep 100000";
    let listen = "exec nc -ll -p 8080 -e sh -c 'echo probed >> /tmp/probes'";
    let always = json!({"restartPolicy": "Always"});
    let server = format!("{SERVER} 2> /tmp/probes");
    for (name, script, container) in [
        ("http", server.as_str(), with_startup(liveness(http.clone()))),
        ("exec", healthy, begins(liveness(health.clone()), json!({"exec": {"command": ["test", "-s", "/tmp/health"]}}))),
        ("tcp", listen, with_startup(liveness(json!({"tcpSocket": {"port": 8080}, "initialDelaySeconds": 1})))),
        ("late", "exec sleep 100000", json!({"readinessProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 4}})),
        (
            "never",
            "exec sleep 100000",
            json!({"readinessProbe": often(json!({"exec": {"command": ["sh", "-c", "echo probed >> /tmp/probes; false"]}}))}),
        ),
    ] {
        create(&c, &core("pods"), &pod(name, script, &container, &always));
    }
    c.k("wait --for=jsonpath={.status.phase}=Running pod/http pod/exec pod/tcp pod/late pod/never --timeout=60s");
    for name in ["http", "exec", "tcp", "never"] {
        reaches(&format!("probes of {name}"), 4, || {
            let answer = c.try_kubectl(&["exec", name, "--", "sh", "-c", "wc -l < /tmp/probes"]);
            answer.stdout.trim().parse().ok()
        });
        assert_eq!(restarts(&c, name), Some(0), "{name}");
        let ready = condition(&see(&c, name), "Ready");
        assert_eq!(ready["status"], if name == "never" { "False" } else { "True" }, "{name}");
    }
    c.k("wait --for=condition=Ready pod/late --timeout=60s");
    let time = |value: &Value| value.as_str().unwrap().parse::<k8s_openapi::jiff::Timestamp>().unwrap().as_second();
    let ready = time(&condition(&see(&c, "late"), "Ready")["lastTransitionTime"]);
    let status = main_status(&c, "late");
    let delay = ready - time(&status["state"]["running"]["startedAt"]);
    assert!(delay >= 3 && status["restartCount"] == 0, "both times are cut to seconds: {delay}, {status}");

    exec(&c, "http", "rm /www/healthz");
    exec(&c, "exec", "rm /tmp/health");
    for name in ["http", "exec"] {
        reaches(&format!("restarts of {name}"), 1, || restarts(&c, name));
    }
}

/// nginx answers the health check of gRPC with a file: the head of a message and SERVING.
const GRPC: &str = "server { listen 5000 http2; location /grpc.health.v1.Health/ { root /tmp; default_type application/grpc; \
    add_trailer grpc-status 0; error_page 405 =200 $uri; } }";

/// Conformance: [sig-node] Probing container should *not* be restarted with a GRPC liveness probe [NodeConformance] [Conformance]
/// Conformance: [sig-node] Probing container should be restarted with a GRPC liveness probe [NodeConformance] [Conformance]
/// Conformance: [sig-node] Probing container should have monotonically increasing restart count [NodeConformance] [Conformance]
#[test]
fn probes_that_restart() {
    let c = Cluster::start(KNARR);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": {"default.conf": GRPC}});
    create(&c, &core("configmaps"), &config);
    let script = "d=/tmp/grpc.health.v1.Health; mkdir $d; printf '\\000\\000\\000\\000\\002\\010\\001' > $d/Check; exec nginx";
    let container = json!({"image": NGINX, "volumeMounts": [{"name": "v", "mountPath": "/etc/nginx/conf.d"}],
        "startupProbe": {"tcpSocket": {"port": 5000}, "periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": {"grpc": {"port": 5000}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 10}});
    let always = json!({"restartPolicy": "Always", "volumes": [{"name": "v", "configMap": {"name": "config"}}]});
    create(&c, &core("pods"), &pod("grpc", script, &container, &always));
    let failing = json!({"livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}});
    create(&c, &core("pods"), &pod("failing", "exec sleep 100000", &failing, &json!({"restartPolicy": "Always"})));
    let counts = "custom-columns=N:.status.containerStatuses[0].restartCount";
    let mut counted = c.background(&format!("get pod failing --watch --no-headers -o {counts}"));

    c.k("wait --for=condition=Ready pod/grpc --timeout=60s");
    let asked = || c.k("logs grpc").matches("POST /grpc.health.v1.Health/Check").count() as u64;
    reaches("health checks", 4, || Some(asked()));
    assert_eq!(restarts(&c, "grpc"), Some(0), "{}", c.k("logs grpc"));
    exec(&c, "grpc", "rm /tmp/grpc.health.v1.Health/Check");
    reaches("restarts", 1, || restarts(&c, "grpc"));

    reaches("restarts", 2, || restarts(&c, "failing"));
    counted.stop();
    let counts: Vec<u32> = counted.finish().0.iter().filter_map(|line| line.trim().parse().ok()).collect();
    assert!(counts.is_sorted() && counts.contains(&1) && counts.windows(2).all(|two| two[1] - two[0] <= 1), "{counts:?}");
}
