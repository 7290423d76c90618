//! The plugins, in the order in which they filter.

mod affinity;
mod images;
pub(crate) mod limits;
mod node;
mod resources;
mod spread;
#[cfg(test)]
mod tests;
mod volumes;

use crate::framework::Plugin;

/// Every plugin.
pub(crate) static PLUGINS: &[&dyn Plugin] = &[
    &node::NodeUnschedulable,
    &node::NodeName,
    &node::TaintToleration,
    &node::NodeAffinity,
    &node::NodePorts,
    &resources::NodeResourcesFit,
    &resources::NodeResourcesBalancedAllocation,
    &volumes::VolumeRestrictions,
    &limits::NodeVolumeLimits,
    &volumes::VolumeBinding,
    &spread::PodTopologySpread,
    &affinity::InterPodAffinity,
    &images::ImageLocality,
];
