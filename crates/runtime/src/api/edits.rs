//! What something outside of the pod gives a container: a device plugin, or a device of a resource claim (the container edits of the Container
//! Device Interface).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ContainerConfig, Hook, Mount};

/// Annotations with this prefix are Knarr's own: nobody else sets them.
pub(crate) const RESERVED: &str = "knarr";

/// What a container gets beside what its pod asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEdits {
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Device nodes, which its processes may also open.
    pub devices: Vec<Device>,
    /// Programs of the node that run at points of its life.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// Groups that its processes are in as well.
    #[serde(default)]
    pub groups: Vec<u32>,
    /// Annotations, for OCI runtimes and for who looks at the container.
    pub annotations: BTreeMap<String, String>,
}

/// A device node (CRI v1 `Device`; `deviceNodes` of the Container Device Interface).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// On the host: links are followed, and a directory stands for all devices below it.
    pub host_path: PathBuf,
    /// In the container.
    pub container_path: PathBuf,
    /// What its processes may do, of `r` (read), `w` (write) and `m` (make a node); empty is all three.
    pub permissions: String,
    /// Which device it is; none is what is at `host_path`.
    pub numbers: Option<DeviceNumbers>,
    /// Permission bits of the node; none are those of the host's.
    pub mode: Option<u32>,
    /// Owner of the node; none is that of the host's.
    pub uid: Option<u32>,
    /// Group of the node; none is that of the host's.
    pub gid: Option<u32>,
}

/// What the kernel calls a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNumbers {
    /// Block or character device.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// See mknod(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A block device.
    Block,
    /// A character device.
    Character,
}

impl ContainerConfig {
    /// Takes edits over. They come after what is there: the last one that names a variable or the place of a mount or a device is right.
    pub fn edit(&mut self, edits: ContainerEdits) {
        let ContainerEdits { env, mounts, devices, hooks, groups, annotations } = edits;
        self.env.retain(|(name, _)| !env.iter().any(|(new, _)| new == name));
        self.env.extend(env);
        self.mounts.retain(|mount| !mounts.iter().any(|new| new.container_path == mount.container_path));
        self.mounts.extend(mounts);
        self.devices.retain(|device| !devices.iter().any(|new| new.container_path == device.container_path));
        self.devices.extend(devices);
        self.hooks.extend(hooks);
        self.security.supplemental_groups.extend(groups.into_iter().map(i64::from));
        self.annotations.extend(annotations.into_iter().filter(|(name, _)| !name.starts_with(RESERVED)));
    }

    /// Takes over of the edits what the pod does not say itself, as upstream's kubelet does with what device plugins give.
    pub fn supply(&mut self, mut edits: ContainerEdits) {
        edits.env.retain(|(name, _)| !self.env.iter().any(|(own, _)| own == name));
        edits.mounts.retain(|mount| !self.mounts.iter().any(|own| own.container_path == mount.container_path));
        edits.annotations.retain(|name, _| !self.annotations.contains_key(name));
        self.edit(edits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(value: &str) -> ContainerEdits {
        let device = Device { host_path: value.into(), container_path: "/dev/x".into(), ..Device::default() };
        ContainerEdits {
            env: vec![("A".into(), value.into()), ("NEW".into(), value.into())],
            mounts: vec![Mount { host_path: value.into(), container_path: "/m".into(), ..Mount::default() }],
            devices: vec![device],
            hooks: Vec::new(),
            groups: Vec::new(),
            annotations: BTreeMap::from([("a".into(), value.into()), ("knarr.io/resources".into(), value.into())]),
        }
    }

    fn pod() -> ContainerConfig {
        ContainerConfig {
            env: vec![("A".into(), "pod".into())],
            mounts: vec![Mount { host_path: "pod".into(), container_path: "/m".into(), ..Mount::default() }],
            annotations: BTreeMap::from([("knarr.io/resources".into(), "pod".into())]),
            ..ContainerConfig::default()
        }
    }

    #[track_caller]
    fn check(config: &ContainerConfig, env: &[(&str, &str)], mount: &str, annotation: &str) {
        let found: Vec<_> = config.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, env);
        assert_eq!(config.mounts.iter().map(|mount| mount.host_path.to_str()).collect::<Vec<_>>(), [Some(mount)]);
        assert_eq!(config.annotations.get("a").map(String::as_str), Some(annotation));
        assert_eq!(config.annotations.get("knarr.io/resources").map(String::as_str), Some("pod"), "it is ours");
        assert_eq!(config.devices.len(), 1);
    }

    /// Container Device Interface, "Container edits": they are applied to a configuration that is complete.
    #[test]
    fn edits_come_last_and_supplies_first() {
        let mut edited = pod();
        edited.edit(edits("one"));
        check(&edited, &[("A", "one"), ("NEW", "one")], "one", "one");
        edited.edit(edits("two"));
        check(&edited, &[("A", "two"), ("NEW", "two")], "two", "two");
        let mut supplied = pod();
        supplied.supply(edits("one"));
        check(&supplied, &[("A", "pod"), ("NEW", "one")], "pod", "one");
    }
}
