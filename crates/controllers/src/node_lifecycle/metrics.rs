//! Evictions of nodes, under upstream's name.

use std::sync::LazyLock;

use base::metrics::Page;
use k8s_openapi::api::core::v1::Node;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::zones;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Zone {
    zone: String,
}

static EVICTIONS: LazyLock<Family<Zone, Counter>> = LazyLock::new(|| {
    Page::Server.register(
        "node_collector_evictions",
        "Number of Node evictions that happened since current instance of NodeController started",
        Family::default(),
    )
});

/// Pods are driven away from a node from now on.
pub(super) fn evicted(node: &Node) {
    EVICTIONS.get_or_create(&Zone { zone: zones::zone(node) }).inc();
}
