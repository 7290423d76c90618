//! Images between nodes: a node fetches the layers of an image from other nodes before it asks the registry, and finds images by name that
//! were imported on another node.
//!
//! Nodes speak over their own endpoints, which know each other by the certificates of the group `system:nodes`; nobody else is answered. What
//! is asked for is content: a layer by its digest, which only those know who may read the image's configuration, and whose bytes the receiver
//! checks. Names are given only of images that were imported, and only as far as the node lets its own pods use them without credentials.

mod choose;
mod client;

use std::sync::{Arc, LazyLock};

use base::metrics::Page;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

pub use client::OtherNodes;

/// What all paths of other nodes begin with.
pub(crate) const PREFIX: &str = "/knarr/images/";
/// Most layers of one question: an image that has more gets the others from its registry.
pub(crate) const LAYERS: usize = 512;

/// What a node gives to others.
#[derive(Clone)]
pub struct Sharing {
    /// Its images.
    pub images: Arc<dyn runtime::Shared>,
    /// Images that were imported are given by name, too.
    pub names: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    result: &'static str,
}

static FETCHED: LazyLock<Family<Result, Counter>> = LazyLock::new(|| {
    let help = "Layers that other nodes were asked for: taken, refused by a node that has too much to do, or failed";
    Page::Node.register("knarr_image_layers_from_nodes", help, Family::default())
});
pub(crate) static SERVED: LazyLock<Counter> = LazyLock::new(|| {
    Page::Node.register("knarr_image_layers_to_nodes", "Layers that were sent to other nodes", Counter::default())
});

fn fetched(result: &'static str) {
    FETCHED.get_or_create(&Result { result }).inc();
}
