//! What of the memory of NUMA nodes no container gets for itself (`reservedMemory` of the KubeletConfiguration). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use apimachinery::quantity::{Format, Quantity};

use super::machine::Nodes;
use super::{Amounts, MEMORY};
use crate::resources::HUGE_PAGES;

/// Bytes of each resource by NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation(pub BTreeMap<u32, Amounts>);

/// Why memory cannot be reserved so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReservationError {
    /// It cannot be read.
    #[error(
        "{0:?} is not what is reserved of a NUMA node: expected something like 0:memory=1Gi,hugepages-2Mi=4Mi;1:memory=512Mi"
    )]
    Unreadable(String),
    /// It says one thing twice.
    #[error("{1} of NUMA node {0} is reserved twice")]
    Twice(u32, String),
    /// There is no such node.
    #[error("the reserved memory configuration references a NUMA node {0} that does not exist on this machine")]
    NoNode(u32),
    /// The node has less than that.
    #[error("{reserved} of {resource} are reserved of NUMA node {node}, and it has {total}")]
    TooMuch {
        /// The node.
        node: u32,
        /// The resource.
        resource: String,
        /// What is reserved.
        reserved: String,
        /// What there is.
        total: String,
    },
    /// The scheduler would think that there was more, or less.
    #[error(
        "the total amount {reserved:?} of type {resource:?} is not equal to the value {kept:?} determined by Node Allocatable feature: --reserved-memory says of which NUMA nodes comes what --system-reserved, --kube-reserved and the hard eviction threshold of memory.available keep from pods"
    )]
    NotEqual {
        /// The resource.
        resource: String,
        /// What is reserved, of all nodes together.
        reserved: String,
        /// What pods do not get of the machine.
        kept: String,
    },
}

impl FromStr for Reservation {
    type Err = ReservationError;

    /// Reads `NODE:RESOURCE=AMOUNT[,RESOURCE=AMOUNT...][;NODE:...]`.
    fn from_str(text: &str) -> Result<Self, ReservationError> {
        let unreadable = || ReservationError::Unreadable(text.to_owned());
        let mut all = Self::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (node, amounts) = part.split_once(':').ok_or_else(unreadable)?;
            let node: u32 = node.trim().parse().map_err(|_| unreadable())?;
            for amount in amounts.split(',') {
                let (name, amount) = amount.split_once('=').ok_or_else(unreadable)?;
                let bytes = Quantity::parse(amount.trim()).ok().filter(|amount| amount.signum() > 0).ok_or_else(unreadable)?;
                let name = name.trim();
                if name != MEMORY && !name.starts_with(HUGE_PAGES) {
                    return Err(unreadable());
                }
                let bytes = u64::try_from(bytes.as_i64()).map_err(|_| unreadable())?;
                all.add(node, name, bytes)?;
            }
        }
        Ok(all)
    }
}

impl Reservation {
    fn add(&mut self, node: u32, name: &str, bytes: u64) -> Result<(), ReservationError> {
        match self.0.entry(node).or_default().insert(name.to_owned(), bytes) {
            None => Ok(()),
            Some(_) => Err(ReservationError::Twice(node, name.to_owned())),
        }
    }

    /// What several texts say together.
    ///
    /// # Errors
    /// They say one thing twice.
    pub fn all<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Result<Self, ReservationError> {
        let mut all = Self::default();
        for (node, amounts) in parts.into_iter().flat_map(|part| &part.0) {
            for (name, bytes) in amounts {
                all.add(*node, name, *bytes)?;
            }
        }
        Ok(all)
    }

    /// What is reserved of a resource of one node.
    pub(super) fn of(&self, node: u32, resource: &str) -> u64 {
        self.0.get(&node).and_then(|amounts| amounts.get(resource)).copied().unwrap_or(0)
    }

