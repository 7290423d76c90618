#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::readiness::Readiness;
use client::Api;
use client::fake::Fake;
use client::kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use client::kube::client::Body;
use http::Request;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};
use serde_json::json;
use tokio::sync::Notify;
use tower::Service;

use super::*;
use crate::testing::{node, pod};

fn start(fake: &Fake) -> (Tasks, base::tasks::Failures) {
    start_with(fake, fake.client())
}

/// What the scheduler writes goes by `client`.
fn start_with(fake: &Fake, client: Client) -> (Tasks, base::tasks::Failures) {
    let (tasks, failures) = Tasks::root();
    let informers = Informers::new(fake.client(), tasks.clone());
    run(&Options { informers, client, configuration: Configuration::default() }, &tasks, Readiness::default().gate("scheduler"));
    (tasks, failures)
}

fn node_of<'a>(pods: &'a [Pod], name: &str) -> Option<&'a str> {
    let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name))?;
    pod.spec.as_ref()?.node_name.as_deref()
}

#[tokio::test]
async fn binds_reports_and_tries_again() {
    let fake = Fake::default();
    fake.put::<Node>(&node("n", json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "1"}}})));
    fake.put(&pod("first", json!({"priority": 1})));
    fake.put(&pod("second", json!({})));
    fake.put(&pod("gated", json!({"schedulingGates": [{"name": "g"}]})));
    let (_tasks, _failures) = start(&fake);
    fake.until::<Pod>(|pods| node_of(pods, "first") == Some("n")).await;
    let refused = |pods: &[Pod]| {
        let second = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some("second")).unwrap();
        let conditions = second.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|one| {
            one.reason.as_deref() == Some("Unschedulable")
                && one.message.as_deref()
                    == Some(
                        "0/1 nodes are available: 1 Too many pods. no new claims to deallocate, preemption: 0/1 nodes are available: \
                     1 No preemption victims found for incoming pod.",
                    )
        })
    };
    fake.until::<Pod>(refused).await;
    fake.until::<Event>(|events| events.iter().any(|event| event.reason.as_deref() == Some("Scheduled"))).await;
    let page = base::metrics::Page::Server.encode(base::metrics::Format::Text);
    let ran = "scheduler_framework_extension_point_duration_seconds_count{extension_point=\"Filter\",profile=\"default-scheduler\",status=\"Success\"}";
    assert!(page.contains(ran));
    assert_eq!(node_of(&fake.all::<Pod>(), "gated"), None);

    // Room for the second comes with a new node; it is taken after the back-off.
    let api: Api<Node> = Api::all(fake.client());
    api.create(&PostParams::default(), &node("m", json!({}))).await.unwrap();
    fake.until::<Pod>(|pods| node_of(pods, "second") == Some("m")).await;
}

#[tokio::test]
async fn a_deleted_pod_makes_room() {
    let fake = Fake::default();
    fake.put::<Node>(&node("n", json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "1"}}})));
    fake.put(&pod("old", json!({"nodeName": "n"})));
    fake.put(&pod("new", json!({})));
    let (_tasks, _failures) = start(&fake);
    fake.until::<Event>(|events| events.iter().any(|event| event.reason.as_deref() == Some("FailedScheduling"))).await;
    let api: Api<Pod> = Api::namespaced(fake.client(), "a");
    api.delete("old", &DeleteParams::default()).await.unwrap();
    fake.until::<Pod>(|pods| node_of(pods, "new") == Some("n")).await;
}

