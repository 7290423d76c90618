//! emptyDir volumes, and file systems in memory.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::huge_pages;
use super::payload::Sources;
use super::points::bind;
use crate::spec::Model;
use crate::units;

/// Option of a file system in memory of which nothing is swapped out (tmpfs(5), Linux 6.4).
const NO_SWAP: &str = "noswap";

/// Whether this kernel knows file systems in memory of which nothing is swapped out, by its release.
pub fn knows_no_swap(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 4)
}

/// Whether something is mounted at `path`.
fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).ok().map(|metadata| metadata.dev());
    let parent = path.parent().and_then(device);
    device(path).is_some_and(|own| Some(own) != parent)
}

/// Makes `at` a file system in memory, unless it is one already. It stays off the disk where the kernel can say so.
pub(super) fn memory(at: &Path, flags: MsFlags, options: &str) -> io::Result<()> {
    fs::create_dir_all(at)?;
    if is_mounted(at) {
        return Ok(());
    }
    let mounted = |options: &str| mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options));
    let kept = [options, NO_SWAP].iter().filter(|option| !option.is_empty()).copied().collect::<Vec<_>>().join(",");
    match mounted(&kept) {
        Err(Errno::EINVAL) => Ok(mounted(options)?),
        result => Ok(result?),
    }
}

/// An emptyDir is made once and belongs to the containers from then on. It is there with owner and mode, or not at all: one that was
/// interrupted between would stay as it is.
pub(super) fn make(at: &Path, source: &EmptyDirVolumeSource, sources: &Sources<'_>, group: Option<u32>) -> io::Result<()> {
    let mode = mode(source, group);
    let owned = format!("mode={mode:o},gid={}", group.unwrap_or_default());
    match source.medium.as_deref().unwrap_or_default() {
        "" if at.exists() => Ok(()),
        "" => {
            let draft = draft(at);
            fs::create_dir_all(&draft)?;
            chown(&draft, None, group)?;
            fs::set_permissions(&draft, fs::Permissions::from_mode(mode))?;
            fs::rename(&draft, at)
        }
        "Memory" => {
            // What containers build in it may have set-user-id bits and device files, as on a disk.
            let size = size(source, sources.model, sources.facts.allocatable_memory);
            memory(at, MsFlags::empty(), &format!("size={size},{owned}"))
        }
        medium if medium.starts_with(huge_pages::MEDIUM) && is_mounted(at) => Ok(()),
        medium if medium.starts_with(huge_pages::MEDIUM) => {
            let options =
                huge_pages::options(medium, sources.model).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            pages(at, &format!("{options},{owned}"), mode)
        }
        other => Err(io::Error::new(io::ErrorKind::Unsupported, format!("medium {other:?} is not supported"))),
    }
}

/// Where a volume is made that is then shown `at` its own place. No volume is called so.
fn draft(at: &Path) -> PathBuf {
    let mut draft = at.as_os_str().to_owned();
    draft.push(".new");
    draft.into()
}

/// Makes `at` a file system of huge pages. hugetlbfs takes the option mode without the bit by which files inherit the group, so it is mounted
/// elsewhere until it has that.
fn pages(at: &Path, options: &str, mode: u32) -> io::Result<()> {
    let draft = draft(at);
    fs::create_dir_all(&draft)?;
    if !is_mounted(&draft) {
        mount(Some("nodev"), &draft, Some("hugetlbfs"), MsFlags::empty(), Some(options))?;
    }
    fs::set_permissions(&draft, fs::Permissions::from_mode(mode))?;
    bind(&draft, at)?;
    umount2(&draft, MntFlags::MNT_DETACH)?;
    fs::remove_dir(&draft)
}

/// Bytes of a file system in memory: the least of its own limit, the pod's memory and the node's, as upstream.
fn size(source: &EmptyDirVolumeSource, model: &Model, allocatable: i64) -> i64 {
    let own = source.size_limit.as_ref().map(units::whole).filter(|bytes| *bytes > 0);
    let pod = crate::resources::pod(model).memory_limit;
    [own, pod].into_iter().flatten().fold(allocatable, i64::min)
}

