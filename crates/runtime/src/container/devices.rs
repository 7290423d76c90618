//! Device nodes of containers: those that a container is given, and those of the host for privileged ones.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::dev_volume::DEV;
use crate::api::{Device, DeviceKind, DeviceNumbers, Mount};
use crate::images::tree::normalize;

/// Directories and files of /dev that every container has of its own.
const OWN: &[&str] = &["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console", "/dev/ptmx"];

/// Most device nodes that one container is given.
const MOST: usize = 1024;

/// A device node with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// In the container.
    pub(crate) path: PathBuf,
    pub(crate) host_path: PathBuf,
    pub(crate) numbers: DeviceNumbers,
    pub(crate) access: Access,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// What processes may do with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) make: bool,
}

impl Access {
    const ALL: Self = Self { read: true, write: true, make: true };

    fn parse(text: &str) -> io::Result<Self> {
        if text.is_empty() {
            return Ok(Self::ALL);
        }
        let mut access = Self { read: false, write: false, make: false };
        for letter in text.chars() {
            match letter {
                'r' => access.read = true,
                'w' => access.write = true,
                'm' => access.make = true,
                _ => return Err(io::Error::other(format!("permissions {text:?} of a device are not of r, w and m"))),
            }
        }
        Ok(access)
    }
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letters = [(self.read, "r"), (self.write, "w"), (self.make, "m")];
        letters.into_iter().filter(|(may, _)| *may).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

impl Node {
    fn of_file(path: PathBuf, host_path: PathBuf, metadata: &fs::Metadata) -> Option<Self> {
        let kind = match metadata.file_type() {
            kind if kind.is_block_device() => DeviceKind::Block,
            kind if kind.is_char_device() => DeviceKind::Character,
            _ => return None,
        };
        let number = metadata.rdev();
        let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
        // Numbers of Linux have 12 and 20 bits.
        let numbers = DeviceNumbers { kind, major: major.try_into().ok()?, minor: minor.try_into().ok()? };
        let (mode, uid, gid) = (metadata.mode() & 0o777, metadata.uid(), metadata.gid());
        Some(Self { path, host_path, numbers, access: Access::ALL, mode, uid, gid })
    }

    /// The node as an entry of `linux.devices` of the OCI configuration.
    pub(crate) fn entry(&self) -> Value {
        json!({
            "path": self.path,
            "type": self.kind(),
            "major": self.numbers.major,
            "minor": self.numbers.minor,
            "fileMode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
        })
    }

    /// The rule of `linux.resources.devices` that lets processes use it.
    pub(crate) fn rule(&self) -> Value {
        let DeviceNumbers { major, minor, .. } = self.numbers;
        json!({"allow": true, "type": self.kind(), "major": major, "minor": minor, "access": self.access.to_string()})
    }

    /// The host's node mounted into the container: read-only, which keeps its owner and mode as they are and hinders no use of the device.
    fn mount(&self) -> Mount {
        Mount { host_path: self.host_path.clone(), container_path: self.path.clone(), readonly: true, ..Mount::default() }
    }

    fn kind(&self) -> &'static str {
        match self.numbers.kind {
            DeviceKind::Block => "b",
            DeviceKind::Character => "c",
        }
    }
}

/// What the container is given, in two ways: as nodes that are made for it, and mounted from the host. Those of a pod with a user namespace,
/// where nobody may make nodes, are mounted, as are those outside of /dev, where the OCI runtime makes none.
pub(crate) fn split(nodes: &[Node], has_users: bool) -> (Vec<&Node>, Vec<Mount>) {
    let (made, mounted): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| !has_users && node.path.starts_with(DEV));
    (made, mounted.into_iter().map(Node::mount).collect())
}

/// The nodes that a container is given, each path once.
///
/// # Errors
/// There is no such device, or more than 1,024 of them.
pub(crate) fn resolve(devices: &[Device]) -> io::Result<Vec<Node>> {
    let mut nodes: Vec<Node> = Vec::new();
    for device in devices {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("device {}: {error}", device.host_path.display()));
        let found = one(device).map_err(failed)?;
        if found.is_empty() {
            return Err(io::Error::other(format!("{} is no device and has none below it", device.host_path.display())));
        }
        nodes.extend(found);
        if nodes.len() > MOST {
            return Err(io::Error::other(format!("more than {MOST} device nodes for one container")));
        }
    }
    let mut taken = std::collections::HashSet::new();
    nodes.reverse();
    nodes.retain(|node| taken.insert(node.path.clone()));
    nodes.reverse();
    Ok(nodes)
}

