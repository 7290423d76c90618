//! The authorities that vouch for a webhook (upstream: `ValidateCABundle` in `apiserver/pkg/util/webhook/validation.go`, which asks
//! `client-go/transport` for a pool of certificates).

use x509_parser::parse_x509_certificate;

/// Why a bundle vouches for nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("unable to load root certificates: unable to parse bytes as PEM block")]
    NoBlock,
    #[error("unable to load root certificates: failed to parse certificate: {0}")]
    Malformed(String),
    #[error("unable to load root certificates: no valid certificate authority data seen")]
    NoCertificate,
}

/// An empty bundle leaves it to the system's authorities. In another one a single readable certificate is enough, as in Go's
/// `AppendCertsFromPEM`.
pub(crate) fn check_bundle(bytes: &[u8]) -> Result<(), BundleError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let blocks = pem::parse_many(bytes).unwrap_or_default();
    if blocks.is_empty() {
        return Err(BundleError::NoBlock);
    }
    let mut why = BundleError::NoCertificate;
    for block in &blocks {
        if block.tag() != "CERTIFICATE" || block.headers().iter().next().is_some() {
            continue;
        }
        match parse_x509_certificate(block.contents()) {
            Ok(_) => return Ok(()),
            Err(error) => why = BundleError::Malformed(error.to_string()),
        }
    }
    Err(why)
}
