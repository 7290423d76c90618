//! What is in a volume, given to the group of a pod (fsGroup).

mod progress;

use std::ffi::CStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use base::trees::{self, Stat, Visitor};
use nix::fcntl::AtFlags;
use nix::unistd::{Gid, fchownat};

pub use progress::Progress;

use super::points::is_shown_in;
use crate::spec::Model;

/// Whom a pod's volumes are given to.
#[derive(Clone, Copy, Debug)]
pub struct Ownership<'a> {
    /// The pod's directory, which is among those of the other pods.
    pub pod_dir: &'a Path,
    /// `fsGroup`
    pub group: u32,
    /// Also where the root of a volume is the group's already (`fsGroupChangePolicy`).
    pub always: bool,
    /// Who waits looks here how far it is.
    pub progress: &'a Progress,
}

impl<'a> Ownership<'a> {
    /// What a pod asks for, if it does.
    pub fn of(model: &Model, pod_dir: &'a Path, progress: &'a Progress) -> Option<Self> {
        let policy = model.spec().security_context.as_ref().and_then(|context| context.fs_group_change_policy.as_deref());
        super::group(model).map(|group| Self { pod_dir, group, always: policy != Some("OnRootMismatch"), progress })
    }
}

/// A volume stays another group's, since another pod of the node has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    requested: u32,
    has: u32,
}

impl Shared {
    /// What the pod is told, in upstream's words. The volume is called as its PersistentVolume.
    pub fn message(&self, volume: &str) -> String {
        let Self { requested, has } = self;
        format!("The requested fsGroup is {requested}, but the volume {volume} has GID {has}. The volume may not be shareable.")
    }
}

/// Like [`give`], of a volume that belongs to the first pod of the node that has it, for as long as one has it (upstream's `SetUpAt` of local
/// volumes). The caller lets nobody show it meanwhile.
///
/// # Errors
/// A directory cannot be read, or the kernel does not say what is mounted.
pub fn give_unless_shared(root: &Path, place: &Path, to: Ownership<'_>) -> io::Result<Option<Shared>> {
    let (Some(pods), Some(own)) = (to.pod_dir.parent(), to.pod_dir.file_name()) else {
        return give(root, place, to).map(|()| None);
    };
    if !is_shown_in(root, pods, own)? {
        return give(root, place, to).map(|()| None);
    }
    let has = fs::metadata(root)?.gid();
    Ok((has != to.group).then_some(Shared { requested: to.group, has }))
}

/// Gives a directory and all that is in it to a group. The pod has the volume at `place`. Blocking; as long as there are files.
///
/// The root is last, as upstream's `walkDeep` has it: a walk that was cut off is begun anew, also where the pod asks for `OnRootMismatch`, which
/// looks at the root alone. Directories below it are before what is in them, so that what pods make in them meanwhile is the group's.
///
/// What cannot be given stays as it is, as upstream (`changeFilePermission`): a file may be immutable, and servers refuse root what is others'.
///
/// # Errors
/// A directory cannot be read.
pub fn give(root: &Path, place: &Path, to: Ownership<'_>) -> io::Result<()> {
    let metadata = fs::metadata(root)?;
    if !to.always && metadata.gid() == to.group && metadata.mode() & 0o2770 == 0o2770 {
        return Ok(());
    }
    let _walk = to.progress.begin(place, Instant::now());
    let mut giver = Giver::new(to);
    all(&File::open(root)?, &mut giver)?;
    if let Some((name, error)) = giver.first {
        let (volume, group, failed) = (place.display(), to.group, giver.failed);
        tracing::warn!(%volume, group, failed, name, %error, "files of a volume stay as they are: they cannot be given to the pod's group");
    }
    Ok(())
}

/// What is in a directory, and then the directory. It may be a file: drivers show what they like.
fn all<'a>(root: &File, giver: &mut (impl Visitor + AsMut<Giver<'a>>)) -> io::Result<()> {
    if root.metadata()?.is_dir() {
        trees::walk(root.try_clone()?.into(), giver)?;
    }
    giver.as_mut().hand(root, c".");
    Ok(())
}

