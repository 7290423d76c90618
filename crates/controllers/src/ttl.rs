//! The annotation `node.alpha.kubernetes.io/ttl`: for how many seconds the kubelets of a cluster of this size may keep ConfigMaps and Secrets
//! without asking again (upstream: `pkg/controller/ttl`). Knarr's kubelet watches them instead.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use client::kube::api::{Patch, PatchParams};
use client::{Api, Informer, Informers, Key};
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use serde_json::json;

use crate::controller::{Action, Controller, Cx, Error, Source};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// From which number of nodes on a step is left downward, up to which it holds, and its seconds. The steps overlap, so that a cluster between two of them keeps its own.
const STEPS: [(usize, usize, u32); 5] = [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// The step of a cluster of so many nodes that was at another one.
fn step(mut at: usize, nodes: usize) -> usize {
    while nodes > STEPS[at].1 {
        at += 1;
    }
    while nodes < STEPS[at].0 {
        at -= 1;
    }
    at
}

pub(crate) struct Ttl {
    nodes: Informer<Node>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    step: AtomicUsize,
    /// What each node says, as far as it was looked at.
    told: Mutex<HashMap<String, u32>>,
}

impl State {
    fn seconds(&self, nodes: usize) -> u32 {
        let at = step(self.step.load(Ordering::Relaxed), nodes);
        self.step.store(at, Ordering::Relaxed);
        STEPS[at].2
    }
}

impl Ttl {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { nodes: informers.of(), state: Arc::default() }
    }
}

impl Controller for Ttl {
    const NAME: &'static str = "ttl";
    const ACCOUNT: &'static str = "ttl-controller";

    fn sources(&self) -> Vec<Source> {
        let (nodes, state) = (self.nodes.clone(), self.state.clone());
        vec![Source::stepped(&self.nodes, move |step, queue| {
            let name = &step.key().name;
            // As upstream, a node is written to when it changes by itself the next time, and not all of them when there is one more.
            let is_told = || state.told.lock().get(name) == Some(&state.seconds(nodes.len()));
            if step.new.as_ref().is_none_or(|node| !node.mentions(ANNOTATION) || !is_told()) {
                queue.add(step.key().clone());
            }
        })]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(node) = self.nodes.by_key(key) else {
            self.state.told.lock().remove(&key.name);
            return Ok(Action::Done);
        };
        let seconds = self.state.seconds(self.nodes.len());
        let own = node.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION));
        if own.and_then(|own| own.parse().ok()) != Some(seconds) {
            let patch = json!({"metadata": {"annotations": {ANNOTATION: seconds.to_string()}}});
            Api::<Node>::all(cx.client.clone()).patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        self.state.told.lock().insert(key.name.clone(), seconds);
        Ok(Action::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, object};

    /// Upstream's TestDesiredTTL: bounds overlap.
    #[test]
    fn steps_have_two_bounds() {
        let check = |at: usize, nodes: usize, expected: u32| assert_eq!(STEPS[step(at, nodes)].2, expected, "{at} {nodes}");
        check(0, 0, 0);
        check(0, 100, 0);
        check(0, 101, 15);
        check(1, 90, 15);
        check(1, 89, 0);
        check(0, 5000, 300);
        check(4, 1800, 300);
        check(4, 1799, 60);
        check(4, 3, 0);
    }

    #[tokio::test]
    async fn nodes_are_annotated() {
        let world = World::new();
        for name in ["a", "b"] {
            let annotations = if name == "a" { json!({}) } else { json!({ANNOTATION: "300"}) };
            world.fake.put::<Node>(&object(json!({"metadata": {"name": name, "annotations": annotations}})));
        }
        world.start(&["ttl"]);
        let is_told =
            |node: &Node| node.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION)).is_some_and(|ttl| ttl == "0");
        world.fake.until::<Node>(|nodes| nodes.len() == 2 && nodes.iter().all(is_told)).await;
    }
}
