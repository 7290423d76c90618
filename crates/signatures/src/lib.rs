//! Signatures and the keys that make them, for TLS, certificates and tokens: ring's, and ECDSA signatures that ring does not check though
//! OpenSSL makes and Go takes them: by keys on the curve P-521, and with SHA-512 by keys on P-256 and P-384.
//!
//! RSA keys of less than 2,048 bits are refused, as by ring.

mod ecdsa;
mod p521;
mod public;

use std::sync::{Arc, LazyLock};

use rustls::SignatureScheme;
use rustls::crypto::{CryptoProvider, KeyProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm};
use rustls::sign::SigningKey;

pub use p521::{Made, generate_p521, verify_p521_fixed};
pub use public::{PublicKey, Signed, content, verify_handshake};
/// Identifiers of algorithms.
pub use rustls::pki_types::{AlgorithmIdentifier, alg_id};

type Algorithm = &'static dyn SignatureVerificationAlgorithm;

/// The provider of all that speaks TLS here.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let ring = ring::default_provider();
        let signature_verification_algorithms = extended(&ring.signature_verification_algorithms);
        Arc::new(CryptoProvider { signature_verification_algorithms, key_provider: &Keys, ..ring })
    });
    PROVIDER.clone()
}

/// Ring's algorithms and those that it has not. A scheme of TLS 1.2 names the hash and says nothing of the curve; of TLS 1.3 it is its first
/// algorithm.
fn extended(ring: &WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    use SignatureScheme::{ECDSA_NISTP256_SHA256, ECDSA_NISTP384_SHA384, ECDSA_NISTP521_SHA512};
    let with = |known: &[Algorithm], others: &[Algorithm]| -> &'static [Algorithm] { Vec::leak([known, others].concat()) };
    let mut mapping: Vec<(SignatureScheme, &'static [Algorithm])> = Vec::new();
    for (scheme, known) in ring.mapping {
        let known = match *scheme {
            ECDSA_NISTP256_SHA256 => with(known, &[&ecdsa::P521_SHA256]),
            ECDSA_NISTP384_SHA384 => with(known, &[&ecdsa::P521_SHA384]),
            _ => known,
        };
        mapping.push((*scheme, known));
    }
    let is_ecdsa = |scheme| matches!(scheme, ECDSA_NISTP256_SHA256 | ECDSA_NISTP384_SHA384);
    let after = mapping.iter().rposition(|(scheme, _)| is_ecdsa(*scheme)).map_or(0, |last| last + 1);
    let largest = with(&[&ecdsa::P521_SHA512], &[&ecdsa::P256_SHA512, &ecdsa::P384_SHA512]);
    mapping.insert(after, (ECDSA_NISTP521_SHA512, largest));
    WebPkiSupportedAlgorithms { all: with(ring.all, &ecdsa::ALL), mapping: mapping.leak() }
}

/// Private keys: ring's, and those on the curve P-521.
#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        match p521::signing_key(&key) {
            Some(key) => Ok(key),
            None => ring::sign::any_supported_type(&key),
        }
    }
}

#[cfg(test)]
mod tests;
