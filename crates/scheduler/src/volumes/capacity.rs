//! Room for volumes that are yet to be made, as drivers tell it (KEP-1472).

use apimachinery::labels::Selector;
use apimachinery::quantity::Quantity;
use client::{Change, Index, Informer};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};
use pods::nodes::Labels;
use pods::volumes as rules;

/// The caches.
#[derive(Clone)]
pub(crate) struct Capacities {
    drivers: Informer<CSIDriver>,
    by_class: Index<CSIStorageCapacity>,
}

impl Capacities {
    pub(super) fn of(drivers: Informer<CSIDriver>, capacities: &Informer<CSIStorageCapacity>) -> Self {
        let by_class = capacities.index("class", |capacity, values| values.add(capacity.storage_class_name.as_str()));
        Self { drivers, by_class }
    }

    /// The nodes from which there is room for a new volume of the class.
    pub(super) fn room(&self, claim: &PersistentVolumeClaim, class: &StorageClass) -> Room {
        let driver = self.drivers.get(None, &class.provisioner);
        let tells = driver.is_some_and(|driver| driver.spec.storage_capacity == Some(true));
        let needed = rules::requested(claim);
        if !tells || needed == 0 {
            return Room::Everywhere;
        }
        let found = self.by_class.get(class.metadata.name.as_deref().unwrap_or_default());
        let enough = found.iter().filter(|capacity| largest_volume(capacity).is_some_and(|largest| largest >= needed));
        // Without a topology it is reachable from nowhere, and so it is with one that is not valid.
        Room::From(enough.filter_map(|capacity| Selector::from_label_selector(capacity.node_topology.as_ref()).ok()).collect())
    }
}

/// The nodes that a new volume may be made for, as far as room is concerned.
pub(super) enum Room {
    /// The driver does not tell.
    Everywhere,
    /// Those that one of these selects.
    From(Vec<Selector>),
}

impl Room {
    pub(super) fn is_for(&self, labels: &Labels) -> bool {
        match self {
            Self::Everywhere => true,
            Self::From(selectors) => selectors.iter().any(|selector| selector.matches(labels)),
        }
    }
}

/// Bytes of the largest volume that can be made: `maximumVolumeSize` says it better than `capacity`, which may be in pieces.
fn largest_volume(capacity: &CSIStorageCapacity) -> Option<i64> {
    let amount = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref())?;
    Quantity::parse(&amount.0).ok().map(Quantity::as_i64)
}

/// Whether pods that found no room may find some now.
pub(crate) fn has_grown(change: &Change<CSIStorageCapacity>) -> bool {
    let size = |capacity: &std::sync::Arc<CSIStorageCapacity>| largest_volume(capacity);
    change.new.as_ref().and_then(size) > change.old.as_ref().and_then(size)
}
