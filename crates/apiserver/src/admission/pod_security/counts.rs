//! What is counted of PodSecurity, under upstream's names.

use std::sync::LazyLock;

use base::metrics::Page;
use pods::security::Rule;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use registry::{Operation, Request};

/// What a request is, to those who count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    operation: &'static str,
    resource: &'static str,
    subresource: &'static str,
}

impl Counted {
    pub(super) fn of(a: &Request<'_>, makes_pods: bool) -> Self {
        let operation = if a.operation == Operation::Create { "create" } else { "update" };
        let subresource = if a.subresource == "ephemeralcontainers" { "ephemeralcontainers" } else { "" };
        Self { operation, resource: if makes_pods { "controller" } else { "pod" }, subresource }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    Enforce,
    Audit,
    Warn,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Evaluation {
    decision: &'static str,
    mode: &'static str,
    policy_level: &'static str,
    policy_version: String,
    request_operation: &'static str,
    resource: &'static str,
    subresource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Exemption {
    request_operation: &'static str,
    resource: &'static str,
    subresource: &'static str,
}

static EVALUATIONS: LazyLock<Family<Evaluation, Counter>> = LazyLock::new(|| {
    let help = "Number of policy evaluations that occurred, not counting ignored or exempt requests.";
    Page::Server.register("pod_security_evaluations", help, Family::default())
});

static EXEMPTIONS: LazyLock<Family<Exemption, Counter>> = LazyLock::new(|| {
    let help = "Number of exempt requests, not counting ignored or out of scope requests.";
    Page::Server.register("pod_security_exemptions", help, Family::default())
});

/// A rule was applied.
pub(super) fn evaluated(counted: Counted, mode: Mode, rule: Rule, allowed: bool) {
    let mode = match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
        Mode::Warn => "warn",
    };
    let evaluation = Evaluation {
        decision: if allowed { "allow" } else { "deny" },
        mode,
        policy_level: rule.level.as_str(),
        policy_version: rule.version.to_string(),
        request_operation: counted.operation,
        resource: counted.resource,
        subresource: counted.subresource,
    };
    EVALUATIONS.get_or_create(&evaluation).inc();
}

/// None of it concerned a request.
pub(super) fn exempted(counted: Counted) {
    let Counted { operation, resource, subresource } = counted;
    EXEMPTIONS.get_or_create(&Exemption { request_operation: operation, resource, subresource }).inc();
}