/// Everybody may write. With a group, files inherit it; in memory, as in any new tmpfs, only their owners may remove them.
fn mode(source: &EmptyDirVolumeSource, group: Option<u32>) -> u32 {
    let setgid = if group.is_some() { 0o2000 } else { 0 };
    let sticky = if source.medium.as_deref() == Some("Memory") { 0o1000 } else { 0 };
    0o777 | setgid | sticky
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_volume_pod_and_node_allow() {
        let check = |own: Option<&str>, pod: serde_json::Value, expected: i64| {
            let source = EmptyDirVolumeSource { medium: None, size_limit: own.map(units::quantity) };
            let container = serde_json::json!({"name": "c", "resources": {"limits": pod}});
            let model = crate::pod::testing::model(serde_json::json!({"containers": [container]}));
            assert_eq!(size(&source, &model, 4 << 30) >> 20, expected, "{own:?} {pod}");
        };
        let limited = || serde_json::json!({"memory": "64Mi"});
        check(None, serde_json::json!({}), 4096);
        check(Some("16Mi"), serde_json::json!({}), 16);
        check(Some("16Mi"), limited(), 16);
        check(Some("1Gi"), limited(), 64);
        check(Some("0"), limited(), 64);
        check(Some("8Gi"), serde_json::json!({}), 4096);
    }

    #[test]
    fn modes() {
        let check = |medium: &str, group: Option<u32>, mode: u32| {
            let source = EmptyDirVolumeSource { medium: Some(medium.to_owned()), size_limit: None };
            assert_eq!(super::mode(&source, group), mode, "{medium} {group:?}");
        };
        check("", None, 0o777);
        check("", Some(123), 0o2777);
        check("Memory", None, 0o1777);
        check("Memory", Some(123), 0o3777);
    }

    /// What a container does with the mode of its volume stays, as with every other emptyDir.
    #[test]
    fn huge_pages_get_their_mode_once() {
        let can = nix::unistd::Uid::effective().is_root() && Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists();
        if !can {
            return eprintln!("SKIPPED: it needs root and huge pages");
        }
        let scratch = tempfile::tempdir().unwrap();
        let at = scratch.path().join("v");
        let asked = serde_json::json!({"name": "c", "resources": {"limits": {"hugepages-2Mi": "2Mi"}}});
        let model = crate::pod::testing::model(serde_json::json!({"containers": [asked]}));
        let refs = crate::refs::PodReferences::default();
        let (facts, none, none_either) = (crate::fields::Facts::default(), Default::default(), Default::default());
        let sources = Sources { model: &model, objects: &refs, facts: &facts, tokens: &none, certificates: &none_either };
        let source = EmptyDirVolumeSource { medium: Some(huge_pages::MEDIUM.to_owned()), size_limit: None };
        let seen = || {
            let metadata = fs::metadata(&at).unwrap();
            (metadata.gid(), metadata.mode() & 0o7777, is_mounted(&at), draft(&at).exists())
        };
        // It may have been interrupted between.
        fs::create_dir(draft(&at)).unwrap();
        make(&at, &source, &sources, Some(4242)).unwrap();
        let first = seen();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o700)).unwrap();
        make(&at, &source, &sources, Some(4242)).unwrap();
        let second = seen();
        umount2(&at, MntFlags::empty()).unwrap();
        assert_eq!((first, second), ((4242, 0o2777, true, false), (4242, 0o700, true, false)));
    }

    #[test]
    fn what_is_in_memory_stays_there_since_linux_6_4() {
        for (release, expected) in
            [("6.18.44-fc-v595", true), ("6.4", true), ("6.3.9", false), ("5.15.0-1", false), ("7.0-rc1", true)]
        {
            assert_eq!(knows_no_swap(release), expected, "{release}");
        }
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        for options in ["", "size=65536"] {
            let at = scratch.path().join(format!("v{options}"));
            memory(&at, MsFlags::MS_NODEV, options).unwrap();
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let line = table.lines().find(|line| line.contains(at.to_str().unwrap())).unwrap().to_owned();
            nix::mount::umount(&at).unwrap();
            assert_eq!(line.contains(NO_SWAP), knows_no_swap(&release), "{line}");
            assert!(line.contains("size=64k") != options.is_empty(), "{line}");
        }
    }
}
