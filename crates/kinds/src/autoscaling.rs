//! autoscaling: replicas by measure.

mod horizontal_pod_autoscaler;
mod horizontal_pod_autoscaler_v1;

pub(crate) use horizontal_pod_autoscaler_v1::HorizontalPodAutoscalerV1;
