//! Calls of admission webhooks, and evaluations of admission policies.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use base::metrics::{Histograms, Page};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// Most webhooks and policies that have series of their own. Administrators name them, and each name costs memory for good.
const NAMES: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    rejected: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Counted {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    code: u16,
    rejected: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    name: String,
    r#type: &'static str,
    operation: &'static str,
    error_type: &'static str,
    rejection_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailOpen {
    name: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Checked {
    policy: String,
    policy_binding: String,
    error_type: &'static str,
    enforcement_action: &'static str,
}

struct Metrics {
    checks: Family<Checked, Counter>,
    check_seconds: Histograms<Checked>,
    seconds: Histograms<Timed>,
    requests: Family<Counted, Counter>,
    rejections: Family<Rejected, Counter>,
    fail_open: Family<FailOpen, Counter>,
    names: Mutex<BTreeSet<String>>,
}

fn histogram() -> Histogram {
    Histogram::new([0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0])
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    Metrics {
    seconds: Page::Server.register(
        "apiserver_admission_webhook_admission_duration_seconds",
        "Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit)",
        Family::new_with_constructor(histogram),
    ),
    requests: Page::Server.register(
        "apiserver_admission_webhook_request",
        "Admission webhook request total, identified by name and broken out for each admission type (validating or mutating) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code",
        Family::default(),
    ),
    rejections: Page::Server.register_bare(
        "apiserver_admission_webhook_rejection_count",
        "Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation",
        Family::default(),
    ),
    fail_open: Page::Server.register_bare(
        "apiserver_admission_webhook_fail_open_count",
        "Admission webhook fail open count, identified by name and broken out for each admission type (validating or admit)",
        Family::default(),
    ),
    checks: Page::Server.register(
        "apiserver_validating_admission_policy_check",
        "Validation admission policy check total, labeled by policy and further identified by binding and enforcement action taken",
        Family::default(),
    ),
    check_seconds: Page::Server.register(
        "apiserver_validating_admission_policy_check_duration_seconds",
        "Validation admission latency for individual validation expressions in seconds, labeled by policy and further including binding and enforcement action taken",
        Family::new_with_constructor(|| Histogram::new([0.000_000_5, 0.001, 0.01, 0.1, 1.0])),
    ),
    names: Mutex::default(),
}
});

/// A name, or `other` when there are too many.
fn known(name: &str) -> String {
    let mut names = METRICS.names.lock();
    let known = names.contains(name) || (names.len() < NAMES && names.insert(name.to_owned()));
    if known { name.to_owned() } else { "other".to_owned() }
}

/// A validating policy has been evaluated and had something to say; `action` is what came of it.
pub(crate) fn checked(policy: &str, binding: &str, failed: bool, action: &'static str, took: Duration) {
    let error_type = if failed { "invalid_expression" } else { "no_error" };
    let checked = Checked { policy: known(policy), policy_binding: known(binding), error_type, enforcement_action: action };
    METRICS.check_seconds.get_or_create(&checked).observe(took.as_secs_f64());
    METRICS.checks.get_or_create(&checked).inc();
}

/// One call, from its beginning on.
pub(crate) struct Call {
    name: String,
    operation: &'static str,
    r#type: &'static str,
    begun: Instant,
}

impl Call {
    pub(crate) fn begin(name: &str, operation: &'static str, is_mutating: bool) -> Self {
        Self { name: known(name), operation, r#type: if is_mutating { "admit" } else { "validating" }, begun: Instant::now() }
    }

    /// The webhook has admitted the request.
    pub(crate) fn admitted(self) {
        self.done("false", 200);
    }

    /// The call failed, and the request goes on.
    pub(crate) fn failed_open(self) {
        METRICS.fail_open.get_or_create(&FailOpen { name: self.name.clone(), r#type: self.r#type }).inc();
        self.done("false", 503);
    }

    /// The request does not go on: by the webhook's word (`no_error`), or because of a failure.
    pub(crate) fn refused(self, error_type: &'static str, code: u16) {
        let (name, r#type, operation) = (self.name.clone(), self.r#type, self.operation);
        METRICS.rejections.get_or_create(&Rejected { name, r#type, operation, error_type, rejection_code: code.min(600) }).inc();
        self.done("true", code);
    }

    fn done(self, rejected: &'static str, code: u16) {
        let Self { name, operation, r#type, begun } = self;
        let timed = Timed { name: name.clone(), r#type, operation, rejected };
        METRICS.seconds.get_or_create(&timed).observe(begun.elapsed().as_secs_f64());
        METRICS.requests.get_or_create(&Counted { name, r#type, operation, code: code.min(600), rejected }).inc();
    }
}
