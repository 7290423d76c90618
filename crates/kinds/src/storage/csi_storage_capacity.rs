//! CSIStorageCapacity: how much room there is for volumes of a class, in a part of the cluster.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::validate_label_selector;
use apimachinery::quantity::Quantity;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use crate::columns::Column;
use crate::core::pod::renamed_label;
use crate::def::KindDef;
use crate::rules::resources::amount;
use crate::rules::{self, NEGATIVE, list};
use crate::typed::Kind;

impl Kind for CSIStorageCapacity {
    const DEF: KindDef = KindDef::of::<Self>("csistoragecapacity").versioned();

    fn validate(&self, errors: &mut Errors) {
        if let Some(topology) = &self.node_topology {
            validate_label_selector(topology, &Path::new("nodeTopology"), errors);
        }
        rules::dns_subdomain(&Path::new("storageClassName"), &self.storage_class_name, errors);
        if let Some(capacity) = self.capacity.as_ref().filter(|capacity| amount(capacity) < Quantity::ZERO) {
            errors.push(Error::invalid(&Path::new("capacity"), capacity.0.as_str(), NEGATIVE));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        rules::immutable(&Path::new("nodeTopology"), &self.node_topology, &old.node_topology, errors);
        rules::immutable(&Path::new("storageClassName"), &self.storage_class_name, &old.storage_class_name, errors);
    }

    fn warnings(&self) -> Vec<String> {
        let Some(topology) = &self.node_topology else { return Vec::new() };
        let path = Path::new("nodeTopology");
        let mut warnings = Vec::new();
        for (index, key) in list(&topology.match_expressions).iter().map(|expression| &expression.key).enumerate() {
            let path = path.child("matchExpressions").index(index).child("key");
            warnings.extend(renamed_label(key).map(|message| format!("{path}: {key} is {message}")));
        }
        for key in topology.match_labels.iter().flatten().map(|(key, _)| key) {
            let path = path.child("matchLabels").key(key);
            warnings.extend(renamed_label(key).map(|message| format!("{path}: {message}")));
        }
        warnings
    }

    fn warnings_on_update(&self, _old: &Self) -> Vec<String> {
        self.warnings()
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::NAME,
                Column::new("StorageClassName", "Class of the volumes.", |capacity, _| {
                    capacity.storage_class_name.as_str().into()
                }),
                Column::new("Capacity", "Room for them.", |capacity, _| {
                    capacity.capacity.as_ref().map_or("<unset>", |amount| amount.0.as_str()).into()
                }),
            ]
        }
    }
}
