//! Deletes everything in a namespace, pods first (KEP-5080): nothing may go that a pod which runs could need. Pods that have ended and
//! are only held by somebody do not run. Their holder may be among the rest: a Job with a limit for each index holds a failed pod until
//! another one has taken its place, which is never made in a namespace that goes.

use std::collections::BTreeMap;

use client::Client;
use client::kube::api::{DeleteParams, ListParams};
use client::kube::core::DynamicObject;
use client::kube::core::PartialObjectMeta;
use client::kube::{self, Api};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;

use crate::discovery::{Discovered, Discovery};

/// Requests under way at the same time.
const PARALLEL: usize = 8;

/// What is left after a round.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Objects left, by resource and group such as `deployments.apps`.
    pub(super) remaining: BTreeMap<String, usize>,
    /// Finalizers that objects wait for, and how many objects.
    pub(super) finalizers: BTreeMap<String, usize>,
    /// Deletions that failed.
    pub(super) failures: Vec<String>,
    /// Group versions whose resources are not known.
    pub(super) undiscovered: Vec<String>,
    /// The longest grace period of what is left.
    pub(super) grace_seconds: u64,
}

type Meta = PartialObjectMeta<DynamicObject>;

pub(super) async fn delete_all(client: &Client, namespace: &str, discovery: Discovery) -> Outcome {
    let mut outcome = Outcome { undiscovered: discovery.failures, ..Outcome::default() };
    let deletable = discovery.resources.into_iter().filter(|one| one.namespaced && one.can("delete") && one.can("list"));
    let (pods, rest): (Vec<_>, Vec<_>) = deletable.partition(|one| one.api.group.is_empty() && one.api.plural == "pods");
    delete_resources(client, namespace, pods, &mut outcome).await;
    let runs = if outcome.remaining.is_empty() { Ok(false) } else { any_runs(client, namespace).await };
    match runs {
        Ok(false) if outcome.failures.is_empty() => delete_resources(client, namespace, rest, &mut outcome).await,
        Ok(_) => {}
        Err(error) => outcome.failures.push(format!("pods: {error}")),
    }
    outcome
}

/// Whether a pod has not ended.
async fn any_runs(client: &Client, namespace: &str) -> kube::Result<bool> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let running = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed").limit(1);
    Ok(!api.list_metadata(&running).await?.items.is_empty())
}

async fn delete_resources(client: &Client, namespace: &str, resources: Vec<Discovered>, outcome: &mut Outcome) {
    let rounds = resources.into_iter().map(|resource| delete_resource(client, namespace, resource));
    let mut rounds = futures::stream::iter(rounds).buffer_unordered(PARALLEL);
    while let Some((name, result)) = rounds.next().await {
        match result {
            Ok(left) => outcome.note(name, &left),
            Err(error) => outcome.failures.push(format!("{name}: {error}")),
        }
    }
}

/// Deletes the objects of one resource; what is left of them.
async fn delete_resource(client: &Client, namespace: &str, resource: Discovered) -> (String, kube::Result<Vec<Meta>>) {
    let name = format!("{}.{}", resource.api.plural, resource.api.group);
    let api: Api<Meta> = Api::namespaced_with(client.clone(), namespace, &resource.api);
    let result = async {
        let there = list(&api).await?;
        if there.is_empty() {
            return Ok(there);
        }
        if resource.can("deletecollection") {
            let whole: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource.api);
            let background = DeleteParams::background();
            forget_missing(whole.delete_collection(&background, &ListParams::default()).await.map(|_| ()))?;
        } else {
            for object in there {
                let name = object.metadata.name.unwrap_or_default();
                forget_missing(api.delete(&name, &DeleteParams::background()).await.map(|_| ()))?;
            }
        }
        list(&api).await
    };
    let result = result.await;
    (name, result)
}

async fn list(api: &Api<Meta>) -> kube::Result<Vec<Meta>> {
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        // A resource that went, or that cannot be listed, holds nothing that could be deleted.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn forget_missing(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => Ok(()),
        other => other,
    }
}

impl Outcome {
    fn note(&mut self, resource: String, left: &[Meta]) {
        if left.is_empty() {
            return;
        }
        self.remaining.insert(resource, left.len());
        for object in left {
            for finalizer in object.metadata.finalizers.iter().flatten() {
                *self.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
            let grace = object.metadata.deletion_grace_period_seconds.unwrap_or(0);
            self.grace_seconds = self.grace_seconds.max(u64::try_from(grace).unwrap_or(0));
        }
    }
}
