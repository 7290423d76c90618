//! Ranges of user ids for pods with a user namespace (KEP-127): each has one of its own on the node, and keeps it as long as it is there.

use base::files::{self, Outlives};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use runtime::api::IdRange;
use serde::{Deserialize, Serialize};

/// How many ids a pod has, as upstream by default.
const SIZE: u32 = 65536;
/// The file in a pod's directory, by upstream's name and form.
const FILE: &str = "userns";

/// The ranges of a node.
#[derive(Debug)]
pub struct Users {
    pods_dir: PathBuf,
    /// The number of its range by the pod's UID. Range 0 is the node's own.
    taken: Mutex<BTreeMap<String, u32>>,
    most: u32,
}

#[derive(Serialize, Deserialize)]
struct Mapping {
    #[serde(rename = "hostId")]
    host: u32,
    #[serde(rename = "containerId")]
    container: u32,
    length: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

impl Record {
    fn of(number: u32) -> Self {
        let mappings = || vec![Mapping { host: number * SIZE, container: 0, length: SIZE }];
        Self { uid_mappings: mappings(), gid_mappings: mappings() }
    }
}

impl Users {
    /// Reads what pods have from their directories below `pods_dir`. Blocking.
    pub fn load(pods_dir: &Path, max_pods: u32) -> Self {
        let number = |directory: &Path| {
            let record: Record = serde_json::from_slice(&std::fs::read(directory.join(FILE)).ok()?).ok()?;
            record.uid_mappings.first().map(|mapping| mapping.host / SIZE)
        };
        let entries = std::fs::read_dir(pods_dir).into_iter().flatten().flatten();
        let found = entries.filter_map(|entry| Some((entry.file_name().to_string_lossy().into_owned(), number(&entry.path())?)));
        // Pods that go have theirs for a while beside those that come.
        let most = max_pods.saturating_mul(2).min(u32::MAX / SIZE - 1);
        Self { pods_dir: pods_dir.to_owned(), taken: Mutex::new(found.collect()), most }
    }

    /// The range of a pod: the one that it has, or a free one, which is written down first. Blocking.
    ///
    /// # Errors
    /// None is free, or it cannot be written down.
    pub fn of_pod(&self, uid: &str) -> io::Result<IdRange> {
        let mut taken = self.taken.lock();
        let number = match taken.get(uid) {
            Some(number) => *number,
            None => {
                let free = (1..=self.most).find(|number| !taken.values().any(|other| other == number));
                let number = free.ok_or_else(|| io::Error::other("all ranges of user ids for user namespaces are taken"))?;
                // Whole or not at all: who reads half of it would give the pod another range beside its running containers.
                files::replace(
                    &self.pods_dir.join(uid).join(FILE),
                    &serde_json::to_vec(&Record::of(number))?,
                    Outlives::Process,
                )?;
                taken.insert(uid.to_owned(), number);
                number
            }
        };
        Ok(IdRange { host: number * SIZE, size: SIZE })
    }

    /// Frees the range of a pod of which nothing is left.
    pub fn release(&self, uid: &str) {
        self.taken.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KEP-127: "The kubelet ... will guarantee no two pods running on the same node have overlapping UID/GID mappings".
    #[test]
    fn every_pod_has_a_range_of_its_own_and_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let users = Users::load(directory.path(), 1);
        let host = |users: &Users, uid: &str| users.of_pod(uid).map(|range| (range.host, range.size));
        assert_eq!(host(&users, "a").unwrap(), (65536, 65536));
        assert_eq!(host(&users, "b").unwrap(), (131_072, 65536));
        assert_eq!(host(&users, "a").unwrap(), (65536, 65536));
        assert!(host(&users, "c").unwrap_err().to_string().contains("all ranges"));
        // Another process finds them, and a pod that goes gives its own back.
        let again = Users::load(directory.path(), 1);
        assert!(host(&again, "c").is_err());
        again.release("a");
        assert_eq!(host(&again, "c").unwrap(), (65536, 65536));
        assert_eq!(host(&again, "b").unwrap(), (131_072, 65536));
    }
}
