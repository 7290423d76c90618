//! Authentication and authorization.

use std::sync::LazyLock;
use std::time::Duration;

use apimachinery::Status;
use base::metrics::{Histograms, Page};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use registry::User;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Username {
    username: &'static str,
}

struct Metrics {
    users: Family<Username, Counter>,
    authentications: Family<Outcome, Counter>,
    authentication_seconds: Histograms<Outcome>,
    authorizations: Family<Outcome, Counter>,
    authorization_seconds: Histograms<Outcome>,
}

fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    users: Page::Server.register_bare(
        "authenticated_user_requests",
        "Counter of authenticated requests broken out by username",
        Family::default(),
    ),
    authentications: Page::Server.register_bare(
        "authentication_attempts",
        "Counter of authenticated attempts",
        Family::default(),
    ),
    authentication_seconds: Page::Server.register(
        "authentication_duration_seconds",
        "Authentication duration in seconds broken out by result",
        Family::new_with_constructor(histogram),
    ),
    authorizations: Page::Server.register(
        "authorization_attempts",
        "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'",
        Family::default(),
    ),
    authorization_seconds: Page::Server.register(
        "authorization_duration_seconds",
        "Authorization duration in seconds broken out by result",
        Family::new_with_constructor(histogram),
    ),
});

/// From half an hour to a year.
const LIFETIMES: [f64; 14] = [
    0.0,
    1_800.0,
    3_600.0,
    7_200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

static CERTIFICATES: LazyLock<Histogram> = LazyLock::new(|| {
    Page::Server.register(
        "apiserver_client_certificate_expiration_seconds",
        "Distribution of the remaining lifetime on the certificate used to authenticate a request",
        Histogram::new(LIFETIMES),
    )
});

/// Tells how long the certificate of a request is valid still. `expiry` is in seconds since the Unix epoch.
pub(crate) fn certified(expiry: i64) {
    CERTIFICATES.observe((expiry - jiff::Timestamp::now().as_second()) as f64);
}

/// Tokens of ServiceAccounts that were good, by whether a newer one should have been used.
static TOKENS: LazyLock<[Counter; 2]> = LazyLock::new(|| {
    [
        Page::Server.register(
            "serviceaccount_valid_tokens",
            "Cumulative valid projected service account tokens used",
            Counter::default(),
        ),
        Page::Server.register(
            "serviceaccount_stale_tokens",
            "Cumulative stale projected service account tokens used",
            Counter::default(),
        ),
    ]
});

/// Counts a good token of a ServiceAccount.
pub(crate) fn token_used(stale: bool) {
    TOKENS[usize::from(stale)].inc();
}

/// A token that a Secret holds, when it is used.
#[derive(Clone, Copy)]
pub(crate) enum LegacyToken {
    /// Of a Secret that somebody made for it.
    Manual,
    /// Of a Secret that its account lists: clusters before v1.24 made one for each.
    Generated,
    /// Of one of those that has been marked.
    Invalid,
}

/// Uses of tokens that Secrets hold: all, and by their sort.
static LEGACY_TOKENS: LazyLock<[Counter; 4]> = LazyLock::new(|| {
    [
        ("serviceaccount_legacy_tokens", "Cumulative legacy service account tokens used"),
        ("serviceaccount_legacy_manual_token_uses", "Cumulative manually created legacy tokens used"),
        ("serviceaccount_legacy_auto_token_uses", "Cumulative auto-generated legacy tokens used"),
        ("serviceaccount_invalid_legacy_auto_token_uses", "Cumulative invalid auto-generated legacy tokens used"),
    ]
    .map(|(name, help)| Page::Server.register(name, help, Counter::default()))
});

/// Counts the use of a token that a Secret holds.
pub(crate) fn legacy_token_used(token: LegacyToken) {
    LEGACY_TOKENS[0].inc();
    LEGACY_TOKENS[1 + token as usize].inc();
}

/// Counts what authentication said.
pub(crate) fn authenticated<E>(outcome: Result<&User, E>, took: Duration) {
    let result = match outcome {
        Ok(user) => {
            METRICS.users.get_or_create(&Username { username: category(&user.name) }).inc();
            "success"
        }
        Err(_) => "error",
    };
    METRICS.authentications.get_or_create(&Outcome { result }).inc();
    METRICS.authentication_seconds.get_or_create(&Outcome { result }).observe(took.as_secs_f64());
}

/// Counts what authorization said. Who is not allowed was not denied either: no rule speaks of it.
pub(crate) fn authorized(outcome: &Result<(), Status>, took: Duration) {
    let result = match outcome {
        Ok(()) => "allowed",
        Err(status) if status.code == 403 => "no-opinion",
        Err(_) => "error",
    };
    METRICS.authorizations.get_or_create(&Outcome { result }).inc();
    METRICS.authorization_seconds.get_or_create(&Outcome { result }).observe(took.as_secs_f64());
}

/// Upstream's few categories of names, so that names are neither told nor without bound.
fn category(name: &str) -> &'static str {
    match name {
        "admin" => "admin",
        "client" => "client",
        "kube_proxy" => "kube_proxy",
        "kubelet" => "kubelet",
        "system:serviceaccount:kube-system:default" => "system:serviceaccount:kube-system:default",
        _ if name.contains('@') => "email_id",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_not_told() {
        let check = |name: &str, expected: &str| assert_eq!(category(name), expected);
        check("admin", "admin");
        check("jane@example.com", "email_id");
        check("system:node:n1", "other");
        check("system:serviceaccount:kube-system:default", "system:serviceaccount:kube-system:default");
    }
}
