//! ECDSA signatures (FIPS 186-5) that ring does not check.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::{Algorithm, p521};

pub(super) static P521_SHA256: Ecdsa =
    Ecdsa { key: alg_id::ECDSA_P521, signature: alg_id::ECDSA_SHA256, digest: digest::<Sha256>, verify: p521::verify };
pub(super) static P521_SHA384: Ecdsa =
    Ecdsa { key: alg_id::ECDSA_P521, signature: alg_id::ECDSA_SHA384, digest: digest::<Sha384>, verify: p521::verify };
pub(super) static P521_SHA512: Ecdsa =
    Ecdsa { key: alg_id::ECDSA_P521, signature: alg_id::ECDSA_SHA512, digest: digest::<Sha512>, verify: p521::verify };
pub(super) static P256_SHA512: Ecdsa =
    Ecdsa { key: alg_id::ECDSA_P256, signature: alg_id::ECDSA_SHA512, digest: digest::<Sha512>, verify: p256 };
pub(super) static P384_SHA512: Ecdsa =
    Ecdsa { key: alg_id::ECDSA_P384, signature: alg_id::ECDSA_SHA512, digest: digest::<Sha512>, verify: p384 };

pub(super) static ALL: [Algorithm; 5] = [&P521_SHA256, &P521_SHA384, &P521_SHA512, &P256_SHA512, &P384_SHA512];

/// Signatures of a hash by keys on a curve.
#[derive(Debug)]
pub(super) struct Ecdsa {
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
    digest: fn(&[u8]) -> Vec<u8>,
    verify: Verify,
}

/// Verifies by a point, of a digest, a signature (DER).
type Verify = fn(&[u8], &[u8], &[u8]) -> Option<()>;

fn digest<D: Digest>(message: &[u8]) -> Vec<u8> {
    D::digest(message).to_vec()
}

fn p256(point: &[u8], digest: &[u8], signature: &[u8]) -> Option<()> {
    let key = ::p256::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?;
    key.verify_prehash(digest, &::p256::ecdsa::Signature::from_der(signature).ok()?).ok()
}

fn p384(point: &[u8], digest: &[u8], signature: &[u8]) -> Option<()> {
    let key = ::p384::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()?;
    key.verify_prehash(digest, &::p384::ecdsa::Signature::from_der(signature).ok()?).ok()
}

impl SignatureVerificationAlgorithm for Ecdsa {
    fn verify_signature(&self, point: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        // Compressed points are nobody's, as to ring and Go.
        if !point.starts_with(&[4]) {
            return Err(InvalidSignature);
        }
        (self.verify)(point, &(self.digest)(message), signature).ok_or(InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}
