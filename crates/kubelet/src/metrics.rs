//! The kubelet's figures on the node's pages, under upstream's names, labels and buckets (`pkg/kubelet/metrics`): dashboards and
//! alerts of the community go by them.
//!
//! `kubelet_pleg_*` and `kubelet_pod_worker_*` are not there: nothing is listed again and again here, and a pod's task has no
//! passes that could be timed.

mod measured;
mod plugins;
mod probes;
mod state;
mod volumes;

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::LazyLock;
use std::time::Duration;

use base::metrics::{DEFAULT_BUCKETS, Histograms, Page};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::spec::Role;
pub(crate) use measured::Measured;
pub(crate) use plugins::{plugin_ran, plugins_configured};
pub(crate) use probes::Probed;
pub(crate) use state::{Claims, State};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Started {
    container_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotStarted {
    container_type: &'static str,
    code: String,
}

static CONTAINERS: LazyLock<Family<Started, Counter>> = LazyLock::new(|| {
    Page::Node.register("kubelet_started_containers", "Cumulative number of containers started", Family::default())
});
static CONTAINER_ERRORS: LazyLock<Family<NotStarted, Counter>> = LazyLock::new(|| {
    let help = "Cumulative number of errors when starting containers";
    Page::Node.register("kubelet_started_containers_errors", help, Family::default())
});
static POD_START: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run";
    Page::Node.register("kubelet_pod_start_duration_seconds", help, pod_start())
});

static HOOKS_BY_HTTP: LazyLock<Counter> = LazyLock::new(|| {
    let help = "The number of times lifecycle handlers successfully fell back to http from https.";
    Page::Node.register("kubelet_lifecycle_handler_http_fallbacks", help, Counter::default())
});

/// Image volumes of containers: asked for, mounted, and not.
static IMAGE_VOLUMES: LazyLock<[Counter; 3]> = LazyLock::new(|| {
    [
        Page::Node.register("kubelet_image_volume_requested", "Number of requested image volumes.", Counter::default()),
        Page::Node.register(
            "kubelet_image_volume_mounted_succeed",
            "Number of successful image volume mounts.",
            Counter::default(),
        ),
        Page::Node.register("kubelet_image_volume_mounted_errors", "Number of failed image volume mounts.", Counter::default()),
    ]
});

/// Registers a family of histograms.
fn histograms<L>(page: Page, name: &'static str, help: &str, new: fn() -> Histogram) -> Histograms<L>
where
    L: Clone + Debug + Eq + Hash + EncodeLabelSet + Send + Sync + 'static,
{
    page.register(name, help, Family::new_with_constructor(new))
}

/// Upstream's buckets for the start of a pod.
fn pod_start() -> Histogram {
    Histogram::new([
        0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0,
        900.0, 1200.0, 1800.0, 2700.0, 3600.0,
    ])
}

/// As containers are called in the labels.
fn kind(role: Role) -> &'static str {
    match role {
        Role::Init | Role::Sidecar => "init_container",
        Role::App => "container",
        Role::Ephemeral => "ephemeral_container",
    }
}

/// A container was started, or was not for a reason like `CreateContainerError`.
pub(crate) fn container_started(role: Role, outcome: Result<(), &str>) {
    let container_type = kind(role);
    CONTAINERS.get_or_create(&Started { container_type }).inc();
    if let Err(code) = outcome {
        CONTAINER_ERRORS.get_or_create(&NotStarted { container_type, code: code.to_owned() }).inc();
    }
}

/// A hook that says HTTPS was told by HTTP.
pub(crate) fn hook_fell_back() {
    HOOKS_BY_HTTP.inc();
}

/// A container with so many image volumes was made, or could not be.
pub(crate) fn image_volumes(count: usize, are_mounted: bool) {
    let [requested, mounted, failed] = &*IMAGE_VOLUMES;
    requested.inc_by(count as u64);
    if are_mounted { mounted } else { failed }.inc_by(count as u64);
}

/// All containers of a pod run for the first time since its task began.
pub(crate) fn pod_started(after: Duration) {
    POD_START.observe(after.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KEP-4639: "kubelet_image_volume_requested_total", "kubelet_image_volume_mounted_succeed_total" and "kubelet_image_volume_mounted_errors_total".
    #[test]
    fn image_volumes_are_counted() {
        image_volumes(2, true);
        image_volumes(1, false);
        image_volumes(0, true);
        let page = Page::Node.encode(base::metrics::Format::Text);
        for (name, count) in [("requested", 3), ("mounted_succeed", 2), ("mounted_errors", 1)] {
            let line = format!("kubelet_image_volume_{name}_total {count}");
            assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
        }
    }
}
