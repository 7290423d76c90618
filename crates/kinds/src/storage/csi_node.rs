//! CSINode: which drivers of the Container Storage Interface a node has.

use std::collections::{HashMap, HashSet};

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};

use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::{self, list};
use crate::typed::Kind;

/// Longest name that a driver may have for a node.
const MAX_NODE_ID: usize = 192;

impl Kind for CSINode {
    const DEF: KindDef = KindDef::of::<Self>("csinode").returns_deleted().cluster().versioned();

    fn validate(&self, errors: &mut Errors) {
        let mut names = HashSet::new();
        for (index, driver) in self.spec.drivers.iter().enumerate() {
            let path = Path::new("spec.drivers").index(index);
            validate_driver(driver, &path, errors);
            if !names.insert(driver.name.as_str()) {
                errors.push(Error::duplicate(&path.child("name"), driver.name.as_str()));
            }
            topology_keys(list(&driver.topology_keys), &path, errors);
        }
    }

    /// Drivers come and go; of one that stays only the number of volumes may change (KEP-4876).
    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let fixed = |driver: &CSINodeDriver| CSINodeDriver { allocatable: None, ..driver.clone() };
        let before: HashMap<_, _> = old.spec.drivers.iter().map(|driver| (driver.name.as_str(), driver)).collect();
        for new in &self.spec.drivers {
            if let Some(old) = before.get(new.name.as_str()) {
                rules::immutable(&Path::new("spec.drivers"), &fixed(new), &fixed(old), errors);
            }
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            let description = "Drivers indicates the number of CSI drivers registered on the node";
            &[Column::integer("Drivers", description, |node, _| node.spec.drivers.len().into())]
        }
    }
}

fn validate_driver(driver: &CSINodeDriver, path: &Path, errors: &mut Errors) {
    rules::driver_name(&path.child("name"), &driver.name, errors);
    let (id, at) = (driver.node_id.as_str(), path.child("nodeID"));
    rules::required(&at, id, errors);
    if id.len() > MAX_NODE_ID {
        errors.push(Error::invalid(&at, id, format!("must be {MAX_NODE_ID} characters or less")));
    }
    if let Some(count) = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count) {
        rules::non_negative(&path.child("allocatable.count"), count.into(), errors);
    }
}

fn topology_keys(keys: &[String], path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for key in keys {
        rules::required(path, key, errors);
        if !seen.insert(key.as_str()) {
            errors.push(Error::duplicate(path, key.as_str()));
        }
        rules::qualified_name(path, key, errors);
    }
}
