//! Claims that drivers have been asked to prepare, a file each, written before the first of them is asked: after a crash it is known what is to
//! be undone.

use base::files::{self, Outlives};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    /// Uids of pods of this node that use it.
    pub(super) pods: BTreeSet<String>,
    /// What each driver has prepared; none as long as it has not said.
    pub(super) drivers: BTreeMap<String, Option<Vec<Device>>>,
}

/// A device that a driver has prepared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Device {
    /// None are all.
    pub(super) requests: Vec<String>,
    pub(super) pool: String,
    pub(super) device: String,
    pub(super) cdi: Vec<String>,
    /// Which part of the device it is; records of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) share: Option<String>,
}

impl Record {
    /// Whether it is that of a claim of this name that the pod of this uid uses.
    pub(super) fn is_of(&self, name: &str, pod: &str) -> bool {
        self.name == name && self.pods.contains(pod)
    }

    /// Whether all drivers are done.
    pub(super) fn is_prepared(&self) -> bool {
        self.drivers.values().all(Option::is_some)
    }

    /// The devices of a request, each with its driver; all devices without one.
    pub(super) fn devices(&self, request: Option<&str>) -> impl Iterator<Item = (&str, &Device)> {
        let concerns = move |device: &Device| {
            device.requests.is_empty() || device.requests.iter().any(|one| pods::claims::is_of_request(one, request))
        };
        let all = self
            .drivers
            .iter()
            .flat_map(|(driver, devices)| devices.iter().flatten().map(move |device| (driver.as_str(), device)));
        all.filter(move |(_, device)| concerns(device))
    }

    /// What the devices of a request are called, of all devices without one.
    pub(super) fn cdi(&self, request: Option<&str>) -> impl Iterator<Item = &str> {
        self.devices(request).flat_map(|(_, device)| device.cdi.iter().map(String::as_str))
    }
}

pub(super) fn path(directory: &Path, uid: &str) -> PathBuf {
    directory.join(format!("{uid}.json"))
}

/// Blocking.
pub(super) fn write(directory: &Path, record: &Record) -> io::Result<()> {
    files::replace(&path(directory, &record.uid), &serde_json::to_vec(record)?, Outlives::Machine)
}

/// All that there are. Blocking.
pub(super) fn read(directory: &Path) -> io::Result<BTreeMap<String, Record>> {
    let found = base::records::read(directory, |name| name.ends_with(".json") && !name.starts_with('.'))?;
    Ok(found.whole.into_iter().map(|record: Record| (record.uid.clone(), record)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_are_read_again() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(&directory.path().join("none")).unwrap().is_empty());
        let device = Device { requests: vec!["gpu/big".into()], cdi: vec!["v/c=d".into()], ..Device::default() };
        let drivers = BTreeMap::from([("d".to_owned(), Some(vec![device])), ("e".to_owned(), None)]);
        let record = Record { uid: "u".into(), drivers, ..Record::default() };
        write(directory.path(), &record).unwrap();
        assert_eq!(read(directory.path()).unwrap(), BTreeMap::from([("u".to_owned(), record.clone())]));
        assert!(!record.is_prepared());
        let check = |request, expected: &[&str]| assert_eq!(record.cdi(request).collect::<Vec<_>>(), expected, "{request:?}");
        check(None, &["v/c=d"]);
        check(Some("gpu"), &["v/c=d"]);
        check(Some("other"), &[]);
    }
}
