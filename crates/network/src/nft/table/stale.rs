//! Forgetting the UDP flows that go elsewhere than the table leads.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Instant;

use base::metrics::Page;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Labelled;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::{Inner, Table};
use crate::conntrack;
use crate::netlink;
use crate::nft::element::Key;
use crate::nft::flows::Asked;
use crate::nft::{Family, machine};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    ip_family: &'static str,
}

impl Labels {
    fn of(family: Family) -> Self {
        Self { ip_family: if family == Family::V6 { "IPv6" } else { "IPv4" } }
    }
}

/// kube-proxy's.
struct Metrics {
    deleted: Labelled<Labels, Counter>,
    seconds: Labelled<Labels, Histogram>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    deleted: Page::Node.register(
        "kubeproxy_conntrack_reconciler_deleted_entries",
        "Cumulative conntrack flows deleted by conntrack reconciler",
        Labelled::default(),
    ),
    seconds: Page::Node.register(
        "kubeproxy_conntrack_reconciler_sync_duration_seconds",
        "ReconcileConntrackFlowsLatency latency in seconds",
        Labelled::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 15))),
    ),
});

/// The places whose flows are to be looked at.
#[derive(Debug)]
pub(super) enum Stale {
    /// All: what flows go by is not known.
    All,
    /// These.
    At(HashSet<Key>),
}

impl Stale {
    pub(super) fn extend(&mut self, keys: impl IntoIterator<Item = Key>) {
        if let Self::At(all) = self {
            all.extend(keys);
        }
    }
}

impl Table {
    /// Has the kernel forget the flows that changes have left behind. What cannot be looked at now is looked at after the next change.
    pub(super) fn forget_stale(&self) {
        let Some(asked) = self.0.lock().asked() else { return };
        if let Err(error) = asked.families().try_for_each(|family| self.forget_of(family, &asked)) {
            tracing::warn!(%error, "UDP clients may keep talking to endpoints that are gone");
            self.0.lock().stale = Stale::All;
        }
    }

    fn forget_of(&self, family: Family, asked: &Asked) -> Result<(), netlink::Error> {
        let started = Instant::now();
        // The lock is for what waits for it: others may program the table while the kernel lists its connections.
        let mut flows = conntrack::find(family, |to| asked.has(to))?;
        if !flows.is_empty() {
            let inner = self.0.lock();
            inner.contents.keep_stale(&mut flows, &asked.local, &inner.config.service_cidrs);
        }
        let count = conntrack::forget(family, &flows)?;
        if count > 0 {
            tracing::debug!(count, "forgot UDP flows to endpoints that are gone");
        }
        METRICS.deleted.get_or_create(&Labels::of(family)).inc_by(count as u64);
        METRICS.seconds.get_or_create(&Labels::of(family)).observe(started.elapsed().as_secs_f64());
        Ok(())
    }
}

impl Inner {
    /// The flows to look at, if there are any, once the kernel has the table that they are held against.
    fn asked(&mut self) -> Option<Asked> {
        self.stale.extend(self.contents.take_left());
        let is_none = matches!(&self.stale, Stale::At(keys) if keys.is_empty());
        if is_none || !self.clean || !self.held.is_empty() {
            return None;
        }
        let (keys, ranges) = match std::mem::replace(&mut self.stale, Stale::At(HashSet::new())) {
            Stale::At(keys) => (keys, Vec::new()),
            Stale::All => (self.contents.udp_places(), self.config.service_cidrs.clone()),
        };
        Some(Asked { keys, ranges, local: machine::addresses() })
    }
}
