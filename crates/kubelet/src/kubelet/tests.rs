mod certificates;
mod drain;
mod links;
mod room;
mod stuck;
mod told;
mod volumes;

use crate::testing::Cell;
use client::Api;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_node_registers_and_leases() {
    let cell = Cell::new();
    cell.start().await;
    let node = cell.fake.all::<Node>().remove(0);
    let status = node.status.unwrap();
    assert_eq!(node.metadata.labels.unwrap()["kubernetes.io/hostname"], "n1");
    assert_eq!(status.conditions.unwrap().last().unwrap().reason.as_deref(), Some("KubeletReady"));
    assert_eq!(status.node_info.unwrap().kubelet_version, "v1.36.0");
    assert_eq!(status.features.unwrap().supplemental_groups_policy, Some(true));
    cell.fake.until::<Lease>(|leases| leases.len() == 1).await;
}

#[tokio::test]
async fn a_pod_runs_and_is_deleted() {
    let cell = Cell::new();
    cell.start().await;
    let quits = json!({"name": "a", "lifecycle": {"stopSignal": "SIGQUIT"}});
    cell.put("p", json!({"containers": [quits, {"name": "b"}], "os": {"name": "linux"}, "terminationGracePeriodSeconds": 3}));
    let status = cell.ready("p").await;
    assert_eq!(
        (status["phase"].as_str(), status["podIP"].as_str(), status["qosClass"].as_str()),
        (Some("Running"), Some("10.0.0.7"), Some("BestEffort"))
    );
    assert_eq!(status["containerStatuses"][0]["started"], true);
    // KEP-3619: [sig-node] SupplementalGroupsPolicy, "it should reply with the group ids".
    let user = json!({"uid": 1000, "gid": 7, "supplementalGroups": [7, 9]});
    assert_eq!(status["containerStatuses"][0]["user"]["linux"], user);
    // KEP-4960: "Status should have signal is defined in the Spec".
    let signals =
        ["0", "1"].map(|index| status.pointer(&format!("/containerStatuses/{index}/stopSignal")).and_then(Value::as_str));
    assert_eq!(signals, [Some("SIGQUIT"), None]);
    let directory = cell.directory.path().join("kubelet/pods/uid-p");
    assert!(directory.join("etc-hosts").exists());

    // As the API does: the object stays until its containers have ended.
    let deletion =
        json!({"deletionTimestamp": "2026-01-01T00:00:09Z", "deletionGracePeriodSeconds": 3, "finalizers": ["example.com/held"]});
    let patch = async |metadata: Value| {
        cell.pods().patch("p", &PatchParams::default(), &Patch::Merge(json!({"metadata": metadata}))).await.unwrap();
    };
    patch(deletion).await;
    cell.runtime.until(|world| world.calls.iter().any(|call| call == "stop sandbox")).await;
    patch(json!({"finalizers": null})).await;
    let gone = cell.fake.until::<Pod>(|pods| pods.is_empty());
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the pod stays");
    cell.runtime.until(|world| world.sandboxes.is_empty()).await;
    let calls = cell.runtime.world.lock().calls.clone();
    assert!(calls.contains(&"stop a 3s".to_owned()) && calls.contains(&"stop b 3s".to_owned()), "{calls:?}");
}

