//! Trust in certificates that somebody names: authorities, and servers' own.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use signatures::provider;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Error, roots, system_roots};

/// Verifies what the authorities vouch for, and a certificate that is in the bundle itself: many servers sign their own certificate
/// as an authority (`openssl req -x509`), which webpki takes for no server's. Clients in Go take it.
#[derive(Debug)]
pub struct Trusting {
    authorities: Arc<WebPkiServerVerifier>,
    own: Own,
}

/// Certificates of a bundle.
#[derive(Clone, Debug, Default)]
pub struct Own(Vec<CertificateDer<'static>>);

impl Own {
    /// Those of a bundle (PEM) that can be read.
    pub fn of(bundle: &str) -> Self {
        Self(CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok).collect())
    }

    /// Whether a certificate is one of them. An error where it is, and is not valid at the time.
    ///
    /// # Errors
    /// It is not valid yet, or no more.
    pub fn has(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<bool, rustls::Error> {
        if !self.0.iter().any(|own| own == certificate) {
            return Ok(false);
        }
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let at = |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        let (not_before, not_after) = (at(parsed.validity().not_before.timestamp()), at(parsed.validity().not_after.timestamp()));
        match now {
            time if time < not_before => Err(CertificateError::NotValidYetContext { time, not_before }.into()),
            time if time > not_after => Err(CertificateError::ExpiredContext { time, not_after }.into()),
            _ => Ok(true),
        }
    }
}

impl Trusting {
    /// Trusts `authorities`, and the certificates of `bundle` (PEM) themselves.
    ///
    /// # Errors
    /// There are no authorities.
    pub fn new(authorities: RootCertStore, bundle: &str) -> Result<Self, Error> {
        let provider = provider();
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider).build();
        let authorities = authorities.map_err(|error| Error::Parse(format!("certificate authority: {error}")))?;
        Ok(Self { authorities, own: Own::of(bundle) })
    }

    /// Trusts the machine's authorities, which takes some milliseconds to read, and those of `bundle` (PEM), and its certificates themselves.
    ///
    /// # Errors
    /// The bundle has a certificate that cannot be read, or none.
    pub fn beside_system(bundle: &str) -> Result<Self, Error> {
        let mut authorities = system_roots();
        authorities.roots.extend(roots(bundle)?.roots);
        Self::new(authorities, bundle)
    }

    /// A client without a certificate that says nothing of protocols.
    ///
    /// # Errors
    /// rustls refuses the configuration.
    pub fn client(self) -> Result<ClientConfig, Error> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(self)).with_no_client_auth())
    }
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.authorities.verify_server_cert(certificate, intermediates, name, ocsp, now);
        if verified.is_ok() || !self.own.has(certificate, now)? {
            return verified;
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    /// `openssl req -x509` makes a certificate that is its own authority.
    #[test]
    fn a_server_that_is_its_own_authority() {
        let made = |from: (i32, u8), until: (i32, u8)| {
            let mut params = CertificateParams::new(vec!["registry.example".to_owned()]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.not_before = rcgen::date_time_ymd(from.0, from.1, 1);
            params.not_after = rcgen::date_time_ymd(until.0, until.1, 1);
            params.self_signed(&KeyPair::generate().unwrap()).unwrap()
        };
        let (own, other) = (made((2026, 1), (2027, 1)), made((2026, 1), (2027, 1)));
        let trusting = Trusting::new(roots(&own.pem()).unwrap(), &own.pem()).unwrap();
        let check = |certificate: &rcgen::Certificate, name: &str, now: u64, expected: bool| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
            let verified = trusting.verify_server_cert(certificate.der(), &[], &name, &[], now);
            assert_eq!(verified.is_ok(), expected, "{name:?} {verified:?}");
        };
        let (before, within, after) = (1_700_000_000, 1_780_000_000, 1_800_000_000);
        check(&own, "registry.example", within, true);
        check(&own, "other.example", within, false);
        check(&own, "registry.example", before, false);
        check(&own, "registry.example", after, false);
        check(&other, "registry.example", within, false);
    }
}
