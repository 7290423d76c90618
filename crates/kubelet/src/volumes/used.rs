//! Which volumes of a pod its containers use: the others are not made, as upstream (`GetPodVolumeNames`). Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Volume};

use crate::env;
use crate::spec::Model;

/// The names of the volumes that a container mounts, has as devices or reads variables from.
pub fn names(container: &Container) -> impl Iterator<Item = &str> {
    let mounts = container.volume_mounts.iter().flatten().map(|mount| mount.name.as_str());
    let devices = container.volume_devices.iter().flatten().map(|device| device.name.as_str());
    mounts.chain(devices).chain(env::files(container).map(|file| file.volume_name.as_str()))
}

/// The volumes that some container of the pod uses, in their order.
pub fn volumes(model: &Model) -> impl Iterator<Item = &Volume> {
    let used: BTreeSet<&str> = model.members.iter().flat_map(|member| names(&member.spec)).collect();
    model.spec().volumes.iter().flatten().filter(move |volume| used.contains(volume.name.as_str()))
}

/// Whether a container has the volume as a device.
pub fn is_device(model: &Model, volume: &str) -> bool {
    model.members.iter().any(|member| member.spec.volume_devices.iter().flatten().any(|device| device.name == volume))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::model;

    /// Upstream's e2e tests "should not mount / map unused volumes in a pod".
    #[test]
    fn what_no_container_names_is_unused() {
        let mount = |name: &str| json!([{"name": name, "mountPath": "/m"}]);
        let variable =
            json!([{"name": "V", "valueFrom": {"fileKeyRef": {"volumeName": "of-variables", "path": "f", "key": "V"}}}]);
        let all = ["unused", "of-ephemeral", "of-init", "device", "of-variables", "of-app"];
        let spec = json!({
            "initContainers": [{"name": "i", "volumeMounts": mount("of-init")}, {"name": "j", "env": variable}],
            "containers": [{"name": "a", "volumeMounts": mount("of-app")},
                {"name": "b", "volumeDevices": [{"name": "device", "devicePath": "/dev/d"}]}],
            "ephemeralContainers": [{"name": "e", "volumeMounts": mount("of-ephemeral")}],
            "volumes": all.map(|name| json!({"name": name})),
        });
        let model = model(spec);
        assert_eq!(volumes(&model).map(|volume| volume.name.as_str()).collect::<Vec<_>>(), all[1..]);
    }
}