#[tokio::test]
async fn a_pod_that_ends_has_its_phase_and_last_words() {
    let cell = Cell::new();
    cell.start().await;
    cell.put("p", json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    cell.ready("p").await;
    let log = cell.directory.path().join("kubelet/pods/uid-p/containers/a/0");
    std::fs::write(log, "so long").unwrap();
    cell.runtime.end("a", 4);
    let status = cell.until("p", |status| status["phase"] == "Failed").await;
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((ended["exitCode"].as_i64(), ended["message"].as_str()), (Some(4), Some("so long")));
    cell.runtime.until(|world| world.calls.contains(&"stop sandbox".to_owned())).await;
}

#[tokio::test]
async fn a_container_restarts_and_then_backs_off() {
    let cell = Cell::new();
    cell.start().await;
    cell.put("p", json!({"restartPolicy": "Always", "containers": [{"name": "a", "command": ["exit", "1"]}]}));
    let waits = |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let status = cell.until("p", waits).await;
    assert_eq!(status["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    let told = |events: &[Event]| events.iter().any(|event| event.reason.as_deref() == Some("BackOff"));
    tokio::time::timeout(Duration::from_secs(60), cell.fake.until::<Event>(told)).await.unwrap();
}

#[tokio::test]
async fn a_missing_config_map_holds_a_pod_until_it_comes() {
    let cell = Cell::new();
    cell.start().await;
    cell.put("p", json!({"containers": [{"name": "a", "envFrom": [{"configMapRef": {"name": "m"}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}], "volumes": [{"name": "v", "configMap": {"name": "m", "optional": true}}]}));
    let reason = |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().map(str::to_owned);
    let status = cell.until("p", |status| reason(status).as_deref() == Some("CreateContainerConfigError")).await;
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"m\" not found");
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "m", "namespace": "ns"}, "data": {"K": "v1"}})).unwrap();
    cell.fake.put(&map);
    cell.ready("p").await;
    let env = cell.runtime.world.lock().configs.values().next().unwrap().env.clone();
    assert_eq!(env, [("K".to_owned(), "v1".to_owned())]);

    let volume = cell.directory.path().join("kubelet/pods/uid-p/volumes/kubernetes.io~configmap/v");
    let mut watch = base::directory::Watch::new(&volume).unwrap();
    let change = Patch::Merge(json!({"data": {"K": "v2"}}));
    let maps = Api::<ConfigMap>::namespaced(cell.fake.client(), "ns");
    maps.patch("m", &PatchParams::default(), &change).await.unwrap();
    let updated = async {
        while std::fs::read_to_string(volume.join("K")).ok().as_deref() != Some("v2") {
            watch.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), updated).await.expect("the file is not updated");
}

