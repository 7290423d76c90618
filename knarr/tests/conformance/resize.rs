//! Pods that are given other resources while they run (KEP-1287).

use http::Method;
use serde_json::{Value, json};
use testing::{Cluster, eventually};

use super::{BUSYBOX, KNARR, core, create};

/// Requests and limits of CPU and memory; an empty text is none.
type Amounts = [&'static str; 4];

fn resources([cpu, memory, cpu_limit, memory_limit]: Amounts) -> Value {
    let list = |cpu: &str, memory: &str| {
        let amounts = [("cpu", cpu), ("memory", memory)].into_iter().filter(|(_, amount)| !amount.is_empty());
        Value::Object(amounts.map(|(name, amount)| (name.to_owned(), json!(amount))).collect())
    };
    let lists = [("requests", list(cpu, memory)), ("limits", list(cpu_limit, memory_limit))];
    let lists = lists.into_iter().filter(|(_, list)| !list.as_object().unwrap().is_empty());
    Value::Object(lists.map(|(name, list)| (name.to_owned(), list)).collect())
}

fn container(name: &str, amounts: Amounts, memory_policy: &str) -> Value {
    json!({"name": name, "image": BUSYBOX, "command": ["sleep", "infinity"], "resources": resources(amounts),
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}, {"resourceName": "memory", "restartPolicy": memory_policy}]})
}

/// A pod of these containers, running; memory is resized in place.
fn start(c: &Cluster, name: &str, containers: &[Amounts]) {
    let containers: Vec<_> = containers
        .iter()
        .enumerate()
        .map(|(index, amounts)| container(&format!("c{}", index + 1), *amounts, "NotRequired"))
        .collect();
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": containers});
    create(c, &core("pods"), &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}));
    eventually("the pod runs", || {
        let pod = c.api().object(&format!("{}/{name}", core("pods")));
        (pod["status"]["phase"] == "Running").then_some(())
    });
}

/// Resizes the pod and waits until that has been done.
fn resize(c: &Cluster, name: &str, containers: &[Amounts]) -> Value {
    let path = format!("{}/{name}", core("pods"));
    let containers: Vec<_> = containers
        .iter()
        .enumerate()
        .map(|(index, amounts)| json!({"name": format!("c{}", index + 1), "resources": resources(*amounts)}))
        .collect();
    let patch = json!({"spec": {"containers": containers}}).to_string();
    let answer = c.api().send(Method::PATCH, &format!("{path}/resize"), "application/strategic-merge-patch+json", patch);
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    settled(c, &path)
}

/// Waits until the pod has what its specification asks for.
fn settled(c: &Cluster, path: &str) -> Value {
    eventually("the pod is resized", || {
        let pod = c.api().object(path);
        let of = |list: &Value| -> Vec<Value> { list.as_array().unwrap().iter().map(|one| one["resources"].clone()).collect() };
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        let resizing = conditions.iter().any(|condition| condition["type"].as_str().unwrap().starts_with("PodResize"));
        let observed = pod["status"]["observedGeneration"] == pod["metadata"]["generation"];
        let same = of(&pod["spec"]["containers"]) == of(&pod["status"]["containerStatuses"]);
        (observed && same && !resizing).then_some(pod)
    })
}

/// What the container's own cgroup says: CPU quota in microseconds of 100 ms, memory in MiB; -1 is no limit.
fn limits(c: &Cluster, name: &str, container: &str) -> (i64, i64) {
    let script = "cd /sys/fs/cgroup; cat cpu.max memory.max 2>/dev/null || cat cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes";
    let text = c.kubectl(&["exec", name, "-c", container, "--", "sh", "-c", script]);
    let numbers: Vec<i64> = text.split_whitespace().map(|word| word.parse().unwrap_or(-1)).collect();
    let memory = *numbers.last().unwrap();
    (numbers[0], if (0..1 << 50).contains(&memory) { memory >> 20 } else { -1 })
}

