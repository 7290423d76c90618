//! Metrics that a kubelet hands on.

use prost::{Enumeration, Message};

use super::stats::UInt64Value;

/// Asks which there are.
#[derive(Clone, PartialEq, Message)]
pub struct ListMetricDescriptorsRequest {}

/// Those that there are, always the same.
#[derive(Clone, PartialEq, Message)]
pub struct ListMetricDescriptorsResponse {
    #[prost(message, repeated, tag = "1")]
    pub descriptors: Vec<MetricDescriptor>,
}

/// A metric.
#[derive(Clone, PartialEq, Message)]
pub struct MetricDescriptor {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub help: String,
    /// In the order of [`Metric::label_values`].
    #[prost(string, repeated, tag = "3")]
    pub label_keys: Vec<String>,
}

/// Asks for their values.
#[derive(Clone, PartialEq, Message)]
pub struct ListPodSandboxMetricsRequest {}

/// Their values by pod.
#[derive(Clone, PartialEq, Message)]
pub struct ListPodSandboxMetricsResponse {
    #[prost(message, repeated, tag = "1")]
    pub pod_metrics: Vec<PodSandboxMetrics>,
}

/// Asks for their values in parts (KEP-5825).
#[derive(Clone, PartialEq, Message)]
pub struct StreamPodSandboxMetricsRequest {}

/// A part of them.
#[derive(Clone, PartialEq, Message)]
pub struct StreamPodSandboxMetricsResponse {
    #[prost(message, repeated, tag = "1")]
    pub pod_sandbox_metrics: Vec<PodSandboxMetrics>,
}

/// Values of a pod.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxMetrics {
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
    #[prost(message, repeated, tag = "3")]
    pub container_metrics: Vec<ContainerMetrics>,
}

/// Values of a container.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerMetrics {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
}

/// A value.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Nanoseconds since 1970; 0 is now.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    #[prost(enumeration = "MetricType", tag = "3")]
    pub metric_type: i32,
    #[prost(string, repeated, tag = "4")]
    pub label_values: Vec<String>,
    #[prost(message, optional, tag = "5")]
    pub value: Option<UInt64Value>,
}

/// How values relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum MetricType {
    Counter = 0,
    Gauge = 1,
}
