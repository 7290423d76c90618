//! What goes wrong: images, commands, the server's own death.
#![allow(clippy::unwrap_used)]

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::WatchEvent;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use testing::{Cluster, Outcome, eventually, machine};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";

fn pod(name: &str, image: &str, command: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: main, image: '{image}', command: {command}}}]}}}}"
    )
}

#[test]
fn containers_that_cannot_start_say_why() {
    let c = Cluster::start(KNARR);
    let digest = format!("127.0.0.1:5000/busybox@sha256:{}", "0".repeat(64));
    let check = |name: &str, image: &str, command: &str, reasons: &[&str], message: &str| {
        c.k_with("apply -f -", &pod(name, image, command));
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        eventually(&format!("{name} waits for one of {reasons:?} with {message:?}"), || {
            let status = c.api().object(&path)["status"]["containerStatuses"][0].to_string();
            (reasons.iter().any(|reason| status.contains(reason)) && status.contains(message)).then_some(())
        });
    };
    let pull = ["ErrImagePull", "ImagePullBackOff"];
    check("no-image", "127.0.0.1:5000/no-such-image:1", "[sh]", &pull, "no-such-image");
    check("no-digest", &digest, "[sh]", &pull, "sha256:0000");
    check("no-registry", "127.0.0.1:5999/busybox:1.36", "[sh]", &pull, "127.0.0.1:5999");
    check("bad-name", "Not An Image", "[sh]", &["InvalidImageName"], "");
    check(
        "no-command",
        BUSYBOX,
        "[no-such-command]",
        &["RunContainerError", "StartError", "CrashLoopBackOff"],
        "no-such-command",
    );
    check("crash", BUSYBOX, "['false']", &["CrashLoopBackOff"], "back-off");
    c.told("--field-selector involvedObject.name=no-image", &["Failed to pull image"]);
}

#[test]
fn containers_outlive_the_server() {
    let mut c = Cluster::start(KNARR);
    c.kubectl(&["create", "deployment", "idle", "--image", BUSYBOX, "--replicas=3", "--", "sleep", "100000"]);
    c.k("rollout status deployment/idle --timeout=60s");
    let sleepers = |c: &Cluster| {
        let mut found: Vec<_> =
            c.machine().processes().into_iter().filter(|(_, line)| line.starts_with("sleep 100000")).collect();
        found.sort();
        found
    };
    let before = eventually("all sleep", || Some(sleepers(&c)).filter(|all| all.len() == 3));
    for round in 0..3 {
        c.kill_server();
        assert_eq!(sleepers(&c), before, "round {round}");
        c.start_server();
        c.k("rollout status deployment/idle --timeout=60s");
        let restarts = c.k("get pods -l app=idle -o jsonpath={.items[*].status.containerStatuses[0].restartCount}");
        assert_eq!((restarts.as_str(), sleepers(&c)), ("0 0 0", before.clone()), "round {round}");
    }
    let name = c.k("get pods -l app=idle -o jsonpath={.items[0].metadata.name}");
    assert_eq!(c.k(&format!("exec {name} -- echo adopted")), "adopted\n");
    c.k("delete deployment idle --timeout=60s");
    c.k("wait --for=delete pod -l app=idle --timeout=60s");
    assert_eq!(sleepers(&c), []);
}

/// The machine starts anew: nothing runs any more, and what /run held is gone.
fn restart_machine(c: &mut Cluster) {
    c.kill_server();
    // The end of one may be that of another, and none of them is gone at once.
    eventually("nothing runs", || {
        let all = c.machine().processes().into_iter();
        let left: Vec<i32> =
            all.filter(|(_, line)| line.contains(" shim ") || line.starts_with("sleep 100000")).map(|(pid, _)| pid).collect();
        for pid in &left {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
        }
        left.is_empty().then_some(())
    });
    let run = c.run_dir().display().to_string();
    let script = format!("awk '$2 ~ \"^{run}/\" {{print $2}}' /proc/self/mounts | sort -r | xargs -r umount -l; rm -r {run}");
    assert!(c.machine().command(std::path::Path::new("sh")).args(["-c", &script]).status().unwrap().success());
    c.start_server();
}

