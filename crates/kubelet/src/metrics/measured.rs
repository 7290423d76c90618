//! A container runtime whose operations are counted and timed. They have the names that they have in upstream's kubelet, which are
//! those of the CRI.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base::metrics::Page;
use futures::stream::BoxStream;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use runtime::DiskUsage;
use runtime::api::{
    Container, ContainerConfig, Credentials, ExecOutput, ExecRequest, Features, Image, ProcessUsage, Resources, Result, Runtime,
    RuntimeEvent, Sandbox, SandboxConfig, Streams, Usage, Usages,
};

use super::{DEFAULT_BUCKETS, Histograms, histograms};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handler {
    runtime_handler: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Size {
    image_size_in_bytes: &'static str,
}

static OPERATIONS: LazyLock<Family<Operation, Counter>> = LazyLock::new(|| {
    let help = "Cumulative number of runtime operations by operation type";
    Page::Node.register("kubelet_runtime_operations", help, Family::default())
});
static ERRORS: LazyLock<Family<Operation, Counter>> = LazyLock::new(|| {
    let help = "Cumulative number of runtime operation errors by operation type";
    Page::Node.register("kubelet_runtime_operations_errors", help, Family::default())
});
static SECONDS: LazyLock<Histograms<Operation>> = LazyLock::new(|| {
    let help = "Duration in seconds of runtime operations. Broken down by operation type";
    let new = || Histogram::new(exponential_buckets(0.005, 2.5, 14));
    histograms(Page::Node, "kubelet_runtime_operations_duration_seconds", help, new)
});
static SANDBOX_SECONDS: LazyLock<Histograms<Handler>> = LazyLock::new(|| {
    let help = "Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler";
    histograms(Page::Node, "kubelet_run_podsandbox_duration_seconds", help, || Histogram::new(DEFAULT_BUCKETS))
});
static SANDBOX_ERRORS: LazyLock<Family<Handler, Counter>> = LazyLock::new(|| {
    let help = "Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler";
    Page::Node.register("kubelet_run_podsandbox_errors", help, Family::default())
});
static PODS: LazyLock<Counter> =
    LazyLock::new(|| Page::Node.register("kubelet_started_pods", "Cumulative number of pods started", Counter::default()));
static POD_ERRORS: LazyLock<Counter> = LazyLock::new(|| {
    let help = "Cumulative number of errors when starting pods";
    Page::Node.register("kubelet_started_pods_errors", help, Counter::default())
});
static PULLS: LazyLock<Histograms<Size>> = LazyLock::new(|| {
    let new = || {
        Histogram::new([
            1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0,
            3600.0,
        ])
    };
    histograms(Page::Node, "kubelet_image_pull_duration_seconds", "Duration in seconds to pull an image", new)
});

/// The sizes of images that are told apart: the label, and the bytes from which the next one stands.
const SIZES: [(&str, u64); 11] = [
    ("0-10MB", 10 << 20),
    ("10MB-100MB", 100 << 20),
    ("100MB-500MB", 500 << 20),
    ("500MB-1GB", 1 << 30),
    ("1GB-5GB", 5 << 30),
    ("5GB-10GB", 10 << 30),
    ("10GB-20GB", 20 << 30),
    ("20GB-30GB", 30 << 30),
    ("30GB-40GB", 40 << 30),
    ("40GB-60GB", 60 << 30),
    ("60GB-100GB", 100 << 30),
];

fn size(bytes: u64) -> &'static str {
    SIZES.iter().find(|(_, end)| bytes < *end).map_or("GT100GB", |(label, _)| label)
}

/// The runtime behind it, measured.
pub(crate) struct Measured(pub(crate) Arc<dyn Runtime>);

/// Counts and times an operation.
async fn measure<T>(operation_type: &'static str, operation: impl Future<Output = Result<T>>) -> Result<T> {
    let labels = Operation { operation_type };
    OPERATIONS.get_or_create(&labels).inc();
    let started = Instant::now();
    let result = operation.await;
    SECONDS.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    if result.is_err() {
        ERRORS.get_or_create(&labels).inc();
    }
    result
}

#[async_trait]
impl Runtime for Measured {
    fn version(&self) -> String {
        self.0.version()
    }

    fn features(&self) -> Features {
        self.0.features()
    }

