//! What image credential providers have done, under the names of upstream's (`pkg/credentialprovider/plugin/metrics.go`).

use std::sync::LazyLock;
use std::time::Duration;

use base::metrics::Page;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::{DEFAULT_BUCKETS, Histograms, histograms};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Plugin {
    plugin_name: String,
}

static ERRORS: LazyLock<Family<Plugin, Counter>> = LazyLock::new(|| {
    let help = "Number of errors from credential provider plugin";
    Page::Node.register("kubelet_credential_provider_plugin_errors", help, Family::default())
});
static SECONDS: LazyLock<Histograms<Plugin>> = LazyLock::new(|| {
    let help = "Duration of execution in seconds for credential provider plugin";
    histograms(Page::Node, "kubelet_credential_provider_plugin_duration", help, || Histogram::new(DEFAULT_BUCKETS))
});

/// A provider of that name, which is configured, has run.
pub(crate) fn plugin_ran(name: &str, took: Duration, has_failed: bool) {
    let plugin = Plugin { plugin_name: name.to_owned() };
    SECONDS.get_or_create(&plugin).observe(took.as_secs_f64());
    if has_failed {
        ERRORS.get_or_create(&plugin).inc();
    }
}

/// Which configuration is in force.
pub(crate) fn plugins_configured(hash: String) {
    let help = "Information about the last applied credential provider configuration with hash as label";
    Page::Node.observe("kubelet_credential_provider_config_info", help, move |tell| tell(&[("hash", hash.as_str())], 1.0));
}
