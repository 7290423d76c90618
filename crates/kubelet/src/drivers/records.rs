//! What was begun with a driver, on disk before it is begun: after a crash it is known what is to be undone. Names and fields are upstream's.

use base::files::{self, Outlives};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DIRECTORY;

const FILE: &str = "vol_data.json";

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Its driver.
    pub driver_name: String,
    /// How the driver calls it.
    pub volume_handle: String,
    /// The name of its PersistentVolume, or of the pod's volume when it has none.
    #[serde(rename = "specVolID")]
    pub spec_name: String,
    /// `Persistent`, or `Ephemeral`: it comes and goes with the pod.
    pub volume_lifecycle_mode: String,
    /// Where it was staged; empty when it was not.
    pub staging: PathBuf,
}

/// Where the volumes of drivers are in a pod's directory, each in one of its own.
pub fn of_pod(pod_dir: &Path) -> PathBuf {
    pod_dir.join("volumes").join(DIRECTORY)
}

/// The path that a driver shows a volume at; beside it is its record.
pub fn target(pod_dir: &Path, name: &str) -> PathBuf {
    of_pod(pod_dir).join(name).join("mount")
}

/// Where volumes are staged, below the kubelet's directory.
fn stages(data_dir: &Path) -> PathBuf {
    data_dir.join("plugins/kubernetes.io/csi")
}

/// The path that a driver stages a volume at; beside it is its record.
pub fn staging(data_dir: &Path, driver: &str, handle: &str) -> PathBuf {
    stages(data_dir).join(driver).join(pods::csi::digest(handle)).join("globalmount")
}

/// Writes the record beside `path`, whose parent directory is made. Blocking.
pub fn write(path: &Path, record: &Record) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    files::replace(&directory.join(FILE), &serde_json::to_vec(record)?, Outlives::Machine)
}

/// Removes a path that its driver has let go of, the record beside it, and their directory. What the driver has left there is kept, and the
/// error says so. Blocking.
pub fn remove(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    for result in [removed, files::remove_replaced(&directory.join(FILE)), fs::remove_dir(directory)] {
        match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The volumes of a pod with the paths that they are shown at. Blocking.
pub fn list(pod_dir: &Path) -> io::Result<Vec<(PathBuf, Record)>> {
    read_all(&of_pod(pod_dir), "mount")
}

/// The volumes of one driver that are staged, with their paths. Blocking.
pub fn staged(data_dir: &Path, driver: &str) -> io::Result<Vec<(PathBuf, Record)>> {
    read_all(&stages(data_dir).join(driver), "globalmount")
}

/// All volumes that pods of the node have. Blocking.
///
/// # Errors
/// A record cannot be read: which volume its pod has is not known.
pub fn of_all_pods(data_dir: &Path) -> io::Result<Vec<(PathBuf, Record)>> {
    let mut all = Vec::new();
    for pod in directories(&data_dir.join("pods"))? {
        all.extend(list(&pod)?);
    }
    Ok(all)
}

/// The volumes that pods have or that are staged, of which the records can be read: a damaged one costs itself alone. Blocking.
pub fn readable(data_dir: &Path) -> Vec<Record> {
    let pods = directories(&data_dir.join("pods")).unwrap_or_default();
    let drivers = directories(&stages(data_dir)).unwrap_or_default();
    let mut all = Vec::new();
    for parent in pods.iter().map(|pod| of_pod(pod)).chain(drivers) {
        for volume in directories(&parent).unwrap_or_default() {
            match base::records::read_json(&volume.join(FILE)) {
                Ok(record) => all.extend(record),
                Err(error) => tracing::error!(%error, "whether the volume of a storage driver is used is not known"),
            }
        }
    }
    all
}

fn directories(path: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| entry.map(|entry| entry.path())).collect(),
    }
}

fn read_all(parent: &Path, name: &str) -> io::Result<Vec<(PathBuf, Record)>> {
    let mut found = Vec::new();
    for directory in directories(parent)? {
        // Without a record nothing was begun: it comes first, and goes last.
        found.push((directory.join(name), base::records::read_json(&directory.join(FILE))?.unwrap_or_default()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Record {
        Record { driver_name: "d".to_owned(), volume_handle: "h".to_owned(), spec_name: name.to_owned(), ..Record::default() }
    }

    #[test]
    fn what_is_written_is_found_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let pod_dir = directory.path().join("pods/u");
        let path = target(&pod_dir, "pv");
        assert_eq!(list(&pod_dir).unwrap(), []);
        write(&path, &record("pv")).unwrap();
        assert_eq!(list(&pod_dir).unwrap(), [(path.clone(), record("pv"))]);
        assert_eq!(of_all_pods(directory.path()).unwrap().len(), 1);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("data"), "").unwrap();
        assert!(remove(&path).is_err(), "data of a volume is never removed");
        assert_eq!(list(&pod_dir).unwrap().len(), 1);
        fs::remove_file(path.join("data")).unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(list(&pod_dir).unwrap(), []);
    }

    /// Its pod would be terminating for ever.
    #[test]
    fn a_record_that_was_being_written_goes_too() {
        let directory = tempfile::tempdir().unwrap();
        let pod_dir = directory.path().join("pods/u");
        let path = target(&pod_dir, "pv");
        write(&path, &record("pv")).unwrap();
        fs::write(path.with_file_name(format!(".{FILE}.next")), "{").unwrap();
        remove(&path).unwrap();
        assert_eq!(list(&pod_dir).unwrap(), []);
    }

    #[test]
    fn a_damaged_record_costs_itself_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (whole, torn) = (directory.path().join("pods/u"), directory.path().join("pods/v"));
        write(&target(&whole, "pv"), &record("pv")).unwrap();
        write(&target(&torn, "pw"), &record("pw")).unwrap();
        let file = of_pod(&torn).join("pw").join(FILE);
        fs::write(&file, "").unwrap();
        let named = format!("{} is damaged", file.display());
        assert!(list(&torn).unwrap_err().to_string().starts_with(&named));
        assert!(of_all_pods(directory.path()).unwrap_err().to_string().starts_with(&named));
        assert_eq!(readable(directory.path()), [record("pv")]);
        write(&staging(directory.path(), "d", "h"), &record("staged")).unwrap();
        assert_eq!(readable(directory.path()), [record("pv"), record("staged")]);
    }

    #[test]
    fn stages_of_a_driver() {
        let directory = tempfile::tempdir().unwrap();
        let path = staging(directory.path(), "d", "h");
        write(&path, &record("")).unwrap();
        assert_eq!(staged(directory.path(), "d").unwrap(), [(path, record(""))]);
        assert_eq!(staged(directory.path(), "other").unwrap(), []);
    }
}