    async fn check_handler(&self, handler: &str) -> Result<()> {
        measure("status", self.0.check_handler(handler)).await
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Sandbox> {
        let labels = Handler { runtime_handler: config.runtime_handler.clone() };
        PODS.inc();
        let started = Instant::now();
        let result = measure("run_podsandbox", self.0.run_sandbox(config)).await;
        SANDBOX_SECONDS.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
        if result.is_err() {
            SANDBOX_ERRORS.get_or_create(&labels).inc();
            POD_ERRORS.inc();
        }
        result
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        measure("stop_podsandbox", self.0.stop_sandbox(id)).await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        measure("remove_podsandbox", self.0.remove_sandbox(id)).await
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        measure("list_podsandbox", self.0.sandboxes()).await
    }

    async fn update_sandbox(&self, id: &str, resources: Resources) -> Result<()> {
        measure("update_podsandbox_resources", self.0.update_sandbox(id, resources)).await
    }

    async fn limit_group(&self, group: &str, limits: Resources) -> Result<()> {
        self.0.limit_group(group, limits).await
    }

    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<Container> {
        measure("create_container", self.0.create_container(sandbox, config)).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        measure("start_container", self.0.start_container(id)).await
    }

    async fn pin_container(&self, id: &str, cpus: &str) -> Result<()> {
        measure("update_container", self.0.pin_container(id, cpus)).await
    }

    async fn update_container(&self, id: &str, resources: Resources, annotations: BTreeMap<String, String>) -> Result<()> {
        measure("update_container", self.0.update_container(id, resources, annotations)).await
    }

    async fn container_disk_usage(&self, id: &str) -> Result<DiskUsage> {
        measure("container_stats", self.0.container_disk_usage(id)).await
    }

    async fn stop_container(&self, id: &str, grace: Duration, signal: Option<&str>) -> Result<()> {
        measure("stop_container", self.0.stop_container(id, grace, signal)).await
    }

    async fn reopen_log(&self, id: &str) -> Result<()> {
        measure("reopen_container_log", self.0.reopen_log(id)).await
    }

    async fn container_config(&self, id: &str) -> Result<ContainerConfig> {
        self.0.container_config(id).await
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        measure("remove_container", self.0.remove_container(id)).await
    }

    async fn container(&self, id: &str) -> Result<Container> {
        measure("container_status", self.0.container(id)).await
    }

    async fn past_containers(&self) -> Result<Vec<(String, Container)>> {
        self.0.past_containers().await
    }

    async fn forget_past(&self, pod_uid: &str) -> Result<()> {
        self.0.forget_past(pod_uid).await
    }

    async fn containers(&self, sandbox: Option<&str>) -> Result<Vec<Container>> {
        measure("list_containers", self.0.containers(sandbox)).await
    }

    async fn usages(&self) -> Result<Usages> {
        measure("list_podsandbox_stats", self.0.usages()).await
    }

    async fn group_usage(&self, group: &str) -> Result<Usage> {
        self.0.group_usage(group).await
    }

    async fn process_usages(&self) -> Result<BTreeMap<String, ProcessUsage>> {
        measure("list_podsandbox_metrics", self.0.process_usages()).await
    }

    fn image_directory(&self) -> PathBuf {
        self.0.image_directory()
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration, limit: usize) -> Result<ExecOutput> {
        measure("exec_sync", self.0.exec_sync(id, command, timeout, limit)).await
    }

    async fn exec(&self, id: &str, request: ExecRequest) -> Result<Streams> {
        measure("exec", self.0.exec(id, request)).await
    }

    async fn attach(&self, id: &str, request: ExecRequest) -> Result<Streams> {
        measure("attach", self.0.attach(id, request)).await
    }

    async fn dial(&self, sandbox: &str, port: u16) -> Result<tokio::net::TcpStream> {
        measure("port_forward", self.0.dial(sandbox, port)).await
    }

    async fn pull_image(&self, reference: &str, credentials: &[Credentials]) -> Result<Image> {
        let started = Instant::now();
        let image = measure("pull_image", self.0.pull_image(reference, credentials)).await?;
        let labels = Size { image_size_in_bytes: size(image.size) };
        PULLS.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
        Ok(image)
    }

    async fn take_image(&self, reference: &str) -> Result<Option<Image>> {
        measure("take_image", self.0.take_image(reference)).await
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        measure("image_status", self.0.image(reference)).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        measure("list_images", self.0.images()).await
    }

    async fn remove_image(&self, id: &str) -> Result<()> {
        measure("remove_image", self.0.remove_image(id)).await
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        self.0.events()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_apart_by_their_size() {
        let check = |bytes: u64, expected: &str| assert_eq!(size(bytes), expected, "{bytes}");
        check(0, "0-10MB");
        check((10 << 20) - 1, "0-10MB");
        check(10 << 20, "10MB-100MB");
        check(3 << 30, "1GB-5GB");
        check(200 << 30, "GT100GB");
    }
}
