//! How many pods of a namespace may wait for a node before controllers make no more of them.
//!
//! Upstream's controllers are held by their client, which makes twenty pods in a second for all of them together. Here they make as many as the API takes: a
//! set of a million pods, of which no node has room for a hundred, would fill the store. Where nodes have room it is no limit: pods leave the number
//! as soon as they have their node.

use std::time::Duration;

use client::events::Type;
use client::{Index, Informer, Object, Values};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use crate::controller::Cx;
use crate::{meta, pods};

/// Pods of a namespace without a node.
const WAITING: usize = 5000;
/// How soon it is looked again.
const AGAIN: Duration = Duration::from_secs(5);

/// What events and conditions say when no pods are made.
pub(crate) const PAUSED: &str = "CreationPaused";

/// The pods of each namespace that have no node.
pub(crate) struct Room {
    waiting: Index<Pod>,
    /// So many may wait.
    limit: usize,
    /// How soon whoever makes no pods looks again.
    pub(crate) again: Duration,
}

fn values(pod: &Pod, values: &mut Values) {
    if pods::node(pod).is_empty() && !pods::is_finished(pod) {
        values.add(meta::namespace(pod));
    }
}

/// What says whether a pod has ended.
#[derive(Deserialize)]
struct Ended {
    metadata: Place,
    status: Option<Phase>,
}

#[derive(Deserialize)]
struct Place {
    namespace: Option<String>,
}

#[derive(Deserialize)]
struct Phase {
    phase: Option<String>,
}

/// The same of a pod's JSON.
fn lean(pod: &[u8], values: &mut Values) -> bool {
    match pods::node_of_text(pod) {
        None => return false,
        Some(node) if !node.is_empty() => return true,
        Some(_) => {}
    }
    let Ok(Ended { metadata, status }) = serde_json::from_slice(pod) else { return false };
    let phase = status.and_then(|status| status.phase).unwrap_or_default();
    if !pods::is_last_phase(&phase) {
        values.add(metadata.namespace.unwrap_or_default());
    }
    true
}

impl Room {
    pub(crate) fn new(pods: &Informer<Pod>) -> Self {
        Self { waiting: pods.index_lean("waiting", values, lean), limit: WAITING, again: AGAIN }
    }

    /// The same where another number may wait, and where it is looked again at once.
    #[cfg(test)]
    pub(crate) fn limited(self, limit: usize) -> Self {
        Self { limit, again: Duration::from_millis(20), ..self }
    }

    /// [`PAUSED`] in words.
    pub(crate) fn why(&self) -> String {
        format!("no more pods are made while {} of the namespace have no node", self.limit)
    }

    /// How many of `wanted` pods may be made for `owner` now. It is told when none may.
    pub(crate) fn for_some<K: Object>(&self, cx: &Cx, owner: &K, wanted: usize) -> usize {
        let some = wanted.min(self.limit.saturating_sub(self.waiting.count(meta::namespace(owner))));
        if some == 0 && wanted > 0 {
            cx.events.about(owner, Type::Warning, PAUSED, self.why());
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object};

    #[tokio::test]
    async fn those_without_a_node_count() {
        let world = World::new();
        let put = |namespace: &str, name: &str, node: Option<&str>, phase: &str| {
            world.fake.put::<Pod>(&object(
                json!({"metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}/{name}")},
                "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}}),
            ));
        };
        put("a", "waits", None, "Pending");
        put("a", "has-one", Some("n"), "Pending");
        put("a", "ended", None, "Failed");
        put("b", "waits", None, "Pending");
        let options = world.options();
        let pods: Informer<Pod> = options.informers.of();
        let room = Room::new(&pods);
        pods.synced().await;
        assert_eq!(["a", "b", "c"].map(|namespace| room.waiting.count(namespace)), [1, 1, 0]);
        put("a", "waits", Some("n"), "Pending");
        let mut changes = pods.changes();
        while room.waiting.count("a") != 0 {
            changes.next().await;
        }
    }
}
