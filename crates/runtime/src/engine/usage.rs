//! What pods and containers use.

use std::collections::BTreeMap;

use super::Inner;
use crate::api::{ContainerState, ProcessUsage, Usages};

impl Inner {
    /// Reads the control groups of all pods and running containers. Blocking.
    pub(super) fn usages(&self) -> Usages {
        let sandboxes: Vec<_> = self.sandboxes.lock().values().filter(|entry| entry.is_ready()).cloned().collect();
        let containers: Vec<_> = self.containers.lock().values().cloned().collect();
        let of_sandbox = |record: super::state::SandboxRecord| {
            let usage = self.cgroups.usage(&self.group(&record.config.cgroup_parent))?;
            Some((record.id, usage))
        };
        let running = containers.iter().filter(|entry| entry.phase() == ContainerState::Running);
        Usages {
            sandboxes: sandboxes.iter().filter_map(|entry| of_sandbox(entry.record())).collect(),
            containers: running
                .filter_map(|entry| Some((entry.record.id.clone(), self.cgroups.usage(&entry.record.cgroup)?)))
                .collect(),
        }
    }

    /// Looks at what the processes of running containers have open. Blocking.
    pub(super) fn process_usages(&self) -> BTreeMap<String, ProcessUsage> {
        let containers: Vec<_> = self.containers.lock().values().cloned().collect();
        let running = containers.iter().filter(|entry| entry.phase() == ContainerState::Running);
        running.map(|entry| (entry.record.id.clone(), self.cgroups.process_usage(&entry.record.cgroup))).collect()
    }
}