/// What was written before a crash is what one wants to read after it.
#[test]
fn logs_outlive_the_machine() {
    let mut c = Cluster::start(KNARR);
    c.k_with("apply -f -", &pod("runs", BUSYBOX, "[sh, -c, 'echo life $(cat /proc/sys/kernel/random/uuid); exec sleep 100000']"));
    c.kubectl(&["run", "done", "--image", BUSYBOX, "--restart=Never", "--", "echo", "all", "done"]);
    c.k("wait --for=condition=Ready pod/runs --timeout=60s");
    c.k("wait --for=jsonpath={.status.phase}=Succeeded pod/done --timeout=60s");
    let first = eventually("it has said something", || Some(c.k("logs runs")).filter(|log| !log.is_empty()));
    restart_machine(&mut c);
    eventually("it runs again", || {
        (c.k("get pod runs -o jsonpath={.status.containerStatuses[0].restartCount}") == "1").then_some(())
    });
    c.k("wait --for=condition=Ready pod/runs --timeout=60s");
    assert_eq!(c.k("logs runs --previous"), first);
    eventually("it has said something else", || Some(c.k("logs runs")).filter(|log| !log.is_empty() && *log != first));
    assert_eq!(c.k("logs done"), "all done\n");
}

fn name_of_added(event: kube::Result<WatchEvent<ConfigMap>>) -> String {
    match event.unwrap() {
        WatchEvent::Added(map) => map.name_any(),
        other => format!("{other:?}"),
    }
}

#[test]
fn watches_resume_where_they_were() {
    let mut c = Cluster::start(KNARR);
    // The ConfigMap that every namespace gets comes before those of the test.
    c.k("wait --for=create configmap/kube-root-ca.crt --timeout=60s");
    c.k("create configmap first --from-literal=a=b");
    let client = c.api().client();
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
    let version = c.api().block_on(maps.get("first")).unwrap().resource_version().unwrap();
    c.k("create configmap second --from-literal=a=b");
    c.kill_server();
    c.start_server();
    c.k("create configmap third --from-literal=a=b");
    // From before the crash: what was written on both sides of it arrives, in order.
    let maps = Api::<ConfigMap>::namespaced(c.api().client(), "default");
    let names = c.api().block_on(async {
        let stream = maps.watch(&Default::default(), &version).await.unwrap();
        stream.take(2).map(name_of_added).collect::<Vec<_>>().await
    });
    assert_eq!(names, ["second", "third"]);
    let pods = c.api().block_on(async {
        let stream = watcher(Api::<Pod>::all(c.api().client()), watcher::Config::default().streaming_lists());
        std::pin::pin!(stream.take(1).applied_objects()).next().await.is_none()
    });
    assert!(pods, "no pods in an empty cluster");
}

#[test]
fn the_server_stops_in_time_and_refuses_clearly() {
    let mut c = Cluster::start(KNARR);
    let second = c.knarr(&["server", "--node-name", "n2", "--node-ip", machine::ADDRESS]).output().unwrap();
    assert!(!second.status.success(), "two servers on one data directory");
    let (status, time) = c.stop_server();
    assert!(status.success() && time.as_secs() < 30, "{status} after {time:?}");
    let listener = std::net::TcpListener::bind("0.0.0.0:6443").unwrap();
    c.spawn_server(&[]);
    assert!(!c.wait_server().success());
    let log = std::fs::read_to_string(c.log()).unwrap();
    assert!(log.contains("6443"), "{log}");
    drop(listener);
    for (option, range) in [("--cluster-cidr", "10.98.0.0/16"), ("--service-cidr", "10.99.0.0/16")] {
        c.spawn_server(&[option, range]);
        assert!(!c.wait_server().success());
        let log = std::fs::read_to_string(c.log()).unwrap();
        assert!(log.contains("A data directory keeps the ") && log.contains(&format!("{option} ")), "{option}: {log}");
        assert_eq!(log.matches("pods keep running").count(), 1, "a start that fails has stopped nothing: {log}");
    }
    let mut user = std::process::Command::new("setpriv");
    user.args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(KNARR)
        .arg("server")
        .arg("--data-dir")
        .arg("/tmp/kt-nobody");
    let refused = user.output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("root"), "{refused:?}");
}