#[tokio::test]
async fn a_restarted_kubelet_adopts_and_removes_orphans() {
    let mut cell = Cell::new();
    cell.start().await;
    cell.put("p", json!({"containers": [{"name": "a"}]}));
    cell.put("q", json!({"containers": [{"name": "b"}]}));
    cell.ready("p").await;
    cell.ready("q").await;
    cell.stop().await;
    cell.pods().delete("q", &DeleteParams { grace_period_seconds: Some(0), ..Default::default() }).await.unwrap();
    let calls = std::mem::take(&mut cell.runtime.world.lock().calls);
    assert!(calls.contains(&"start a".to_owned()));

    // Of another pod only the logs were left, and the record of them. Those without a record are another kubelet's.
    let of = |name: &str| cell.directory.path().join(format!("logs/ns_{name}_uid-{name}"));
    let (logs, others) = (of("r"), of("s"));
    let directory = cell.directory.path().join("kubelet/pods/uid-r");
    for path in [&logs, &others, &of("p"), &of("q"), &directory] {
        std::fs::create_dir_all(path).unwrap();
    }
    std::os::unix::fs::symlink(&logs, directory.join("logs")).unwrap();
    let mut watch = base::directory::Watch::new(&cell.directory.path().join("logs")).unwrap();

    cell.start().await;
    cell.runtime.until(|world| world.sandboxes.len() == 1).await;
    let removed = async {
        while logs.exists() || of("q").exists() {
            watch.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), removed).await.expect("the logs are not removed");
    assert!(others.exists() && of("p").exists());
    cell.runtime.end("a", 1);
    cell.until("p", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    let calls = cell.runtime.world.lock().calls.clone();
    assert_eq!(calls.iter().filter(|call| call.starts_with("start")).count(), 1, "{calls:?}");
}

#[tokio::test]
async fn probes_decide() {
    let cell = Cell::new();
    cell.runtime.world.lock().commands.insert("sick".to_owned(), 1);
    cell.start().await;
    let probe = |command: &str| json!({"exec": {"command": [command]}, "periodSeconds": 1, "failureThreshold": 1});
    cell.put("p", json!({"containers": [{"name": "a", "startupProbe": probe("up"), "readinessProbe": probe("well")}]}));
    cell.put("q", json!({"containers": [{"name": "b", "livenessProbe": probe("sick")}]}));
    cell.ready("p").await;
    cell.until("q", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    let calls = cell.runtime.world.lock().calls.clone();
    let at = |call: &str| calls.iter().position(|known| known == call).unwrap();
    assert!(at("exec up") < at("exec well"));
}

#[tokio::test]
async fn pulls_fail_and_pods_are_refused() {
    let cell = Cell::new();
    cell.start().await;
    cell.put("p", json!({"containers": [{"name": "a", "image": "broken"}]}));
    let status = cell.until("p", |status| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull").await;
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["message"], "manifest unknown");
    cell.put("q", json!({"nodeSelector": {"no": "where"}, "containers": [{"name": "b"}]}));
    let status = cell.until("q", |status| status["phase"] == "Failed").await;
    assert_eq!(status["reason"], "NodeAffinity");
    assert!(!cell.runtime.world.lock().calls.contains(&"create b".to_owned()));
}

/// The period is an hour: only probes between its own can find the container ready.
#[tokio::test]
async fn a_container_is_ready_as_soon_as_it_answers() {
    let cell = Cell::new();
    cell.start().await;
    let slow = json!({"exec": {"command": ["check"]}, "periodSeconds": 3600, "failureThreshold": 2, "successThreshold": 1});
    cell.runtime.world.lock().commands.insert("check".to_owned(), 1);
    cell.put("p", json!({"containers": [{"name": "a", "startupProbe": slow, "readinessProbe": slow}]}));
    let asked = |times: usize| {
        move |world: &crate::testing::World| world.calls.iter().filter(|call| *call == "exec check").count() >= times
    };
    cell.runtime.until(asked(3)).await;
    cell.runtime.world.lock().commands.insert("check".to_owned(), 0);
    cell.ready("p").await;
    let calls = cell.runtime.world.lock().calls.clone();
    assert!(!calls.iter().any(|call| call.starts_with("stop a")), "extra failures are below every threshold: {calls:?}");
}

/// KEP-1287: the kubelet gives running containers their new resources, restarts those that ask for it, and says what it cannot give.
#[tokio::test]
async fn a_pod_is_resized_while_it_runs() {
    let cell = Cell::new();
    cell.start().await;
    let resources =
        |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}});
    let restart = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    cell.put(
        "p",
        json!({"restartPolicy": "Always", "containers": [
            {"name": "a", "resources": resources("10m", "16Mi")},
            {"name": "b", "resources": resources("10m", "16Mi"), "resizePolicy": restart}]}),
    );
    cell.ready("p").await;
    let resize = async |generation: i64, resources: [Value; 2]| {
        let [a, b] = resources;
        let containers = json!([{"name": "a", "resources": a}, {"name": "b", "resources": b}]);
        let patch = json!({"metadata": {"generation": generation}, "spec": {"containers": containers}});
        cell.pods().patch("p", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    };
    let shown = |status: &Value, resources: [Value; 2]| {
        let of = |index: usize| status["containerStatuses"][index]["resources"].clone();
        let resizing = |condition: &Value| condition["type"].as_str().is_some_and(|name| name.starts_with("PodResize"));
        [of(0), of(1)] == resources && !status["conditions"].as_array().unwrap().iter().any(resizing)
    };
    let larger = || [resources("20m", "32Mi"), resources("20m", "16Mi")];
    resize(2, larger()).await;
    let status = cell.until("p", |status| shown(status, larger())).await;
    assert_eq!(status["containerStatuses"][0]["allocatedResources"], json!({"cpu": "20m", "memory": "32Mi"}));
    assert_eq!(status["containerStatuses"][1]["restartCount"], 0);
    let calls = cell.runtime.world.lock().calls.clone();
    let updates: Vec<_> = calls.iter().filter(|call| call.starts_with("update")).map(String::as_str).collect();
    assert_eq!(updates, ["update sandbox 50331648", "update a 33554432", "update b 16777216"]);

    let restarted = || [resources("20m", "16Mi"), resources("20m", "32Mi")];
    resize(3, restarted()).await;
    let status = cell.until("p", |status| shown(status, restarted())).await;
    assert_eq!(
        (&status["containerStatuses"][0]["restartCount"], &status["containerStatuses"][1]["restartCount"]),
        (&json!(0), &json!(1))
    );

    resize(4, [resources("10000", "16Mi"), resources("20m", "32Mi")]).await;
    let pending = |status: &Value| {
        let conditions = status["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == "PodResizePending").cloned()
    };
    let status = cell.until("p", |status| pending(status).is_some()).await;
    let condition = pending(&status).unwrap();
    assert_eq!((&condition["reason"], &condition["observedGeneration"]), (&json!("Infeasible"), &json!(4)));
    assert_eq!(status["containerStatuses"][0]["allocatedResources"]["cpu"], "20m");
    resize(5, restarted()).await;
    cell.until("p", |status| shown(status, restarted())).await;
    let told = |reason: &'static str| move |events: &[Event]| events.iter().any(|event| event.reason.as_deref() == Some(reason));
    for reason in ["ResizeStarted", "ResizeCompleted", "ResizeInfeasible"] {
        tokio::time::timeout(Duration::from_secs(60), cell.fake.until::<Event>(told(reason))).await.expect(reason);
    }
}

/// KEP-361: "Kubelet ... if a container's or a pod's usage exceeds the limit, the pod is evicted"
#[tokio::test]
async fn a_pod_that_writes_too_much_is_evicted() {
    let cell = Cell::new();
    cell.runtime.world.lock().written.insert("a".to_owned(), 2 << 20);
    cell.start().await;
    cell.put(
        "p",
        json!({"restartPolicy": "Never", "containers": [{"name": "a", "resources": {"limits": {"ephemeral-storage": "1Mi"}}}]}),
    );
    cell.put(
        "q",
        json!({"restartPolicy": "Never", "containers": [{"name": "b", "resources": {"limits": {"ephemeral-storage": "1Mi"}}}]}),
    );
    let status = cell.until("p", |status| status["phase"] == "Failed").await;
    assert_eq!(status["reason"], "Evicted");
    assert_eq!(status["message"], "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ");
    // The pod is at fault, not the node: a Job counts it as a failure (KEP-3329).
    assert_eq!(crate::testing::condition(&status, "DisruptionTarget"), "");
    cell.ready("q").await;
}

#[tokio::test]
async fn pods_together_have_what_the_node_does_not_reserve() {
    let cell = Cell::new();
    cell.start().await;
    let status = cell.fake.all::<Node>().remove(0).status.unwrap();
    let bytes = |list: Option<crate::units::ResourceList>| crate::units::whole_of(list.as_ref(), "memory");
    let (capacity, allocatable) = (bytes(status.capacity), bytes(status.allocatable));
    let limit = |call: &String| call.strip_prefix("limit kubepods ")?.split_once(' ')?.1.parse::<i64>().ok();
    cell.runtime.until(|world| world.calls.iter().any(|call| limit(call).is_some())).await;
    let limit = cell.runtime.world.lock().calls.iter().find_map(limit).unwrap();
    let reserved = capacity - limit;
    assert!((64 << 20..=256 << 20).contains(&reserved), "{reserved}");
    // Eviction comes before the limit.
    assert_eq!((limit - allocatable) >> 20, 100);
}

/// Upstream's order: of pods that have more than they asked for, the one with the lowest priority goes first.
#[tokio::test]
async fn a_pod_goes_when_memory_is_short_and_no_new_one_comes_in() {
    let mut cell = Cell::new();
    cell.eviction.period = Duration::from_millis(20);
    let total = crate::node::machine::Machine::read(cell.directory.path()).memory_bytes;
    cell.start().await;
    cell.put("low", json!({"priority": 1, "containers": [{"name": "a"}]}));
    cell.put("high", json!({"priority": 2, "containers": [{"name": "b"}]}));
    let critical = 2_000_001_000;
    cell.put("critical", json!({"priority": critical, "containers": [{"name": "c"}]}));
    for name in ["low", "high", "critical"] {
        cell.ready(name).await;
    }
    // Three are too much for the node, two are not.
    cell.runtime.world.lock().usage.memory.working_set = u64::try_from(total).unwrap() * 4 / 10;
    let status = cell.until("low", |status| status["phase"] == "Failed").await;
    assert_eq!(status["reason"], "Evicted");
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with("The node was low on resource: memory. Threshold quantity: 100Mi, available: -"), "{message}");
    assert!(message.contains("Container a was using ") && message.contains(", request is 0, has larger"), "{message}");
    assert_eq!(crate::testing::condition(&status, "DisruptionTarget"), "True");
    let calls = cell.runtime.world.lock().calls.clone();
    assert!(calls.contains(&"stop a 2s".to_owned()), "{calls:?}");

    let page = base::metrics::Page::Node.encode(base::metrics::Format::Text);
    assert!(page.contains("kubelet_evictions{eviction_signal=\"allocatableMemory.available\"} 1"), "{page}");

    cell.put("late", json!({"containers": [{"name": "d"}]}));
    let late = cell.until("late", |status| status["phase"] == "Failed").await;
    assert_eq!(late["message"], "Pod was rejected: The node had condition: [MemoryPressure]. ");
    cell.put("asking", json!({"containers": [{"name": "e", "resources": {"requests": {"memory": "1Mi"}}}]}));
    // It comes in, and is one too many: those that asked for nothing and those below it in priority go before others.
    cell.until("asking", |status| status["phase"] == "Failed" || status["phase"] == "Running").await;
    cell.ready("critical").await;
    let events = cell.fake.all::<Event>();
    let told = |reason: &str, name: &str| {
        events.iter().any(|event| event.reason.as_deref() == Some(reason) && event.involved_object.name.as_deref() == Some(name))
    };
    assert!(told("EvictionThresholdMet", "n1") && told("Evicted", "low") && !told("Evicted", "critical"));
}

