//! What a pod may say: probes, init containers, volumes, limits, names.
#![allow(clippy::unwrap_used)]

use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

/// Pods of this file: ports are probed, volumes are read, names are resolved.
const PODS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, shape: round}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: sail-west}
---
apiVersion: v1
kind: Pod
metadata: {name: full, labels: {app: full}, annotations: {note: hello}}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
    - {name: first, image: "127.0.0.1:5000/busybox:1.36", command: [sh, -c, "echo from-init > /shared/file"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "exec httpd -f -p 8080 -h /shared"]
      env:
        - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
        - {name: TWICE, value: "$(COLOR)-$(COLOR)"}
      envFrom: [{configMapRef: {name: settings}, prefix: C_}]
      startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 60}
      readinessProbe: {httpGet: {path: /file, port: 8080}, periodSeconds: 1, timeoutSeconds: 10}
      livenessProbe: {exec: {command: [cat, /shared/file]}, periodSeconds: 1, timeoutSeconds: 10}
      resources: {limits: {memory: 64Mi, cpu: 500m}, requests: {memory: 32Mi, cpu: 100m}}
      volumeMounts:
        - {name: shared, mountPath: /shared}
        - {name: map, mountPath: /map}
        - {name: secret, mountPath: /secret, readOnly: true}
        - {name: downward, mountPath: /downward}
        - {name: all, mountPath: /all}
  volumes:
    - {name: shared, emptyDir: {}}
    - {name: map, configMap: {name: settings}}
    - {name: secret, secret: {secretName: keys, defaultMode: 0400}}
    - {name: downward, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
    - name: all
      projected: {sources: [{configMap: {name: settings}}, {secret: {name: keys}}, {serviceAccountToken: {path: token}}]}
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec: {selector: {app: full}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: full}, ports: [{name: http, port: 8080}]}
"#;

#[test]
fn a_pod_with_everything() {
    let c = Cluster::start(KNARR);
    c.k_with("apply -f -", PODS);
    c.k("wait --for=condition=Ready pod/full --timeout=60s");
    let sh = |script: &str| c.kubectl(&["exec", "full", "-c", "main", "--", "sh", "-c", script]);
    let ip = c.k("get pod full -o jsonpath={.status.podIP}");
    let check = |script: &str, expected: &str| assert_eq!(sh(script).trim(), expected, "{script}");
    check("cat /shared/file", "from-init");
    check("echo $COLOR $PASSWORD $TWICE $C_shape $LIMIT", "blue sail-west blue-blue round 67108864");
    check("echo $POD_IP", &ip);
    check("cat /map/color /secret/password", "bluesail-west");
    check("stat -L -c %a /secret/password", "400");
    check("cat /downward/labels", "app=\"full\"");
    check("cat /all/shape /all/password", "roundsail-west");
    check("tr . '\\n' </all/token | wc -l", "2");
    check("ls /var/run/secrets/kubernetes.io/serviceaccount | tr '\\n' ' '", "ca.crt namespace token");
    // Services and names follow a moment after a pod is ready.
    for (script, expected) in [
        ("wget -q -O - http://front/file", "from-init"),
        ("wget -q -O - http://front.default.svc.cluster.local/file", "from-init"),
        ("wget -q -O - http://headless:8080/file", "from-init"),
        ("nslookup headless.default.svc.cluster.local | grep -c \"$POD_IP\"", "1"),
    ] {
        let said = || c.try_kubectl(&["exec", "full", "-c", "main", "--", "sh", "-c", script]).stdout;
        eventually(script, || (said().trim() == expected).then_some(()));
    }
    assert!(sh("nslookup kubernetes.default.svc.cluster.local").contains("10.43.0.1"));

    c.kubectl(&["patch", "configmap", "settings", "--type=merge", "-p", r#"{"data":{"color":"red"}}"#]);
    eventually("the volume follows the ConfigMap", || (sh("cat /map/color /all/color") == "redred").then_some(()));
    c.k("label pod full tier=front");
    eventually("the volume follows the labels", || sh("cat /downward/labels").contains("tier=\"front\"").then_some(()));

    sh("rm /shared/file");
    eventually("the liveness probe restarts the container", || {
        (c.k("get pod full -o jsonpath={.status.containerStatuses[0].restartCount}") != "0").then_some(())
    });
    eventually("readiness is lost", || (c.k("get endpoints front -o jsonpath={.subsets[*].addresses}").is_empty()).then_some(()));
    c.told("--field-selector involvedObject.name=full", &["Unhealthy", "Liveness probe failed"]);
}

#[test]
fn limits_and_policies_hold() {
    let c = Cluster::start(KNARR);
    let pod = |name: &str, policy: &str, script: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: {policy}, terminationGracePeriodSeconds: 0, containers: [{{name: main, image: '127.0.0.1:5000/busybox:1.36', command: [sh, -c, '{script}'], resources: {{limits: {{memory: 16Mi}}}}}}]}}}}"
        )
    };
    c.k_with("apply -f -", &pod("hungry", "Never", "tail /dev/zero"));
    c.k_with("apply -f -", &pod("done", "Never", "exit 0"));
    c.k_with("apply -f -", &pod("failed", "Never", "exit 3"));
    c.k_with("apply -f -", &pod("again", "OnFailure", "exit 1"));
    c.k("wait --for=jsonpath={.status.phase}=Succeeded pod/done --timeout=60s");
    c.k("wait --for=jsonpath={.status.phase}=Failed pod/failed pod/hungry --timeout=60s");
    let ended = |name: &str, field: &str| {
        c.k(&format!("get pod {name} -o jsonpath={{.status.containerStatuses[0].state.terminated.{field}}}"))
    };
    assert_eq!((ended("failed", "exitCode").as_str(), ended("failed", "reason").as_str()), ("3", "Error"));
    assert_eq!((ended("done", "reason").as_str(), ended("hungry", "reason").as_str()), ("Completed", "OOMKilled"));
    eventually("a failing container starts again", || {
        (c.k("get pod again -o jsonpath={.status.containerStatuses[0].restartCount}") != "0").then_some(())
    });
}

