//! Layers from other nodes: which node is asked, how long it may take, and what one failure costs.
//!
//! A layer crosses uncompressed, put together from its files ([`super::split`]), and is unpacked as one of a registry is: it counts only when its
//! bytes have the diff ID that the image's configuration names. So a node that lies costs time and no wrong byte. After one failure the layer
//! comes from the registry, and the node is told to whoever chooses nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use parking_lot::Mutex;

use super::layer::LayerError;
use super::origins::Origins;
use super::pace::{Pace, paced};
use super::spool::{Expected, unpacked};
use super::store::Store;
use crate::api::{Image, Result};

/// A layer as it is uncompressed, in pieces. It ends without an error only when it is whole.
pub type LayerStream = BoxStream<'static, io::Result<Bytes>>;

/// Time that is waited for a node's bytes in all, and bytes a second for which there is more of it.
const PATIENCE: Duration = Duration::from_secs(10);
const SLOWEST: u64 = 256 << 10;
/// How much larger than its compressed form a layer of another node may be, and what a small one may have in any case, bytes. One that is
/// larger comes from the registry: a node that sends on and on would fill the disk before its digest tells.
const RATIO: u64 = 32;
const SMALL: u64 = 16 << 20;

/// Why another node gives no layer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It serves as many as it may, or does not have it any more.
    #[error("the node does not give it now")]
    Busy,
    /// It cannot be reached, or answers nonsense.
    #[error("{0}")]
    Failed(String),
}

/// What became of a layer that a node has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is what it should be.
    Taken,
    /// It came too slowly, not whole, or is another one; why.
    Failed(String),
}

/// Other nodes, as those that may have layers. The composition provides it.
#[async_trait]
pub trait Peers: Send + Sync {
    /// The nodes that have each of these layers (diff IDs), in the layers' order. `image` is the name that is pulled.
    async fn holders(&self, image: &str, layers: &[String]) -> Vec<Vec<Arc<str>>>;
    /// Begins to fetch a layer from one of them.
    async fn layer(&self, node: &str, diff_id: &str) -> std::result::Result<LayerStream, PeerError>;
    /// What became of it.
    fn told(&self, node: &str, outcome: Outcome);
    /// The configuration of an image that was imported under this whole name on another node, and that node.
    async fn imported(&self, name: &str) -> Option<(Arc<str>, Bytes)>;
}

/// What a node gives of its images to other nodes.
#[async_trait]
pub trait Shared: Send + Sync {
    /// Those of these layers (diff IDs) that are here and can be put together as they were.
    async fn layers(&self, diff_ids: Vec<String>) -> Result<Vec<String>>;
    /// A layer.
    async fn layer(&self, diff_id: &str) -> Result<LayerStream>;
    /// An image that was imported under this name, and its configuration.
    async fn imported(&self, name: &str) -> Result<Option<(Image, Bytes)>>;
}

/// Where the missing layers of one image may come from.
pub(super) struct Sources {
    peers: Option<Arc<dyn Peers>>,
    holders: BTreeMap<String, Vec<Arc<str>>>,
    /// Nodes that have given layers.
    used: Mutex<BTreeSet<String>>,
    /// How many nodes may fail with one layer.
    failures: usize,
}

impl Sources {
    /// Asks for the layers `missing` of the image that is pulled as `image`. `failures` nodes may fail with a layer before it is given up.
    pub(super) async fn of(peers: Option<&Arc<dyn Peers>>, image: &str, missing: Vec<String>, failures: usize) -> Self {
        let peers = peers.filter(|_| !missing.is_empty()).cloned();
        let holders = match &peers {
            Some(peers) => peers.holders(image, &missing).await,
            None => Vec::new(),
        };
        Self { peers, holders: missing.into_iter().zip(holders).collect(), used: Mutex::default(), failures }
    }

    /// The nodes that have given layers.
    pub(super) fn used(&self) -> Vec<String> {
        self.used.lock().iter().cloned().collect()
    }

    /// Fetches and unpacks a layer of at most `most` bytes; its unpacked size, none when no node gives it as it should be.
    pub(super) async fn layer(&self, store: &Arc<Store>, diff_id: &str, most: u64, mut seen: impl FnMut(u64)) -> Option<u64> {
        let (peers, holders) = (self.peers.as_ref()?, self.holders.get(diff_id)?);
        let mut failures = 0;
        // Nodes give what anybody may have.
        let expected = || Expected { digest: None, diff_id: diff_id.to_owned(), most, origins: Origins::open() };
        for node in holders {
            let failed = match peers.layer(node, diff_id).await {
                Err(PeerError::Busy) => continue,
                Err(PeerError::Failed(why)) => why,
                Ok(stream) => match unpacked(store, paced(stream, Pace::new(PATIENCE, SLOWEST)), expected(), &mut seen).await {
                    Ok(size) => {
                        peers.told(node, Outcome::Taken);
                        self.used.lock().insert(node.to_string());
                        return Some(size);
                    }
                    // That is not the node's doing.
                    Err(LayerError::Full(_)) => return None,
                    Err(error) => error.to_string(),
                },
            };
            tracing::warn!(node = &**node, layer = diff_id, why = failed, "another node has not given a layer");
            peers.told(node, Outcome::Failed(failed));
            failures += 1;
            if failures >= self.failures {
                break;
            }
        }
        None
    }
}

/// Most bytes of an uncompressed layer that has `compressed` bytes in the registry; 0 when the manifest does not tell.
pub(super) fn most(compressed: u64) -> u64 {
    match compressed {
        0 => u64::MAX,
        compressed => compressed.saturating_mul(RATIO).saturating_add(SMALL),
    }
}

#[cfg(test)]
mod tests;