    /// Whether this can be reserved of a machine of which pods do not get `kept` bytes of memory. Huge pages are kept by nobody.
    pub(super) fn check(&self, nodes: &Nodes, kept: i64) -> Result<(), ReservationError> {
        let text = |bytes: u64| Quantity::from_units(i64::try_from(bytes).unwrap_or(i64::MAX), Format::BinarySi);
        let mut resources = BTreeSet::from([MEMORY]);
        for (node, amounts) in &self.0 {
            let there = nodes.get(node).ok_or(ReservationError::NoNode(*node))?;
            for (resource, reserved) in amounts {
                let total = there.get(resource).copied().unwrap_or(0);
                if *reserved > total {
                    let (reserved, total) = (text(*reserved).to_string(), text(total).to_string());
                    return Err(ReservationError::TooMuch { node: *node, resource: resource.clone(), reserved, total });
                }
                resources.insert(resource);
            }
        }
        for resource in resources {
            let reserved = self.0.keys().map(|node| self.of(*node, resource)).sum::<u64>();
            let kept = if resource == MEMORY { u64::try_from(kept).unwrap_or(0) } else { 0 };
            if reserved != kept {
                let (reserved, kept) = (text(reserved).to_string(), text(kept).to_string());
                return Err(ReservationError::NotEqual { resource: resource.to_owned(), reserved, kept });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A machine of two nodes of 4 GiB, the first with huge pages, of which pods do not get 1 GiB.
    #[track_caller]
    fn check(texts: &[&str], expected: Result<(), &str>) {
        let nodes = Nodes::from([
            (0, Amounts::from([(MEMORY.to_owned(), 4 * GIB), ("hugepages-2Mi".to_owned(), GIB)])),
            (1, Amounts::from([(MEMORY.to_owned(), 4 * GIB)])),
        ]);
        let parts: Result<Vec<Reservation>, _> = texts.iter().map(|text| text.parse()).collect();
        let checked = parts.and_then(|parts| Reservation::all(&parts)).and_then(|all| all.check(&nodes, 1 << 30));
        let shown = checked.map_err(|error| error.to_string());
        assert_eq!(shown.as_ref().map_err(|error| error.split(": --reserved").next().unwrap()).copied(), expected);
    }

    /// KEP-1769: "the sum of the reserved memory of all NUMA nodes" must be what Node Allocatable keeps.
    #[test]
    fn what_is_reserved_is_what_pods_do_not_get() {
        check(&["0:memory=1Gi"], Ok(()));
        check(&["0:memory=512Mi;1:memory=512Mi"], Ok(()));
        check(&["0:memory=512Mi", "1:memory=512Mi"], Ok(()));
        let differs = |reserved: &str, kind: &str, kept: &str| {
            format!(
                "the total amount \"{reserved}\" of type \"{kind}\" is not equal to the value \"{kept}\" determined by Node Allocatable feature"
            )
        };
        check(&[], Err(&differs("0", "memory", "1Gi")));
        check(&["0:memory=512Mi"], Err(&differs("512Mi", "memory", "1Gi")));
        check(&["0:memory=1Gi,hugepages-2Mi=4Mi"], Err(&differs("4Mi", "hugepages-2Mi", "0")));
        check(
            &["2:memory=1Gi"],
            Err("the reserved memory configuration references a NUMA node 2 that does not exist on this machine"),
        );
        check(&["0:memory=5Gi"], Err("5Gi of memory are reserved of NUMA node 0, and it has 4Gi"));
        check(&["1:hugepages-2Mi=4Mi"], Err("4Mi of hugepages-2Mi are reserved of NUMA node 1, and it has 0"));
        check(&["0:memory=1Gi", "0:memory=1Gi"], Err("memory of NUMA node 0 is reserved twice"));
    }

    #[test]
    fn only_memory_can_be_reserved() {
        for text in ["memory=1Gi", "0:cpu=1", "0:memory", "0:memory=-1", "0:memory=0", "x:memory=1", "0:"] {
            assert_eq!(text.parse::<Reservation>(), Err(ReservationError::Unreadable(text.to_owned())));
        }
    }
}
