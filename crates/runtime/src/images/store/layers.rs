//! Layers on disk, with what is kept beside them.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use base::files::{self, Outlives};
use base::trees::Temporary;
use tokio::sync::OwnedSemaphorePermit;

use super::{Store, short};
use crate::images::layer::SPLIT;
use crate::images::loose::{Loose, Unpacked};
use crate::images::origins::Origins;

/// The file beside a layer that says where it has come from. One that an earlier version has unpacked has none, and comes again where it counts.
const ORIGINS: &str = "origins.json";
/// The file beside a layer that says what of it depends on those below.
pub(super) const LOOSE: &str = "loose.json";

impl Store {
    /// Waits until a layer may be unpacked: who came first goes first.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        self.turns.clone().acquire_owned().await.ok()
    }

    /// The size of an unpacked layer, none when it is not here.
    pub(crate) fn layer_size(&self, diff_id: &str) -> Option<u64> {
        fs::read_to_string(self.layers_dir().join(short(diff_id)).join("size")).ok()?.parse().ok()
    }

    /// Runs `unpack` on a new directory and makes the result the layer `diff_id`. Blocking.
    pub(crate) fn add_layer<E: From<io::Error>>(
        &self,
        diff_id: &str,
        unpack: impl FnOnce(&Path) -> std::result::Result<Unpacked, E>,
    ) -> std::result::Result<u64, E> {
        let temporary = Temporary::new(&self.dir.join("tmp"), "layer-")?;
        let root = temporary.path().join("fs");
        fs::create_dir(&root)?;
        set_mode(&root, 0o755)?;
        let Unpacked { size, loose } = unpack(&root)?;
        fs::write(temporary.path().join("size"), size.to_string())?;
        let mut out = io::BufWriter::new(fs::File::create(temporary.path().join(LOOSE))?);
        serde_json::to_writer(&mut out, &loose).map_err(io::Error::from)?;
        out.flush()?;
        drop((out, loose));
        // One flush for all of its files.
        nix::unistd::syncfs(fs::File::open(&root)?.as_raw_fd()).map_err(io::Error::from)?;
        let target = self.layers_dir().join(short(diff_id));
        match fs::rename(temporary.path(), &target) {
            Ok(()) => temporary.keep(),
            // Somebody else was faster; theirs is the same.
            Err(_) if target.exists() => {}
            Err(error) => return Err(error.into()),
        }
        sync_dir(&self.layers_dir())?;
        Ok(size)
    }

    /// Where a layer has come from.
    pub(crate) fn origins(&self, diff_id: &str) -> Origins {
        let known = base::records::read_json(&self.layers_dir().join(short(diff_id)).join(ORIGINS));
        known.ok().flatten().unwrap_or_default()
    }

    /// A layer has come from there as well. Blocking.
    pub(crate) fn add_origins(&self, diff_id: &str, origins: &Origins) -> io::Result<()> {
        // One at a time: each begins with what is there.
        let _state = self.state.lock();
        let mut known = self.origins(diff_id);
        if !known.add(origins) {
            return Ok(());
        }
        files::replace(&self.layers_dir().join(short(diff_id)).join(ORIGINS), &serde_json::to_vec(&known)?, Outlives::Machine)
    }

    /// The size of a layer that is here and that anybody may have.
    pub(crate) fn open_layer_size(&self, diff_id: &str) -> Option<u64> {
        self.layer_size(diff_id).filter(|_| self.origins(diff_id).is_open)
    }

    /// What of a layer depends on those below it. One that an earlier version unpacked knows nothing of it.
    pub(super) fn loose(&self, diff_id: &str) -> io::Result<Loose> {
        let known = base::records::read_json(&self.layers_dir().join(short(diff_id)).join(LOOSE))?;
        Ok(known.unwrap_or_default())
    }

    /// Where a layer is unpacked, and from what its stream is put together again.
    pub(crate) fn parts(&self, diff_id: &str) -> (PathBuf, PathBuf) {
        let layer = self.layers_dir().join(short(diff_id));
        (layer.join("fs"), layer.join(SPLIT))
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}
