//! Assignments on disk, before a container has its devices. Names and form are those of upstream's checkpoint, which tools read, without its
//! checksum.

use base::files::{self, Outlives};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use csi::devices::ContainerAllocateResponse;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::inventory::{Assignment, Inventory, Owner};

const FILE: &str = "kubelet_internal_checkpoint";
/// Stands for the NUMA node of devices that are at none.
const NOWHERE: i64 = -1;

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Checkpoint {
    data: Data,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Data {
    pod_device_entries: Vec<Entry>,
    registered_devices: BTreeMap<String, Vec<String>>,
    /// Resources whose plugins want to be asked before a container starts. Upstream's file does not have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pre_start_resources: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    container_name: String,
    resource_name: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: BTreeMap<i64, Vec<String>>,
    alloc_resp: String,
}

/// What is to be written of an inventory.
pub(super) fn encode(inventory: &Inventory) -> io::Result<Vec<u8>> {
    let known: BTreeMap<&str, _> = inventory.devices().collect();
    let entry = |(owner, held): (&Owner, &Assignment)| {
        // What is only reserved is nobody's after a crash.
        let response = held.response.as_ref()?;
        let mut device_ids: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for id in &held.devices {
            let device = known.get(owner.resource.as_str()).and_then(|devices| devices.get(id));
            let node = device.and_then(|device| device.nodes.first().copied()).unwrap_or(NOWHERE);
            device_ids.entry(node).or_default().push(id.clone());
        }
        let Owner { uid, container, resource } = owner.clone();
        let alloc_resp = STANDARD.encode(response.encode_to_vec());
        Some(Entry { pod_uid: uid, container_name: container, resource_name: resource, device_ids, alloc_resp })
    };
    let healthy = |devices: &BTreeMap<String, super::inventory::Device>| {
        devices.iter().filter(|(_, device)| device.healthy).map(|(id, _)| id.clone()).collect()
    };
    let data = Data {
        pod_device_entries: inventory.held().filter_map(entry).collect(),
        registered_devices: known.iter().map(|(name, devices)| ((*name).to_owned(), healthy(devices))).collect(),
        pre_start_resources: inventory.with_pre_start().map(str::to_owned).collect(),
    };
    Ok(serde_json::to_vec(&Checkpoint { data })?)
}

/// Replaces the file, also when the machine crashes. Blocking.
pub(super) fn write(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    files::replace(&directory.join(FILE), bytes, Outlives::Machine)
}

/// Reads what was written, nothing where there is no file. Blocking.
pub(super) fn read(directory: &Path) -> io::Result<Inventory> {
    let Some(Checkpoint { data }) = base::records::read_json(&directory.join(FILE))? else { return Ok(Inventory::default()) };
    let Data { pod_device_entries, registered_devices, pre_start_resources } = data;
    let mut held = BTreeMap::new();
    for entry in pod_device_entries {
        let response = STANDARD.decode(&entry.alloc_resp).map_err(io::Error::other)?;
        let response = ContainerAllocateResponse::decode(response.as_slice()).map_err(io::Error::other)?;
        let owner = Owner { uid: entry.pod_uid, container: entry.container_name, resource: entry.resource_name };
        let devices = entry.device_ids.into_values().flatten().collect();
        held.insert(owner, Assignment { devices, response: Some(response) });
    }
    let resources = registered_devices.into_keys().map(|name| {
        let pre_start = pre_start_resources.contains(&name);
        (name, pre_start)
    });
    Ok(Inventory::found(resources, held))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(directory.path()).unwrap().is_unused());
        let owner =
            |container: &str| Owner { uid: "u".into(), container: container.into(), resource: "example.com/berth".into() };
        let envs = BTreeMap::from([("A".to_owned(), "B".to_owned())]);
        let given = Assignment {
            devices: BTreeSet::from(["a".to_owned(), "b".to_owned()]),
            response: Some(ContainerAllocateResponse { envs, ..Default::default() }),
        };
        let reserved = Assignment { response: None, ..given.clone() };
        let held = BTreeMap::from([(owner("main"), given.clone()), (owner("reserved"), reserved)]);
        let resources = [("example.com/berth".to_owned(), false), ("example.com/crane".to_owned(), true)];
        let inventory = Inventory::found(resources, held);
        write(directory.path(), &encode(&inventory).unwrap()).unwrap();
        let text: serde_json::Value = serde_json::from_slice(&fs::read(directory.path().join(FILE)).unwrap()).unwrap();
        assert_eq!(text["Data"]["PodDeviceEntries"][0]["DeviceIDs"]["-1"], serde_json::json!(["a", "b"]));
        let found = read(directory.path()).unwrap();
        assert_eq!(found.held().collect::<Vec<_>>(), [(&owner("main"), &given)]);
        assert!(found.manages("example.com/berth"));
        // A plugin that resets devices before containers start is waited for after a restart, and no other.
        assert!(found.before_start("example.com/berth").is_ok_and(|asked| asked.is_none()));
        assert!(found.before_start("example.com/crane").is_err());
        fs::write(directory.path().join(FILE), "{").unwrap();
        assert!(read(directory.path()).is_err());
    }
}
