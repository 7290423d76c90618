//! Local PersistentVolumes of the mode `Filesystem`: a directory of the node, or a block device whose file system is mounted. A device that has
//! nothing on it gets a file system first (API `LocalVolumeSource`).
//!
//! Each pod has a mount of its own: to the kernel all mounts of a device are of one file system.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use parking_lot::{Condvar, Mutex};

use super::failure::{Failure, Step};
use super::groups::{Ownership, Shared, give_unless_shared};
use super::options::flags;
use super::points::{bind, unmount};

/// The file system of a device that has none, where the volume does not name one.
const USUAL: &str = "ext4";
/// Bytes at the beginning and at the end of a device that are all zero where nothing is on it: labels of file systems, partitions and arrays
/// are in them.
const EDGE: u64 = 1 << 20;
/// Exit code of fsck(8): errors are left that nobody has corrected.
const UNCORRECTED: i32 = 4;

/// What is on the node at a volume's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// A device, by its number.
    Device(u64),
    /// A directory, by its device and inode.
    Directory(u64, u64),
}

/// Places that are looked after now: devices that get a file system or are mounted, and volumes that are given to a group. One pod at a time
/// does, so that no two are the first.
static BUSY: Mutex<BTreeSet<Place>> = Mutex::new(BTreeSet::new());
static DONE: Condvar = Condvar::new();

/// The turn of one who looks after a place.
struct Turn(Place);

impl Turn {
    fn of(place: Place) -> Self {
        let mut busy = BUSY.lock();
        while !busy.insert(place) {
            DONE.wait(&mut busy);
        }
        Self(place)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.lock().remove(&self.0);
        DONE.notify_all();
    }
}

/// How a local volume is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// `fsType` of a device; none is what is on it.
    pub fs_type: Option<String>,
    /// `mountOptions`.
    pub options: Vec<String>,
}

/// What is on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// A file system of this type.
    Known(&'static str),
    /// Nothing.
    Blank,
    /// Something else.
    Other,
}

