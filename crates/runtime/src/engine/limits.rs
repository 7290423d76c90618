//! Limits of what runs already (KEP-1287). The record is written after the cgroup: who was killed in between sets the same limits again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Inner;
use super::state::write_json;
use crate::api::{ContainerState, Error, Resources, Result};
use crate::images::blocking;
use crate::shim::protocol::RECORD;

impl Inner {
    /// See [`crate::api::Runtime::update_sandbox`].
    pub(super) async fn update_sandbox(self: &Arc<Self>, id: &str, resources: Resources) -> Result<()> {
        let entry = self.sandbox(id)?;
        let inner = self.clone();
        let work = move || {
            let group = inner.group(&entry.record().config.cgroup_parent);
            inner.cgroups.update(&group, &resources)?;
            let mut record = entry.record.lock();
            record.config.resources = resources;
            write_json(&entry.dir.join("sandbox.json"), &*record)
        };
        blocking(work).await?.map_err(super::internal)
    }

    /// See [`crate::api::Runtime::update_container`].
    pub(super) async fn update_container(
        self: &Arc<Self>,
        id: &str,
        resources: Resources,
        annotations: BTreeMap<String, String>,
    ) -> Result<()> {
        let entry = self.container(id)?;
        let _one = self.busy.lock(&format!("container {id}")).await;
        if entry.phase() != ContainerState::Running {
            return Err(Error::NotFound(format!("running container {id}")));
        }
        let inner = self.clone();
        let work = move || {
            inner.cgroups.update(&entry.record.cgroup, &resources)?;
            let mut record = entry.record.clone();
            record.config.resources = resources;
            record.config.annotations = annotations;
            record.user = entry.user.get().cloned();
            write_json(&entry.dir.join(RECORD), &record)?;
            *entry.annotations.lock() = record.config.annotations;
            Ok::<_, std::io::Error>(())
        };
        blocking(work).await?.map_err(super::internal)
    }

    /// See [`crate::api::Runtime::pin_container`].
    pub(super) async fn pin_container(self: &Arc<Self>, id: &str, cpus: &str) -> Result<()> {
        let entry = self.container(id)?;
        let _one = self.busy.lock(&format!("container {id}")).await;
        if entry.phase() == ContainerState::Exited {
            return Err(Error::NotFound(format!("container {id} that has not ended")));
        }
        let (inner, cpus) = (self.clone(), cpus.to_owned());
        blocking(move || inner.cgroups.pin(&entry.record.cgroup, &cpus)).await?.map_err(super::internal)
    }
}
