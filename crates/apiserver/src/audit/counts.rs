//! What is counted of the audit, under upstream's names, and how losses are said.

use std::fmt::Display;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// The events that a back end has lost since it last brought one to where it belongs. Every loss is counted, and a row of losses is
/// said twice: when it begins, with the reason, and when it has ended, with the number.
pub(super) struct Losses {
    plugin: &'static str,
    lost: AtomicU64,
}

impl Losses {
    /// None so far. `plugin` is upstream's name of the back end.
    pub(super) fn new(plugin: &'static str) -> Self {
        Self { plugin, lost: AtomicU64::new(0) }
    }

    /// Events did not get where they belong.
    pub(super) fn lost(&self, count: usize, why: &dyn Display) {
        LOST.get_or_create(&Plugin { plugin: self.plugin }).inc_by(count as u64);
        if count > 0 && self.lost.fetch_add(count as u64, Ordering::Relaxed) == 0 {
            tracing::error!(plugin = self.plugin, count, %why, "audit events are lost");
        }
    }

    /// An event got where it belongs.
    pub(super) fn end(&self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::error!(plugin = self.plugin, lost, "audit events are written again");
        }
    }
}
