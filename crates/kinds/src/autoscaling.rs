//! autoscaling: replicas by measure.

mod horizontal_pod_autoscaler;

pub use horizontal_pod_autoscaler::{from_v1, to_v1};
