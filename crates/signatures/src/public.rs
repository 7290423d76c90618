//! Public keys as certificates and requests have them, of every version of X.509: webpki reads the third one only.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{AlgorithmIdentifier, CertificateDer};
use rustls::{CertificateError, DigitallySignedStruct, PeerMisbehaved, ProtocolVersion, SignatureScheme};
use x509_parser::asn1_rs::{Any, FromDer};

use super::{Algorithm, provider};

/// A public key.
#[derive(Clone, Copy)]
pub struct PublicKey<'a> {
    /// The identifier of its type, without tag and length.
    kind: &'a [u8],
    key: &'a [u8],
}

impl<'a> PublicKey<'a> {
    /// Reads a `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7) in DER.
    pub fn read(der: &'a [u8]) -> Option<Self> {
        Self::of_content(content(der)?)
    }

    /// The same without the tag and the length of its sequence, as trust anchors have it.
    pub fn of_content(content: &'a [u8]) -> Option<Self> {
        let (rest, kind) = Any::from_der(content).ok()?;
        let (_, key) = Any::from_der(rest).ok()?;
        Some(Self { kind: kind.data, key: bits(key.data)? })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        *self.kind == *algorithm.public_key_alg_id()
    }

    /// Whether it has signed a message by an algorithm.
    pub fn has_signed(&self, message: &[u8], algorithm: AlgorithmIdentifier, signature: &[u8]) -> bool {
        self.verifies(message, &algorithm, signature)
    }

    fn verifies(&self, message: &[u8], algorithm: &[u8], signature: &[u8]) -> bool {
        let provider = provider();
        let all = provider.signature_verification_algorithms.all.iter();
        let mut fitting = all.filter(|known| *algorithm == *known.signature_alg_id() && self.fits(**known));
        fitting.any(|known| known.verify_signature(self.key, message, signature).is_ok())
    }
}

/// What X.509 and PKCS #10 write as `SIGNED`: something, how it is signed, and the signature.
pub struct Signed<'a> {
    content: &'a [u8],
    /// Without tag and length.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Reads a certificate or a request (DER).
    pub fn read(der: &'a [u8]) -> Option<Self> {
        let parts = content(der)?;
        let (rest, _) = Any::from_der(parts).ok()?;
        let signed = &parts[..parts.len() - rest.len()];
        let (rest, algorithm) = Any::from_der(rest).ok()?;
        let (_, signature) = Any::from_der(rest).ok()?;
        Some(Self { content: signed, algorithm: algorithm.data, signature: bits(signature.data)? })
    }

    /// Whether a key has signed it.
    pub fn is_by(&self, key: PublicKey<'_>) -> bool {
        key.verifies(self.content, self.algorithm, self.signature)
    }
}

/// What is in the first value of some bytes: in a sequence, its parts.
pub fn content(bytes: &[u8]) -> Option<&[u8]> {
    Any::from_der(bytes).ok().map(|(_, value)| value.data)
}

/// The content of a bit string of whole bytes.
fn bits(data: &[u8]) -> Option<&[u8]> {
    data.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bits)| bits)
}

/// Checks that the key of a certificate has signed a handshake. What the certificate is worth is said elsewhere.
///
/// # Errors
/// It has not, or the certificate cannot be read.
pub fn verify_handshake(
    version: ProtocolVersion,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    use SignatureScheme::{RSA_PKCS1_SHA1, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512};
    let misbehaved = || rustls::Error::from(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme);
    let is_newest = version == ProtocolVersion::TLSv1_3;
    // RFC 8446, section 4.2.3: they are for certificates.
    if is_newest && matches!(signed.scheme, RSA_PKCS1_SHA1 | RSA_PKCS1_SHA256 | RSA_PKCS1_SHA384 | RSA_PKCS1_SHA512) {
        return Err(misbehaved());
    }
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let key = PublicKey::read(parsed.public_key().raw).ok_or(CertificateError::BadEncoding)?;
    let provider = provider();
    let mut mapping = provider.signature_verification_algorithms.mapping.iter();
    let (_, known) = mapping.find(|(scheme, _)| *scheme == signed.scheme).ok_or_else(misbehaved)?;
    let most = if is_newest { 1 } else { known.len() };
    let fitting = known.iter().take(most).find(|algorithm| key.fits(**algorithm)).ok_or_else(misbehaved)?;
    fitting.verify_signature(key.key, message, signed.signature()).map_err(|_| CertificateError::BadSignature)?;
    Ok(HandshakeSignatureValid::assertion())
}
