//! What is known of all kubelets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::history::History;

/// What is known of each kubelet.
pub(crate) struct Usages {
    began: Instant,
    nodes: Mutex<HashMap<String, Arc<tokio::sync::Mutex<History>>>>,
}

impl Default for Usages {
    fn default() -> Self {
        Self { began: Instant::now(), nodes: Mutex::default() }
    }
}

impl Usages {
    /// The time, as histories have it.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Forgets a node.
    pub(super) fn forget(&self, node: &str) {
        self.nodes.lock().remove(node);
    }

    /// What is known of a node. A new one takes the place of those of which nobody has asked for long.
    pub(super) fn of(&self, node: &str) -> Arc<tokio::sync::Mutex<History>> {
        let (now, mut nodes) = (self.now(), self.nodes.lock());
        if let Some(known) = nodes.get(node) {
            return known.clone();
        }
        nodes.retain(|_, known| known.try_lock().map_or(true, |history| !history.is_forgotten(now)));
        nodes.entry(node.to_owned()).or_default().clone()
    }
}
