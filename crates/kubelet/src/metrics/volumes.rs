//! Volumes that pods want and have, under upstream's name (`pkg/kubelet/volumemanager/metrics`).

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::Volume;

use crate::drivers::operations::plugin_of;
use crate::drivers::records;
use crate::spec::Model;
use crate::volumes::points::Table;
use crate::volumes::{block, path, used};

/// A sample with its labels.
type Sample<'a> = (Vec<(&'static str, &'a str)>, f64);

/// How many volumes are wanted, and how many are there, by plugin.
#[derive(Debug, Default)]
pub(super) struct Numbers(BTreeMap<String, [usize; 2]>);

impl Numbers {
    /// Those of one pod that its containers use. Blocking.
    pub(super) fn add(&mut self, model: &Model, pod_dir: &Path, mounts: &Table) {
        // Which driver is behind which claim is not asked of anybody: those that have begun stand on disk.
        let begun = records::list(pod_dir).unwrap_or_default();
        let mut begun = begun.into_iter().map(|(_, record)| record).filter(|record| record.volume_lifecycle_mode == "Persistent");
        for volume in used::volumes(model) {
            let is_claim = volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
            let driver = if is_claim { begun.next().map(|record| record.driver_name) } else { None };
            let Some(plugin) = driver.map(|driver| plugin_of(&driver)).or_else(|| plugin(volume)) else { continue };
            let [wanted, there] = self.0.entry(plugin).or_default();
            *wanted += 1;
            *there += usize::from(mounts.is_there(&path(pod_dir, volume)) || block::is_mapped(pod_dir, &volume.name));
        }
    }

    /// Each with its labels.
    pub(super) fn samples(&self) -> impl Iterator<Item = Sample<'_>> {
        self.0.iter().flat_map(|(plugin, numbers)| {
            let states = ["desired_state_of_world", "actual_state_of_world"];
            let samples = states.into_iter().zip(numbers);
            samples.map(|(state, number)| (vec![("plugin_name", plugin.as_str()), ("state", state)], *number as f64))
        })
    }
}

/// The plugin of a volume; none for images, which are the runtime's.
fn plugin(volume: &Volume) -> Option<String> {
    let name = match () {
        () if volume.host_path.is_some() => "host-path",
        () if volume.empty_dir.is_some() => "empty-dir",
        () if volume.config_map.is_some() => "configmap",
        () if volume.secret.is_some() => "secret",
        () if volume.downward_api.is_some() => "downward-api",
        () if volume.projected.is_some() => "projected",
        () if volume.nfs.is_some() => "nfs",
        () if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() => "local-volume",
        () => return volume.csi.as_ref().map(|csi| plugin_of(&csi.driver)),
    };
    Some(format!("kubernetes.io/{name}"))
}
