//! Who has shown that a layer may be had. Pure.
//!
//! The digests of layers are no secret: whoever knows those of somebody else's private image can name them in an image of their own. So a layer
//! that is here counts for another image only when nobody had to show anything for it, or when the host that gave it has the same blob in the other
//! repository, for whoever asks. Else the image's own registry gives it once more.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Most hosts that are remembered of one layer.
const HOSTS: usize = 100;

/// Where a layer has come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Origins {
    /// It was had without credentials, or by an import, which is open to all pods of the node.
    pub(super) is_open: bool,
    /// Hosts that have given it for credentials, each with the digest of its blob.
    blobs: BTreeSet<(String, String)>,
}

impl Origins {
    /// Of a layer that anybody may have.
    pub(super) fn open() -> Self {
        Self { is_open: true, blobs: BTreeSet::new() }
    }

    /// Of a layer that is this blob of this host, which wanted to see credentials, or did not.
    pub(super) fn of(host: &str, blob: &str, is_open: bool) -> Self {
        if is_open { Self::open() } else { Self { is_open, blobs: BTreeSet::from([(host.to_owned(), blob.to_owned())]) } }
    }

    /// Whether this host has given the layer as this blob.
    pub(super) fn has(&self, host: &str, blob: &str) -> bool {
        self.blobs.contains(&(host.to_owned(), blob.to_owned()))
    }

    /// Adds others; whether that is news.
    pub(super) fn add(&mut self, other: &Self) -> bool {
        let before = self.clone();
        self.is_open |= other.is_open;
        let all = std::mem::take(&mut self.blobs).into_iter().chain(other.blobs.iter().cloned());
        self.blobs = all.filter(|_| !self.is_open).take(HOSTS).collect();
        *self != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_to_all_needs_no_names() {
        let mut origins = Origins::of("r.io", "sha256:1", false);
        assert!(origins.has("r.io", "sha256:1") && !origins.has("r.io", "sha256:2") && !origins.has("q.io", "sha256:1"));
        assert!(origins.add(&Origins::of("q.io", "sha256:2", false)) && !origins.add(&Origins::default()));
        assert!(origins.has("r.io", "sha256:1") && origins.has("q.io", "sha256:2") && !origins.is_open);
        assert!(origins.add(&Origins::of("x.io", "sha256:3", true)) && !origins.add(&Origins::of("y.io", "sha256:3", false)));
        assert_eq!(origins, Origins::open());
    }
}
