//! How long parts of the work on a request took, which the audit tells of requests that take long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A part of the work on a request, of which upstream tells the audit how long it took. Upstream has further parts, which are none here: answers
/// are mostly made of what is stored, and written after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Who asks.
    Authentication,
    /// Whether it is allowed.
    Authorization,
    /// The queue of API priority and fairness.
    Queue,
    /// Webhooks that may change the object, one after the other.
    MutatingWebhooks,
    /// Webhooks that may refuse it, all at once: the slowest counts.
    ValidatingWebhooks,
    /// The store, which stands where upstream has etcd.
    Storage,
}

impl Layer {
    const ALL: [(Self, &str); 6] = [
        (Self::Authentication, "authentication"),
        (Self::Authorization, "authorization"),
        (Self::Queue, "apf-queue-wait"),
        (Self::MutatingWebhooks, "mutating-webhook"),
        (Self::ValidatingWebhooks, "validating-webhook"),
        (Self::Storage, "etcd"),
    ];
}

/// Nanoseconds by layer.
#[derive(Debug, Default)]
pub(crate) struct Latencies([AtomicU64; Layer::ALL.len()]);

impl Latencies {
    pub(crate) fn add(&self, layer: Layer, took: Duration) {
        let (nanos, took) = (&self.0[layer as usize], u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        match layer {
            Layer::ValidatingWebhooks => nanos.fetch_max(took, Ordering::Relaxed),
            _ => nanos.fetch_add(took, Ordering::Relaxed),
        };
    }

    /// How long each layer took that did something, under upstream's name.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let of = move |(layer, name): (Layer, &'static str)| {
            (name, Duration::from_nanos(self.0[layer as usize].load(Ordering::Relaxed)))
        };
        Layer::ALL.into_iter().map(of).filter(|(_, took)| !took.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_at_once_counts_once() {
        let latencies = Latencies::default();
        for millis in [5, 7, 6] {
            let took = Duration::from_millis(millis);
            latencies.add(Layer::MutatingWebhooks, took);
            latencies.add(Layer::ValidatingWebhooks, took);
        }
        let all: Vec<_> = latencies.all().map(|(name, took)| (name, took.as_millis())).collect();
        assert_eq!(all, [("mutating-webhook", 18), ("validating-webhook", 7)]);
    }
}
