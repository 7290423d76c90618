//! How the devices of containers are, as `allocatedResourcesStatus` of their statuses tells (KEP-4680). Pure but for [`Devices::tell_health`].

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus, ResourceHealth, ResourceStatus};

use super::Devices;
use super::inventory::Inventory;

impl Devices {
    /// Says in a pod's status how the devices of its containers are. What is told of a container that has given its devices back stays as in
    /// `old`: who asks why it has failed finds it there.
    pub fn tell_health(&self, uid: &str, status: &mut PodStatus, old: &PodStatus) {
        let inventory = self.inventory.lock();
        let lists = [
            (&mut status.container_statuses, &old.container_statuses),
            (&mut status.init_container_statuses, &old.init_container_statuses),
        ];
        for (statuses, old) in lists {
            for status in statuses.iter_mut().flatten() {
                let known = old.iter().flatten().find(|known| known.name == status.name);
                status.allocated_resources_status = of_container(&inventory, uid, status, known);
            }
        }
    }
}

fn of_container(
    inventory: &Inventory,
    uid: &str,
    status: &ContainerStatus,
    known: Option<&ContainerStatus>,
) -> Option<Vec<ResourceStatus>> {
    let held = inventory.of_container(uid, &status.name);
    if held.is_empty() {
        return known.and_then(|known| known.allocated_resources_status.clone());
    }
    let resource = |(name, held): (&str, &super::inventory::Assignment)| {
        let device = |id: &String| ResourceHealth {
            resource_id: id.clone(),
            health: Some(inventory.health(name, id).to_owned()),
            ..ResourceHealth::default()
        };
        ResourceStatus { name: name.to_owned(), resources: Some(held.devices.iter().map(device).collect()) }
    };
    Some(held.into_iter().map(resource).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::{Value, json};

    use super::super::inventory::{Assignment, Owner};
    use super::*;

    fn status(containers: Value) -> PodStatus {
        let full = |container: &Value| {
            let mut full = json!({"image": "", "imageID": "", "ready": true, "restartCount": 0});
            full.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
            full
        };
        let containers: Vec<Value> = containers.as_array().unwrap().iter().map(full).collect();
        serde_json::from_value(json!({"containerStatuses": containers})).unwrap()
    }

    /// KEP-4680: the status of a container has an entry for each resource, and in it one for each device that the container has.
    #[test]
    fn a_status_names_the_devices_of_each_container() {
        let owner = Owner { uid: "u".into(), container: "c".into(), resource: "example.com/gpu".into() };
        let held = Assignment { devices: BTreeSet::from(["a".into(), "b".into()]), response: None };
        let inventory = Inventory::found([("example.com/gpu".to_owned(), false)], BTreeMap::from([(owner, held)]));
        let devices = Devices { inventory: parking_lot::Mutex::new(inventory), ..Devices::default() };
        let mut new = status(json!([{"name": "c"}, {"name": "d"}]));
        devices.tell_health("u", &mut new, &PodStatus::default());
        let told = json!([{"name": "example.com/gpu", "resources": [
            {"resourceID": "a", "health": "Unknown"}, {"resourceID": "b", "health": "Unknown"}]}]);
        assert_eq!(new, status(json!([{"name": "c", "allocatedResourcesStatus": told}, {"name": "d"}])));
        // What was told stays when the devices are free again.
        devices.inventory.lock().release("u");
        let mut later = status(json!([{"name": "c"}, {"name": "d"}]));
        devices.tell_health("u", &mut later, &new);
        assert_eq!(later, new);
    }
}
