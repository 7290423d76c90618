//! Reloads of the files that configure authentication and authorization, under upstream's names.

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;

use base::metrics::Page;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// A file that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    /// AuthenticationConfiguration.
    Authentication,
    /// AuthorizationConfiguration.
    Authorization,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    status: &'static str,
}

struct Metrics {
    reloads: Family<Outcome, Counter>,
    last: Family<Outcome, Gauge<f64, AtomicU64>>,
}

static AUTHENTICATION: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    reloads: Page::Server.register(
        "apiserver_authentication_config_controller_automatic_reloads",
        "Total number of automatic reloads of authentication configuration split by status and apiserver identity.",
        Family::default(),
    ),
    last: Page::Server.register(
        "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds",
        "Timestamp of the last automatic reload of authentication configuration split by status and apiserver identity.",
        Family::default(),
    ),
});

static AUTHORIZATION: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    reloads: Page::Server.register(
        "apiserver_authorization_config_controller_automatic_reloads",
        "Total number of automatic reloads of authorization configuration split by status and apiserver identity.",
        Family::default(),
    ),
    last: Page::Server.register(
        "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds",
        "Timestamp of the last automatic reload of authorization configuration split by status and apiserver identity.",
        Family::default(),
    ),
});

/// A changed file was taken in, or not.
pub(crate) fn reloaded(file: File, taken: bool) {
    let metrics = match file {
        File::Authentication => &AUTHENTICATION,
        File::Authorization => &AUTHORIZATION,
    };
    let outcome = Outcome { status: if taken { "success" } else { "failure" } };
    metrics.reloads.get_or_create(&outcome).inc();
    metrics.last.get_or_create(&outcome).set(jiff::Timestamp::now().as_millisecond() as f64 / 1000.0);
}
