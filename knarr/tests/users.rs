//! Pods with user namespaces (KEP-127).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use testing::Cluster;

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: users}}
spec:
  hostUsers: false
  shareProcessNamespace: SHARED
  terminationGracePeriodSeconds: 0
  securityContext: {fsGroup: 2000}
  initContainers:
    - name: init
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "mkdir /data/part && id -u >/data/part/first"]
      volumeMounts: [{name: data, mountPath: /data}]
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "cat /settings/key >/data/copy && cat /var/run/secrets/kubernetes.io/serviceaccount/namespace && touch /ready && exec sleep 100000"]
      readinessProbe: {exec: {command: [test, -e, /ready]}, periodSeconds: 1}
      lifecycle: {postStart: {exec: {command: [sh, -c, "echo started >/data/hook"]}}}
      volumeMounts:
        - {name: data, mountPath: /data}
        - {name: data, mountPath: /part, subPath: part}
        - {name: memory, mountPath: /memory}
        - {name: settings, mountPath: /settings}
        - {name: settings, mountPath: /one, subPath: key}
        - {name: host, mountPath: /host}
    - name: other
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "echo named >/dev/stdout; exec sleep 100000"]
      securityContext: {runAsUser: 1000}
      volumeMounts: [{name: memory, mountPath: /memory}]
  volumes:
    - {name: data, emptyDir: {}}
    - {name: memory, emptyDir: {medium: Memory}}
    - {name: settings, configMap: {name: settings}}
    - {name: host, hostPath: {path: HOST, type: DirectoryOrCreate}}
"#;

fn host_directory(c: &Cluster) -> PathBuf {
    c.data_dir().join("users-test")
}

fn pod(c: &Cluster, name: &str, shared: &str) -> String {
    POD.replace("NAME", name).replace("SHARED", shared).replace("HOST", &host_directory(c).display().to_string())
}

/// Whom the processes with this command line belong to, as the node calls them.
fn owners(c: &Cluster, command: &str) -> BTreeSet<u32> {
    let processes = c.machine().processes().into_iter().filter(|(_, line)| line.starts_with(command));
    let owner = |pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap().to_owned();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    processes.map(|(pid, _)| owner(pid)).collect()
}

/// KEP-127: "User namespaces ... isolate the user running inside the container from the one in the host", with ids that no two pods share, and
/// volumes of all kinds under the owners that the pod knows.
#[test]
fn pods_have_users_of_their_own_and_keep_them() {
    let mut c = Cluster::start(KNARR);
    c.k("create configmap settings --from-literal=key=value");
    for (name, shared) in [("one", "false"), ("two", "true")] {
        c.k_with("apply -f -", &pod(&c, name, shared));
    }
    c.k("wait --for=condition=Ready pod -l app=users --timeout=60s");
    let maps = |c: &Cluster| -> BTreeSet<String> {
        let map = |name: &str| c.k(&format!("exec {name} -c main -- cat /proc/self/uid_map"));
        ["one", "two"].iter().map(|name| map(name).split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let before = maps(&c);
    assert_eq!(before, ["0 131072 65536", "0 65536 65536"].map(str::to_owned).into());
    // What runs there is root to itself, and nobody to the node.
    let script = "id -u; stat -L -c %u:%g /data/copy /settings/key /part/first; cat /data/copy /one /part/first /data/hook; \
        touch /host/made /memory/made; nslookup kubernetes.default.svc.cluster.local >/dev/null && echo ok";
    for name in ["one", "two"] {
        let said = c.kubectl(&["exec", name, "-c", "main", "--", "sh", "-c", script]);
        assert_eq!(said, "0\n0:2000\n0:2000\n0:2000\nvaluevalue0\nstarted\nok\n");
        assert_eq!(
            c.kubectl(&["exec", name, "-c", "other", "--", "sh", "-c", "id -u; stat -c %u:%g /memory/made"]),
            "1000\n0:2000\n"
        );
        assert_eq!(c.kubectl(&["logs", name, "-c", "other"]), "named\n");
    }
    assert_eq!(c.kubectl(&["exec", "two", "-c", "other", "--", "sh", "-c", "ps | grep -c 'sleep 10000[0]'"]), "2\n");
    assert_eq!(owners(&c, "sleep 100000"), [65536, 66536, 131_072, 132_072].into());
    let made = std::fs::metadata(c.machine().path(&host_directory(&c).join("made"))).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 0, "a file on the node has the owner that the pod knows");
    // A container that comes later is of the same users.
    let debug = "debug one --image=127.0.0.1:5000/busybox:1.36 --target=main --profile=general -c debugger -- sh -c";
    let mut words: Vec<&str> = debug.split(' ').collect();
    words.push("ps | grep -c 'sleep 10000[0]'; sleep 200000");
    c.kubectl(&words);
    testing::eventually("the debugger sees its target", || {
        (c.try_kubectl(&["logs", "one", "-c", "debugger"]).stdout == "1\n").then_some(())
    });
    assert!(owners(&c, "sleep 200000").iter().all(|uid| [65536, 131_072].contains(uid)));

    c.kill_server();
    c.start_server();
    c.k_with("apply -f -", &pod(&c, "three", "false"));
    c.k("wait --for=condition=Ready pod -l app=users --timeout=60s");
    assert_eq!(maps(&c), before, "the next process leaves them theirs");
    let third = c.k("exec three -c main -- cat /proc/self/uid_map");
    assert!(third.contains(" 196608 "), "{third}");
    let features = c.k("get node -o jsonpath={.items[0].status.runtimeHandlers[0].features.userNamespaces}");
    assert_eq!(features, "true");
    c.k("delete pod -l app=users --timeout=60s");
}

/// KEP-127: a pod with a user namespace "will be allowed to" run as root where the restricted standard holds, which it refuses to others.
#[test]
fn the_restricted_standard_lets_them_be_root() {
    let c = Cluster::start(KNARR);
    c.k("create namespace strict");
    c.k("label namespace strict pod-security.kubernetes.io/enforce=restricted");
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: strict}
spec:
  hostUsers: USERS
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "id -u"]
      securityContext: {runAsUser: 0, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"#;
    c.k_with("apply -f -", &pod.replace("NAME", "own").replace("USERS", "false"));
    c.k("wait --for=jsonpath={.status.phase}=Succeeded pod/own -n strict --timeout=60s");
    assert_eq!(c.k("logs own -n strict").trim(), "0");
    let refused = c.try_k_with("apply -f -", &pod.replace("NAME", "hosts").replace("USERS", "true"));
    assert!(refused.stderr.contains("runAsUser=0"), "{refused:?}");
}
