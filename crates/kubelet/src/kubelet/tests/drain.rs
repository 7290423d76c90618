//! The program that stops ends its pods first (`--drain-on-exit`).

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use runtime::api::{Sandbox, SandboxState};
use serde_json::json;

use crate::shutdown::Periods;
use crate::shutdown::manager::end_pods;
use crate::testing::Cell;

/// A PID 1 without a handler does not react to SIGTERM, and most pods have the default grace period: they end with the period, and what comes
/// after the kill is waited for, to the final status that the API has.
#[tokio::test]
async fn pods_that_use_up_their_period_end_as_well() {
    let cell = Cell::new();
    let kubelet = cell.start_as(|_| {}).await;
    cell.put("p", json!({"containers": [{"name": "c"}]}));
    cell.put(
        "q",
        json!({"initContainers": [{"name": "s", "image": "img", "restartPolicy": "Always"}], "containers": [{"name": "d"}]}),
    );
    cell.ready("p").await;
    cell.ready("q").await;
    let nobodys = Sandbox { id: "nobodys".to_owned(), state: SandboxState::Ready, ..Sandbox::default() };
    {
        let mut world = cell.runtime.world.lock();
        world.deaf = true;
        world.sandboxes.insert(nobodys.id.clone(), nobodys);
    }
    kubelet.drain(&Periods::of_all(Duration::from_millis(500))).await;
    let running: Vec<_> = {
        let world = cell.runtime.world.lock();
        world
            .sandboxes
            .values()
            .filter(|sandbox| sandbox.state == SandboxState::Ready)
            .map(|sandbox| sandbox.id.clone())
            .collect()
    };
    assert!(running.is_empty(), "{running:?}");
    for pod in cell.fake.all::<Pod>() {
        let status = pod.status.unwrap();
        assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Terminated")));
    }
}

/// A group may have no time (`--shutdown-grace-period` without a part for critical pods), and the login manager waits for none of it: its pods are
/// told all the same, each of them.
#[tokio::test]
async fn pods_that_have_no_time_are_told() {
    let cell = Cell::new();
    let kubelet = cell.start_as(|_| {}).await;
    let names: Vec<_> = (0..10).map(|pod| format!("p{pod}")).collect();
    for name in &names {
        cell.put(name, json!({"containers": [{"name": "c"}]}));
    }
    for name in &names {
        cell.ready(name).await;
    }
    end_pods(&kubelet.cx, &Periods::of_all(Duration::ZERO), Duration::ZERO).await;
    for name in &names {
        cell.until(name, |status| status["phase"] == "Failed").await;
    }
}
