//! Whose certificates are believed.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use base::tls::Resolver;

use super::{Error, Target};

/// The configuration of connections to a target. Reads the system's certificates when the target brings none.
pub(super) async fn config(target: &Target, identity: Option<Arc<Resolver>>) -> Result<Arc<ClientConfig>, Error> {
    let roots = |error: &dyn std::fmt::Display| Error::Roots(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| roots(&error))?.dangerous();
    let builder = if target.unverified {
        builder.with_custom_certificate_verifier(Arc::new(base::tls::Unverified::default()))
    } else {
        let (store, own) = match &target.ca_bundle {
            Some(bundle) => (base::tls::roots(bundle).map_err(|error| roots(&error))?, certificates(bundle)),
            None => (of_the_system().await?, Vec::new()),
        };
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
        let inner = inner.map_err(|error| roots(&error))?;
        builder.with_custom_certificate_verifier(Arc::new(Believing { inner, own }))
    };
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(bundle: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok).collect()
}

async fn of_the_system() -> Result<RootCertStore, Error> {
    let store = tokio::task::spawn_blocking(base::tls::system_roots).await.map_err(|error| Error::Roots(error.to_string()))?;
    // Without any, nobody is believed, and that is said here rather than at the handshake.
    if store.is_empty() { Err(Error::Roots("there is no caBundle, and the system has none".to_owned())) } else { Ok(store) }
}

/// Believes what the authorities vouch for, and a certificate that is in the bundle itself: many webhooks sign their own certificate
/// as an authority (`openssl req -x509`), which webpki takes for no server's.
#[derive(Debug)]
struct Believing {
    inner: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(certificate, intermediates, name, ocsp, now);
        if verified.is_ok() || !self.own.iter().any(|own| own == certificate) {
            return verified;
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let (from, until) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        match now {
            now if now < from => Err(CertificateError::NotValidYet.into()),
            now if now > until => Err(CertificateError::Expired.into()),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