#[track_caller]
fn check(c: &Cluster, name: &str, old: &[Amounts], new: &[Amounts], expected: &[(i64, i64)]) {
    start(c, name, old);
    let pod = resize(c, name, new);
    for (index, expected) in expected.iter().enumerate() {
        let status = &pod["status"]["containerStatuses"][index];
        assert_eq!((&status["restartCount"], limits(c, name, &format!("c{}", index + 1))), (&json!(0), *expected), "{status}");
        assert_eq!(status["allocatedResources"], pod["spec"]["containers"][index]["resources"]["requests"], "{status}");
    }
}

const fn guaranteed(cpu: &'static str, memory: &'static str) -> Amounts {
    [cpu, memory, cpu, memory]
}

/// Conformance: [sig-node] Pod InPlace Resize Container burstable pods - extended 6 containers - various operations performed (including adding limits and requests) [MinimumKubeletVersion:1.34] [Conformance]
/// Conformance: [sig-node] Pod InPlace Resize Container burstable pods - extended resize with equivalents [MinimumKubeletVersion:1.34] [Conformance]
/// Conformance: [sig-node] Pod InPlace Resize Container guaranteed pods with multiple containers 3 containers - increase cpu & mem on c1, c2, decrease cpu & mem on c3 - net increase [MinimumKubeletVersion:1.34] [Conformance]
/// Conformance: [sig-node] Pod InPlace Resize Container guaranteed pods with multiple containers 3 containers - increase cpu & mem on c1, decrease cpu & mem on c2, c3 - net decrease [MinimumKubeletVersion:1.34] [Conformance]
/// Conformance: [sig-node] Pod InPlace Resize Container guaranteed pods with multiple containers 3 containers - increase: CPU (c1,c3), memory (c2, c3) ; decrease: CPU (c2) [MinimumKubeletVersion:1.34] [Conformance]
/// Conformance: [sig-node] Pod InPlace Resize Container resize pod via the replace endpoint [MinimumKubeletVersion:1.34] [Conformance]
#[test]
fn pods_are_resized_while_they_run() {
    let c = Cluster::start(KNARR);
    let three = [guaranteed("20m", "32Mi"); 3];
    let (more, less) = (guaranteed("40m", "48Mi"), guaranteed("10m", "16Mi"));
    check(&c, "grows", &three, &[more, more, less], &[(4000, 48), (4000, 48), (1000, 16)]);
    check(&c, "shrinks", &three, &[more, less, less], &[(4000, 48), (1000, 16), (1000, 16)]);
    let mixed = [guaranteed("40m", "32Mi"), guaranteed("10m", "48Mi"), guaranteed("40m", "48Mi")];
    check(&c, "mixed", &three, &mixed, &[(4000, 32), (1000, 48), (4000, 48)]);

    let old = [
        ["20m", "32Mi", "30m", "48Mi"],
        ["20m", "", "", ""],
        ["", "32Mi", "", ""],
        ["", "", "", ""],
        ["20m", "32Mi", "", ""],
        ["20m", "32Mi", "40m", "64Mi"],
    ];
    let new = [
        ["30m", "40Mi", "40m", "64Mi"],
        ["10m", "", "20m", ""],
        ["", "16Mi", "", "32Mi"],
        ["20m", "16Mi", "", ""],
        ["20m", "32Mi", "40m", "48Mi"],
        ["10m", "16Mi", "20m", "32Mi"],
    ];
    let expected = [(4000, 64), (2000, -1), (-1, 32), (-1, -1), (4000, 48), (2000, 32)];
    check(&c, "burstable", &old, &new, &expected);
    check(&c, "equivalent", &[["20m", "32Mi", "1", "64Mi"]], &[["0.02", "32768Ki", "1000m", "65536Ki"]], &[(100_000, 64)]);

    // The whole pod by PUT, and what GET of the sub-resource answers.
    start(&c, "replaced", &[guaranteed("20m", "32Mi")]);
    let path = format!("{}/replaced", core("pods"));
    // Whoever writes the whole object tries again when the kubelet has written meanwhile.
    let answer = eventually("the pod is replaced", || {
        let mut pod = c.api().object(&path);
        pod["spec"]["containers"][0]["resources"] = resources(guaranteed("30m", "48Mi"));
        let answer = c.api().send(Method::PUT, &format!("{path}/resize"), "application/json", pod.to_string());
        assert!([200, 409].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then(|| answer.json())
    });
    assert_eq!(answer["spec"]["containers"][0]["resources"], resources(guaranteed("30m", "48Mi")));
    assert_eq!(c.api().object(&format!("{path}/resize"))["spec"], c.api().object(&path)["spec"]);
    settled(&c, &path);
    assert_eq!(limits(&c, "replaced", "c1"), (3000, 48));
}

/// KEP-1287: "RestartContainer: restart the container to apply new resource values"
/// KEP-1287: "Deferred - the proposed resize is feasible in theory (it fits on this node) but is not possible right now"
#[test]
fn a_resize_may_restart_a_container_or_have_to_wait() {
    let mut c = Cluster::start(KNARR);
    let containers = [container("c1", guaranteed("20m", "32Mi"), "RestartContainer")];
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": containers});
    create(&c, &core("pods"), &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "restarts"}, "spec": spec}));
    let path = format!("{}/restarts", core("pods"));
    eventually("the pod runs", || (c.api().object(&path)["status"]["phase"] == "Running").then_some(()));
    let pod = resize(&c, "restarts", &[guaranteed("20m", "48Mi")]);
    assert_eq!((&pod["status"]["containerStatuses"][0]["restartCount"], limits(&c, "restarts", "c1")), (&json!(1), (2000, 48)));

    let node = c.api().object("/api/v1/nodes/n1");
    let cpus: u64 = node["status"]["allocatable"]["cpu"].as_str().unwrap().parse().unwrap();
    let condition = |c: &Cluster, reason: &str| {
        eventually("the pod says why it is not resized", || {
            let pod = c.api().object(&path);
            let conditions = pod["status"]["conditions"].as_array()?;
            conditions.iter().find(|condition| condition["type"] == "PodResizePending" && condition["reason"] == reason)?;
            Some(pod)
        })
    };
    let patch = |c: &Cluster, cpu: String| {
        let amounts = json!({"cpu": cpu, "memory": "48Mi"});
        let change = json!({"spec": {"containers": [{"name": "c1", "resources": {"requests": amounts, "limits": amounts}}]}});
        let kind = "application/strategic-merge-patch+json";
        c.api().send(Method::PATCH, &format!("{path}/resize"), kind, change.to_string())
    };
    let refused = patch(&c, format!("{}", cpus + 1));
    assert_eq!(refused.status, 403, "PodResizeValidator knows what the node can give");
    let mut other = super::pod("other", "sleep 1000", &json!({}), &json!({}));
    other["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": format!("{}m", cpus * 1000 - 500)}});
    create(&c, &core("pods"), &other);
    let other = format!("{}/other", core("pods"));
    eventually("the other pod runs", || (c.api().object(&other)["status"]["phase"] == "Running").then_some(()));
    assert_eq!(patch(&c, "900m".to_owned()).status, 200);
    let pod = condition(&c, "Deferred");
    assert_eq!(pod["status"]["containerStatuses"][0]["allocatedResources"]["cpu"], "20m");
    // A server that starts again knows what the pod has, and gives it the rest when there is room.
    c.kill_server();
    c.start_server();
    condition(&c, "Deferred");
    assert_eq!(limits(&c, "restarts", "c1"), (2000, 48));
    super::delete(&c, &other);
    settled(&c, &path);
    assert_eq!(limits(&c, "restarts", "c1"), (90_000, 48));
}
