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
