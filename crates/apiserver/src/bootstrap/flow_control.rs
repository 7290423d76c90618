//! The flow schemas and priority levels of every cluster, kept as the list in `kinds` has them.

use apimachinery::{Status, meta};
use kinds::Bootstrap;
use registry::{DeleteOptions, ListOptions, Registry};
use serde_json::Value;

use super::{all, context, create, resource};

pub(super) const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const KINDS: [&str; 2] = ["flowschemas", "prioritylevelconfigurations"];

/// Creates what is missing, brings up to date what follows the list, and deletes what has followed it and is not in it any more.
pub(super) async fn run(registry: &Registry) -> Result<(), Status> {
    let wanted = kinds::bootstrap();
    let mut done = Ok(());
    for plural in KINDS {
        let res = resource(registry, GROUP, plural)?;
        let list = registry.list(&res, None, &ListOptions::default()).await?;
        let old = list.entries.iter().map(|entry| entry.value()).filter(|object| kinds::is_obsolete(&wanted, plural, object));
        done = done.and(all(old.map(|object| delete(registry, plural, object))).await);
    }
    // All at once: the store writes what comes together with one disk synchronisation.
    done.and(all(wanted.into_iter().map(|one| ensure(registry, one))).await)
}

async fn ensure(registry: &Registry, one: Bootstrap) -> Result<(), Status> {
    let res = &resource(registry, GROUP, one.plural)?;
    let name = meta::name(&one.object).to_owned();
    match registry.get(res, "", &name, None).await {
        Err(_) => create(registry, res, "", one.object).await,
        Ok(entry) => match one.update(&entry.value()) {
            Some(object) => registry.update(&context(), res, "", "", &name, object).await.map(drop),
            None => Ok(()),
        },
    }
}

/// Deletes the object as it was read: one that has been changed since may belong to somebody.
async fn delete(registry: &Registry, plural: &str, object: Value) -> Result<(), Status> {
    let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    let options = DeleteOptions { uid: text("uid"), resource_version: text("resourceVersion"), ..DeleteOptions::default() };
    let res = resource(registry, GROUP, plural)?;
    match registry.delete(&context(), &res, "", meta::name(&object), options).await {
        Err(status) if !matches!(status.code, 404 | 409) => Err(status),
        _ => Ok(()),
    }
}
