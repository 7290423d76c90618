//! What a container gets with its devices. Pure.

use std::collections::BTreeSet;

use csi::devices::ContainerAllocateResponse;
use runtime::api::{ContainerEdits, Device, Mount};

/// What the plugins of a container have said, put together: of what two of them name the first one is right, as upstream.
pub(super) fn of<'a>(responses: impl IntoIterator<Item = &'a ContainerAllocateResponse>) -> ContainerEdits {
    let mut edits = ContainerEdits::default();
    let (mut names, mut places, mut paths) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for response in responses {
        let news = response.envs.iter().filter(|(name, _)| names.insert(name.as_str()));
        edits.env.extend(news.map(|(name, value)| (name.clone(), value.clone())));
        let news = response.mounts.iter().filter(|mount| places.insert(mount.container_path.as_str()));
        edits.mounts.extend(news.map(|mount| Mount {
            host_path: mount.host_path.clone().into(),
            container_path: mount.container_path.clone().into(),
            readonly: mount.read_only,
            ..Mount::default()
        }));
        let news = response.devices.iter().filter(|device| paths.insert(device.container_path.as_str()));
        edits.devices.extend(news.map(|device| Device {
            host_path: device.host_path.clone().into(),
            container_path: device.container_path.clone().into(),
            permissions: device.permissions.clone(),
            ..Device::default()
        }));
        for (name, value) in &response.annotations {
            edits.annotations.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    edits
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use csi::devices::{DeviceSpec, Mount as Mounted};

    use super::*;

    #[test]
    fn the_first_plugin_is_right() {
        let response = |text: &str, own: &str| ContainerAllocateResponse {
            envs: BTreeMap::from([("A".to_owned(), text.to_owned()), (own.to_owned(), text.to_owned())]),
            mounts: vec![Mounted { container_path: "/m".into(), host_path: text.into(), read_only: true }],
            devices: vec![DeviceSpec { container_path: "/dev/x".into(), host_path: text.into(), permissions: "r".into() }],
            annotations: BTreeMap::from([("a".to_owned(), text.to_owned())]),
            cdi_devices: vec![],
        };
        let edits = of([&response("one", "B"), &response("two", "C")]);
        let env: Vec<_> = edits.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["A=one", "B=one", "C=two"]);
        assert_eq!(
            edits.mounts.iter().map(|mount| (mount.host_path.to_str(), mount.readonly)).collect::<Vec<_>>(),
            [(Some("one"), true)]
        );
        assert_eq!(edits.devices.iter().map(|device| device.host_path.to_str()).collect::<Vec<_>>(), [Some("one")]);
        assert_eq!(edits.annotations["a"], "one");
    }
}