/// A pod that is bound keeps its room, though the answer to its binding was lost.
#[tokio::test]
async fn a_lost_answer_gives_no_room_away() {
    let fake = Fake::default();
    fake.put::<Node>(&node("n", json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "1"}}})));
    fake.put(&pod("first", json!({})));
    let known = Arc::new(Notify::new());
    let (server, lost) = (fake.clone(), known.clone());
    let client = Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let (mut server, lost) = (server.clone(), lost.clone());
            async move {
                let is_binding = request.uri().path().ends_with("/binding");
                let answer = server.call(request).await?;
                if is_binding {
                    lost.notified().await;
                    return Err(std::io::Error::other("the connection has broken off").into());
                }
                Ok::<_, tower::BoxError>(answer)
            }
        }),
        "default",
    );
    let (_tasks, _failures) = start_with(&fake, client);
    fake.until::<Pod>(|pods| node_of(pods, "first") == Some("n")).await;
    let api: Api<Pod> = Api::namespaced(fake.client(), "a");
    let reported = |pods: &[Pod], name: &str| {
        let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap();
        pod.status.as_ref().is_some_and(|status| status.conditions.is_some()) || node_of(pods, name).is_some()
    };
    // What is said of a pod that came after the binding tells that the binding is known.
    api.create(&PostParams::default(), &pod("second", json!({}))).await.unwrap();
    fake.until::<Pod>(|pods| reported(pods, "second")).await;
    known.notify_one();
    api.create(&PostParams::default(), &pod("third", json!({}))).await.unwrap();
    fake.until::<Pod>(|pods| reported(pods, "third")).await;
    let pods = fake.all::<Pod>();
    assert_eq!((node_of(&pods, "second"), node_of(&pods, "third")), (None, None));
    api.delete("first", &DeleteParams::default()).await.unwrap();
    known.notify_one();
    fake.until::<Pod>(|pods| pods.iter().any(|pod| node_of(pods, pod.metadata.name.as_deref().unwrap()).is_some())).await;
}

/// Upstream, schedule_one.go, handleBindingCycleError: a binding that fails is told by an event and the condition PodScheduled, of the reason
/// SchedulerError, and the pod is tried again.
#[tokio::test]
async fn a_failed_binding_is_told() {
    let fake = Fake::default();
    fake.put::<Node>(&node("n", json!({})));
    fake.put(&pod("p", json!({})));
    let (server, refuses) = (fake.clone(), Arc::new(AtomicBool::new(true)));
    let refusing = refuses.clone();
    let client = Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let (mut server, refusing) = (server.clone(), refusing.clone());
            async move {
                if request.uri().path().ends_with("/binding") && refusing.load(Ordering::Relaxed) {
                    return Err(std::io::Error::other("out of order").into());
                }
                Ok::<_, tower::BoxError>(server.call(request).await?)
            }
        }),
        "default",
    );
    let (_tasks, _failures) = start_with(&fake, client);
    let told = |pods: &[Pod]| {
        let conditions = pods[0].status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|one| {
            let message = one.message.as_deref().unwrap_or_default();
            let rejected = message.starts_with("binding rejected: ") && message.contains("out of order");
            (one.type_.as_str(), one.status.as_str(), one.reason.as_deref()) == ("PodScheduled", "False", Some("SchedulerError"))
                && rejected
        })
    };
    fake.until::<Pod>(told).await;
    fake.until::<Event>(|events| events.iter().any(|event| event.reason.as_deref() == Some("FailedScheduling"))).await;
    refuses.store(false, Ordering::Relaxed);
    fake.until::<Pod>(|pods| node_of(pods, "p") == Some("n")).await;
}

#[tokio::test]
async fn the_more_important_pod_gets_the_room() {
    let fake = Fake::default();
    fake.put::<Node>(&node("n", json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "1"}}})));
    fake.put(&pod("low", json!({"nodeName": "n"})));
    fake.put(&pod("high", json!({"priority": 1000})));
    let (_tasks, _failures) = start(&fake);
    let nominated = |pods: &[Pod]| {
        let high = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some("high")).unwrap();
        high.status.as_ref().and_then(|status| status.nominated_node_name.as_deref()) == Some("n")
    };
    fake.until::<Pod>(nominated).await;
    fake.until::<Event>(|events| events.iter().any(|event| event.reason.as_deref() == Some("Preempted"))).await;
    fake.until::<Pod>(|pods| pods.len() == 1 && node_of(pods, "high") == Some("n")).await;
}

/// A node with a device that has to become ready, and a class for it that stands for `example.com/gpu`.
fn with_device(fake: &Fake) {
    fake.put::<Node>(&node("n", json!({})));
    let device = json!({"name": "x", "bindingConditions": ["ready"], "bindingFailureConditions": ["broken"]});
    let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 1});
    let slice = json!({"metadata": {"name": "s"}, "spec": {"driver": "d", "nodeName": "n", "pool": pool, "devices": [device]}});
    fake.put::<ResourceSlice>(&serde_json::from_value(slice).unwrap());
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}});
    fake.put::<DeviceClass>(&serde_json::from_value(class).unwrap());
}

