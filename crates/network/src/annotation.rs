//! What this node tells of itself in an annotation of its Node.

use std::convert::Infallible;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use client::kube::api::{Patch, PatchParams};
use client::{Api, Client, Informer};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use tokio::sync::watch;

/// How long a refused change waits.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// An annotation that is written in the background, as long as this is there: nobody waits for the API.
pub struct Annotation(watch::Sender<Option<Option<String>>>);

impl Annotation {
    /// Begins to keep the annotation `key` of the node called `name`; `client` is the node itself. Nothing is written before [`Self::set`].
    pub fn start(client: Client, nodes: Informer<Node>, name: &str, key: &'static str, tasks: &Tasks) -> Self {
        let (sender, receiver) = watch::channel(None);
        let writer = Writer { api: Api::all(client), nodes, name: name.to_owned(), key, wanted: receiver };
        tasks.spawn_until_cancelled(key, OnFailure::Shutdown, writer.run());
        Self(sender)
    }

    /// What it says from now on; none takes it away.
    pub fn set(&self, text: Option<String>) {
        self.0.send_if_modified(|known| {
            let is_other = known.as_ref() != Some(&text);
            *known = Some(text);
            is_other
        });
    }

    /// Whether there is to be one.
    pub fn is_set(&self) -> bool {
        self.0.borrow().as_ref().is_some_and(Option::is_some)
    }
}

struct Writer {
    api: Api<Node>,
    nodes: Informer<Node>,
    name: String,
    key: &'static str,
    /// None: not known yet.
    wanted: watch::Receiver<Option<Option<String>>>,
}

impl Writer {
    async fn run(mut self) -> Result<(), Infallible> {
        let mut changes = self.nodes.changes();
        loop {
            let mut retry = RETRY_MIN;
            while let Err(error) = self.write().await {
                let (key, error) = (self.key, client::why(&error));
                tracing::warn!(key, error, "the node's annotation cannot be written, trying again in {retry:?}");
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
        let Some(text) = self.wanted.borrow_and_update().clone() else { return Ok(()) };
        let Some(node) = self.nodes.get(None, &self.name) else { return Ok(()) };
        if node.metadata.annotations.as_ref().and_then(|all| all.get(self.key)) == text.as_ref() {
            return Ok(());
        }
        let patch = json!({"metadata": {"annotations": {self.key: text}}});
        match self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(client::kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop),
        }
    }
}