/// After a restart of the machine nothing answers the webhooks whose pods the server is to start: it starts all the same.
#[test]
fn a_webhook_that_nobody_answers_keeps_no_server_from_starting() {
    let mut c = Cluster::start(KNARR);
    let rule = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "apiVersions": ["*"], "operations": ["*"], "resources": resources});
    let hook = json!({"name": "all.example.com", "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 1, "clientConfig": {"url": "https://127.0.0.1:1/"}, "rules": [
            rule("", &["services", "secrets", "configmaps"]), rule("rbac.authorization.k8s.io", &["*"]),
            rule("storage.k8s.io", &["storageclasses"]), rule("networking.k8s.io", &["ingressclasses"])]});
    let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "all"}, "webhooks": [hook]});
    c.k_with("apply -f -", &object.to_string());
    eventually("the webhook is asked", || {
        let tried = c.try_kubectl(&["create", "configmap", "tried", "--dry-run=server"]);
        tried.stderr.contains("all.example.com").then_some(())
    });
    c.stop_server();
    c.start_server();
    c.k("wait --for=condition=Ready nodes --all --timeout=60s");
    c.k("delete validatingwebhookconfiguration all");
    eventually("others may write again", || (c.try_kubectl(&["create", "configmap", "tried"]).code == Some(0)).then_some(()));
}

/// A policy that refuses what the server writes at each start, with whatever code, could not be removed without a server.
#[test]
fn a_policy_that_refuses_the_cluster_dns_keeps_no_server_from_starting() {
    let mut c = Cluster::start(KNARR);
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["services"]});
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "teams"},
        "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "has(object.metadata.labels.team)"}]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "teams"}, "spec": {"policyName": "teams", "validationActions": ["Deny"]}});
    c.k_with("apply -f -", &json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]}).to_string());
    let service = ["create", "service", "clusterip", "tried", "--tcp=80"];
    eventually("the policy is in force", || c.try_kubectl(&service).stderr.contains("teams").then_some(()));
    c.stop_server();
    c.start_server();
    c.k("wait --for=condition=Ready nodes --all --timeout=60s");
    c.k("delete validatingadmissionpolicybinding teams");
    eventually("others may write again", || (c.try_kubectl(&service).code == Some(0)).then_some(()));
}

/// The token of the server's file joins nodes for ever, so that a leaked one has to be worthless for ever, too.
#[test]
fn a_servers_token_that_was_deleted_stays_worthless() {
    let mut c = Cluster::start(KNARR);
    let own = |c: &Cluster| {
        let token = std::fs::read_to_string(c.token_file()).unwrap();
        token.split("::").nth(1).unwrap().split('.').next().unwrap().to_owned()
    };
    let listed = |c: &Cluster| Outcome::of(&mut c.knarr(&["token", "list"])).stdout;
    let leaked = own(&c);
    let deleted = Outcome::of(&mut c.knarr(&["token", "delete", &leaked]));
    assert!(deleted.stdout.contains("has a new one"), "{deleted:?}");
    let second = own(&c);
    assert!(second != leaked && listed(&c).contains(&second) && !listed(&c).contains(&leaked), "{}", listed(&c));
    // Also where it was deleted by its Secret.
    c.kubectl(&["-n", "kube-system", "delete", "secret", &format!("bootstrap-token-{second}")]);
    c.stop_server();
    c.start_server();
    let third = eventually("the file has another token", || {
        let id = own(&c);
        (id != second && listed(&c).contains(&id)).then_some(id)
    });
    assert!(third != leaked && !listed(&c).contains(&leaked) && !listed(&c).contains(&second), "{}", listed(&c));
}

/// What is stored is in memory, too: who may create without end would end the server, and each next start.
#[test]
fn a_full_store_refuses_what_is_new_and_takes_what_makes_room() {
    let mut c = Cluster::prepare(KNARR);
    c.start_server_with(&["--storage-quota", "16Mi"]);
    let value = "v".repeat(900 << 10);
    let object =
        |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}});
    let refused = (0..100)
        .map(|count| c.try_k_with("create -f -", &object(&format!("m{count}")).to_string()))
        .find(|done| done.code != Some(0));
    let refused = refused.expect("it ends");
    assert!(refused.stderr.contains("--storage-quota is 16 MiB"), "{refused:?}");
    c.k("get --raw /readyz");
    c.k("delete configmap m0 m1 m2");
    assert_eq!(c.try_k_with("create -f -", &object("again").to_string()).code, Some(0));
}
