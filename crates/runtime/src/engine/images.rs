//! Which containers use which images.

use std::collections::{BTreeMap, BTreeSet};

use super::Inner;
use crate::api::ContainerConfig;

/// The images that a container runs and mounts, by identifier.
fn images(config: &ContainerConfig) -> impl Iterator<Item = &str> {
    let mounted = config.mounts.iter().filter_map(|mount| mount.image.as_ref());
    std::iter::once(config.image.as_str()).chain(mounted.map(|source| source.id.as_str()))
}

impl Inner {
    /// A pod that has a container of the image; the name of what is left of a container whose pod is not known.
    pub(super) fn image_user(&self, image: &str) -> Option<String> {
        let containers = self.containers.lock();
        let entry = containers.values().find(|entry| images(&entry.record.config).any(|id| id == image))?;
        let (id, sandbox) = (entry.record.id.clone(), entry.record.sandbox.clone());
        drop(containers);
        Some(self.pod_of(&sandbox).map_or_else(|| format!("container {id}"), |pod| format!("pod {pod}")))
    }

    /// See [`super::Engine::image_users`].
    pub(super) fn image_users(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let entries: Vec<_> = self.containers.lock().values().cloned().collect();
        for entry in entries {
            let pod = self.pod_of(&entry.record.sandbox).unwrap_or_else(|| entry.record.id.clone());
            for image in images(&entry.record.config) {
                users.entry(image.to_owned()).or_default().insert(pod.clone());
            }
        }
        users
    }

    fn pod_of(&self, sandbox: &str) -> Option<String> {
        let sandboxes = self.sandboxes.lock();
        let record = sandboxes.get(sandbox)?.record.lock();
        Some(format!("{}/{}", record.config.pod.namespace, record.config.pod.name))
    }
}
