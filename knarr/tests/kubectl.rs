//! What a person does by hand with kubectl 1.36, on real containers.
#![allow(clippy::unwrap_used)]

use testing::{Background, Cluster, eventually, machine};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const NGINX: &str = "127.0.0.1:5000/nginx:1.27";
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";

/// A pod that runs a shell script.
fn shell(name: &str, script: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{terminationGracePeriodSeconds: 0,
        containers: [{{name: main, image: '{BUSYBOX}', command: [sh, -c, {script}]}}]}}}}"
    )
}

fn fetch(address: &str, path: &str) -> Option<String> {
    testing::http::get(address, path).ok()
}

#[test]
fn a_deployment_from_creation_to_rollback() {
    let c = Cluster::start(KNARR);
    c.kubectl(&["create", "deployment", "web", "--image", NGINX, "--replicas=3"]);
    c.k("rollout status deployment/web --timeout=60s");
    c.k("wait --for=condition=Available deployment/web --timeout=60s");
    assert_eq!(c.k("get pods -l app=web -o name").lines().count(), 3);

    c.k("expose deployment web --port 80 --type NodePort");
    let port = c.k("get service web -o jsonpath={.spec.ports[0].nodePort}");
    let cluster_ip = c.k("get service web -o jsonpath={.spec.clusterIP}");
    for address in [format!("{}:{port}", machine::ADDRESS), format!("127.0.0.1:{port}"), format!("{cluster_ip}:80")] {
        let page = eventually(&format!("nginx answers at {address}"), || fetch(&address, "/"));
        assert!(page.contains("Welcome to nginx!"), "{address}: {page}");
    }

    c.k("scale deployment/web --replicas=5");
    c.k("rollout status deployment/web --timeout=60s");
    assert_eq!(c.k("get deployment web -o jsonpath={.status.readyReplicas}"), "5");

    c.k("set image deployment/web nginx=127.0.0.1:5000/nginx:1.28");
    c.k("rollout status deployment/web --timeout=60s");
    let images =
        || c.k("get pods -l app=web --field-selector=status.phase=Running -o jsonpath={.items[*].spec.containers[0].image}");
    assert!(images().contains("nginx:1.28"), "{}", images());
    assert_eq!(c.k("rollout history deployment/web").lines().filter(|line| line.starts_with(['1', '2'])).count(), 2);
    c.k("rollout undo deployment/web");
    c.k("rollout status deployment/web --timeout=60s");
    assert_eq!(c.k("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}"), NGINX);

    c.told("", &["ScalingReplicaSet"]);
    let described = c.k("describe deployment web");
    assert!(described.contains("NewReplicaSet:") && described.contains("ScalingReplicaSet"), "{described}");
    c.k("delete deployment web --timeout=60s");
    c.k("wait --for=delete pod -l app=web --timeout=60s");
    eventually("its ReplicaSets go, too", || c.k("get pods,replicasets -o name").is_empty().then_some(()));
}