/// Gives what is in a volume to a group. Whoever has the volume already may put links in the place of what is there: all is done by descriptor.
struct Giver<'a> {
    group: Gid,
    progress: &'a Progress,
    /// Files that were not given.
    failed: u64,
    /// The name of the first of them, and why.
    first: Option<(String, io::Error)>,
}

impl AsMut<Self> for Giver<'_> {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

impl<'a> Giver<'a> {
    fn new(to: Ownership<'a>) -> Self {
        Self { group: Gid::from_raw(to.group), progress: to.progress, failed: 0, first: None }
    }

    fn hand(&mut self, file: &File, name: &CStr) {
        self.progress.count();
        if let Err(error) = hand(file, self.group) {
            self.note(name, error);
        }
    }

    fn note(&mut self, name: &CStr, error: io::Error) {
        self.failed += 1;
        self.first.get_or_insert_with(|| (name.to_string_lossy().into_owned(), error));
    }
}

impl Visitor for Giver<'_> {
    fn file(&mut self, directory: BorrowedFd<'_>, name: &CStr, _: &Stat) -> io::Result<()> {
        match trees::handle(directory, name) {
            Ok(file) => self.hand(&file, name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.note(name, error),
        }
        Ok(())
    }

    fn enter(&mut self, directory: BorrowedFd<'_>, _: &Stat) -> io::Result<()> {
        self.hand(&File::from(directory.try_clone_to_owned()?), c".");
        Ok(())
    }
}

/// Gives a file or directory to a group, which may do what its owner may. Of a link it is the link that is given: it has no mode.
fn hand(file: &File, group: Gid) -> io::Result<()> {
    let metadata = file.metadata()?;
    let owned = fchownat(Some(file.as_raw_fd()), c"", None, Some(group), AtFlags::AT_EMPTY_PATH);
    if !metadata.is_symlink() {
        let more = if metadata.is_dir() { 0o2770 } else { 0o660 };
        // By the handle's own path: it is not open, and fchmod(2) is for open files.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(path, Permissions::from_mode(metadata.mode() & 0o7777 | more))?;
    }
    Ok(owned?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn give(root: &Path, group: u32, always: bool) -> io::Result<()> {
        super::give(root, root, Ownership { pod_dir: root, group, always, progress: &Progress::default() })
    }

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
        struct CutOff<'a>(Giver<'a>);
        impl<'a> AsMut<Giver<'a>> for CutOff<'a> {
            fn as_mut(&mut self) -> &mut Giver<'a> {
                &mut self.0
            }
        }
        impl Visitor for CutOff<'_> {
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
        let progress = Progress::default();
        let giver = Giver::new(Ownership { pod_dir: root, group: 4242, always: true, progress: &progress });
        all(&File::open(root).unwrap(), &mut CutOff(giver)).unwrap_err();
        assert_eq!(shown("a/b"), (4242, 0o2070));
        assert_ne!(shown(""), (4242, 0o2070));
        give(root, 4242, false).unwrap();
        assert_eq!([shown(""), shown("a/b/file")], [(4242, 0o2070), (4242, 0o060)]);
    }

    /// An immutable file stands for what a server refuses. Links, sockets, pipes and devices are given as well: upstream's Lchown asks no kind.
    #[test]
    fn what_cannot_be_given_keeps_nothing_else() {
        if !nix::unistd::Uid::effective().is_root() {
            return eprintln!("SKIPPED: giving away needs root");
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let at = |name: &str| root.join(name);
        for name in ["a", "immutable", "z"] {
            fs::write(at(name), "").unwrap();
        }
        symlink("a", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let immutable = |how: &str| {
            let changed = std::process::Command::new("chattr").arg(how).arg(at("immutable")).output();
            changed.is_ok_and(|changed| changed.status.success())
        };
        let has_immutable = immutable("+i");
        let given = give(root, 4242, true);
        let has = |name: &str| fs::symlink_metadata(at(name)).unwrap().gid();
        let groups = ["a", "z", "link", "dangling", "socket", "pipe", "", "immutable"].map(has);
        if has_immutable {
            immutable("-i");
        }
        given.unwrap();
        assert_eq!(groups[..7], [4242; 7]);
        assert_eq!(groups[7] != 4242, has_immutable);
        assert_eq!(fs::metadata(at("pipe")).unwrap().mode() & 0o777, 0o660);
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
