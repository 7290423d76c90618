//! What is asked for the images of a node.

use runtime::Engine;
use runtime::api::Credentials;

/// The images of a node: the engine has them, the kubelet tells of them.
pub(super) struct NodeImages {
    pub(super) engine: Engine,
    kubelet: kubelet::Api,
}

impl NodeImages {
    pub(super) fn new(engine: Engine, kubelet: kubelet::Api) -> Self {
        Self { engine, kubelet }
    }

    /// Credentials for an image by the node's providers, and what those say that have failed.
    pub(super) async fn credentials(&self, image: &str) -> (Vec<Credentials>, Vec<String>) {
        self.kubelet.image_credentials(image).await
    }

    /// Has the kubelet know of other images.
    pub(super) async fn changed(&self) {
        self.kubelet.images_changed().await;
    }
}
