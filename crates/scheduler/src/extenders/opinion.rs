//! What extenders have said of the nodes of one pod.

use std::collections::HashMap;

use super::protocol::Refused;

/// What extenders say of nodes.
#[derive(Debug, Default)]
pub(crate) struct Opinion {
    /// The nodes that will do.
    pub(crate) nodes: Vec<String>,
    pub(crate) refused: Vec<Refused>,
    /// By node, on top of those of the plugins.
    pub(crate) scores: HashMap<String, i64>,
}
