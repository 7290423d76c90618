//! Certificates of back ends: which authorities have to have signed them, and for which names. Without this they are not looked at.

mod system;

use std::sync::Arc;

use base::tls::Own;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::extensions::GeneralName;

/// What the certificate of a back end has to be like.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Verify {
    /// Who has to have signed it.
    pub roots: Roots,
    /// One of these has to be among its names; without any the name that is sent by TLS.
    pub names: Vec<Name>,
}

/// Authorities.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Roots {
    /// Those that the machine trusts.
    System,
    /// These, PEM.
    Bundle(String),
}

/// A name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// Of a host.
    Host(String),
    /// A URI, such as a SPIFFE ID.
    Uri(String),
}

/// How those are asked whose certificates are verified so.
#[derive(Clone, Debug)]
pub struct Trust {
    verify: Verify,
    pub(crate) http1: Arc<ClientConfig>,
    pub(crate) http2: Arc<ClientConfig>,
    /// For anything but HTTP: says nothing of protocols.
    pub(crate) bare: Arc<ClientConfig>,
}

impl Trust {
    /// By what a certificate has to be like.
    ///
    /// # Errors
    /// The bundle has no certificate that can be used.
    pub fn of(verify: Verify) -> Result<Self, base::tls::Error> {
        let (roots, own) = match &verify.roots {
            Roots::Bundle(bundle) => (Some(Arc::new(base::tls::roots(bundle)?)), Own::of(bundle)),
            Roots::System => {
                system::prepare();
                (None, Own::default())
            }
        };
        let provider = base::tls::provider();
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let verifier = Verifier { roots, own, names: verify.names.clone(), provider };
        let config = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
        let with = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self { http1: with(&[b"http/1.1"]), http2: with(&[b"h2"]), bare: with(&[]), verify })
    }
}

// One is another than the next by what it asks for.
impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.verify == other.verify
    }
}

impl Eq for Trust {}

impl std::hash::Hash for Trust {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.verify.hash(state);
    }
}

impl Ord for Trust {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.verify.cmp(&other.verify)
    }
}

impl PartialOrd for Trust {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Debug)]
struct Verifier {
    /// None: those of the machine, as they are then.
    roots: Option<Arc<RootCertStore>>,
    /// Back ends that are their own authorities.
    own: Own,
    names: Vec<Name>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Whether the certificate has one of the names.
    fn is_named(&self, leaf: &CertificateDer<'_>, parsed: &ParsedCertificate<'_>, sent: &ServerName<'_>) -> bool {
        if self.names.is_empty() {
            return verify_server_name(parsed, sent).is_ok();
        }
        self.names.iter().any(|name| match name {
            Name::Host(host) => ServerName::try_from(host.as_str()).is_ok_and(|host| verify_server_name(parsed, &host).is_ok()),
            Name::Uri(wanted) => has_uri(leaf, wanted),
        })
    }
}

fn has_uri(leaf: &CertificateDer<'_>, wanted: &str) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(leaf) else { return false };
    let names = certificate.subject_alternative_name().ok().flatten();
    names
        .is_some_and(|names| names.value.general_names.iter().any(|name| matches!(name, GeneralName::URI(uri) if *uri == wanted)))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        sent: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let roots = self.roots.clone().unwrap_or_else(system::roots);
        let signed = verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms);
        if signed.is_err() && !self.own.has(leaf, now)? {
            signed?;
        }
        let named = self.is_named(leaf, &parsed, sent);
        named.then(ServerCertVerified::assertion).ok_or(CertificateError::NotValidForName.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use base::tls::{Authority, Request};
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SanType};

    /// Whether a certificate of this authority for `a.example` passes for who sends this name.
    fn check(authority: &Authority, names: &[Name], sent: &str, expected: bool) {
        let request = Request::Server { name: "a.example".into(), sans: vec!["a.example".into()] };
        let certified = authority.issue(&request).unwrap().certified().unwrap();
        passes(&certified.cert, base::tls::roots(authority.bundle()).unwrap(), names, sent, expected);
    }

    fn passes(chain: &[CertificateDer<'static>], roots: RootCertStore, names: &[Name], sent: &str, expected: bool) {
        let roots = Some(Arc::new(roots));
        let verifier = Verifier { roots, own: Own::default(), names: names.to_vec(), provider: base::tls::provider() };
        let sent = ServerName::try_from(sent.to_owned()).unwrap();
        let found = verifier.verify_server_cert(&chain[0], &chain[1..], &sent, &[], UnixTime::now());
        assert_eq!(found.is_ok(), expected, "{names:?} {sent:?} {found:?}");
    }

    #[test]
    fn names_and_authorities() {
        let authority = Authority::in_memory("back ends").unwrap();
        let host = |name: &str| Name::Host(name.to_owned());
        check(&authority, &[], "a.example", true);
        check(&authority, &[], "b.example", false);
        // With names of its own the one that is sent does not count.
        check(&authority, &[host("b.example"), host("a.example")], "b.example", true);
        check(&authority, &[host("b.example")], "a.example", false);
        check(&authority, &[Name::Uri("spiffe://a".into())], "a.example", false);
        let request = Request::Server { name: "a.example".into(), sans: vec!["a.example".into()] };
        let certified = authority.issue(&request).unwrap().certified().unwrap();
        let other = base::tls::roots(Authority::in_memory("others").unwrap().bundle()).unwrap();
        passes(&certified.cert, other, &[], "a.example", false);
    }

    #[test]
    fn uris() {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::URI("spiffe://prod/web".try_into().unwrap())];
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let roots = || base::tls::roots(&issuer.pem()).unwrap();
        let chain = [leaf.der().clone()];
        let uri = |uri: &str| vec![Name::Uri(uri.to_owned())];
        passes(&chain, roots(), &uri("spiffe://prod/web"), "web.example", true);
        passes(&chain, roots(), &uri("spiffe://prod/web/x"), "web.example", false);
        passes(&chain, roots(), &[], "web.example", false);
    }

    #[test]
    fn bundles() {
        let trust = |bundle: &str| Trust::of(Verify { roots: Roots::Bundle(bundle.to_owned()), names: Vec::new() });
        assert!(trust("nothing").is_err());
        let (one, other) = (Authority::in_memory("a").unwrap(), Authority::in_memory("a").unwrap());
        assert_eq!(trust(one.bundle()).unwrap(), trust(one.bundle()).unwrap());
        assert_ne!(trust(one.bundle()).unwrap(), trust(other.bundle()).unwrap());
    }
}
