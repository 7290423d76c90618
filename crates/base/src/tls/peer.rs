//! Who is at the other end of a TLS connection.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid;
use x509_parser::der_parser::oid::Oid;
use x509_parser::extensions::GeneralName;

use super::{Error, PodIdentity};

/// The attribute of a subject that is a user's UID.
const UID: Oid<'static> = oid!(1.3.6.1.4.1.57683.2);

/// The client of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It presented no certificate.
    Anonymous,
    /// It presented one that the cluster's authority did not issue, or that is not valid now; why.
    Invalid(String),
    /// It proved to be this user.
    User {
        /// Common name.
        name: String,
        /// Organizations.
        groups: Vec<String>,
        /// What the subject says in Kubernetes' own attribute, empty where it does not (upstream: `AllowParsingUserUIDFromCertAuth`).
        uid: String,
        /// The certificate's SHA-256, hex, as upstream's credential id extra carries it.
        fingerprint: String,
    },
    /// It proved to be a pod.
    Pod {
        /// Which.
        identity: Box<PodIdentity>,
        /// The certificate's SHA-256, hex.
        fingerprint: String,
    },
}

/// Verifies client certificates. The handshake accepts any, or none, so that an untrusted one is answered with
/// 401 rather than with a broken connection; [`Verifier::peer`] then says who it is.
#[derive(Debug)]
pub struct Verifier(Arc<dyn ClientCertVerifier>);

impl Verifier {
    /// Trusts what `authorities` (PEM) have issued.
    pub fn new(authorities: &str) -> Result<Arc<Self>, Error> {
        let roots: Arc<RootCertStore> = Arc::new(super::roots(authorities)?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Arc::new(Self(WebPkiClientVerifier::builder_with_provider(roots, provider).allow_unauthenticated().build()?)))
    }

    /// The client that presented `chain`.
    pub fn peer(&self, chain: Option<&[CertificateDer<'static>]>) -> Peer {
        let Some((leaf, rest)) = chain.and_then(|chain| chain.split_first()) else { return Peer::Anonymous };
        if let Err(error) = self.0.verify_client_cert(leaf, rest, UnixTime::now()) {
            return Peer::Invalid(error.to_string());
        }
        user(leaf).unwrap_or_else(|| Peer::Invalid("the certificate has no common name".into()))
    }
}

impl Peer {
    /// When the certificate at the head of `chain` ends to be valid, in seconds since the Unix epoch.
    pub fn expiry(chain: Option<&[CertificateDer<'static>]>) -> Option<i64> {
        let (_, certificate) = x509_parser::parse_x509_certificate(chain?.first()?).ok()?;
        Some(certificate.validity().not_after.timestamp())
    }
}

fn user(leaf: &CertificateDer<'_>) -> Option<Peer> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let digest = ring::digest::digest(&ring::digest::SHA256, leaf);
    let fingerprint = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    match PodIdentity::of(&certificate) {
        Some(Ok(identity)) => return Some(Peer::Pod { identity: Box::new(identity), fingerprint }),
        Some(Err(why)) => return Some(Peer::Invalid(why.into())),
        None => {}
    }
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().ok().map(str::to_owned);
    let name = certificate.subject().iter_common_name().find_map(text).filter(|name| !name.is_empty())?;
    let groups = certificate.subject().iter_organization().filter_map(text).collect();
    let mut uids = certificate.subject().iter_by_oid(&UID);
    let uid = match (uids.next(), uids.next()) {
        (None, _) => String::new(),
        (Some(uid), None) => match text(uid) {
            Some(uid) => uid,
            None => return Some(Peer::Invalid("unable to parse UID into a string".into())),
        },
        (Some(_), Some(_)) => return Some(Peer::Invalid("expected 1 UID, but found multiple".into())),
    };
    Some(Peer::User { name, groups, uid, fingerprint })
}

/// The DNS names and IP addresses of a certificate, as text.
pub(super) fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => match octets.len() {
            4 => <[u8; 4]>::try_from(*octets).ok().map(|o| std::net::IpAddr::from(o).to_string()),
            16 => <[u8; 16]>::try_from(*octets).ok().map(|o| std::net::IpAddr::from(o).to_string()),
            _ => None,
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    /// The feature `AllowParsingUserUIDFromCertAuth`: "the UID attribute (1.3.6.1.4.1.57683.2) of the certificate's subject".
    #[test]
    fn uids() {
        let check = |uid: Option<&str>, expected: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "jane");
            if let Some(uid) = uid {
                params.distinguished_name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]), uid);
            }
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let Some(Peer::User { name, uid, .. }) = user(certificate.der()) else { panic!("a user") };
            assert_eq!((name.as_str(), uid.as_str()), ("jane", expected));
        };
        check(None, "");
        check(Some("1234"), "1234");
    }
}
