//! How long the node's certificates are valid, and whether they cannot be renewed: the kubelet's figures, under upstream's names.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use base::metrics::Page;
use base::tls::Resolver;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

/// One of the node's two certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certificate {
    /// By which the node is known to the API. A node in the server's process has none.
    Client,
    /// Of the kubelet's endpoint.
    Serving,
}

struct Metrics {
    /// By certificate.
    resolvers: Arc<Mutex<[Option<Arc<Resolver>>; 2]>>,
    failures: [Counter; 2],
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let resolvers: Arc<Mutex<[Option<Arc<Resolver>>; 2]>> = Arc::default();
    let ttl = |name, help, certificate: Certificate| {
        let resolvers = resolvers.clone();
        Page::Node.observe(name, help, move |tell| {
            let resolver = resolvers.lock()[certificate as usize].clone();
            tell(&[], left(resolver.and_then(|resolver| resolver.expires()), SystemTime::now()));
        });
    };
    ttl(
        "kubelet_certificate_manager_client_ttl_seconds",
        "Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until certificate expiry (negative if already expired). If client certificate is invalid or unused, the value will be +INF",
        Certificate::Client,
    );
    ttl(
        "kubelet_certificate_manager_server_ttl_seconds",
        "Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate. The value is in seconds until certificate expiry (negative if already expired). If serving certificate is invalid or unused, the value will be +INF",
        Certificate::Serving,
    );
    let failures = ["kubelet_certificate_manager_client_expiration_renew_errors", "kubelet_server_expiration_renew_errors"];
    let failures =
        failures.map(|name| Page::Node.register_bare(name, "Counter of certificate renewal errors", Counter::default()));
    Metrics { resolvers, failures }
});

/// Seconds until a certificate expires, fewer than none when it has.
fn left(expires: Option<SystemTime>, now: SystemTime) -> f64 {
    let Some(expires) = expires else { return f64::INFINITY };
    match expires.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(since) => -since.duration().as_secs_f64(),
    }
}

/// The certificate is this one from now on.
pub(crate) fn follow(certificate: Certificate, resolver: &Arc<Resolver>) {
    METRICS.resolvers.lock()[certificate as usize] = Some(resolver.clone());
}

/// The certificate could not be renewed.
pub(crate) fn failed(certificate: Certificate) {
    METRICS.failures[certificate as usize].inc();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use base::metrics::Format;
    use base::metrics::samples::samples;
    use base::tls::{Authority, Request};

    use super::*;

    #[test]
    fn seconds_that_are_left() {
        let now = SystemTime::now();
        assert_eq!(left(None, now), f64::INFINITY);
        assert_eq!(left(Some(now + Duration::from_secs(60)), now), 60.0);
        assert_eq!(left(Some(now - Duration::from_secs(60)), now), -60.0);
    }

    /// The alerts `KubeletServerCertificateExpiration` and `KubeletClientCertificateRenewalErrors` of kube-prometheus ask for these.
    #[test]
    fn what_the_page_says() {
        let authority = Arc::new(Authority::in_memory("ca").unwrap());
        let request = Request::Client { user: "system:node:n".to_owned(), groups: Vec::new() };
        follow(Certificate::Serving, &Resolver::memory(authority, request).unwrap());
        failed(Certificate::Client);
        let page = Page::Node.encode(Format::Text);
        let value = |name: &str| samples(&page).find(|sample| sample.name == name).map(|sample| sample.value);
        assert!(value("kubelet_certificate_manager_server_ttl_seconds").is_some_and(|left| left > 0.0 && left.is_finite()));
        assert_eq!(value("kubelet_certificate_manager_client_ttl_seconds"), Some(f64::INFINITY));
        assert_eq!(value("kubelet_certificate_manager_client_expiration_renew_errors"), Some(1.0));
        assert_eq!(value("kubelet_server_expiration_renew_errors"), Some(0.0));
    }
}
