//! The leases by which the node controller knows that nodes live: one task renews all of them in turn, evenly over time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use client::Api;
use client::kube;
use client::kube::api::{Patch, PatchParams, PostParams};
use client::{Client, Informer};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use crate::{Fleet, name};

/// How often each is renewed, and for how long it is good: the kubelet's numbers.
const PERIOD: Duration = Duration::from_secs(10);
const DURATION: i32 = 40;
/// Requests at the same time.
const AT_ONCE: usize = 16;

/// Renews leases, for ever.
pub(crate) async fn renew(fleet: Arc<Fleet>, nodes: Informer<Node>) -> Result<(), Infallible> {
    let Ok(count) = u32::try_from(fleet.nodes.len()) else { return Ok(()) };
    nodes.synced().await;
    let mut tick = tokio::time::interval(PERIOD / count.max(1));
    // On a busy machine each tick is late: what was missed is made up for, or all leases together would take longer than one is good for.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut running = FuturesUnordered::new();
    let mut number = 0;
    loop {
        tokio::select! {
            due = tick.tick(), if running.len() < AT_ONCE => {
                // After a pause no lease is renewed twice.
                if due.elapsed() > PERIOD {
                    tick.reset();
                }
                // A node that is not there yet, or no more, has no lease.
                if nodes.get(None, &name(number)).is_some() && let Some(client) = fleet.client(number) {
                    running.push(one(client, name(number)));
                }
                number = (number + 1) % fleet.nodes.len();
            }
            Some(()) = running.next() => {}
        }
    }
}

async fn one(client: Client, node: String) {
    let api: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let spec = LeaseSpec {
        holder_identity: Some(node.clone()),
        lease_duration_seconds: Some(DURATION),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..Default::default()
    };
    let patch = serde_json::json!({"spec": spec});
    let renewed = api.patch(&node, &PatchParams::default(), &Patch::Merge(patch)).await;
    let renewed = match renewed {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let metadata = ObjectMeta { name: Some(node.clone()), ..Default::default() };
            api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
        }
        renewed => renewed,
    };
    if let Err(error) = renewed {
        tracing::debug!(node, error = client::why(&error), "a lease is not renewed");
    }
}
