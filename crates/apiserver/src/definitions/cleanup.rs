//! Before a definition goes, its objects do.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Reason, Status, meta, time};
use futures::{StreamExt, TryStreamExt, stream};
use kinds::util::text;
use kinds::{CustomVersion, custom};
use registry::{DeleteOptions, Entry, EventType, ListOptions, Registry, Served};
use serde_json::{Value, json};

use crate::bootstrap::context;

/// Objects that are deleted at once: their commits share an fsync.
const AT_ONCE: usize = 64;
/// Time before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Deletes all objects of a definition, waits for those that have finalizers, and lets the definition go.
pub(super) async fn run(registry: Arc<Registry>, resource: Arc<Served>, definition: Value) -> Result<(), Status> {
    loop {
        match end(&registry, &resource, &definition).await {
            Ok(()) => return Ok(()),
            Err(status) if status.is(Reason::NotFound) => return Ok(()),
            Err(error) => {
                tracing::warn!(definition = meta::name(&definition), %error, "objects of a definition cannot be deleted, trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn end(registry: &Arc<Registry>, resource: &Arc<Served>, definition: &Value) -> Result<(), Status> {
    change(registry, resource, definition, custom::set_terminating).await?;
    if let Some(served) = stored_version(registry, definition).await? {
        empty(registry, &served).await?;
    }
    change(registry, resource, definition, custom::finish).await
}

/// The version of the definition's kind that objects are stored in; any other that is served will do. Where none is, and where the
/// definition cannot be served at all, objects are found by where they are stored.
async fn stored_version(registry: &Registry, definition: &Value) -> Result<Option<Arc<Served>>, Status> {
    if let Some(served) = served_version(registry, definition) {
        return Ok(Some(served));
    }
    let Some(stored) = any_stored(definition) else { return Ok(None) };
    let (group, plural) = (text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
    registry.stored_version(group, plural, stored).await.map_err(Status::internal)
}

/// The version that is stored, in which objects may have any fields.
fn any_stored(definition: &Value) -> Option<CustomVersion> {
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array)?;
    let name = &versions.iter().find(|version| version["storage"] == true)?["name"];
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let mut definition = definition.clone();
    definition["spec"]["versions"] = json!([{"name": name, "storage": true, "schema": schema}]);
    definition["status"]["acceptedNames"] = definition["spec"]["names"].clone();
    custom::versions(&definition, true).ok()?.pop()
}

fn served_version(registry: &Registry, definition: &Value) -> Option<Arc<Served>> {
    let versions = definition.pointer("/spec/versions").and_then(Value::as_array)?;
    let (group, plural) = (text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
    let catalog = registry.catalog();
    let mut sorted: Vec<&Value> = versions.iter().collect();
    sorted.sort_by_key(|version| version["storage"] != true);
    let found = sorted.into_iter().find_map(|version| catalog.get(group, version["name"].as_str()?, plural).cloned());
    found.filter(|served| served.is_custom())
}

/// Deletes all, and waits until they are gone.
async fn empty(registry: &Arc<Registry>, served: &Arc<Served>) -> Result<(), Status> {
    loop {
        let list = registry.list(served, None, &ListOptions::default()).await?;
        if list.entries.is_empty() {
            return Ok(());
        }
        let options = ListOptions {
            resource_version: Some(list.revision.to_string()),
            send_initial_events: Some(false),
            ..ListOptions::default()
        };
        let mut watch = registry.watch(served, None, &options).await?;
        let deletions = list.entries.into_iter().map(|entry| delete(registry.clone(), served.clone(), entry));
        stream::iter(deletions).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        // Those that somebody's finalizer keeps: each change may be the last. And those of requests that had begun before: they go, too.
        while !registry.list(served, None, &ListOptions { limit: 1, ..ListOptions::default() }).await?.entries.is_empty() {
            match watch.next().await {
                None => break,
                Some(event) if event.kind == EventType::Added => delete(registry.clone(), served.clone(), event.entry).await?,
                Some(_) => {}
            }
        }
    }
}

async fn delete(registry: Arc<Registry>, served: Arc<Served>, entry: Arc<Entry>) -> Result<(), Status> {
    match registry.delete(&context(), &served, entry.namespace(), entry.name(), DeleteOptions::default()).await {
        Err(status) if !status.is(Reason::NotFound) => Err(status),
        _ => Ok(()),
    }
}

/// Changes the definition as it is now, by its status.
async fn change(
    registry: &Arc<Registry>,
    resource: &Arc<Served>,
    definition: &Value,
    how: fn(&mut Value, &str),
) -> Result<(), Status> {
    let name = meta::name(definition);
    loop {
        let mut now = registry.get(resource, "", name, None).await?.value();
        if meta::uid(&now) != meta::uid(definition) {
            return Err(Status::not_found(&resource.group_resource, name));
        }
        how(&mut now, &time::now());
        match registry.update(&context(), resource, "status", "", name, now).await {
            Err(status) if status.is(Reason::Conflict) => {}
            other => return other.map(drop),
        }
    }
}
