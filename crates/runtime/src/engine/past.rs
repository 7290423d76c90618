//! Containers that ran before the machine was started again. Their sandboxes are gone with the machine's memory, and how they ended is known
//! still: work that was done is not done a second time for want of that. It is told until the pod has a sandbox again, or is gone.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use base::files;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::state::{ContainerEntry, write_json};
use crate::api::{Container, ContainerState};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    pod_uid: String,
    container: Container,
}

/// Those that are not forgotten yet, a file each.
pub(super) struct Past {
    directory: PathBuf,
    /// By the UID of their pod, and by identifier.
    records: Mutex<BTreeMap<String, BTreeMap<String, Container>>>,
}

impl Past {
    /// Reads what an earlier process kept. Blocking.
    pub(super) fn load(directory: PathBuf) -> io::Result<Self> {
        let found = base::records::read(&directory, |name| name.ends_with(".json") && !name.starts_with('.'))?;
        let past = Self { directory, records: Mutex::default() };
        found.whole.into_iter().for_each(|record| past.add(record));
        Ok(past)
    }

    fn add(&self, Record { pod_uid, container }: Record) {
        self.records.lock().entry(pod_uid).or_default().insert(container.id.clone(), container);
    }

    /// Keeps what these containers were, on disk before it returns. Nobody needs to know of one that never ran. Blocking.
    ///
    /// # Errors
    /// It is not on disk: the next process does not know it.
    pub(super) fn keep<'a>(&self, entries: impl Iterator<Item = &'a ContainerEntry>) -> io::Result<()> {
        let ran = entries.filter_map(|entry| Some((entry.record.pod_uid.clone(), ended(entry.view())?)));
        let records: Vec<_> = ran.map(|(pod_uid, container)| Record { pod_uid, container }).collect();
        if records.is_empty() {
            return Ok(());
        }
        let mut written = Ok(());
        for record in records {
            written = written.and_then(|()| write_json(&self.path(&record.container.id), &record));
            self.add(record);
        }
        written?;
        // One wait for the disk is for all of them.
        let directory = std::fs::File::open(&self.directory)?;
        Ok(nix::unistd::syncfs(directory.as_raw_fd())?)
    }

    /// All of them, each with the UID of its pod.
    pub(super) fn all(&self) -> Vec<(String, Container)> {
        let records = self.records.lock();
        let of_pod = |(uid, containers): (&String, &BTreeMap<String, Container>)| {
            containers.values().map(|container| (uid.clone(), container.clone())).collect::<Vec<_>>()
        };
        records.iter().flat_map(of_pod).collect()
    }

    /// Whether there are any of a pod: most pods have none.
    pub(super) fn has(&self, pod_uid: &str) -> bool {
        self.records.lock().contains_key(pod_uid)
    }

    /// Forgets those of a pod. Blocking.
    ///
    /// # Errors
    /// One is on disk still: the next process tells of it.
    pub(super) fn forget(&self, pod_uid: &str) -> io::Result<()> {
        // Nobody waits for the disk who asks for others.
        let of_pod: Vec<_> = self.records.lock().get(pod_uid).into_iter().flat_map(BTreeMap::keys).cloned().collect();
        of_pod.iter().try_for_each(|id| files::remove(&self.path(id)))?;
        self.records.lock().remove(pod_uid);
        Ok(())
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

/// The container as it is now that the machine was started again; none of one that never ran. When the end of one that ran came nobody knows.
fn ended(container: Container) -> Option<Container> {
    match container.state {
        ContainerState::Created => None,
        ContainerState::Exited => Some(container),
        ContainerState::Running => Some(Container {
            state: ContainerState::Exited,
            exit_code: Some(255),
            reason: "Unknown".to_owned(),
            finished: container.started,
            pid: None,
            ..container
        }),
    }
}
