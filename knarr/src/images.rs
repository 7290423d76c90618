//! What `knarr image` asks of a node: HTTP over a unix socket beside those of the node's pods, for root only. It works without the API,
//! and nothing of the cluster decides about it: who is root on a machine has its images anyway.

pub(crate) mod client;
mod node;
mod pull;
pub(crate) mod server;

use std::collections::{BTreeMap, BTreeSet};

use runtime::api;
use serde::{Deserialize, Serialize};

/// The header with the name that an imported image gets.
const NAME: &str = "knarr-image-name";

/// What is asked for, by path; all are POST.
const LIST: &str = "/images/list";
const IMPORT: &str = "/images/import";
const EXPORT: &str = "/images/export";
const PULL: &str = "/images/pull";
const REMOVE: &str = "/images/remove";
const PRUNE: &str = "/images/prune";

/// What a request says besides an archive.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Arguments {
    /// Names or identifiers of images.
    pub(crate) images: Vec<String>,
    /// User and password for a registry.
    pub(crate) credentials: Option<(String, String)>,
    /// Images with names are pruned, too.
    pub(crate) all: bool,
}

/// An image of a node. The names are those of the Container Runtime Interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Entry {
    /// The digest of its configuration.
    pub(crate) id: String,
    pub(crate) repo_tags: Vec<String>,
    pub(crate) repo_digests: Vec<String>,
    /// Bytes of its files.
    pub(crate) size: u64,
    /// The pods that have containers of it, NAMESPACE/NAME.
    pub(crate) pods: BTreeSet<String>,
}

impl Entry {
    fn new(image: api::Image, users: &BTreeMap<String, BTreeSet<String>>) -> Self {
        let pods = users.get(&image.id).cloned().unwrap_or_default();
        Self { id: image.id, repo_tags: image.tags, repo_digests: image.digests, size: image.size, pods }
    }
}

/// A line of the answer to a pull.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Event {
    /// So many bytes of a layer have come.
    Progress {
        /// Its digest.
        layer: String,
        done: u64,
        /// 0 where it is not known.
        size: u64,
        ready: bool,
    },
    /// The image is here.
    Pulled(Entry),
    /// It did not come.
    Failed(String),
}
