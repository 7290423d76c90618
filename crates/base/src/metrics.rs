//! One metrics registry per process, written in the Prometheus text format.

use parking_lot::Mutex;
use prometheus_client::registry::{Metric, Registry};
use std::sync::LazyLock;

static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(|| Mutex::new(Registry::default()));

/// Registers a metric under `name` (without unit suffix) and hands it back.
pub fn register<M: Metric + Clone>(name: &'static str, help: &'static str, metric: M) -> M {
    REGISTRY.lock().register(name, help, metric.clone());
    metric
}

/// The registry in the text exposition format.
pub fn encode() -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &REGISTRY.lock());
    text
}
