#![allow(clippy::unwrap_used)]

use base::readiness::Readiness;
use client::fake::Fake;
use client::kube::Api;
use client::kube::api::{DeleteParams, PostParams};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use serde_json::json;

use super::*;
use crate::testing::{node, pod};

fn start(fake: &Fake) -> (Tasks, base::tasks::Failures) {
    let (tasks, failures) = Tasks::root();
    let informers = Informers::new(fake.client(), tasks.clone());
    run(
        &Options { informers, client: fake.client(), configuration: Configuration::default() },
        &tasks,
        Readiness::default().gate("scheduler"),
    );
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
                        "0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are available: \
                     1 No preemption victims found for incoming pod.",
                    )
        })
    };
    fake.until::<Pod>(refused).await;
    fake.until::<Event>(|events| events.iter().any(|event| event.reason.as_deref() == Some("Scheduled"))).await;
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
