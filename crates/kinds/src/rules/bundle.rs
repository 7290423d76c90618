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
    let blocks = blocks(bytes);
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

/// The blocks that can be read: Go's `pem.Decode` passes over the others.
fn blocks(bytes: &[u8]) -> Vec<pem::Pem> {
    const BEGIN: &str = "-----BEGIN ";
    let text = String::from_utf8_lossy(bytes);
    let begins: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    let ends = begins.iter().skip(1).copied().chain([text.len()]);
    begins.iter().zip(ends).filter_map(|(begin, end)| pem::parse(&text[*begin..end]).ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `AppendCertsFromPEM` adds what it can read.
    #[test]
    fn one_good_certificate_is_enough() {
        let good = rcgen::generate_simple_self_signed(Vec::<String>::new()).unwrap().cert.pem();
        let damaged = good.replace("-----END CERTIFICATE-----", "-----END -----");
        let check = |text: &str, expected: bool| assert_eq!(check_bundle(text.as_bytes()).is_ok(), expected, "{text}");
        check("", true);
        check(&good, true);
        check(&format!("{damaged}{good}"), true);
        check(&format!("{good}{damaged}"), true);
        check(&damaged, false);
        check("x", false);
        check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", false);
    }
}
