//! A node that pods want more of than there is.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const MIB: u64 = 1 << 20;

/// What must be reserved so that `mebibytes` of memory are left for pods.
fn all_but(mebibytes: u64) -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let total = line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024;
    format!("--system-reserved=memory={}", total - mebibytes * MIB)
}

fn on_machine(c: &Cluster, script: &str) -> String {
    let output = c.machine().command(Path::new("sh")).args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A pod whose container runs a script; `more` is further JSON of its container.
fn pod(name: &str, script: &str, more: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "labels": {{"run": "{}"}}}}, "spec": {{
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "volumes": [{{"name": "memory", "emptyDir": {{"medium": "Memory"}}}}, {{"name": "disk", "emptyDir": {{}}}}],
            "containers": [{{"name": "main", "image": "127.0.0.1:5000/busybox:1.36", "command": ["sh", "-c", "{script}"],
            "volumeMounts": [{{"name": "memory", "mountPath": "/memory"}}, {{"name": "disk", "mountPath": "/disk"}}]{more}}}]}}}}"#,
        name.split('-').next().unwrap()
    )
}

fn score(pid: &str) -> i32 {
    std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap()
}

/// "Enforcing Node Allocatable": the cgroup of all pods has no more than the node does not reserve, so that it is among pods that the kernel
/// kills. (docs, Reserve Compute Resources for System Daemons)
#[test]
fn memory_bombs_end_each_other_and_nothing_else() {
    let mut c = Cluster::prepare(KNARR);
    c.start_server_with(&[&all_but(300), "--kube-reserved=memory=0", "--eviction-hard=pid.available<1%"]);
    let limits = "cat /sys/fs/cgroup/knarr*/kubepods/memory.max /sys/fs/cgroup/memory/knarr*/kubepods/memory.limit_in_bytes 2>/dev/null || true";
    assert_eq!(on_machine(&c, limits).trim(), (300 * MIB).to_string());
    let limited = r#", "resources": {"limits": {"cpu": "100m", "memory": "20Mi"}}"#;
    c.k_with("apply -f -", &pod("calm", "sleep 1000", limited));
    c.k("wait --for=condition=Ready pod/calm --timeout=60s");

    // The kernel takes containers before their shim, and that before the server.
    let parents =
        "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q ' shim /' && echo ${p#/proc/}; done; true";
    let shims = on_machine(&c, parents);
    let of = |pid: &str| on_machine(&c, &format!("cat /proc/{pid}/oom_score_adj")).trim().parse::<i32>().unwrap();
    let (server, shim) = (score(&c.server_pid().to_string()), of(shims.lines().next().unwrap()));
    let container: i32 = c.k("exec calm -- cat /proc/1/oom_score_adj").trim().parse().unwrap();
    let command: i32 = c.k("exec calm -- cat /proc/self/oom_score_adj").trim().parse().unwrap();
    assert!(server < shim && shim < container && container == command, "{server} {shim} {container} {command}");

    let pid = c.server_pid();
    for number in 0..3 {
        c.k_with("apply -f -", &pod(&format!("bomb-{number}"), "tail /dev/zero", ""));
    }
    for number in 0..3 {
        c.k(&format!("wait --for=jsonpath={{.status.phase}}=Failed pod/bomb-{number} --timeout=120s"));
    }
    let reasons = c.k("get pods -l run=bomb -o jsonpath={.items[*].status.containerStatuses[0].state.terminated.reason}");
    assert_eq!(reasons, "OOMKilled OOMKilled OOMKilled");
    assert_eq!(c.k("get pod calm -o jsonpath={.status.phase}/{.status.containerStatuses[0].restartCount}"), "Running/0");
    assert!(c.server_pid() == pid && Path::new(&format!("/proc/{pid}")).exists(), "the server runs on");
}