/// CVE-2019-5736: a container that runs `/proc/self/exe` is given the program that became it, and cannot write it on the node.
#[test]
fn containers_cannot_write_the_nodes_program() {
    let c = Cluster::start(KNARR);
    let libraries = format!("/host/{}-linux-gnu", std::env::consts::ARCH);
    let pod = format!(
        r#"{{apiVersion: v1, kind: Pod, metadata: {{name: own}}, spec: {{restartPolicy: Never, volumes: [{{name: host, hostPath: {{path: /usr/lib}}}}],
            containers: [{{name: own, image: '127.0.0.1:5000/nginx:1.27', env: [{{name: LD_LIBRARY_PATH, value: {libraries}}}],
            volumeMounts: [{{name: host, mountPath: /host, readOnly: true}}],
            command: [/proc/self/exe, server, --no-agent, --data-dir, /tmp/own, --port, '16443']}}]}}}}"#
    );
    c.k_with("apply -f -", &pod);
    c.k("wait --for=condition=Ready pod/own --timeout=60s");
    let append = "unset LD_LIBRARY_PATH; test -s /proc/1/exe && (: >> /proc/1/exe) 2>&1; true";
    let told = eventually("it runs", || {
        let told = c.kubectl(&["exec", "own", "--", "sh", "-c", append]);
        (!told.is_empty()).then_some(told)
    });
    assert!(told.contains("Read-only file system"), "{told}");
}

/// KEP-3721: an init container says what the environment of another one is, which does not mount the volume.
#[test]
fn variables_come_from_a_file_of_an_init_container() {
    let c = Cluster::start(KNARR);
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: file}
spec:
  restartPolicy: Never
  volumes: [{name: env, emptyDir: {}}]
  initContainers:
  - name: write
    image: 127.0.0.1:5000/busybox:1.36
    command: [sh, -c, "mkdir /env/dir; echo \"A='one two' # comment\" >/env/dir/file"]
    volumeMounts: [{name: env, mountPath: /env}]
  containers:
  - name: read
    image: 127.0.0.1:5000/busybox:1.36
    command: [sh, -c, 'echo "<$A><$B>"; test ! -e /env && echo unmounted']
    env:
    - {name: A, valueFrom: {fileKeyRef: {volumeName: env, path: dir/file, key: A}}}
    - {name: B, valueFrom: {fileKeyRef: {volumeName: env, path: dir/file, key: B, optional: true}}}
