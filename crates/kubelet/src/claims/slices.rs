//! ResourceSlices of drivers that are gone: the scheduler would give out their devices.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::OnFailure;
use client::Api;
use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::api::{DeleteParams, ListParams};
use tokio::time::Instant;

use crate::context::Context;

/// How long a driver may be away, as long as for upstream's kubelet: one that is replaced comes back sooner.
const PATIENCE: Duration = Duration::from_secs(30);

/// Delay before a failed attempt is made again, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Sees to it that the slices of a driver go that is away from now on, unless it comes back in time.
pub fn withdraw_later(cx: &Arc<Context>, driver: &str) {
    let Some(since) = away_since(cx, driver) else { return };
    let task = withdraw(cx.clone(), driver.to_owned(), since);
    cx.tasks.spawn_until_cancelled("slices of a driver", OnFailure::Log, task);
}

/// Deletes the slices that this node has of a driver once it has been away for long since then; nothing when it comes back before. When it goes once
/// more, that is another absence with a task of its own.
async fn withdraw(cx: Arc<Context>, driver: String, since: Instant) -> Result<(), Infallible> {
    tokio::time::sleep_until(since + PATIENCE).await;
    let mut delay = RETRY.0;
    while away_since(&cx, &driver) == Some(since) {
        tracing::info!(driver, "the driver has not come back: its slices are deleted");
        match delete(&cx, &driver).await {
            Ok(()) => cx.claims.instances.lock().withdrawn(&driver, since),
            Err(error) => {
                failed(&error);
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY.1);
            }
        }
    }
    Ok(())
}

fn away_since(cx: &Context, driver: &str) -> Option<Instant> {
    cx.claims.instances.lock().away_since(driver)
}

/// Deletes the slices of drivers that went while this process did not run.
pub async fn withdraw_forgotten(cx: Arc<Context>) -> Result<(), Infallible> {
    tokio::time::sleep(PATIENCE).await;
    let mut delay = RETRY.0;
    while let Err(error) = delete_forgotten(&cx).await {
        failed(&error);
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
    Ok(())
}

fn failed(error: &kube::Error) {
    tracing::warn!(%error, "slices of drivers that are gone cannot be deleted yet");
}

async fn delete_forgotten(cx: &Context) -> kube::Result<()> {
    let slices = slices(cx).list(&ListParams::default().fields(&of_node(cx))).await?;
    let drivers: BTreeSet<String> = slices.into_iter().map(|slice| slice.spec.driver).collect();
    // Those that have registered are seen to by themselves.
    for driver in drivers.iter().filter(|driver| !cx.claims.instances.lock().is_registered(driver)) {
        tracing::info!(driver, "the driver has not come back: its slices are deleted");
        delete(cx, driver).await?;
    }
    Ok(())
}

async fn delete(cx: &Context, driver: &str) -> kube::Result<()> {
    let of_driver = ListParams::default().fields(&format!("{},spec.driver={driver}", of_node(cx)));
    slices(cx).delete_collection(&DeleteParams::default(), &of_driver).await.map(drop)
}

fn slices(cx: &Context) -> Api<ResourceSlice> {
    Api::all(cx.options.client.clone())
}

fn of_node(cx: &Context) -> String {
    format!("spec.nodeName={}", cx.options.node_name)
}
