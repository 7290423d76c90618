//! ResourceSlices of drivers that are gone: the scheduler would give out their devices.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use client::Api;
use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::api::{DeleteParams, ListParams};

use super::Claims;
use crate::context::Context;

/// How long a driver may be away, as long as for upstream's kubelet: one that is replaced comes back sooner.
const PATIENCE: Duration = Duration::from_secs(30);

/// Delay before a failed attempt is made again, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Claims {
    fn has_driver(&self, name: &str) -> bool {
        self.drivers.lock().contains_key(name)
    }
}

/// Deletes the slices that this node has of a driver, unless it comes back in time. Without a name it is about all drivers that have
/// slices: those that went while this process did not run.
pub async fn withdraw(cx: Arc<Context>, driver: Option<String>) -> Result<(), Infallible> {
    tokio::time::sleep(PATIENCE).await;
    let mut delay = RETRY.0;
    while let Err(error) = attempt(&cx, driver.as_deref()).await {
        tracing::warn!(%error, "slices of drivers that are gone cannot be deleted yet");
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
    Ok(())
}

async fn attempt(cx: &Context, driver: Option<&str>) -> kube::Result<()> {
    let api = Api::<ResourceSlice>::all(cx.options.client.clone());
    let of_node = format!("spec.nodeName={}", cx.options.node_name);
    let drivers: BTreeSet<String> = match driver {
        Some(driver) => BTreeSet::from([driver.to_owned()]),
        None => api.list(&ListParams::default().fields(&of_node)).await?.into_iter().map(|slice| slice.spec.driver).collect(),
    };
    for driver in drivers.iter().filter(|driver| !cx.claims.has_driver(driver)) {
        tracing::info!(driver, "the driver has not come back: its slices are deleted");
        let of_driver = ListParams::default().fields(&format!("{of_node},spec.driver={driver}"));
        api.delete_collection(&DeleteParams::default(), &of_driver).await?;
    }
    Ok(())
}
