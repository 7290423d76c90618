//! Limits of what one process serves at once, and how much of each is used.
//!
//! Everything that a client can make more of has a budget: [`connections`], the [`descriptors`] from which their number follows, and
//! [`heavy`] work on the processors. Each is a metric.

pub mod connections;
pub mod descriptors;
pub mod heavy;
pub mod memory;
pub mod oom;
pub mod shares;

use std::sync::LazyLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::Page;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    budget: &'static str,
}

static USED: LazyLock<Family<Label, Gauge>> =
    LazyLock::new(|| Page::Server.register("knarr_budget_used", "How much of a budget is in use", Family::default()));
static LIMITS: LazyLock<Family<Label, Gauge>> =
    LazyLock::new(|| Page::Server.register("knarr_budget_limit", "How large a budget is", Family::default()));
static REFUSED: LazyLock<Family<Label, Counter>> = LazyLock::new(|| {
    Page::Server.register("knarr_budget_refused", "What was refused because a budget was used up", Family::default())
});

/// The metrics of one budget.
#[derive(Clone, Debug)]
pub struct Meter {
    used: Gauge,
    refused: Counter,
}

impl Meter {
    /// Of a budget with this name and size.
    pub fn new(budget: &'static str, limit: usize) -> Self {
        let label = Label { budget };
        LIMITS.get_or_create(&label).set(i64::try_from(limit).unwrap_or(i64::MAX));
        Self { used: USED.get_or_create(&label).clone(), refused: REFUSED.get_or_create(&label).clone() }
    }

    /// Something takes its place until what is returned is dropped.
    pub fn hold(&self) -> Held {
        self.hold_of(1)
    }

    /// Something takes `count` places until what is returned is dropped.
    pub fn hold_of(&self, count: usize) -> Held {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.used.inc_by(count);
        Held(self.clone(), count)
    }

    /// Something takes its place.
    pub fn taken(&self) {
        self.used.inc();
    }

    /// Something has left its place.
    pub fn left(&self) {
        self.used.dec();
    }

    /// Something was refused.
    pub fn refused(&self) {
        self.refused.inc();
    }
}

/// Places in a budget, taken until this is dropped.
#[derive(Debug)]
pub struct Held(Meter, i64);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.used.dec_by(self.1);
    }
}
