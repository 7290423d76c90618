//! Tells the load balancer controller and other nodes which ports this node does not give to load balancers and external addresses, in an
//! annotation of the Node.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use client::Api;
use client::kube::api::{Patch, PatchParams};
use client::taken_ports::{TAKEN_PORTS, TakenPort};
use client::{Client, Informer};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use tokio::sync::watch;

/// How long a refused change waits.
const RETRY: Duration = Duration::from_secs(2);

/// Writes in the background: the proxy does not wait for the API.
pub(super) struct Reports(watch::Sender<Option<BTreeSet<TakenPort>>>);

impl Reports {
    /// Begins to write; `client` is the node itself.
    pub(super) fn start(client: Client, nodes: Informer<Node>, name: &str, tasks: &Tasks) -> Self {
        let (sender, receiver) = watch::channel(None);
        let writer = Writer { api: Api::all(client), nodes, name: name.to_owned(), wanted: receiver };
        tasks.spawn_until_cancelled("ports that load balancers have not got", OnFailure::Shutdown, writer.run());
        Self(sender)
    }

    /// What is to be told from now on.
    pub(super) fn tell(&self, ports: BTreeSet<TakenPort>) {
        self.0.send_if_modified(|known| known.replace(ports) != *known);
    }

    /// Whether there is something to tell.
    pub(super) fn is_telling(&self) -> bool {
        self.0.borrow().as_ref().is_some_and(|ports| !ports.is_empty())
    }
}

struct Writer {
    api: Api<Node>,
    nodes: Informer<Node>,
    name: String,
    /// None: not known yet.
    wanted: watch::Receiver<Option<BTreeSet<TakenPort>>>,
}

impl Writer {
    async fn run(mut self) -> Result<(), Infallible> {
        let mut changes = self.nodes.changes();
        loop {
            while let Err(error) = self.write().await {
                tracing::debug!(error = client::why(&error), "the node's ports cannot be told yet");
                tokio::time::sleep(RETRY).await;
            }
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { std::future::pending::<()>().await },
                _ = changes.next() => while changes.try_next().is_some() {},
            }
        }
    }

    async fn write(&mut self) -> client::kube::Result<()> {
        let Some(wanted) = self.wanted.borrow_and_update().clone() else { return Ok(()) };
        let Some(node) = self.nodes.get(None, &self.name) else { return Ok(()) };
        let text = TakenPort::text(&wanted);
        if node.metadata.annotations.as_ref().and_then(|all| all.get(TAKEN_PORTS)) == text.as_ref() {
            return Ok(());
        }
        let patch = json!({"metadata": {"annotations": {TAKEN_PORTS: text}}});
        match self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(client::kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }
}
