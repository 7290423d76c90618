//! What is inside of the PEM blocks of a request and of a certificate.

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
    let (rest, request) =
        X509CertificationRequest::from_der(block.contents()).map_err(|error| PemError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(PemError::Malformed("trailing data".to_owned()));
    }
    request.verify_signature().map_err(|_| PemError::Signature)
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
