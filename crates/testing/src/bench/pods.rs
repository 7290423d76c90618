//! From the creation of pods until the API says that they are Ready.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

/// A server with a readiness probe of the default period, as most pods are: it listens a moment after its process began.
fn pod(name: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"bench": "pods"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": "127.0.0.1:5000/busybox:1.36", "command": ["httpd", "-f", "-p", "8080", "-h", "/etc"],
             "readinessProbe": {"httpGet": {"path": "/hostname", "port": 8080}}}]}
    }))?)
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Creates so many pods at once and returns when all are Ready, after how long.
///
/// # Errors
/// When the API refuses, or the watch ends.
pub async fn start(client: &Client, names: &[String]) -> Result<Duration> {
    let api = Api::<Pod>::default_namespaced(client.clone());
    let selected = ListParams::default().labels("bench=pods");
    let version = api.list(&selected).await?.metadata.resource_version.context("a list has a version")?;
    let mut events = pin!(api.watch(&WatchParams::default().labels("bench=pods"), &version).await?);
    let start = Instant::now();
    let create = |name: String| {
        let api = api.clone();
        async move { anyhow::Ok(api.create(&PostParams::default(), &pod(&name)?).await?) }
    };
    futures::stream::iter(names.iter().cloned()).map(create).buffer_unordered(16).try_collect::<Vec<_>>().await?;
    let mut missing: std::collections::BTreeSet<_> = names.iter().cloned().collect();
    while !missing.is_empty() {
        match events.try_next().await?.context("the watch ended")? {
            WatchEvent::Modified(pod) | WatchEvent::Added(pod) if ready(&pod) => {
                missing.remove(&pod.name_any());
            }
            WatchEvent::Error(status) => bail!("watch: {}", status.message),
            _ => {}
        }
    }
    Ok(start.elapsed())
}

/// Deletes them and waits until they are gone.
///
/// # Errors
/// When the API refuses, or the watch ends.
pub async fn remove(client: &Client, names: &[String]) -> Result<()> {
    let api = Api::<Pod>::default_namespaced(client.clone());
    let selected = ListParams::default().labels("bench=pods");
    let version = api.list(&selected).await?.metadata.resource_version.context("a list has a version")?;
    let mut events = pin!(api.watch(&WatchParams::default().labels("bench=pods"), &version).await?);
    for name in names {
        api.delete(name, &DeleteParams::default()).await?;
    }
    let mut left = names.len();
    while left > 0 {
        if let WatchEvent::Deleted(_) = events.try_next().await?.context("the watch ended")? {
            left -= 1;
        }
    }
    Ok(())
}