/// Looks at a device, or at an image of one.
fn content(device: &mut (impl Read + Seek)) -> io::Result<Content> {
    let size = device.seek(SeekFrom::End(0))?;
    let mut part = |from: u64| -> io::Result<Vec<u8>> {
        device.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        device.by_ref().take(EDGE).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let (first, last) = (part(0)?, part(size.saturating_sub(EDGE))?);
    let at = |offset: usize, magic: &[u8]| first.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    Ok(if at(1080, &[0x53, 0xef]) {
        Content::Known("ext4")
    } else if at(0, b"XFSB") {
        Content::Known("xfs")
    } else if at(0x1_0040, b"_BHRfS_M") {
        Content::Known("btrfs")
    } else if first.iter().chain(&last).all(|byte| *byte == 0) {
        Content::Blank
    } else {
        Content::Other
    })
}

impl Local {
    /// Mounts what is at `path` at `at`, and gives it to a group unless another pod has it, which is said then. It is mounted as it is to be, or
    /// not at all: what is mounted at `at` is not looked at again. Blocking.
    ///
    /// # Errors
    /// What an event says.
    pub fn mount(&self, path: &Path, at: &Path, owner: Option<Ownership<'_>>) -> Result<Option<Shared>, Failure> {
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let unfit = |why: String| Err(Failure::at(Step::Look, why));
        let (kind, device) = match fs::metadata(path) {
            Ok(metadata) => (metadata.file_type(), metadata.rdev()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return unfit(format!("path {path:?} does not exist")),
            Err(error) => return unfit(failed(error)),
        };
        if kind.is_dir() {
            return Ok(self.show(path, at, owner).map_err(failed)?);
        }
        if !kind.is_block_device() {
            return unfit(format!("local volume {path:?} is neither a directory nor a block device"));
        }
        let mount = |at: &Path| self.mount_device(path, at).map_err(|why| Failure::at(Step::Stage, why));
        let _turn = Turn::of(Place::Device(device));
        let Some(owner) = owner else { return mount(at).map(|()| None) };
        // The pod has it when the group has it. A process that was killed between has left a draft.
        let draft = Draft::new(at).map_err(failed)?;
        mount(&draft.0)?;
        let shared = self.give_to(Some(owner), &draft.0, at).map_err(failed)?;
        bind(&draft.0, at).map_err(failed)?;
        Ok(shared)
    }

    /// The same of a directory. Blocking.
    ///
    /// # Errors
    /// They do not name the directory.
    pub fn show(&self, directory: &Path, at: &Path, owner: Option<Ownership<'_>>) -> io::Result<Option<Shared>> {
        let metadata = fs::metadata(directory)?;
        let _turn = Turn::of(Place::Directory(metadata.dev(), metadata.ino()));
        let shared = self.give_to(owner, directory, at)?;
        bind(directory, at)?;
        self.restrict(at).inspect_err(|_| undo(at))?;
        Ok(shared)
    }

    /// Gives what is there to a group; the pod has it at `at`. What is only read is given to nobody.
    fn give_to(&self, owner: Option<Ownership<'_>>, root: &Path, at: &Path) -> io::Result<Option<Shared>> {
        let owner = owner.filter(|_| !flags(&self.options).0.contains(MsFlags::MS_RDONLY));
        owner.map_or(Ok(None), |owner| give_unless_shared(root, at, owner))
    }

    /// Applies mount options to a directory that is bound. Those of a file system change nothing there, as upstream, whose mount(8) hands them
    /// to a kernel that does not look at them.
    fn restrict(&self, at: &Path) -> io::Result<()> {
        let (flags, _) = flags(&self.options);
        if flags.is_empty() {
            return Ok(());
        }
        let remount = || {
            // What the file system around it does not allow stays so.
            let around = statvfs(at)?.flags();
            let kept = [
                (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
                (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
                (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
                (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
            ];
            let kept = kept.into_iter().filter(|(has, _)| around.contains(*has)).map(|(_, flag)| flag);
            let flags = kept.fold(flags, |all, flag| all | flag) | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
            mount(None::<&str>, at, None::<&str>, flags, None::<&str>)
        };
        remount()
            .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("mount options {:?}: {error}", self.options)))
    }

    fn mount_device(&self, device: &Path, at: &Path) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", device.display());
        let named = self.fs_type.as_deref().filter(|fs_type| !fs_type.is_empty());
        if let Some(strange) = named.filter(|fs_type| !fs_type.bytes().all(|b| b.is_ascii_alphanumeric())) {
            return Err(format!("{strange:?} is no type of a file system"));
        }
        let found = content(&mut fs::File::open(device).map_err(failed)?).map_err(failed)?;
        let (flags, data) = flags(&self.options);
        let is_written = !flags.contains(MsFlags::MS_RDONLY);
        let fs_type = match (named, found) {
            (Some(named), _) => named,
            (None, Content::Known(known)) => known,
            (None, Content::Blank) => USUAL,
            (None, Content::Other) => {
                return Err(format!(
                    "{} has something on it that is no file system known here: name its fsType",
                    device.display()
                ));
            }
        };
        match found {
            Content::Blank if is_written => format(device, fs_type)?,
            Content::Blank => return Err(format!("{} has no file system, and is to be read only", device.display())),
            // Who has it mounted already has it checked.
            Content::Known(_) if is_written && !is_in_use(device) => check(device)?,
            Content::Known(_) | Content::Other => {}
        }
        fs::create_dir_all(at).map_err(failed)?;
        let data = Some(data.as_str()).filter(|data| !data.is_empty());
        mount(Some(device), at, Some(fs_type), flags, data).map_err(|error| {
            format!("{} cannot be mounted as {fs_type} with options {:?}: {error}", device.display(), self.options)
        })
    }
}

/// Where a device is mounted until the pod may have it. No volume is called so.
struct Draft(PathBuf);

impl Draft {
    fn new(at: &Path) -> io::Result<Self> {
        let mut path = at.as_os_str().to_owned();
        path.push(".new");
        let draft = Self(PathBuf::from(path));
        unmount(&draft.0, || false)?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        undo(&self.0);
        let _ = fs::remove_dir(&self.0);
    }
}

/// Takes back a mount that is not as it is to be.
fn undo(at: &Path) {
    let _ = umount2(at, MntFlags::MNT_DETACH);
}

/// Whether somebody has the device for himself, such as by mounting it (open(2), O_EXCL).
fn is_in_use(device: &Path) -> bool {
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(device);
    opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
}

/// Makes a file system on a device that has nothing on it, with the options that upstream gives.
fn format(device: &Path, fs_type: &str) -> Result<(), String> {
    if is_in_use(device) {
        return Err(format!("{} is blank and in use: it gets no file system", device.display()));
    }
    let program = format!("mkfs.{fs_type}");
    let options: &[&str] = match fs_type {
        "ext3" | "ext4" => &["-F", "-m0"],
        "xfs" => &["-f"],
        _ => &[],
    };
    let made = Command::new(&program).args(options).arg(device).output();
    let made =
        made.map_err(|error| format!("{} has no file system, and {program} cannot make one: {error}", device.display()))?;
    if made.status.success() {
        tracing::info!(device = %device.display(), fs_type, "a device of a local volume was blank and has a file system now");
        return Ok(());
    }
    Err(format!("{program} of {} failed: {}", device.display(), String::from_utf8_lossy(&made.stderr).trim()))
}

/// Corrects what can be corrected without asking. Nodes without the program leave it to the file system.
fn check(device: &Path) -> Result<(), String> {
    match Command::new("fsck").arg("-a").arg(device).output() {
        Ok(done) if done.status.code() == Some(UNCORRECTED) => {
            let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
            Err(format!("'fsck' found errors on device {} but could not correct them: {said}", device.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};
    use std::sync::LazyLock;

    use crate::volumes::groups::Progress;

    #[test]
    fn what_is_on_a_device() {
        let check = |offset: usize, bytes: &[u8], expected: Content| {
            let mut image = vec![0; 3 << 20];
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
            assert_eq!(content(&mut Cursor::new(image)).unwrap(), expected, "{offset}");
        };
        check(0, &[], Content::Blank);
        check(1080, &[0x53, 0xef], Content::Known("ext4"));
        check(0, b"XFSB", Content::Known("xfs"));
        check(0x1_0040, b"_BHRfS_M", Content::Known("btrfs"));
        // A partition table, the label of a volume group, and an array's, which is at the end.
        check(510, &[0x55, 0xaa], Content::Other);
        check(512, b"LABELONE", Content::Other);
        check((3 << 20) - 4096, &[0xfc, 0x4e, 0x2b, 0xa9], Content::Other);
        assert_eq!(content(&mut Cursor::new(vec![0; 512])).unwrap(), Content::Blank);
    }

    fn can_mount() -> bool {
        let can = nix::unistd::Uid::effective().is_root();
        if !can {
            eprintln!("SKIPPED: mounting needs root");
        }
        can
    }

    fn mounted(at: &Path) -> String {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().find(|line| line.contains(at.to_str().unwrap())).unwrap_or_default().to_owned()
    }

    fn to(group: u32) -> Option<Ownership<'static>> {
        static PROGRESS: LazyLock<Progress> = LazyLock::new(Progress::default);
        Some(Ownership { pod_dir: Path::new("/none/pods/u"), group, always: true, progress: &PROGRESS })
    }

    fn local(options: &[&str]) -> Local {
        Local { fs_type: None, options: options.iter().map(|option| (*option).to_owned()).collect() }
    }

    #[test]
    fn a_directory_is_bound_with_its_options() {
        if !can_mount() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let (path, at) = (scratch.path().join("disk"), scratch.path().join("v"));
        fs::create_dir(&path).unwrap();
        local(&["noatime", "noexec", "discard", "data=journal"]).mount(&path, &at, to(4242)).unwrap();
        let line = mounted(&at);
        umount2(&at, MntFlags::MNT_DETACH).unwrap();
        assert!(line.contains("noatime") && line.contains("noexec"), "{line}");
        assert_eq!(fs::metadata(&path).unwrap().gid(), 4242);
        local(&["ro"]).mount(&path, &at, to(1717)).unwrap();
        umount2(&at, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().gid(), 4242, "what is only read is given to nobody");
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        let refused =
            [&file, &scratch.path().join("none")].map(|path| local(&[]).mount(path, &at, None).unwrap_err().to_string());
        assert!(refused[0].ends_with("is neither a directory nor a block device"), "{refused:?}");
        assert!(refused[1].ends_with("does not exist"), "{refused:?}");
    }

    /// Upstream's e2e tests of local volumes "should set same fsGroup for two pods simultaneously" and "should not set different fsGroups for
    /// two pods simultaneously": the second pod changes nothing while the first has the volume, and is told.
    #[track_caller]
    fn is_the_first_pods(scratch: &Path, path: &Path, root: impl Fn(&str) -> PathBuf) {
        let pod = |uid: &str| scratch.join("pods").join(uid);
        let progress = Progress::default();
        let mount = |uid: &str, group: u32| {
            let (pod_dir, at) = (pod(uid), pod(uid).join("volumes/v"));
            let owner = Ownership { pod_dir: &pod_dir, group, always: true, progress: &progress };
            local(&[]).mount(path, &at, Some(owner)).unwrap()
        };
        let group = |uid: &str| fs::metadata(root(uid)).unwrap().gid();
        assert_eq!((mount("a", 1234), group("a")), (None, 1234));
        let shared = mount("b", 4321).map(|shared| shared.message("pvc-1"));
        let told = "The requested fsGroup is 4321, but the volume pvc-1 has GID 1234. The volume may not be shareable.";
        assert_eq!((shared.as_deref(), group("b")), (Some(told), 1234));
        assert_eq!((mount("c", 1234), group("c")), (None, 1234));
        for uid in ["a", "b", "c"] {
            assert!(!mounted(&pod(uid).join("volumes/v")).is_empty());
            umount2(&pod(uid).join("volumes/v"), MntFlags::MNT_DETACH).unwrap();
            assert_eq!(mounted(&pod(uid)), "", "nothing else stays mounted");
        }
        assert_eq!((mount("b", 4321), group("b")), (None, 4321), "nobody has it any more");
        umount2(&pod("b").join("volumes/v"), MntFlags::MNT_DETACH).unwrap();
    }

    #[test]
    fn a_volume_is_the_group_of_the_first_pod() {
        if !can_mount() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("disk");
        fs::create_dir(&path).unwrap();
        is_the_first_pods(scratch.path(), &path, |_| path.clone());
        let file = scratch.path().join("image");
        fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
        let Some(device) = Loop::new(&file) else { return eprintln!("SKIPPED: no loop device") };
        let mounted = |uid: &str| scratch.path().join("pods").join(uid).join("volumes/v");
        is_the_first_pods(scratch.path(), Path::new(&device.0), mounted);
        // What a process has left that was killed while it gave the volume away.
        let draft = mounted("d").with_file_name("v.new");
        Local::default().mount_device(Path::new(&device.0), &draft).unwrap();
        let pod_dir = scratch.path().join("pods/d");
        let progress = Progress::default();
        let owner = Ownership { pod_dir: &pod_dir, group: 77, always: false, progress: &progress };
        local(&[]).mount(Path::new(&device.0), &mounted("d"), Some(owner)).unwrap();
        assert_eq!(fs::metadata(mounted("d")).unwrap().gid(), 77);
        assert!(!draft.exists());
        umount2(&mounted("d"), MntFlags::MNT_DETACH).unwrap();
    }

    struct Loop(String);

    impl Loop {
        /// None where the machine has none to give.
        fn new(file: &Path) -> Option<Self> {
            let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok()?;
            made.status.success().then(|| Self(String::from_utf8_lossy(&made.stdout).trim().to_owned()))
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            let _ = Command::new("losetup").args(["--detach", &self.0]).status();
        }
    }

    /// API `LocalVolumeSource`: "fsType is the filesystem type to mount. It applies only when the Path is a block device."
    #[test]
    fn a_blank_device_gets_a_file_system_once() {
        if !can_mount() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("image");
        fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
        let Some(device) = Loop::new(&file) else { return eprintln!("SKIPPED: no loop device") };
        let device = Path::new(&device.0);
        let [one, other] = ["one", "other"].map(|name| scratch.path().join(name));
        assert!(local(&["ro"]).mount(device, &one, None).unwrap_err().to_string().contains("has no file system"));
        local(&["noatime"]).mount(device, &one, to(4242)).unwrap();
        fs::write(one.join("file"), "kept").unwrap();
        assert_eq!(fs::metadata(&one).unwrap().gid(), 4242);
        // Another pod of the node has the same, while it is used and after.
        local(&["noatime"]).mount(device, &other, None).unwrap();
        assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "kept");
        let line = mounted(&other);
        assert!(line.contains("noatime") && line.contains("ext4"), "{line}");
        for at in [&one, &other] {
            umount2(at, MntFlags::empty()).unwrap();
        }
        // What is only read is given to nobody.
        local(&["ro"]).mount(device, &one, to(1717)).unwrap();
        assert_eq!(fs::read_to_string(one.join("file")).unwrap(), "kept");
        assert_eq!(fs::metadata(&one).unwrap().gid(), 4242);
        umount2(&one, MntFlags::empty()).unwrap();
        let wrong =
            Local { fs_type: Some("xfs".to_owned()), ..Local::default() }.mount(device, &one, None).unwrap_err().to_string();
        assert!(wrong.contains("cannot be mounted as xfs"), "{wrong}");
        fs::File::options().write(true).open(device).unwrap().write_all(&[1; 4096]).unwrap();
        let strange = local(&[]).mount(device, &one, None).unwrap_err().to_string();
        assert!(strange.contains("something on it that is no file system known here"), "{strange}");
    }
}
