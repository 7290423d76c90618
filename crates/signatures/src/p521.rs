//! ECDSA by keys on the curve P-521 (FIPS 186-5).

use std::sync::Arc;

use p521::SecretKey;
use p521::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p521::ecdsa::{Signature, SigningKey, VerifyingKey};
use p521::elliptic_curve::Generate;
use p521::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer, alg_id};
use rustls::sign::{Signer, public_key_to_spki};
use rustls::{SignatureAlgorithm, SignatureScheme};
use sha2::{Digest, Sha512};

/// Bytes of a number below the curve's order.
const FIELD: usize = 66;

pub(super) fn verify(point: &[u8], digest: &[u8], signature: &[u8]) -> Option<()> {
    let key = VerifyingKey::from_sec1_bytes(point).ok()?;
    key.verify_prehash(&padded(digest), &Signature::from_der(signature).ok()?).ok()
}

/// A digest as long as a number of the field: it is one number (FIPS 186-5, section 6.4.2), and shorter ones are refused by the library.
fn padded(digest: &[u8]) -> Vec<u8> {
    let mut padded = vec![0; FIELD.saturating_sub(digest.len())];
    padded.extend_from_slice(digest);
    padded
}

/// A key of TLS. None where it is no such key.
pub(super) fn signing_key(key: &PrivateKeyDer<'_>) -> Option<Arc<dyn rustls::sign::SigningKey>> {
    let key = match key {
        PrivateKeyDer::Pkcs8(der) => SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).ok(),
        PrivateKeyDer::Sec1(der) => SecretKey::from_sec1_der(der.secret_sec1_der()).ok(),
        _ => None,
    };
    Some(Arc::new(Key(Arc::new(SigningKey::from(key?)))))
}

struct Key(Arc<SigningKey>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key on P-521")
    }
}

impl rustls::sign::SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ECDSA_NISTP521_SHA512).then(|| Box::new(Self(self.0.clone())) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(public_key_to_spki(&alg_id::ECDSA_P521, self.0.verifying_key().to_sec1_point(false).as_bytes()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let signature: Result<Signature, _> = self.0.sign_prehash(&padded(&Sha512::digest(message)));
        let signature = signature.map_err(|_| rustls::Error::General("a signature by a key on P-521".into()))?;
        Ok(signature.to_der().as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP521_SHA512
    }
}

/// A new key.
pub struct Made {
    /// PKCS #8, DER.
    pub key: Vec<u8>,
    /// The public half: a `SubjectPublicKeyInfo`, DER.
    pub public: Vec<u8>,
    signing: Key,
}

impl Made {
    /// The key's signature (DER) of a message, with SHA-512.
    ///
    /// # Errors
    /// The library cannot make it.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.signing.sign(message)
    }
}

/// Makes a key on P-521. None without random bytes.
pub fn generate_p521() -> Option<Made> {
    let secret = SecretKey::try_generate().ok()?;
    let key = secret.to_pkcs8_der().ok()?.as_bytes().to_vec();
    let signing = Key(Arc::new(SigningKey::from(secret)));
    let public = rustls::sign::SigningKey::public_key(&signing)?.to_vec();
    Some(Made { key, public, signing })
}

/// Whether the key that a point (uncompressed) is has signed a message with SHA-512: both numbers of the signature one after the other (RFC 7518,
/// section 3.4).
pub fn verify_p521_fixed(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_sec1_bytes(point), Signature::from_slice(signature)) else { return false };
    key.verify_prehash(&padded(&Sha512::digest(message)), &signature).is_ok()
}
