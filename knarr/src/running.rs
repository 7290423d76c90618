//! What runs of a node.

use std::sync::{Arc, OnceLock};

/// The kubelet of a node, from when it runs. Clones are of the same node.
#[derive(Clone, Default)]
pub(crate) struct Running(Arc<OnceLock<kubelet::Api>>);

impl Running {
    /// It runs from now on. It starts once.
    pub(crate) fn set(&self, kubelet: kubelet::Api) {
        let _ = self.0.set(kubelet);
    }

    pub(crate) fn get(&self) -> Option<&kubelet::Api> {
        self.0.get()
    }
}
