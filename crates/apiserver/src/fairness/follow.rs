//! Follows the objects, tells flow schemas whether their levels exist, and adjusts the limits while requests come.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Status, meta};
use base::readiness::Gate;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::SelectAll;
use registry::{Context, ListOptions, Patch, Registry, Served};
use serde_json::{Value, json};

use super::Fairness;
use super::digest::{LEVELS, Objects, SCHEMAS, dangling};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Upstream's field manager of the condition.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Between two adjustments of the limits.
const PERIOD: Duration = Duration::from_secs(10);

/// Reads the objects for the first time.
pub(crate) async fn start(registry: &Registry, fairness: &Fairness) -> Result<(), Status> {
    fairness.digest(read(registry).await?);
    Ok(())
}

/// Follows all changes until the registry ends.
pub(crate) async fn run(registry: Arc<Registry>, fairness: Arc<Fairness>, gate: Gate) -> Result<(), Status> {
    loop {
        gate.not_ready("flow schemas and priority levels are not followed yet");
        let mut changes = SelectAll::new();
        for plural in [SCHEMAS, LEVELS] {
            let version = Some(registry.revision().to_string());
            let options = ListOptions { resource_version: version, ..ListOptions::default() };
            changes.push(registry.watch(&resource(&registry, plural)?, None, &options).await?.into_stream());
        }
        let mut changes = changes.ready_chunks(1024);
        loop {
            let objects = read(&registry).await?;
            fairness.digest(objects.clone());
            gate.ready();
            tell(&registry, &objects).await;
            tokio::select! {
                events = changes.next() => match events {
                    Some(events) if events.iter().all(|event| event.status.is_none()) => {}
                    // Fallen behind: all over again.
                    _ => break,
                },
                () = fairness.emptied() => {}
            }
        }
    }
}

/// Adjusts the limits as long as requests come. When none do there is nothing to adjust, and nothing happens.
pub(crate) async fn adjust(fairness: Arc<Fairness>) -> Result<(), std::convert::Infallible> {
    loop {
        fairness.awakened(PERIOD).await;
        loop {
            tokio::time::sleep(PERIOD).await;
            if !fairness.adjust() {
                break;
            }
        }
    }
}

fn resource(registry: &Registry, plural: &str) -> Result<Arc<Served>, Status> {
    registry.resource(GROUP, "v1", plural).ok_or_else(|| Status::internal(format!("{plural} are not served")))
}

async fn read(registry: &Registry) -> Result<Objects, Status> {
    Ok(Objects { levels: all(registry, LEVELS).await?, schemas: all(registry, SCHEMAS).await? })
}

async fn all(registry: &Registry, plural: &str) -> Result<Vec<Value>, Status> {
    let res = resource(registry, plural)?;
    let list = registry.list(&res, None, &ListOptions::default()).await?;
    Ok(list.entries.iter().map(|entry| entry.value()).collect())
}

/// Writes the condition of each schema whose condition is not true any more.
async fn tell(registry: &Registry, objects: &Objects) {
    let now = apimachinery::time::now();
    let due = objects.schemas.iter().filter_map(|schema| Some((schema, dangling(schema, &objects.levels, &now)?)));
    // All at once: the store writes what comes together with one disk synchronisation.
    join_all(due.map(|(schema, condition)| write(registry, schema, condition))).await;
}

async fn write(registry: &Registry, schema: &Value, condition: Value) {
    let name = meta::name(schema);
    let applied = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema", "metadata": {"name": name, "uid": meta::uid(schema)},
        "status": {"conditions": [condition]},
    });
    let cx = Context { manager: MANAGER.into(), force: true, ..crate::bootstrap::context() };
    let written = match resource(registry, SCHEMAS) {
        Ok(resource) => registry.patch(&cx, &resource, "status", "", name, Patch::Apply(applied)).await.map(drop),
        Err(status) => Err(status),
    };
    match written {
        // What has been deleted, or made again, comes with its own event.
        Err(status) if !matches!(status.code, 404 | 409) => {
            tracing::warn!(%name, %status, "cannot write the condition of a flow schema")
        }
        _ => {}
    }
}