"#;
    c.k_with("create -f -", pod);
    c.k("wait --for=jsonpath={.status.phase}=Succeeded pod/file --timeout=60s");
    assert_eq!(c.k("logs file -c read").trim_end(), "<one two><>\nunmounted");
    c.k_with("create -f -", &pod.replace("name: file}", "name: missing}").replace("key: A}", "key: C}"));
    c.k("wait --for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=CreateContainerConfigError pod/missing --timeout=60s");
    c.told("--field-selector involvedObject.name=missing", &["environment variable key \"C\" not found"]);
}

/// "support traffic shaping" of the page on network plugins: annotations limit a pod, and what is no rate is told.
#[test]
fn annotations_limit_bandwidth() {
    let c = Cluster::start(KNARR);
    let pod = |name: &str, annotations: &str, command: &str| {
        c.k_with(
            "apply -f -",
            &format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, annotations: {{{annotations}}}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: main, image: '127.0.0.1:5000/busybox:1.36', command: [sh, -c, '{command}']}}]}}}}"
            ),
        );
    };
    let serve = "head -c 2000000 /dev/zero > /file; exec httpd -f -p 80 -h /";
    pod("slow", "kubernetes.io/egress-bandwidth: 8M", serve);
    pod("fast", "", serve);
    pod("wrong", "kubernetes.io/ingress-bandwidth: fast", serve);
    c.k("wait --for=condition=Ready pod/slow pod/fast --timeout=60s");
    // By the clock of the container: how long kubectl takes does not count.
    let takes = |name: &str| {
        let ip = c.k(&format!("get pod {name} -o jsonpath={{.status.podIP}}"));
        let script =
            format!("read a x </proc/uptime; wget -q -O /dev/null http://{ip}/file && read b x </proc/uptime && echo $a $b");
        eventually(&format!("{name} serves"), || {
            let got = c.try_kubectl(&["exec", "fast", "--", "sh", "-c", &script]);
            let times: Vec<f64> = got.stdout.split_whitespace().filter_map(|time| time.parse().ok()).collect();
            (got.code == Some(0)).then(|| times[1] - times[0])
        })
    };
    // 2 MB of a megabyte a second, less what goes at once.
    let (slow, fast) = (takes("slow"), takes("fast"));
    assert!(slow > 1.5 && fast < slow, "2 MB take {slow} s from a pod with 8 Mbit/s and {fast} s from one without a limit");
    let wrong = "--field-selector involvedObject.name=wrong,reason=FailedCreatePodSandBox";
    c.told(wrong, &["kubernetes.io/ingress-bandwidth", "quantity"]);
}

/// KEP-5532: "The second phase is pod startup": init containers run again, in the sandbox and with the volumes that the pod has.
#[test]
fn an_end_by_a_rule_restarts_all_containers() {
    let c = Cluster::start(KNARR);
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: gang}
spec:
  restartPolicy: Never
  initContainers:
    - {name: first, image: "127.0.0.1:5000/busybox:1.36", command: [sh, -c, "echo round >> /shared/rounds"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
    - {name: worker, image: "127.0.0.1:5000/busybox:1.36", command: [sh, -c, "trap '' TERM; sleep 100000 & wait; wait"], volumeMounts: [{name: shared, mountPath: /shared}]}
    - name: watcher
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "until [ -e /shared/go ]; do sleep 0.1; done; rm /shared/go; exit 42"]
      volumeMounts: [{name: shared, mountPath: /shared}]
      restartPolicy: Never
      restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]
  volumes: [{name: shared, emptyDir: {}}]
