//! The cgroups above those of pods: what the classes of pods get of the CPU when it is short, and what all pods may have together.
//!
//! As upstream: burstable pods share in the measure of all their requests, best-effort pods have what is left, and pods
//! together have what the node does not reserve. They cannot take more memory or processes: the kernel then kills and refuses among them,
//! not in the rest of the system.

use std::convert::Infallible;
use std::sync::Arc;

use client::events::Type;
use runtime::api::{Error, Resources};
use tokio::sync::watch;

use crate::allocatable::Allocatable;
use crate::context::Context;
use crate::node::agent::reference_by_name;
use crate::resources::{self, Qos, shares};
use crate::spec::Model;

/// What a pod asks of the CPU, thousandths, if it is burstable.
pub fn burstable_milli(model: &Model) -> i64 {
    if resources::qos(model) == Qos::Burstable { resources::pod_request(model, "cpu") } else { 0 }
}

/// Keeps the cgroups at what `burstable` says. A group that cannot be limited leaves the node less fair, and no worse.
pub async fn follow(cx: Arc<Context>, mut burstable: watch::Receiver<i64>) -> Result<(), Infallible> {
    let first = limit(&cx, "kubepods", of_all(&cx.allocatable)).await;
    let mut is_limited = first.is_ok();
    tell(&cx, first);
    let _ = limit(&cx, "kubepods/besteffort", of_class(0)).await;
    loop {
        let milli = *burstable.borrow_and_update();
        // Pods of an earlier process may have more than they get together from now on: until some have left.
        if !is_limited && limit(&cx, "kubepods", of_all(&cx.allocatable)).await.is_ok() {
            is_limited = true;
            tell(&cx, Ok(()));
        }
        let _ = limit(&cx, "kubepods/burstable", of_class(milli)).await;
        if burstable.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn of_class(milli_cpu: i64) -> Resources {
    Resources { cpu_shares: Some(shares(milli_cpu)), ..Resources::default() }
}

fn of_all(allocatable: &Allocatable) -> Resources {
    Resources {
        memory_limit: Some(allocatable.memory_limit),
        pids_limit: allocatable.processes_limit,
        ..of_class(allocatable.milli_cpu)
    }
}

/// Says whether the limit of all pods holds.
fn tell(cx: &Context, limited: Result<(), Error>) {
    let node = reference_by_name(&cx.options.node_name);
    let (kind, reason, message) = match limited {
        Ok(()) => (Type::Normal, "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods".to_owned()),
        Err(error) => {
            let message = format!("Failed to update Node Allocatable Limits \"kubepods\": {error}");
            (Type::Warning, "FailedNodeAllocatableEnforcement", message)
        }
    };
    cx.recorder.event(&node, kind, reason, message);
}

/// A failure is in the log.
async fn limit(cx: &Context, group: &str, limits: Resources) -> Result<(), Error> {
    let result = cx.runtime().limit_group(group, limits).await;
    if let Err(error) = &result {
        tracing::warn!(group, %error, "cannot limit the pods of one class, or all");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::model;
    use serde_json::json;

    #[test]
    fn only_burstable_pods_count() {
        let pod = |requests: serde_json::Value, limits: serde_json::Value| {
            model(json!({"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}))
        };
        let all = json!({"cpu": "1", "memory": "1Gi"});
        let pods = [
            pod(json!({"cpu": "250m"}), json!({})),
            pod(json!({"cpu": "100m", "memory": "1Mi"}), all.clone()),
            pod(all.clone(), all),
            pod(json!({}), json!({})),
        ];
        assert_eq!(pods.map(|pod| burstable_milli(&pod)), [250, 100, 0, 0]);
    }
}