/// What a driver says of the device of a claim.
async fn say(fake: &Fake, claim: &ResourceClaim, condition: &str) {
    let condition =
        json!({"type": condition, "status": "True", "reason": "r", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let device = json!({"driver": "d", "pool": "p", "device": "x", "conditions": [condition]});
    let api: Api<ResourceClaim> = Api::namespaced(fake.client(), "a");
    let patch = Patch::Merge(json!({"status": {"devices": [device]}}));
    api.patch_status(claim.metadata.name.as_deref().unwrap(), &PatchParams::default(), &patch).await.unwrap();
}

/// The claim that has devices, when there is one beside `other`.
async fn allocated(fake: &Fake, other: Option<&ResourceClaim>) -> ResourceClaim {
    let is_it = |claim: &&ResourceClaim| {
        pods::claims::is_allocated(claim) && other.is_none_or(|other| other.metadata.uid != claim.metadata.uid)
    };
    fake.until::<ResourceClaim>(|claims| claims.iter().any(|claim| is_it(&claim))).await;
    fake.all::<ResourceClaim>().iter().find(is_it).unwrap().clone()
}

/// KEP-5004: the scheduler makes the claim, with the pod as its owner and its user, and writes into the pod's status which one it is; when the
/// pod is not bound, the claim is deleted and another attempt makes another one. What a scheduler before has left goes first.
#[tokio::test]
async fn extended_resources_come_by_a_claim() {
    let fake = Fake::default();
    with_device(&fake);
    let meta = json!({"namespace": "a", "name": "left", "uid": "left", "annotations": {pods::claims::EXTENDED: "true"},
        "finalizers": [pods::claims::FINALIZER],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true}]});
    let results = json!([{"request": "r", "driver": "d", "pool": "p", "device": "x"}]);
    let left = json!({"metadata": meta, "spec": {}, "status": {"allocation": {"devices": {"results": results}}}});
    fake.put::<ResourceClaim>(&serde_json::from_value(left).unwrap());
    fake.put(&pod("p", json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]})));
    let (_tasks, _failures) = start(&fake);

    fake.until::<ResourceClaim>(|claims| !claims.iter().any(|claim| claim.metadata.name.as_deref() == Some("left"))).await;
    let first = allocated(&fake, None).await;
    assert!(pods::claims::is_extended(&first) && pods::claims::is_for(&first, "p"));
    assert!(pods::claims::is_reserved_for(&first, "p"));
    fake.until::<Pod>(|pods| pods::claims::names(&pods[0]).next() == first.metadata.name.as_deref()).await;
    // KEP-5007 has this event while conditions are waited for.
    let message = Some("waiting for binding conditions for device on node n");
    let waits =
        |event: &Event| (event.reason.as_deref(), event.message.as_deref()) == (Some("BindingConditionsPending"), message);
    fake.until::<Event>(|events| events.iter().any(waits)).await;
    say(&fake, &first, "broken").await;

    let second = allocated(&fake, Some(&first)).await;
    assert_eq!(fake.all::<ResourceClaim>().len(), 1, "the first one is gone");
    say(&fake, &second, "ready").await;
    fake.until::<Pod>(|pods| node_of(pods, "p") == Some("n")).await;
    let bound = fake.all::<Pod>().remove(0);
    let status = pods::claims::extended(&bound).unwrap();
    assert_eq!(Some(&status.resource_claim_name), second.metadata.name.as_ref());
    let mapping = json!([{"containerName": "c", "resourceName": "example.com/gpu", "requestName": "container-0-request-0"}]);
    assert_eq!(serde_json::to_value(&status.request_mappings).unwrap(), mapping);
}

