//! `metrics.k8s.io`: what nodes and pods use (upstream: `k8s.io/metrics`). The objects are computed when somebody asks for them.

mod node_metrics;
mod pod_metrics;

use std::collections::BTreeMap;

use apimachinery::quantity::{Format, Quantity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::Value;

pub(crate) use node_metrics::NodeMetrics;
pub(crate) use pod_metrics::PodMetrics;

const USAGE: &str = "What is used, on average of the window.";
const WINDOW: &str = "The time over which was measured.";

/// Amounts by resource.
type Usage = BTreeMap<String, Text>;

/// A cell with the sum of what is used of a resource.
fn total<'a>(usages: impl IntoIterator<Item = &'a Usage>, resource: &str, format: Format) -> Value {
    let amounts = usages.into_iter().filter_map(|usage| Quantity::parse(&usage.get(resource)?.0).ok());
    amounts.fold(Quantity::ZERO.with_format(format), |sum, amount| sum + amount).to_string().into()
}
