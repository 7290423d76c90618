//! What drivers were asked for and how long that took, under upstream's name (`pkg/volume/util/metrics.go`).

use std::sync::LazyLock;
use std::time::Duration;

use base::metrics::{Histograms, Page};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    volume_plugin: String,
    operation_name: &'static str,
    status: &'static str,
    migrated: &'static str,
}

const BUCKETS: [f64; 13] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];

static OPERATIONS: LazyLock<Histograms<Operation>> = LazyLock::new(|| {
    let family = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
    Page::Node.register("storage_operation_duration_seconds", "Storage operation duration", family)
});

/// A driver was asked for `volume_mount` or `volume_unmount` of a volume.
pub(crate) fn operated<T, E>(driver: &str, operation_name: &'static str, took: Duration, result: &Result<T, E>) {
    let status = if result.is_ok() { "success" } else { "fail-unknown" };
    let labels = Operation { volume_plugin: plugin_of(driver), operation_name, status, migrated: "false" };
    OPERATIONS.get_or_create(&labels).observe(took.as_secs_f64());
}

/// The plugin of a driver, as labels call it.
pub(crate) fn plugin_of(driver: &str) -> String {
    format!("kubernetes.io/csi:{driver}")
}

#[cfg(test)]
mod tests {
    use base::metrics::Format;

    use super::*;

    /// The panels "Storage Operation Rate" and "Storage Operation Error Rate" of kubernetes-mixin ask for these.
    #[test]
    fn what_fails_is_told_apart() {
        operated("d", "volume_mount", Duration::from_millis(200), &Ok::<(), ()>(()));
        operated("d", "volume_mount", Duration::from_secs(20), &Err::<(), ()>(()));
        let page = Page::Node.encode(Format::Text);
        for status in ["success", "fail-unknown"] {
            let labels = "volume_plugin=\"kubernetes.io/csi:d\",operation_name=\"volume_mount\"";
            let sample = format!("storage_operation_duration_seconds_count{{{labels},status=\"{status}\",migrated=\"false\"}} 1");
            assert!(page.lines().any(|line| line == sample), "{sample}: {page}");
        }
    }
}
