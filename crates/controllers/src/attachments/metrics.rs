//! Volumes that are taken from nodes that may use them, under upstream's name.

use std::sync::LazyLock;

use base::metrics::Page;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::plan::Manner;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

static FORCED: LazyLock<Family<Reason, Counter>> = LazyLock::new(|| {
    Page::Server.register_bare(
        "attach_detach_controller_attachdetach_controller_forced_detaches",
        "Number of times the A/D Controller performed a forced detach",
        Family::default(),
    )
});

/// A volume has been taken from its node.
pub(super) fn detached(manner: Manner) {
    let reason = match manner {
        Manner::Unused => return,
        Manner::OutOfService => "out-of-service",
        Manner::Timeout => "timeout",
    };
    FORCED.get_or_create(&Reason { reason }).inc();
}
