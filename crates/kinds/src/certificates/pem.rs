//! What is inside of the PEM blocks of requests and of certificates.

use pem::Pem;
use signatures::{PublicKey, Signed};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// Why a request or a certificate is not one.
#[derive(Debug, thiserror::Error)]
pub(super) enum PemError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NotARequest,
    #[error("only CERTIFICATE PEM blocks are allowed, found {0:?}")]
    NotACertificate(String),
    #[error("no PEM block headers are permitted")]
    Headers,
    #[error("must contain at least one CERTIFICATE PEM block")]
    Empty,
    #[error("x509: {0}")]
    Malformed(String),
    #[error("x509: signature verification failed")]
    Signature,
}

/// A PKCS #10 request whose signature is by the key that it names.
pub(super) fn check_request(bytes: &[u8]) -> Result<(), PemError> {
    let block = pem::parse(bytes).map_err(|_| PemError::NotARequest)?;
    if block.tag() != "CERTIFICATE REQUEST" {
        return Err(PemError::NotARequest);
    }
    request(block.contents()).map(|_| ())
}

/// The same without PEM around it.
pub(super) fn request(der: &[u8]) -> Result<X509CertificationRequest<'_>, PemError> {
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|error| PemError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(PemError::Malformed("trailing data".to_owned()));
    }
    let key = PublicKey::read(request.certification_request_info.subject_pki.raw);
    let is_signed = key.zip(Signed::read(der)).is_some_and(|(key, signed)| signed.is_by(key));
    if is_signed { Ok(request) } else { Err(PemError::Signature) }
}

/// Certificates, or nothing at all.
pub(super) fn check_certificates(bytes: &[u8]) -> Result<(), PemError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let blocks = pem::parse_many(bytes).unwrap_or_default();
    if blocks.is_empty() {
        return Err(PemError::Empty);
    }
    for block in blocks {
        if block.tag() != "CERTIFICATE" {
            return Err(PemError::NotACertificate(block.tag().to_owned()));
        }
        if block.headers().iter().next().is_some() {
            return Err(PemError::Headers);
        }
        x509_parser::parse_x509_certificate(block.contents()).map_err(|error| PemError::Malformed(error.to_string()))?;
    }
    Ok(())
}

/// The blocks in a text; what stands between them is passed over.
pub(super) fn blocks(text: &str) -> Vec<Pem> {
    pem::parse_many(text).unwrap_or_default()
}

/// A certificate with nothing behind it.
pub(super) fn certificate(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

/// Why a block is no certificate of an authority.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAuthority {
    #[error("has bad block type: {0}")]
    Block(String),
    #[error("has PEM block headers")]
    Headers,
    #[error("does not parse as X.509")]
    Malformed,
    #[error("has invalid basic constraints")]
    Constraints,
    #[error("does not have the CA bit set")]
    Leaf,
}

/// Whether a block is the certificate of an authority.
pub(super) fn check_authority(block: &Pem) -> Result<(), NoAuthority> {
    if block.tag() != "CERTIFICATE" {
        return Err(NoAuthority::Block(block.tag().to_owned()));
    }
    if block.headers().iter().next().is_some() {
        return Err(NoAuthority::Headers);
    }
    let certificate = certificate(block.contents()).ok_or(NoAuthority::Malformed)?;
    let constraints = certificate.basic_constraints().map_err(|_| NoAuthority::Constraints)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) { Ok(()) } else { Err(NoAuthority::Leaf) }
}
