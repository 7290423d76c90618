//! Finding again what an earlier server process left running.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Inner;
use super::state::{ContainerEntry, ContainerRecord, SandboxEntry, SandboxRecord, read_json};
use crate::api::Result;
use crate::container::{mapped, rootfs};
use crate::images::blocking;
use crate::shim::protocol::{RECORD, STATE, TaskState};

impl Inner {
    /// Loads sandboxes and containers, connects to their shims, and removes what did not come to be.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<()> {
        let inner = self.clone();
        let half_made = blocking(move || inner.load()).await?.map_err(super::internal)?;
        for id in half_made {
            tracing::info!(sandbox = %id, "removing a sandbox that was not finished");
            // The network comes after the engine, and releases by itself what no sandbox has.
            self.scrap_locally(&id).await;
        }
        let entries: Vec<Arc<SandboxEntry>> = self.sandboxes.lock().values().cloned().collect();
        for entry in entries {
            if entry.is_ready() {
                self.restore_quota(&entry);
                // Ends by declaring the shim gone when it is.
                self.watch(entry);
                continue;
            }
            // A server that was killed after it had found the shim gone may not have come to the containers.
            let (inner, id) = (self.clone(), entry.record().id);
            blocking(move || inner.end_without_shim(&id)).await?;
        }
        let inner = self.clone();
        blocking(move || inner.drop_stale()).await?.map_err(super::internal)
    }

    /// A server may have been killed while it had lifted the quota of a pod, to kill one of its containers.
    fn restore_quota(&self, entry: &SandboxEntry) {
        let config = entry.record().config;
        let group = self.group(&config.cgroup_parent);
        if config.resources.cpu_quota.is_some_and(|quota| quota > 0)
            && let Err(error) = self.cgroups.set_cpu(&group, &config.resources)
        {
            tracing::warn!(group, %error, "the CPU limit of a pod could not be set again");
        }
    }

    /// Reads the state directories; gives the sandboxes that were not finished. Blocking.
    fn load(&self) -> io::Result<Vec<String>> {
        let mut half_made = Vec::new();
        for (id, dir) in entries(&self.options.run_dir.join("sandboxes"))? {
            match read_json::<SandboxRecord>(&dir.join("sandbox.json")) {
                Ok(record) => {
                    self.sandboxes.lock().insert(id, Arc::new(SandboxEntry { dir, record: Mutex::new(record) }));
                }
                Err(_) => half_made.push(id),
            }
        }
        for (id, dir) in entries(&self.options.dir.join("containers"))? {
            let Ok(record) = read_json::<ContainerRecord>(&dir.join(RECORD)) else {
                tracing::info!(container = %id, "removing a container that was not finished");
                let mounts = mapped::directory(&self.options.run_dir, &id);
                mapped::remove(&mounts).and_then(|()| rootfs::remove(&dir)).unwrap_or_else(|error| leftover(&dir, &error));
                continue;
            };
            let state = read_json(&dir.join(STATE)).unwrap_or_else(|_| TaskState::default());
            self.containers.lock().insert(id, Arc::new(ContainerEntry::new(dir, record, state)));
        }
        Ok(half_made)
    }

    /// Removes containers and namespaces whose sandbox is not known any more, as after a restart of the machine. How containers have ended is
    /// kept. Blocking.
    fn drop_stale(&self) -> io::Result<()> {
        let known = |id: &str| self.sandboxes.lock().contains_key(id);
        let containers: Vec<Arc<ContainerEntry>> = self.containers.lock().values().cloned().collect();
        let stale: Vec<_> = containers.into_iter().filter(|entry| !known(&entry.record.sandbox)).collect();
        if let Err(error) = self.past.keep(stale.iter().map(AsRef::as_ref)) {
            tracing::warn!(%error, "how containers ended before the machine was started again is known to this process only");
        }
        for entry in stale {
            tracing::info!(container = %entry.record.id, "removing a container without a sandbox");
            match self.discard(&entry) {
                Ok(()) => drop(self.containers.lock().remove(&entry.record.id)),
                Err(error) => leftover(&entry.dir, &error),
            }
        }
        for (id, path) in entries(&self.options.run_dir.join("netns"))? {
            if !known(&id) {
                rootfs::unmount(&path).and_then(|()| fs::remove_file(&path)).unwrap_or_else(|error| leftover(&path, &error));
            }
        }
        Ok(())
    }
}

/// One thing that cannot be removed is no reason not to run the others.
fn leftover(path: &Path, error: &io::Error) {
    tracing::warn!(path = %path.display(), %error, "cannot remove what an earlier process left; the next start tries again");
}

fn entries(dir: &Path) -> io::Result<Vec<(String, std::path::PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    Ok(found)
}
