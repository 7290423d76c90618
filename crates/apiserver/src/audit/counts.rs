//! What is counted of the audit, under upstream's names.

use std::sync::LazyLock;

use base::metrics::Page;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Plugin {
    plugin: &'static str,
}

static LOST: LazyLock<Family<Plugin, Counter>> = LazyLock::new(|| {
    let help = "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.";
    Page::Server.register("apiserver_audit_error", help, Family::default())
});
static TOLD: LazyLock<Counter> = LazyLock::new(|| {
    Page::Server.register(
        "apiserver_audit_event",
        "Counter of audit events generated and sent to the audit backend.",
        Counter::default(),
    )
});

/// An event was handed to who tells it.
pub(super) fn told() {
    TOLD.inc();
}

/// Events did not get where a plugin brings them.
pub(super) fn lost(plugin: &'static str, count: usize) {
    LOST.get_or_create(&Plugin { plugin }).inc_by(count as u64);
}
