//! What servers speak of TLS: from which version on, and with which cipher suites.

use std::str::FromStr;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::version::TLS13;
use rustls::{CipherSuite, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion};

static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];

/// What a server speaks; everything that there is by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    /// The oldest version.
    pub oldest: Version,
    /// The cipher suites of TLS 1.2; all when it is empty. Those of TLS 1.3 are no matter of choice, as in Go.
    pub suites: Vec<Suite>,
}

impl Protocols {
    /// Whether clients of TLS 1.2 are taken by their version, and have no suite all the same: the authorities here issue certificates for ECDSA.
    pub fn has_no_suite_of_ecdsa(&self) -> bool {
        let is_fitting = |suite: &SupportedCipherSuite| name_of(suite.suite()).contains("_ECDSA_");
        self.oldest == Version::Tls12 && !self.provider().cipher_suites.iter().any(is_fitting)
    }

    pub(super) fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        match self.oldest {
            Version::Tls12 => rustls::ALL_VERSIONS,
            Version::Tls13 => &NEWEST,
        }
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        let is_free = |suite: &SupportedCipherSuite| suite.version().version == ProtocolVersion::TLSv1_3;
        let mut provider = CryptoProvider::clone(&signatures::provider());
        provider
            .cipher_suites
            .retain(|suite| self.suites.is_empty() || is_free(suite) || self.suites.contains(&Suite(suite.suite())));
        Arc::new(provider)
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl FromStr for Version {
    type Err = String;

    /// By the name that upstream's options have for it.
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "VersionTLS12" => Ok(Self::Tls12),
            "VersionTLS13" => Ok(Self::Tls13),
            "VersionTLS10" | "VersionTLS11" => Err("TLS before 1.2 is not spoken".to_owned()),
            _ => Err("expected VersionTLS12 or VersionTLS13".to_owned()),
        }
    }
}

/// A cipher suite that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite(CipherSuite);

impl FromStr for Suite {
    type Err = String;

    /// By the name that IANA has for it, or the shorter one of Go's.
    fn from_str(name: &str) -> Result<Self, String> {
        let suites = ring::ALL_CIPHER_SUITES.iter().map(|suite| suite.suite());
        let named = suites.clone().find(|suite| {
            let known = name_of(*suite);
            known == name || known.strip_suffix("_SHA256").is_some_and(|short| short == name && short.ends_with("POLY1305"))
        });
        let names = || suites.map(name_of).collect::<Vec<_>>().join(", ");
        named.map(Self).ok_or_else(|| format!("it is not spoken; there are {}", names()))
    }
}

fn name_of(suite: CipherSuite) -> String {
    // Those of TLS 1.3 have names of rustls's own.
    suite.as_str().unwrap_or_default().replace("TLS13_", "TLS_")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_of_versions() {
        let check = |name: &str, expected: Result<Version, &str>| {
            assert_eq!(name.parse(), expected.map_err(str::to_owned), "{name}");
        };
        check("VersionTLS12", Ok(Version::Tls12));
        check("VersionTLS13", Ok(Version::Tls13));
        check("VersionTLS11", Err("TLS before 1.2 is not spoken"));
        check("1.3", Err("expected VersionTLS12 or VersionTLS13"));
    }

    #[test]
    fn names_of_suites() {
        let check = |name: &str, expected: Option<CipherSuite>| {
            assert_eq!(name.parse().ok(), expected.map(Suite), "{name}");
        };
        check("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256));
        let chacha = Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
        check("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", chacha);
        check("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", chacha);
        check("TLS_AES_256_GCM_SHA384", Some(CipherSuite::TLS13_AES_256_GCM_SHA384));
        check("TLS_ECDHE_RSA_WITH_AES_128_GCM", None);
        check("TLS_RSA_WITH_AES_128_GCM_SHA256", None);
        check("", None);
        let refusal = "RC4".parse::<Suite>().unwrap_err();
        assert!(refusal.contains("TLS_AES_128_GCM_SHA256, "), "{refusal}");
        assert!(!refusal.contains("TLS13_"), "{refusal}");
    }

    #[test]
    fn what_is_spoken() {
        let check = |oldest, suites: &[&str], versions: usize, of_tls12: &[&str]| {
            let suites = suites.iter().map(|name| name.parse().unwrap()).collect();
            let protocols = Protocols { oldest, suites };
            assert_eq!(protocols.versions().len(), versions);
            let provider = protocols.provider();
            let names = provider.cipher_suites.iter().map(|suite| name_of(suite.suite()));
            let (old, new): (Vec<_>, Vec<_>) = names.partition(|name| name.contains("_WITH_"));
            assert_eq!(old, of_tls12);
            assert_eq!(new.len(), 3);
        };
        let one = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
        check(Version::Tls12, &[one], 2, &[one]);
        check(Version::Tls12, &["TLS_AES_128_GCM_SHA256"], 2, &[]);
        check(Version::Tls13, &[one], 1, &[one]);
        let fits = |oldest, suites: &[&str]| {
            let suites = suites.iter().map(|name| name.parse().unwrap()).collect();
            !Protocols { oldest, suites }.has_no_suite_of_ecdsa()
        };
        let of_rsa = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        assert!(fits(Version::Tls12, &[]) && fits(Version::Tls12, &[of_rsa, one]) && fits(Version::Tls13, &[of_rsa]));
        assert!(!fits(Version::Tls12, &[of_rsa]) && !fits(Version::Tls12, &["TLS_AES_128_GCM_SHA256"]));
        assert_eq!(Protocols::default().provider().cipher_suites.len(), 9);
        assert_eq!(Protocols::default().versions().len(), 2);
    }
}
