//! The cgroups above those of pods: what the classes of pods get of the CPU when it is short.
//!
//! As upstream: burstable pods share in the measure of all their requests, best-effort pods have what is left, and pods
//! together have the node's capacity.

use std::convert::Infallible;
use std::sync::Arc;

use runtime::api::Resources;
use tokio::sync::watch;

use crate::context::Context;
use crate::resources::{self, Qos, shares};
use crate::spec::Model;

/// What a pod asks of the CPU, thousandths, if it is burstable.
pub fn burstable_milli(model: &Model) -> i64 {
    if resources::qos(model) == Qos::Burstable { resources::pod_request(model, "cpu") } else { 0 }
}

/// Keeps the cgroups at what `burstable` says. A group that cannot be limited leaves the node less fair, and no worse.
pub async fn follow(cx: Arc<Context>, mut burstable: watch::Receiver<i64>) -> Result<(), Infallible> {
    limit(&cx, "kubepods", cx.machine.milli_cpu()).await;
    limit(&cx, "kubepods/besteffort", 0).await;
    loop {
        let milli = *burstable.borrow_and_update();
        limit(&cx, "kubepods/burstable", milli).await;
        if burstable.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn limit(cx: &Context, group: &str, milli_cpu: i64) {
    let limits = Resources { cpu_shares: Some(shares(milli_cpu)), ..Resources::default() };
    if let Err(error) = cx.runtime().limit_group(group, limits).await {
        tracing::warn!(group, %error, "cannot set the CPU shares of pods of one class");
    }
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
