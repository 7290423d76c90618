//! The plugins, in the order in which they filter.

mod affinity;
mod devices;
mod images;
pub(crate) mod limits;
mod node;
mod resources;
mod spread;
#[cfg(test)]
mod tests;
mod volumes;
mod zones;

pub(crate) use devices::NAME as DEVICES;
pub(crate) use volumes::NAME as VOLUMES;

use crate::framework::Plugin;

/// Every plugin.
pub(crate) static PLUGINS: &[&dyn Plugin] = &[
    &node::NodeUnschedulable,
    &node::NodeName,
    &node::TaintToleration,
    &node::NodeAffinity,
    &node::NodePorts,
    &node::NodeDeclaredFeatures,
    &resources::NodeResourcesFit,
    &resources::NodeResourcesBalancedAllocation,
    &volumes::VolumeRestrictions,
    &limits::NodeVolumeLimits,
    &volumes::VolumeBinding,
    &zones::VolumeZone,
    &spread::PodTopologySpread,
    &affinity::InterPodAffinity,
    &devices::DynamicResources,
    &images::ImageLocality,
];
