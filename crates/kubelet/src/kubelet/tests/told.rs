//! What events tell of the node and of its pods (upstream's pkg/kubelet/events).

use std::time::Duration;

use client::Api;
use k8s_openapi::api::core::v1::{Event, Node};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::testing::Cell;

/// Waits for an event with this type, reason and message about an object of this name.
async fn told(cell: &Cell, name: &str, expected: (&str, &str, &str)) {
    let is_it = |event: &Event| {
        let told = [&event.type_, &event.reason, &event.message].map(|text| text.as_deref().unwrap_or_default());
        event.involved_object.name.as_deref() == Some(name) && told == [expected.0, expected.1, expected.2]
    };
    let wait = cell.fake.until::<Event>(|events| events.iter().any(is_it));
    if tokio::time::timeout(Duration::from_secs(60), wait).await.is_err() {
        panic!("{expected:?} is not told; told are: {:?}", cell.fake.all::<Event>());
    }
}

#[tokio::test]
async fn a_node_tells_what_becomes_of_it() {
    let mut cell = Cell::new();
    cell.start().await;
    told(&cell, "n1", ("Normal", "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods")).await;
    let nodes = Api::<Node>::all(cell.fake.client());
    for (cordoned, reason) in [(true, "NodeNotSchedulable"), (false, "NodeSchedulable")] {
        let patch = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
        nodes.patch("n1", &PatchParams::default(), &patch).await.unwrap();
        told(&cell, "n1", ("Normal", reason, &format!("Node n1 status is now: {reason}"))).await;
    }
    assert!(!cell.fake.all::<Event>().iter().any(|event| event.reason.as_deref() == Some("Rebooted")));
    cell.stop().await;
    let boot = nodes.get("n1").await.unwrap().status.unwrap().node_info.unwrap().boot_id;
    let patch = Patch::Merge(json!({"status": {"nodeInfo": {"bootID": "another"}}}));
    nodes.patch_status("n1", &PatchParams::default(), &patch).await.unwrap();
    cell.start().await;
    told(&cell, "n1", ("Warning", "Rebooted", &format!("Node n1 has been rebooted, boot id: {boot}"))).await;
}

#[tokio::test]
async fn a_pod_is_told_why_it_does_not_run() {
    let cell = Cell::new();
    cell.start().await;
    cell.put("late", json!({"activeDeadlineSeconds": 1, "containers": [{"name": "a"}]}));
    let message = "Pod was active on the node longer than the specified deadline";
    told(&cell, "late", ("Normal", "DeadlineExceeded", message)).await;
    // The status says that the kubelet has rejected it; the event has its own words for that (rejectPod in pkg/kubelet/kubelet.go).
    cell.put("elsewhere", json!({"nodeSelector": {"no": "where"}, "containers": [{"name": "b"}]}));
    let status = cell.until("elsewhere", |status| status["phase"] == "Failed").await;
    let message = status["message"].as_str().unwrap().strip_prefix("Pod was rejected: ").unwrap().to_owned();
    told(&cell, "elsewhere", ("Warning", "NodeAffinity", &message)).await;
}

/// Upstream's e2e test of `setHostnameAsFQDN`: "a pod configured to set FQDN as hostname will remain in Pending state generating
/// FailedCreatePodSandBox events when the FQDN is longer than 64 bytes".
#[tokio::test]
async fn a_full_name_that_is_too_long_for_a_host_is_told() {
    let cell = Cell::new();
    cell.start().await;
    let spec = json!({"hostname": "h".repeat(43), "subdomain": "s", "setHostnameAsFQDN": true, "containers": [{"name": "a"}]});
    cell.put("long", spec);
    let message = format!(
        "Failed to create pod sandbox: failed to construct FQDN from pod hostname and cluster domain, FQDN {}.s.ns.svc.cluster.local \
         is too long (64 characters is the max, 66 characters requested)",
        "h".repeat(43)
    );
    told(&cell, "long", ("Warning", "FailedCreatePodSandBox", &message)).await;
    assert_eq!(cell.until("long", |_| true).await["phase"], "Pending");
    assert!(cell.runtime.world.lock().sandboxes.is_empty());
}
