//! Persistent volumes that are directories of this node: the provisioner, which is with the server, asks for them here.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use apimachinery::names;

use crate::volumes::points;

/// What the names of volumes begin with that are made here. No other directory is ever touched.
const PREFIX: &str = "pvc-";

/// Why a directory was not made or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not the name of a volume that is made here.
    #[error("{0:?} is not the name of a volume of this node")]
    Name(String),
    /// Something is mounted there, which is not ours.
    #[error("{} is mounted", .0.display())]
    Mounted(PathBuf),
    /// The machine refuses.
    #[error("{}: {source}", path.display())]
    File {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process stops.
    #[error("the process is shutting down")]
    Stopped,
}

fn directory(root: &Path, name: &str) -> Result<PathBuf, Error> {
    let good = name.starts_with(PREFIX) && names::dns1123_subdomain(name).is_empty();
    if good { Ok(root.join(name)) } else { Err(Error::Name(name.to_owned())) }
}

/// Makes a directory that users in containers may write to.
pub(crate) async fn make(root: &Path, name: &str) -> Result<(), Error> {
    let path = directory(root, name)?;
    blocking(move || {
        let failed = |source| Error::File { path: path.clone(), source };
        fs::create_dir_all(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(failed)
    })
    .await
}

/// Removes a directory with all that is in it.
pub(crate) async fn remove(root: &Path, name: &str) -> Result<(), Error> {
    let path = directory(root, name)?;
    blocking(move || {
        let failed = |source| Error::File { path: path.clone(), source };
        let Some(place) = points::in_table(&path).map_err(failed)? else { return Ok(()) };
        let table = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
        let mut points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| point.replace("\\040", " "));
        if let Some(point) = points.find(|point| Path::new(point).starts_with(&place)) {
            return Err(Error::Mounted(point.into()));
        }
        base::trees::remove(&path).map_err(failed)
    })
    .await
}

async fn blocking(work: impl FnOnce() -> Result<(), Error> + Send + 'static) -> Result<(), Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopped)?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn directories_come_and_go() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap().join("volumes");
        make(&root, "pvc-a").await.unwrap();
        make(&root, "pvc-a").await.unwrap();
        let path = root.join("pvc-a");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
        fs::write(path.join("file"), "data").unwrap();
        remove(&root, "pvc-a").await.unwrap();
        remove(&root, "pvc-a").await.unwrap();
        assert!(!path.exists() && root.exists());
    }

    #[tokio::test]
    async fn other_directories_are_not_touched() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("other")).unwrap();
        for name in ["other", "pvc-/../other", "..", "", "pvc-", "pvc-A"] {
            assert!(matches!(make(scratch.path(), name).await, Err(Error::Name(_))), "{name}");
            assert!(matches!(remove(scratch.path(), name).await, Err(Error::Name(_))), "{name}");
        }
        assert!(scratch.path().join("other").exists());
    }
}
