//! What is wrong with a certificate, for people and back ends: in the words of OpenSSL (`X509_verify_cert_error_string`), which nginx passes on, where it has any. Pure.

use rustls::CertificateError;

/// What nginx says where it knows no more.
const UNSPECIFIED: &str = "unspecified certificate verification error";

/// Why a certificate was not verified.
pub(crate) fn unverified(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => certificate(why),
        rustls::Error::InvalidCertRevocationList(_) => "unable to get certificate CRL".to_owned(),
        _ => UNSPECIFIED.to_owned(),
    }
}

/// Why a certificate and its key cannot be used.
pub(crate) fn unusable(error: &base::tls::Error) -> String {
    match error {
        base::tls::Error::Config(rustls::Error::InvalidCertificate(why)) => format!("certificate: {}", certificate(why)),
        base::tls::Error::Config(rustls::Error::InconsistentKeys(_)) => {
            "private key: it is that of another certificate".to_owned()
        }
        base::tls::Error::Config(rustls::Error::General(why)) => format!("private key: {why}"),
        other => other.to_string(),
    }
}

fn certificate(why: &CertificateError) -> String {
    use CertificateError as Why;
    let known = match why {
        Why::Expired | Why::ExpiredContext { .. } => "certificate has expired",
        Why::NotValidYet | Why::NotValidYetContext { .. } => "certificate is not yet valid",
        Why::Revoked => "certificate revoked",
        Why::UnknownIssuer => "unable to get local issuer certificate",
        Why::UnhandledCriticalExtension => "unhandled critical extension",
        Why::UnknownRevocationStatus => "unable to get certificate CRL",
        Why::ExpiredRevocationList | Why::ExpiredRevocationListContext { .. } => "CRL has expired",
        Why::BadSignature => "certificate signature failure",
        Why::UnsupportedSignatureAlgorithmContext { .. } | Why::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "unsupported signature algorithm"
        }
        Why::InvalidPurpose | Why::InvalidPurposeContext { .. } => "unsuitable certificate purpose",
        Why::BadEncoding => "the certificate is malformed",
        // The name of what webpki has found, such as `UnsupportedCertVersion`.
        Why::Other(other) => return named(&other.to_string()),
        _ => UNSPECIFIED,
    };
    known.to_owned()
}

/// The words of a name in one.
fn named(name: &str) -> String {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return UNSPECIFIED.to_owned();
    }
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{InconsistentKeys, OtherError, PeerMisbehaved};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Found(&'static str);

    fn found(text: &'static str) -> CertificateError {
        CertificateError::Other(OtherError(Arc::new(Found(text))))
    }

    /// No text is one of Rust: none has names in one word, brackets or fields.
    #[test]
    fn words() {
        let check = |why: CertificateError, expected: &str| {
            assert_eq!(unverified(&rustls::Error::InvalidCertificate(why)), expected);
        };
        check(CertificateError::UnknownIssuer, "unable to get local issuer certificate");
        check(CertificateError::Expired, "certificate has expired");
        check(
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: vec![48, 10],
                public_key_algorithm_id: vec![48, 16],
            },
            "unsupported signature algorithm",
        );
        check(found("UnsupportedCertVersion"), "unsupported cert version");
        check(found("Other { why: [1] }"), UNSPECIFIED);
        check(CertificateError::ApplicationVerificationFailure, UNSPECIFIED);
        assert_eq!(unverified(&rustls::Error::PeerMisbehaved(PeerMisbehaved::TooMuchEarlyDataReceived)), UNSPECIFIED);
        let unusable = |error: rustls::Error| unusable(&base::tls::Error::Config(error));
        assert_eq!(
            unusable(rustls::Error::InvalidCertificate(found("UnsupportedCertVersion"))),
            "certificate: unsupported cert version"
        );
        let other = rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch);
        assert_eq!(unusable(other), "private key: it is that of another certificate");
        assert_eq!(unusable(rustls::Error::General("no such key".into())), "private key: no such key");
    }
}
