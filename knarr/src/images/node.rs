//! What is asked for the images of a node.

use runtime::Engine;

/// The images of a node: the engine has them, the kubelet tells of them.
pub(super) struct NodeImages {
    pub(super) engine: Engine,
    kubelet: kubelet::Api,
}

impl NodeImages {
    pub(super) fn new(engine: Engine, kubelet: kubelet::Api) -> Self {
        Self { engine, kubelet }
    }

    /// Has the kubelet know of other images.
    pub(super) async fn changed(&self) {
        self.kubelet.images_changed().await;
    }
}
