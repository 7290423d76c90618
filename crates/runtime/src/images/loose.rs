//! What is noted of a layer that depends on the layers below it; see [`super::seam`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Paths in a layer, relative to its root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loose {
    /// Directories that it has files in and says nothing of.
    pub(super) directories: BTreeSet<String>,
    /// Hard links to files that it does not have.
    pub(super) links: BTreeMap<String, String>,
}

impl Loose {
    /// A directory that was made for what is in it.
    pub(super) fn implied(&mut self, path: &Path) {
        self.directories.extend(path.to_str().map(str::to_owned));
    }

    /// The layer says itself what is at `path`.
    pub(super) fn told(&mut self, path: &Path) {
        if let Some(path) = path.to_str() {
            self.directories.remove(path);
            self.links.remove(path);
        }
    }

    /// A hard link at `path`; false when it cannot be noted.
    pub(super) fn link(&mut self, path: &Path, target: &Path) -> bool {
        let (Some(path), Some(target)) = (path.to_str(), target.to_str()) else { return false };
        self.links.insert(path.to_owned(), target.to_owned());
        true
    }
}

/// A layer that has been unpacked: the bytes of its files, and what depends on others.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) size: u64,
    pub(crate) loose: Loose,
}

impl Unpacked {
    /// One that depends on nothing.
    pub(crate) fn new(size: u64) -> Self {
        Self { size, loose: Loose::default() }
    }
}
