//! Mount propagation: whether mounts of the host and of a container can be seen by each other (mount_namespaces(7)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use runtime::api::Propagation;

/// Whether the mount that `path` of the host is on does what `wanted` needs. The error is in the words of other runtimes.
pub fn check(path: &Path, wanted: Propagation) -> Result<(), String> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let resolved = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
    fits(&table, &resolved, wanted)
}

fn fits(mountinfo: &str, path: &Path, wanted: Propagation) -> Result<(), String> {
    let Some((point, shared, slave)) = mount_of(mountinfo, path) else { return Ok(()) };
    let missing = match wanted {
        Propagation::Bidirectional if !shared => "a shared mount",
        Propagation::HostToContainer if !shared && !slave => "a shared or slave mount",
        _ => return Ok(()),
    };
    let (path, point) = (path.display(), point.display());
    Err(format!("path {path:?} is mounted on {point:?} but it is not {missing}: run `mount --make-rshared {point}` on the node"))
}

/// The mount that holds `path`: its point, whether it is shared, whether it is a slave.
fn mount_of(mountinfo: &str, path: &Path) -> Option<(PathBuf, bool, bool)> {
    let entries = mountinfo.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let point = PathBuf::from(fields.get(4)?.replace("\\040", " "));
        let options: Vec<&str> = fields.iter().skip(6).take_while(|field| **field != "-").copied().collect();
        let has = |kind: &str| options.iter().any(|option| option.starts_with(kind));
        Some((point, has("shared:"), has("master:")))
    });
    // Of several at one point, the last is on top.
    entries.filter(|(point, ..)| path.starts_with(point)).max_by_key(|(point, ..)| point.components().count())
}

/// Makes the volume at `path` a mount that shares what is mounted below it, unless it is one.
pub fn share(path: &Path) -> io::Result<()> {
    let path = &path.canonicalize()?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    if mount_of(&table, path).is_none_or(|(point, ..)| point != *path) {
        mount(Some(path), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    Ok(mount(None::<&str>, path, None::<&str>, MsFlags::MS_SHARED, None::<&str>)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "21 1 8:1 / / rw - ext4 /dev/sda rw\n\
        22 21 0:5 / /srv rw shared:3 - tmpfs tmpfs rw\n\
        23 22 0:6 / /srv/in rw master:3 - tmpfs tmpfs rw\n";

    #[track_caller]
    fn check(path: &str, wanted: Propagation, missing: Option<&str>) {
        let error = fits(TABLE, Path::new(path), wanted).err();
        match (error, missing) {
            (None, None) => {}
            (Some(error), Some(missing)) => assert!(error.contains(&format!("but it is not {missing}:")), "{error}"),
            (error, _) => panic!("{path}: {error:?}"),
        }
    }

    #[test]
    fn the_mount_must_propagate() {
        use Propagation::{Bidirectional, HostToContainer, Private};
        check("/etc", Private, None);
        check("/etc", HostToContainer, Some("a shared or slave mount"));
        check("/etc", Bidirectional, Some("a shared mount"));
        check("/srv/x", Bidirectional, None);
        check("/srv/in/x", HostToContainer, None);
        check("/srv/in/x", Bidirectional, Some("a shared mount"));
        check("/srvx", Bidirectional, Some("a shared mount"));
    }

    #[test]
    fn a_volume_can_be_shared() {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("SKIPPED: mounts need root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().canonicalize().unwrap().join("v");
        fs::create_dir(&volume).unwrap();
        share(&volume).unwrap();
        share(&volume).unwrap();
        let checked = super::check(&volume, Propagation::Bidirectional);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        crate::volumes::points::unmount(&volume, || false).unwrap();
        assert_eq!(checked, Ok(()));
        assert_eq!(mounts.lines().filter(|line| line.contains(volume.to_str().unwrap())).count(), 1, "mounted once");
    }
}
