//! What is in a volume, given to the group of a pod (fsGroup).

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use base::trees::{self, Stat, Visitor};
use nix::libc;

/// Gives a directory and all that is in it to a group (fsGroup). Unless `always`, not when the directory has it already.
///
/// The root is last, as upstream's `walkDeep` has it: a walk that was cut off is begun anew, also where the pod asks for `OnRootMismatch`, which
/// looks at the root alone. Directories below it are before what is in them, so that what pods make in them meanwhile is the group's.
pub fn give(root: &Path, group: u32, always: bool) -> io::Result<()> {
    let metadata = fs::metadata(root)?;
    if !always && metadata.gid() == group && metadata.mode() & 0o2770 == 0o2770 {
        return Ok(());
    }
    let directory = fs::File::open(root)?;
    if !metadata.is_dir() {
        return hand(&directory, &metadata, group);
    }
    all(&directory, group, &mut Giver { group })
}

/// What is in a directory, and then the directory.
fn all(root: &fs::File, group: u32, below: &mut impl Visitor) -> io::Result<()> {
    trees::walk(root.try_clone()?.into(), below)?;
    hand(root, &root.metadata()?, group)
}

/// Gives what is in a volume to a group. Whoever has the volume already may put links in the place of what is there: all is done by descriptor.
struct Giver {
    group: u32,
}

impl Visitor for Giver {
    fn file(&mut self, directory: BorrowedFd<'_>, name: &CStr, found: &Stat) -> io::Result<()> {
        if found.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Ok(());
        }
        // It may have gone, or have become a link or a pipe.
        let Ok(file) = trees::open_file(directory, name) else { return Ok(()) };
        let metadata = file.metadata()?;
        if metadata.is_file() { hand(&file, &metadata, self.group) } else { Ok(()) }
    }

    fn enter(&mut self, directory: BorrowedFd<'_>, _: &Stat) -> io::Result<()> {
        let directory = fs::File::from(directory.try_clone_to_owned()?);
        hand(&directory, &directory.metadata()?, self.group)
    }
}

/// Gives an open file or directory to a group, which may do what its owner may.
fn hand(file: &fs::File, metadata: &fs::Metadata, group: u32) -> io::Result<()> {
    fchown(file, None, Some(group))?;
    let more = if metadata.is_dir() { 0o2770 } else { 0o660 };
    file.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777 | more))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_group_gets_what_is_in_the_volume_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let (volume, other) = (home.path().join("volume"), home.path().join("other"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::create_dir(&other).unwrap();
        for path in [volume.join("a/b/own"), other.join("secret")] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        symlink(&other, volume.join("directory")).unwrap();
        symlink(other.join("secret"), volume.join("a/file")).unwrap();
        let shown = |path: &Path| {
            let metadata = fs::metadata(path).unwrap();
            (metadata.gid(), metadata.mode() & 0o7777)
        };
        let before = (shown(&other), shown(&other.join("secret")));
        give(&volume, 4242, true).unwrap();
        assert_eq!((shown(&other), shown(&other.join("secret"))), before);
        assert_eq!([shown(&volume), shown(&volume.join("a/b"))], [(4242, 0o2775); 2]);
        assert_eq!(shown(&volume.join("a/b/own")), (4242, 0o660));
        // Once is enough, unless it is asked for always.
        fs::set_permissions(volume.join("a/b/own"), fs::Permissions::from_mode(0o600)).unwrap();
        give(&volume, 4242, false).unwrap();
        assert_eq!(shown(&volume.join("a/b/own")), (4242, 0o600));
    }

    /// KEP-695: "OnRootMismatch will only perform permission change if permissions of top level directory does not match." The top level
    /// directory says so of all only if it is the last to be given.
    #[test]
    fn a_walk_that_was_cut_off_is_finished_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "").unwrap();
        /// Stands for the end of the process in the middle of the walk.
        struct CutOff(Giver);
        impl Visitor for CutOff {
            fn file(&mut self, _: BorrowedFd<'_>, _: &CStr, _: &Stat) -> io::Result<()> {
                Err(io::ErrorKind::Interrupted.into())
            }
            fn enter(&mut self, directory: BorrowedFd<'_>, found: &Stat) -> io::Result<()> {
                self.0.enter(directory, found)
            }
        }
        let shown = |path: &str| {
            let metadata = fs::metadata(root.join(path)).unwrap();
            (metadata.gid(), metadata.mode() & 0o2070)
        };
        all(&fs::File::open(root).unwrap(), 4242, &mut CutOff(Giver { group: 4242 })).unwrap_err();
        assert_eq!(shown("a/b"), (4242, 0o2070));
        assert_ne!(shown(""), (4242, 0o2070));
        give(root, 4242, false).unwrap();
        assert_eq!([shown(""), shown("a/b/file")], [(4242, 0o2070), (4242, 0o060)]);
    }

    #[test]
    fn a_group_gets_everything_and_links_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (directory.path().join("volume"), directory.path().join("outside"));
        fs::create_dir_all(root.join("a")).unwrap();
        fs::write(root.join("a/file"), "").unwrap();
        fs::write(&outside, "").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        let own = fs::metadata(&root).unwrap().gid();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        give(&root, own, false).unwrap();
        assert_eq!((mode(&root) & 0o2770, mode(&root.join("a/file")) & 0o660, mode(&outside)), (0o2770, 0o660, 0o600));
        fs::set_permissions(root.join("a/file"), fs::Permissions::from_mode(0o600)).unwrap();
        give(&root, own, false).unwrap();
        assert_eq!(mode(&root.join("a/file")), 0o600);
        give(&root, own, true).unwrap();
        assert_eq!(mode(&root.join("a/file")), 0o660);
    }
}