/// Upstream, dynamicresources.go, PostFilter: a claim that keeps its pod from the nodes that are left gives its devices back, where nobody else uses
/// them: an attempt that ended halfway may have left it so.
#[tokio::test]
async fn devices_of_nobody_are_given_back() {
    let of = |pod: &str| json!([{"resource": "pods", "name": pod, "uid": pod}]);
    for (users, frees) in [(json!([]), true), (of("p"), true), (of("other"), false)] {
        let fake = Fake::default();
        with_device(&fake);
        fake.put::<Node>(&node("n", json!({"spec": {"unschedulable": true}})));
        fake.put::<Node>(&node("m", json!({})));
        let pool = json!({"name": "q", "generation": 1, "resourceSliceCount": 1});
        let slice = json!({"metadata": {"name": "t"}, "spec": {"driver": "d", "nodeName": "m", "pool": pool, "devices": [{"name": "y"}]}});
        fake.put::<ResourceSlice>(&serde_json::from_value(slice).unwrap());
        let results = json!([{"request": "r", "driver": "d", "pool": "p", "device": "x"}]);
        let field = json!({"key": "metadata.name", "operator": "In", "values": ["n"]});
        let allocation =
            json!({"devices": {"results": results}, "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [field]}]}});
        let claim = json!({"metadata": {"namespace": "a", "name": "c", "uid": "c"},
            "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}},
            "status": {"allocation": allocation, "reservedFor": users}});
        fake.put::<ResourceClaim>(&serde_json::from_value(claim).unwrap());
        fake.put(&pod("p", json!({"resourceClaims": [{"name": "c", "resourceClaimName": "c"}]})));
        let (_tasks, _failures) = start(&fake);

        let text = if frees { "deallocation of ResourceClaim completed" } else { "still not schedulable" };
        let told = |event: &Event| event.message.as_deref().is_some_and(|message| message.contains(text));
        fake.until::<Event>(|events| events.iter().any(told)).await;
        if frees {
            fake.until::<Pod>(|pods| node_of(pods, "p") == Some("m")).await;
        }
        let claim = fake.all::<ResourceClaim>().remove(0);
        let devices = claim.status.and_then(|status| status.allocation?.devices?.results).unwrap();
        assert_eq!(devices[0].device, if frees { "y" } else { "x" }, "{users}");
    }
}

/// KEP-5004: a pod that no node has the resource for is tried again when a class comes that stands for it.
#[tokio::test]
async fn a_class_helps_pods_that_wait() {
    let fake = Fake::default();
    fake.put::<Node>(&node("n", json!({})));
    let gpu = "deviceclass.resource.kubernetes.io/gpu";
    fake.put(&pod("p", json!({"containers": [{"name": "c", "resources": {"requests": {gpu: "1"}}}]})));
    let (_tasks, _failures) = start(&fake);
    let told = |text: &'static str| {
        move |events: &[Event]| events.iter().any(|event| event.message.as_deref().is_some_and(|message| message.contains(text)))
    };
    fake.until::<Event>(told("Insufficient deviceclass.resource.kubernetes.io/gpu")).await;
    let api: Api<DeviceClass> = Api::all(fake.client());
    let class = json!({"metadata": {"name": "gpu"}, "spec": {}});
    api.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    fake.until::<Event>(told("cannot allocate all claims")).await;
}

/// KEP-1472: a pod that found no room for its volume is tried again when there is more.
#[tokio::test]
async fn room_for_volumes_helps_pods_that_wait() {
    let fake = Fake::default();
    fake.put::<Node>(&node("n", json!({})));
    let class = json!({"metadata": {"name": "local"}, "provisioner": "p", "volumeBindingMode": "WaitForFirstConsumer"});
    fake.put::<StorageClass>(&serde_json::from_value(class).unwrap());
    let driver = json!({"metadata": {"name": "p"}, "spec": {"storageCapacity": true}});
    fake.put::<CSIDriver>(&serde_json::from_value(driver).unwrap());
    let spec =
        json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}});
    let claim = json!({"metadata": {"namespace": "a", "name": "v", "uid": "v"}, "spec": spec, "status": {"phase": "Pending"}});
    fake.put::<PersistentVolumeClaim>(&serde_json::from_value(claim).unwrap());
    let capacity = |size: &str| {
        let meta = json!({"namespace": "drivers", "name": "c"});
        let capacity = json!({"metadata": meta, "storageClassName": "local", "nodeTopology": {}, "capacity": size});
        serde_json::from_value::<CSIStorageCapacity>(capacity).unwrap()
    };
    fake.put(&capacity("1Mi"));
    fake.put(&pod("p", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "v"}}]})));
    let (_tasks, _failures) = start(&fake);
    let lacks =
        |event: &Event| event.message.as_deref().is_some_and(|message| message.contains("did not have enough free storage"));
    fake.until::<Event>(|events| events.iter().any(lacks)).await;
    let api: Api<CSIStorageCapacity> = Api::namespaced(fake.client(), "drivers");
    api.patch("c", &PatchParams::default(), &Patch::Merge(json!({"capacity": "2Gi"}))).await.unwrap();
    let chosen = |claim: &PersistentVolumeClaim| {
        let annotations = claim.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(::pods::volumes::SELECTED_NODE)).is_some_and(|node| node == "n")
    };
    fake.until::<PersistentVolumeClaim>(|claims| claims.iter().any(chosen)).await;
}