/// "The kubelet ... evicts pods when ... memory.available ... crosses a threshold", and the node says so (docs, Node-pressure Eviction).
#[test]
fn pods_go_when_memory_is_short() {
    let mut c = Cluster::prepare(KNARR);
    let hard = "--eviction-hard=memory.available<150Mi";
    c.start_server_with(&[&all_but(500), "--kube-reserved=memory=0", hard, "--eviction-pressure-transition-period=1s"]);
    let evicted = |name: &str| {
        c.k(&format!("wait --for=jsonpath={{.status.phase}}=Failed pod/{name} --timeout=90s"));
        c.k(&format!("get pod {name} -o jsonpath={{.status.reason}}:{{.status.message}}"))
    };
    c.k_with("apply -f -", &pod("calm", "sleep 1000", ""));
    c.k("wait --for=condition=Ready pod/calm --timeout=60s");

    c.k_with("apply -f -", &pod("hog", "dd if=/dev/zero of=/memory/file bs=1M count=380; sleep 1000", ""));
    let message = evicted("hog");
    assert!(
        message.starts_with("Evicted:The node was low on resource: memory. Threshold quantity: 150Mi, available: "),
        "{message}"
    );
    assert!(message.contains("Container main was using"), "{message}");
    eventually("the pressure is over", || {
        let status = c.k("get node -o jsonpath={.items[0].status.conditions[?(@.type==\"MemoryPressure\")].status}");
        (status == "False").then_some(())
    });

    c.told("", &["EvictionThresholdMet", "Evicted"]);
    let of_event = "get event --field-selector reason=Evicted -o jsonpath={.items[0].metadata.annotations.starved_resource}";
    assert_eq!(c.k(of_event), "memory");
    assert_eq!(c.k("get pod calm -o jsonpath={.status.phase}"), "Running");
}

/// "nodefs.available ... the kubelet ... evicts pods" that have more on the disk than they asked for (docs, Node-pressure Eviction).
#[test]
fn who_fills_the_disk_goes_and_others_stay() {
    let mut c = Cluster::prepare(KNARR);
    let data = c.data_dir();
    // What is written to it counts as memory of who writes: nothing but the disk may be short.
    on_machine(&c, &format!("mkdir {0} && mount -t tmpfs -o size=1000m none {0}", data.display()));
    c.start_server_with(&["--eviction-hard=nodefs.available<300Mi"]);
    c.k_with("apply -f -", &pod("calm", "sleep 1000", ""));
    c.k_with("apply -f -", &pod("writer", "dd if=/dev/zero of=/disk/file bs=1M count=750; sleep 1000", ""));
    c.k("wait --for=jsonpath={.status.phase}=Failed pod/writer --timeout=90s");
    let message = c.k("get pod writer -o jsonpath={.status.reason}:{.status.message}");
    let low = "Evicted:The node was low on resource: ephemeral-storage. Threshold quantity: 300Mi, available: ";
    assert!(message.starts_with(low), "{message}");
    assert_eq!(c.k("get pod calm -o jsonpath={.status.phase}"), "Running");
    eventually("the node says so", || {
        let status = c.k("get node -o jsonpath={.items[0].status.conditions[?(@.type==\"DiskPressure\")].status}");
        (status == "True").then_some(())
    });
}

/// "The kubelet deletes images until disk usage reaches the LowThresholdPercent value", and none that a container has (docs, Garbage Collection).
#[test]
fn images_that_nobody_uses_go_from_a_full_disk() {
    let mut c = Cluster::prepare(KNARR);
    let data = c.data_dir();
    on_machine(&c, &format!("mkdir {0} && mount -t tmpfs -o size=600m none {0}", data.display()));
    c.start_server();
    c.k_with("apply -f -", &pod("calm", "sleep 1000", ""));
    c.k("wait --for=condition=Ready pod/calm --timeout=60s");
    let images = |c: &Cluster| c.k("get node -o jsonpath={.items[0].status.images[*].names[*]}");
    c.k("run other --image=127.0.0.1:5000/redis:7 --restart=Never --command -- true");
    eventually("the other image is here", || images(&c).contains("redis").then_some(()));
    c.k("delete pod other --wait --grace-period=1");
    c.stop_server();
    on_machine(&c, &format!("dd if=/dev/zero of={}/filler bs=1M count=200 status=none", data.display()));
    let configured = ["--image-gc-high-threshold=30", "--image-gc-low-threshold=1", "--eviction-hard=nodefs.available<1Mi"];
    c.start_server_with(&configured);
    eventually("the image that nobody uses is gone", || (!images(&c).contains("redis")).then_some(()));
    assert!(images(&c).contains("busybox"), "a container has it: {}", images(&c));
    let node = c.k("get node -o jsonpath={.items[0].metadata.name}");
    // There is nothing else that could go: the node says so.
    c.told("", &["FreeDiskSpaceFailed"]);
    let config = c.k(&format!("get --raw /api/v1/nodes/{node}/proxy/configz"));
    assert!(config.contains(r#""imageGCHighThresholdPercent":30"#), "{config}");
    for place in ["", &format!("/api/v1/nodes/{node}/proxy")] {
        let flags = c.k(&format!("get --raw {place}/flagz"));
        assert!(flags.contains("\nimage-gc-high-threshold=30\n"), "{flags}");
    }
}
