//! The flow schemas and priority levels of every cluster, kept as the list in `kinds` has them.

use apimachinery::{Status, meta};
use futures::future::try_join_all;
use kinds::Bootstrap;
use registry::Registry;

use super::{context, create, resource};

pub(super) const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// Creates what is missing, and brings up to date what follows the list.
pub(super) async fn run(registry: &Registry) -> Result<(), Status> {
    // All at once: the store writes what comes together with one disk synchronisation.
    try_join_all(kinds::bootstrap().into_iter().map(|one| ensure(registry, one))).await.map(drop)
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
