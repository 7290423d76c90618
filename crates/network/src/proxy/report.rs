//! Tells the load balancer controller and other nodes which ports this node does not give to load balancers and external addresses, in an
//! annotation of the Node.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use client::Api;
use client::kube::api::{Patch, PatchParams};
use client::taken_ports::{TAKEN_PORTS, TakenPort, Told};
use client::{Client, Informer, Key};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use tokio::sync::watch;

/// How long a refused change waits.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Writes in the background: the proxy does not wait for the API.
pub(super) struct Reports {
    wanted: watch::Sender<Option<Told>>,
    /// Services that there was no room for before.
    left_out: BTreeSet<Key>,
}

impl Reports {
    /// Begins to write; `client` is the node itself.
    pub(super) fn start(client: Client, nodes: Informer<Node>, name: &str, tasks: &Tasks) -> Self {
        let (sender, receiver) = watch::channel(None);
        let writer = Writer { api: Api::all(client), nodes, name: name.to_owned(), wanted: receiver };
        tasks.spawn_until_cancelled("ports that load balancers have not got", OnFailure::Shutdown, writer.run());
        Self { wanted: sender, left_out: BTreeSet::new() }
    }

    /// What is to be told from now on. Returns the Services of whose ports some are left out only now.
    pub(super) fn tell(&mut self, ports: &BTreeSet<TakenPort>) -> BTreeSet<Key> {
        let told = TakenPort::tell(ports);
        let before = std::mem::replace(&mut self.left_out, told.left_out.clone());
        self.wanted.send_if_modified(|known| {
            let is_other = known.as_ref() != Some(&told);
            *known = Some(told);
            is_other
        });
        self.left_out.difference(&before).cloned().collect()
    }

    /// Whether there is something to tell.
    pub(super) fn is_telling(&self) -> bool {
        self.wanted.borrow().as_ref().is_some_and(|told| told.text.is_some())
    }
}

struct Writer {
    api: Api<Node>,
    nodes: Informer<Node>,
    name: String,
    /// None: not known yet.
    wanted: watch::Receiver<Option<Told>>,
}

impl Writer {
    async fn run(mut self) -> Result<(), Infallible> {
        let mut changes = self.nodes.changes();
        loop {
            let mut retry = RETRY_MIN;
            while let Err(error) = self.write().await {
                tracing::warn!(error = client::why(&error), "the node's ports cannot be told, trying again in {retry:?}");
                tokio::select! {
                    () = tokio::time::sleep(retry) => retry = (retry * 2).min(RETRY_MAX),
                    // Something else may be taken.
                    _ = self.wanted.changed() => {
                        retry = RETRY_MIN;
                        tokio::time::sleep(RETRY_MIN).await;
                    }
                }
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
        let text = wanted.text;
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
