//! The status of Ingresses: by which addresses they are reached.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use client::Api;
use client::kube::api::{Patch, PatchParams};
use client::{Client, Informer, Key};
use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerIngress};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;

use super::Options;

/// How long a refused change waits.
const RETRY: Duration = Duration::from_secs(2);

/// Writes statuses in the background. Cheap to clone.
#[derive(Clone)]
pub(super) struct Statuses(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    ours: BTreeSet<Key>,
    due: BTreeSet<Key>,
}

impl Statuses {
    /// Begins to write.
    pub(super) fn start(options: &Options, ingresses: Informer<Ingress>, tasks: &Tasks) -> Self {
        let statuses = Self(Arc::new(Shared { state: Mutex::default(), wake: Notify::new() }));
        let entry =
            |address: &std::net::IpAddr| IngressLoadBalancerIngress { ip: Some(address.to_string()), ..Default::default() };
        let writer = Writer {
            client: options.client.clone(),
            ingresses,
            wanted: options.addresses.iter().map(entry).collect(),
            shared: statuses.0.clone(),
        };
        tasks.spawn_until_cancelled("status of ingresses", OnFailure::Shutdown, writer.run());
        statuses
    }

    /// Whether an Ingress is ours from now on.
    pub(super) fn claim(&self, key: &Key, ours: bool) {
        let mut state = self.0.state.lock();
        if ours {
            state.ours.insert(key.clone());
            state.due.insert(key.clone());
        } else {
            state.ours.remove(key);
        }
        self.0.wake.notify_one();
    }

    /// An Ingress has changed: somebody may have written another status.
    pub(super) fn look(&self, key: &Key) {
        let mut state = self.0.state.lock();
        if state.ours.contains(key) {
            state.due.insert(key.clone());
            self.0.wake.notify_one();
        }
    }
}

struct Writer {
    client: Client,
    ingresses: Informer<Ingress>,
    wanted: Vec<IngressLoadBalancerIngress>,
    shared: Arc<Shared>,
}

impl Writer {
    async fn run(self) -> Result<(), Infallible> {
        loop {
            let due = std::mem::take(&mut self.shared.state.lock().due);
            if due.is_empty() {
                self.shared.wake.notified().await;
                continue;
            }
            let mut refused = BTreeSet::new();
            for key in due {
                if let Err(error) = self.write(&key).await {
                    tracing::debug!(%key, error = client::why(&error), "the status of an Ingress cannot be written yet");
                    refused.insert(key);
                }
            }
            if !refused.is_empty() {
                tokio::time::sleep(RETRY).await;
                self.shared.state.lock().due.append(&mut refused);
            }
        }
    }

    async fn write(&self, key: &Key) -> client::kube::Result<()> {
        let Some(ingress) = self.ingresses.by_key(key) else { return Ok(()) };
        let balancer = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        if balancer.and_then(|balancer| balancer.ingress.as_ref()) == Some(&self.wanted) {
            return Ok(());
        }
        let patch = json!({"status": {"loadBalancer": {"ingress": self.wanted}}});
        let api: Api<Ingress> = Api::namespaced(self.client.clone(), key.ns());
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(client::kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }
}
