//! What servers speak of TLS: options by the names that upstream's servers have for them.

use base::tls::{Suite, Version};
use clap::Args;

/// What the API server and the kubelet speak of TLS.
#[derive(Args, Clone)]
pub(crate) struct Protocols {
    /// The oldest version of TLS that the API server and the kubelet speak: VersionTLS12 or VersionTLS13.
    #[arg(long, value_name = "VERSION", default_value = "VersionTLS12")]
    tls_min_version: Version,
    /// The cipher suites of TLS 1.2 that they speak, by their IANA names; all that are there by default. Those of TLS 1.3 are always spoken.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    tls_cipher_suites: Vec<Suite>,
}

impl Protocols {
    pub(crate) fn options(&self) -> base::tls::Protocols {
        base::tls::Protocols { oldest: self.tls_min_version, suites: self.tls_cipher_suites.clone() }
    }

    /// Says what does not work with them.
    pub(crate) fn tell(&self) {
        if self.options().has_no_suite_of_ecdsa() {
            tracing::warn!(
                "--tls-cipher-suites names no suite for certificates with ECDSA keys (TLS_ECDHE_ECDSA_...), and all certificates here have such \
                 keys: clients that speak TLS 1.2 alone cannot connect"
            );
        }
    }
}