/// An image that no registry has comes from the node on which it was imported.
#[tokio::test]
async fn images_come_from_other_nodes_by_name() {
    let cell = Cell::new();
    cell.start().await;
    cell.put("p", json!({"containers": [{"name": "a", "image": "broken/imported:1"}]}));
    cell.ready("p").await;
    cell.put("q", json!({"containers": [{"name": "a", "image": "broken/other:1"}]}));
    cell.until("q", |status| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull").await;
    // A registry that refuses, or that does not answer now, may have it.
    for name in ["refused", "limited"] {
        cell.put(name, json!({"containers": [{"name": "a", "image": format!("{name}/imported:1")}]}));
        cell.until(name, |status| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull").await;
    }
    let calls = cell.runtime.world.lock().calls.clone();
    assert!(!calls.iter().any(|made| ["take refused", "take limited"].iter().any(|call| made.starts_with(call))), "{calls:?}");
    for call in ["pull broken/imported:1", "take broken/imported:1", "pull broken/other:1", "take broken/other:1"] {
        assert!(calls.iter().any(|made| made == call), "{call}: {calls:?}");
    }
    // What came so is like an image that was imported here: no record says who has pulled it.
    let records = crate::images::records::Records::load(&cell.directory.path().join("kubelet")).unwrap();
    assert!(records.ask(&Default::default(), ("broken/imported:1", "sha256:1"), |question| !question.depends()
        && question.record.is_none()));
}
