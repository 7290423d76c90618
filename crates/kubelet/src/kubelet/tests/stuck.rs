//! Pods that cannot end: who looks at them is told why.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::DeleteParams;
use serde_json::json;

use crate::drivers::records::{self, Record};
use crate::testing::Cell;

async fn told(cell: &Cell, reason: &str, words: &str) {
    let is_it = |event: &Event| {
        event.reason.as_deref() == Some(reason) && event.message.as_deref().is_some_and(|message| message.contains(words))
    };
    let told = cell.fake.until::<Event>(|events| events.iter().any(is_it));
    let told = tokio::time::timeout(Duration::from_secs(30), told).await;
    assert!(told.is_ok(), "{reason}: {:?}", cell.fake.all::<Event>());
}

async fn gone(cell: &Cell) {
    tokio::time::timeout(Duration::from_secs(30), cell.fake.until::<Pod>(<[_]>::is_empty)).await.expect("the pod stays");
}

async fn delete(cell: &Cell) {
    cell.pods().delete("p", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn a_volume_that_stays_is_told() {
    let cell = Cell::new();
    cell.start().await;
    cell.put("p", json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "a"}]}));
    cell.ready("p").await;
    let target = records::target(&cell.directory.path().join("kubelet/pods/uid-p"), "data");
    let record = Record { driver_name: "gone.example.com".to_owned(), spec_name: "data".to_owned(), ..Record::default() };
    records::write(&target, &record).unwrap();
    delete(&cell).await;
    let words = "UnmountVolume.TearDown failed for volume \"data\" : driver name gone.example.com not found";
    told(&cell, "FailedUnMount", words).await;
    records::remove(&target).unwrap();
    gone(&cell).await;
}

#[tokio::test]
async fn a_pod_that_cannot_be_killed_is_told() {
    let cell = Cell::new();
    cell.start().await;
    cell.put("p", json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "a"}]}));
    cell.ready("p").await;
    cell.runtime.world.lock().stays = Some("the shim is gone".to_owned());
    delete(&cell).await;
    told(&cell, "FailedKillPod", "error killing pod: the shim is gone").await;
    cell.runtime.world.lock().stays = None;
    gone(&cell).await;
}

/// Upstream's node e2e tests "mirror pod termination should satisfy grace period when static pod is deleted" and "... is updated".
#[tokio::test]
async fn a_static_pod_that_has_not_ended_keeps_its_mirror() {
    let cell = Cell::new();
    let directory = cell.directory.path().join("manifests");
    std::fs::create_dir(&directory).unwrap();
    let write = |image: &str| {
        let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "a", "image": image}]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "s", "namespace": "ns"}, "spec": spec});
        std::fs::write(directory.join("s"), pod.to_string()).unwrap();
    };
    write("img");
    cell.start_as(|options| options.static_pods = Some(directory.clone())).await;
    cell.ready("s-n1").await;
    let mirror = || cell.fake.all::<Pod>().into_iter().next().unwrap();
    for next in [Some("other"), None] {
        let before = mirror().metadata.uid;
        cell.runtime.world.lock().stays = Some(format!("the shim is gone before {next:?}"));
        match next {
            Some(image) => write(image),
            None => std::fs::remove_file(directory.join("s")).unwrap(),
        }
        told(&cell, "FailedKillPod", &format!("the shim is gone before {next:?}")).await;
        assert_eq!((mirror().metadata.uid, mirror().status.unwrap().phase.as_deref()), (before.clone(), Some("Running")));
        cell.runtime.world.lock().stays = None;
        match next {
            Some(_) => {
                let is_next = |pods: &[Pod]| pods.iter().any(|pod| pod.metadata.uid != before);
                tokio::time::timeout(Duration::from_secs(30), cell.fake.until::<Pod>(is_next)).await.expect("no other mirror");
                cell.ready("s-n1").await;
            }
            None => gone(&cell).await,
        }
    }
}