#[test]
fn logs_and_commands_in_containers() {
    let c = Cluster::start(KNARR);
    c.k_with("apply -f -", &shell("talk", "echo first; sleep 1; echo second; exec sleep 1000"));
    c.k_with("apply -f -", &shell("crash", "echo last words; exit 7"));
    c.k("wait --for=condition=Ready pod/talk --timeout=60s");

    let follow = c.background("logs -f talk");
    follow.line("first");
    follow.line("second");
    assert_eq!(c.k("logs talk --tail=1"), "second\n");
    eventually("crash restarts", || {
        (c.k("get pod crash -o jsonpath={.status.containerStatuses[0].restartCount}") != "0").then_some(())
    });
    assert_eq!(c.k("logs crash --previous"), "last words\n");
    assert_eq!(c.k("get pod crash -o jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}"), "7");

    assert_eq!(c.kubectl(&["exec", "talk", "--", "echo", "a b"]), "a b\n");
    assert_eq!(c.try_kubectl(&["exec", "talk", "--", "sh", "-c", "exit 3"]).code, Some(3));
    assert_eq!(c.kubectl(&["exec", "talk", "--", "sh", "-c", "(sleep 0.2; echo late) & echo now"]), "now\nlate\n");
    assert_eq!(c.k_with("exec -i talk -- cat", "through\n"), "through\n");
    let missing = c.try_kubectl(&["exec", "talk", "--", "no-such-command"]);
    assert_ne!(missing.code, Some(0), "{missing:?}");

    let mut terminal = c.on_terminal("exec -it talk -- sh");
    terminal.write("tty; echo $((6*7))\n");
    terminal.line("/dev/pts/");
    terminal.line("42");
    terminal.write("exit 5\n");
    assert_eq!(terminal.finish().1, Some(5));

    let file = c.scratch().join("file");
    std::fs::write(&file, "cargo").unwrap();
    c.kubectl(&["cp", file.to_str().unwrap(), "talk:/tmp/file"]);
    assert_eq!(c.k("exec talk -- cat /tmp/file"), "cargo");
    c.kubectl(&["cp", "talk:/tmp/file", c.scratch().join("back").to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(c.scratch().join("back")).unwrap(), "cargo");

    let mut attached = attach(&c);
    attached.write("hello\n");
    attached.line("got hello");
}

/// A pod that echoes its input, and kubectl attached to it.
fn attach(c: &Cluster) -> Background {
    let pod = shell("echo", "while read -r line; do echo got $line; done").replace("name: main,", "name: main, stdin: true,");
    c.k_with("apply -f -", &pod);
    c.k("wait --for=condition=Ready pod/echo --timeout=60s");
    c.background("attach -i echo")
}

#[test]
fn ports_are_forwarded() {
    let c = Cluster::start(KNARR);
    c.kubectl(&["run", "web", "--image", NGINX, "--port=80"]);
    c.k("wait --for=condition=Ready pod/web --timeout=60s");
    let forward = c.background("port-forward pod/web 18080:80");
    forward.line("Forwarding from 127.0.0.1:18080");
    // A container runs before its program listens.
    eventually("nginx answers", || fetch("127.0.0.1:18080", "/"));
    for _ in 0..3 {
        assert!(fetch("127.0.0.1:18080", "/").unwrap().contains("Welcome to nginx!"));
    }
    c.k("expose pod web --port 80");
    let service = c.background("port-forward service/web 18081:80");
    service.line("Forwarding from 127.0.0.1:18081");
    assert!(fetch("127.0.0.1:18081", "/").unwrap().contains("Welcome to nginx!"));
}

#[test]
fn objects_are_applied_edited_and_patched() {
    let c = Cluster::start(KNARR);
    let map = |value: &str| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: m}}, data: {{key: {value}}}}}");
    let key = || c.k("get configmap m -o jsonpath={.data.key}");
    assert!(c.k_with("apply -f -", &map("one")).contains("created"));
    assert!(c.k_with("apply -f -", &map("one")).contains("unchanged"));
    assert!(c.k_with("diff -f -", &map("one")).is_empty());
    assert!(c.k_with("apply -f -", &map("two")).contains("configured"));
    assert_eq!(key(), "two");
    c.k_with("apply --server-side --field-manager=other --force-conflicts -f -", &map("three"));
    assert_eq!(key(), "three");
    let conflict = c.try_k_with("apply --server-side --field-manager=third -f -", &map("four"));
    assert!(conflict.stderr.contains("conflict with \"other\""), "{conflict:?}");
    assert!(c.k_with("apply --server-side --dry-run=server --field-manager=other -f -", &map("five")).contains("dry run"));
    assert_eq!(key(), "three");

    let output = c.kubectl_command(&["edit", "configmap", "m"]).env("EDITOR", "sed -i s/three/edited/").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(key(), "edited");
    c.kubectl(&["patch", "configmap", "m", "--type=merge", "-p", r#"{"data":{"key":"merged"}}"#]);
    assert_eq!(key(), "merged");
    c.kubectl(&["patch", "configmap", "m", "--type=json", "-p", r#"[{"op":"replace","path":"/data/key","value":"json"}]"#]);
    assert_eq!(key(), "json");
    c.kubectl(&["patch", "configmap", "m", "--type=strategic", "-p", r#"{"data":{"key":"strategic"}}"#]);
    assert_eq!(key(), "strategic");
    c.k("label configmap m tier=front");
    c.k("annotate configmap m note=x");
    assert_eq!(c.k("get configmaps -l tier=front -o name"), "configmap/m\n");
    c.k("label configmap m tier-");
    assert_eq!(c.k("get configmaps -l tier=front -o name"), "");

    let watch = c.background("get configmaps -w -o name");
    watch.line("configmap/m");
    c.k("create configmap later --from-literal=a=b");
    watch.line("configmap/later");
    c.k("delete configmap later");
}

#[test]
fn the_cluster_explains_itself() {
    let c = Cluster::start(KNARR);
    let check = |line: &str, part: &str| {
        let text = c.k(line);
        assert!(text.contains(part), "kubectl {line}: {part:?} is not in {text}");
    };
    check("version", "Server Version: v1.36");
    check("get nodes", " Ready ");
    check("get nodes -o wide", machine::ADDRESS);
    check("get nodes -o yaml", "kubeletVersion: v1.36");
    check("get nodes -o jsonpath={.items[0].metadata.name}", "n1");
    check("describe node n1", "Allocated resources:");
    check("get node n1 -o jsonpath={.metadata.managedFields[*].manager}", "kubelet");
    check("explain deployment.spec.strategy", "rollingUpdate");
    check("explain pods.spec.containers --recursive", "livenessProbe");
    check("api-resources", "deployments");
    check("api-resources -o wide", "deletecollection");
    check("api-versions", "apps/v1");
    check("auth can-i create pods", "yes");
    check("auth whoami", "system:masters");
    check("get all -A", "service/kubernetes");
    check("get namespaces", "kube-system");
    check("get clusterroles", "cluster-admin");
    check("cluster-info", "control plane");
    let denied = c.try_kubectl(&["auth", "can-i", "create", "pods", "--as=system:serviceaccount:default:default"]);
    assert_eq!((denied.code, denied.stdout.trim()), (Some(1), "no"));

    let token = c.k("create token default");
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    let forbidden = c.try_kubectl(&[
        "--token",
        token.trim(),
        "--client-certificate=",
        "--client-key=",
        "get",
        "pods",
        "--kubeconfig=/dev/null",
        "--server=https://127.0.0.1:6443",
        "--insecure-skip-tls-verify",
    ]);
    let expected = r#"pods is forbidden: User "system:serviceaccount:default:default" cannot list resource "pods" in API group "" in the namespace "default""#;
    assert!(forbidden.stderr.contains(expected), "{forbidden:?}");
}