"#;
    c.k_with("apply -f -", pod);
    c.k("wait --for=condition=Ready pod/gang --timeout=60s");
    let field = |path: &str| c.k(&format!("get pod gang -o jsonpath={{{path}}}"));
    let restarting = "{.status.conditions[?(@.type==\"AllContainersRestarting\")].status}";
    let condition = || c.kubectl(&["get", "pod", "gang", "-o", &format!("jsonpath={restarting}")]);
    assert_eq!(condition(), "False");
    let (ip, uid) = (field(".status.podIP"), field(".metadata.uid"));
    // Somebody looks before it begins: it may be over soon.
    let follow = c.background(&format!("get pod gang --watch -o jsonpath={restarting}{{\"\\n\"}}"));
    follow.line("False");
    c.kubectl(&["exec", "gang", "-c", "worker", "--", "touch", "/shared/go"]);
    // Its own TERM handling does not count: the grace period is that of a kill.
    follow.line("True");
    eventually("all have restarted", || {
        (field(".status.containerStatuses[*].restartCount") == "1 1"
            && field(".status.initContainerStatuses[0].restartCount") == "1")
            .then_some(())
    });
    c.k("wait --for=condition=Ready pod/gang --timeout=60s");
    eventually("it is over", || (condition() == "False").then_some(()));
    assert_eq!((field(".status.podIP"), field(".metadata.uid")), (ip, uid));
    assert_eq!(c.kubectl(&["exec", "gang", "-c", "worker", "--", "cat", "/shared/rounds"]), "round\nround\n");
    assert_eq!(field(".status.containerStatuses[1].lastState.terminated.exitCode"), "42");
}

/// A user of no name, memory of its own at a path, a probe of a path with spaces, a hook whose answer nobody looks at, and a sidecar that ends badly
/// when all is done.
#[test]
fn users_without_a_name_hooks_and_sidecars() {
    let c = Cluster::start(KNARR);
    let server = "{apiVersion: v1, kind: Pod, metadata: {name: server}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: main, image: '127.0.0.1:5000/busybox:1.36', command: [httpd, -f, -p, '8080', -h, /etc], readinessProbe: {httpGet: {path: '/host%6eame?a b', port: 8080}, periodSeconds: 1}}]}}";
    c.k_with("apply -f -", server);
    c.k("wait --for=condition=Ready pod/server --timeout=60s");
    let ip = c.k("get pod server -o jsonpath={.status.podIP}");
    let pod = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: app}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 30
  securityContext: {{runAsUser: 12345}}
  initContainers:
    - {{name: sidecar, restartPolicy: Always, image: "127.0.0.1:5000/busybox:1.36", command: [sh, -c, "trap 'exit 7' TERM; while :; do sleep 0.1; done"]}}
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      env: [{{name: Z, value: "1"}}, {{name: A, value: "2"}}]
      command: [sh, -c, "xargs -0 -n 1 echo < /proc/1/environ | grep -E '^(Z|A|HOME)='; grep ' /memory ' /proc/mounts | cut -d ' ' -f 4; until [ -e /memory/go ]; do sleep 0.1; done"]
      lifecycle: {{postStart: {{httpGet: {{host: "{ip}", port: 8080, path: /nothing-of-this-name}}}}}}
      volumeMounts: [{{name: memory, mountPath: /memory}}]
  volumes: [{{name: memory, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}]
"#
    );
    c.k_with("apply -f -", &pod);
    c.k("wait --for=condition=Ready pod/app --timeout=60s");
    // Kernels before 6.3 know no `noswap`.
    eventually("what the container finds", || {
        let logs = c.k("logs app -c main").replace(",noswap", "");
        (logs == "Z=1\nA=2\nHOME=/\nrw,relatime,size=1024k\n").then_some(())
    });
    c.kubectl(&["exec", "app", "-c", "main", "--", "touch", "/memory/go"]);
    c.k("wait --for=jsonpath={.status.phase}=Succeeded pod/app --timeout=60s");
    let shown = c.k("get pod app --no-headers");
    assert!(shown.contains("Completed"), "{shown}");
    c.k("wait --for=jsonpath={.status.initContainerStatuses[0].state.terminated.exitCode}=7 pod/app --timeout=60s");
}
