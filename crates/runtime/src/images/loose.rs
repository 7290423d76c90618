//! What is noted of a layer that depends on the layers below it; see [`super::seam`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::noted::Room;

/// Paths in a layer, relative to its root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loose {
    /// Directories that it has files in and says nothing of.
    pub(super) directories: BTreeSet<String>,
    /// Hard links to files that it does not have.
    pub(super) links: BTreeMap<String, String>,
}

/// Most bytes of paths that are noted of one layer: what is written of them is read again as a record of the store ([`base::records`]).
const NOTED: usize = 12 << 20;

/// What is being noted of a layer.
pub(super) struct Noting {
    loose: Loose,
    room: Room,
}

impl Noting {
    pub(super) fn new() -> Self {
        let what = "hard links to other layers' files, and directories that the layer does not mention,";
        Self { loose: Loose::default(), room: Room::new(what, NOTED) }
    }

    /// A directory that was made for what is in it.
    pub(super) fn implied(&mut self, path: &Path) -> io::Result<()> {
        if let Some(text) = path.to_str()
            && !self.loose.directories.contains(text)
        {
            self.room.take(path)?;
            self.loose.directories.insert(text.to_owned());
        }
        Ok(())
    }

    /// The layer says itself what is at `path`.
    pub(super) fn told(&mut self, path: &Path) {
        let Some(text) = path.to_str() else { return };
        if self.loose.directories.remove(text) {
            self.room.give_back(path);
        }
        if let Some(target) = self.loose.links.remove(text) {
            self.room.give_back(path);
            self.room.give_back(Path::new(&target));
        }
    }

    /// A hard link at `path`, of which nothing is noted yet; false when it cannot be noted.
    pub(super) fn link(&mut self, path: &Path, target: &Path) -> io::Result<bool> {
        let (Some(text), Some(target_text)) = (path.to_str(), target.to_str()) else { return Ok(false) };
        self.told(path);
        self.room.take(path)?;
        self.room.take(target)?;
        self.loose.links.insert(text.to_owned(), target_text.to_owned());
        Ok(true)
    }

    pub(super) fn finish(self) -> Loose {
        self.loose
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