fn one(device: &Device) -> io::Result<Vec<Node>> {
    let access = Access::parse(&device.permissions)?;
    let refused = || io::Error::other(format!("{} is no path of a device in a container", device.container_path.display()));
    let path = normalize(&device.container_path).filter(|path| path.parent().is_some()).ok_or_else(refused)?;
    let path = Path::new("/").join(path);
    let mut nodes = match device.numbers {
        Some(numbers) => {
            // The host may have no node of it.
            let found = fs::metadata(&device.host_path).ok().and_then(|file| Node::of_file(path.clone(), PathBuf::new(), &file));
            let (mode, uid, gid) = found.map_or((0o666, 0, 0), |node| (node.mode, node.uid, node.gid));
            vec![Node { path, host_path: device.host_path.clone(), numbers, access, mode, uid, gid }]
        }
        None => {
            let host_path = fs::canonicalize(&device.host_path)?;
            let metadata = fs::metadata(&host_path)?;
            let mut nodes = Vec::new();
            match metadata.is_dir() {
                true => collect(&host_path, &path, &mut nodes),
                false => nodes.extend(Node::of_file(path, host_path, &metadata)),
            }
            nodes
        }
    };
    for node in &mut nodes {
        node.access = access;
        node.mode = device.mode.unwrap_or(node.mode) & 0o777;
        node.uid = device.uid.unwrap_or(node.uid);
        node.gid = device.gid.unwrap_or(node.gid);
    }
    Ok(nodes)
}

/// The device nodes below /dev, for a privileged container.
pub(crate) fn of_host() -> Vec<Node> {
    let mut nodes = Vec::new();
    collect(Path::new(DEV), Path::new(DEV), &mut nodes);
    nodes
}

/// The nodes below a directory of the host, by their places below `path` in the container.
fn collect(dir: &Path, path: &Path, nodes: &mut Vec<Node>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (host_path, path) = (entry.path(), path.join(entry.file_name()));
        // A device that goes away meanwhile is not one.
        let Ok(metadata) = fs::symlink_metadata(&host_path) else { continue };
        if OWN.iter().any(|own| host_path == Path::new(own)) {
            continue;
        }
        match metadata.is_dir() {
            true => collect(&host_path, &path, nodes),
            false => nodes.extend(Node::of_file(path, host_path, &metadata)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn device(host: &str, container: &str, permissions: &str) -> Device {
        Device { host_path: host.into(), container_path: container.into(), permissions: permissions.into(), ..Device::default() }
    }

    /// What one device becomes: path, numbers and rule of each node, or the error.
    #[track_caller]
    fn check(device: &Device, expected: Result<&[(&str, u32, u32, &str)], &str>) {
        let nodes = resolve(std::slice::from_ref(device)).map_err(|error| error.to_string());
        let seen =
            |node: &Node| (node.path.display().to_string(), node.numbers.major, node.numbers.minor, node.access.to_string());
        let expected =
            expected.map(|nodes| nodes.iter().map(|(path, a, b, access)| ((*path).to_owned(), *a, *b, (*access).to_owned())));
        assert_eq!(
            nodes.map(|nodes| nodes.iter().map(seen).collect::<Vec<_>>()),
            expected.map(Iterator::collect).map_err(str::to_owned)
        );
    }

    #[test]
    fn devices_are_found_on_the_host() {
        check(&device("/dev/null", "/dev/a", "rw"), Ok(&[("/dev/a", 1, 3, "rw")]));
        check(&device("/dev/null", "/dev/./a", ""), Ok(&[("/dev/a", 1, 3, "rwm")]));
        check(
            &device("/dev/null", "/dev/a", "rx"),
            Err("device /dev/null: permissions \"rx\" of a device are not of r, w and m"),
        );
        check(
            &device("/dev/null", "/dev/../../a", ""),
            Err("device /dev/null: /dev/../../a is no path of a device in a container"),
        );
        check(&device("/etc/passwd", "/dev/a", ""), Err("/etc/passwd is no device and has none below it"));
        check(&device("/nosuch", "/dev/a", ""), Err("device /nosuch: No such file or directory (os error 2)"));
        let numbers = Some(DeviceNumbers { kind: DeviceKind::Block, major: 7, minor: 99 });
        check(&Device { numbers, ..device("/nosuch", "/dev/b", "r") }, Ok(&[("/dev/b", 7, 99, "r")]));
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        check(&device(link.to_str().unwrap(), "/dev/a", ""), Ok(&[("/dev/a", 1, 5, "rwm")]));
    }

    #[test]
    fn the_last_device_of_a_path_is_right() {
        let nodes = resolve(&[device("/dev/null", "/dev/a", ""), device("/dev/zero", "/dev/a", "")]).unwrap();
        assert_eq!(nodes.iter().map(|node| node.numbers.minor).collect::<Vec<_>>(), [5]);
        let many: Vec<_> = (0..=MOST).map(|number| device("/dev/null", &format!("/dev/n{number}"), "")).collect();
        assert!(resolve(&many).unwrap_err().to_string().contains("more than 1024"));
    }

    #[test]
    fn nodes_that_cannot_be_made_are_mounted() {
        let nodes = resolve(&[device("/dev/null", "/dev/a", "r"), device("/dev/null", "/x/b", "rw")]).unwrap();
        let split = |users| {
            let (made, mounted) = split(&nodes, users);
            (made.len(), mounted.into_iter().map(|mount| mount.container_path).collect::<Vec<_>>())
        };
        assert_eq!(split(false), (1, vec![PathBuf::from("/x/b")]));
        assert_eq!(split(true), (0, vec![PathBuf::from("/dev/a"), "/x/b".into()]));
    }
}
