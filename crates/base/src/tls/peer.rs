//! Who is at the other end of a TLS connection.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ProtocolVersion, RootCertStore, SignatureScheme};
use signatures::{provider, verify_handshake};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid;
use x509_parser::der_parser::oid::Oid;
use x509_parser::extensions::GeneralName;

use super::{Error, PodIdentity, verify_version_1};

/// The attribute of a subject that is a user's UID.
const UID: Oid<'static> = oid!(1.3.6.1.4.1.57683.2);

/// The certificate by which a client has proved who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credential {
    /// The certificate's SHA-256, hex, as upstream's credential id extra carries it.
    pub fingerprint: String,
    /// The SHA-256 of its public key, hex, as [`super::SigningRequest::fingerprint`] tells it.
    pub key: String,
    /// The last second, since the Unix epoch, in which it is valid, and so is what was presented with it.
    pub expiry: i64,
}

impl Credential {
    /// Whether it proves nothing any more. Connections outlive certificates: this is asked at each request.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        now.as_second() > self.expiry
    }

    /// Waits until it proves nothing any more, by the clock of the machine, which may be set.
    pub async fn ended(&self) {
        const LOOK: i64 = 3600;
        loop {
            let now = Timestamp::now();
            if self.has_ended(now) {
                return;
            }
            let left = self.expiry.saturating_sub(now.as_second()).saturating_add(1).clamp(1, LOOK);
            tokio::time::sleep(Duration::from_secs(left.unsigned_abs())).await;
        }
    }
}

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
        /// By what.
        credential: Credential,
    },
    /// It proved to be a pod.
    Pod {
        /// Which.
        identity: Box<PodIdentity>,
        /// By what.
        credential: Credential,
    },
}

/// Verifies client certificates. The handshake accepts any, or none, so that an untrusted one is answered with
/// 401 rather than with a broken connection; [`Verifier::peer`] then says who it is.
#[derive(Debug)]
pub struct Verifier {
    webpki: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
}

impl Verifier {
    /// Trusts what `authorities` (PEM) have issued.
    pub fn new(authorities: &str) -> Result<Arc<Self>, Error> {
        let roots: Arc<RootCertStore> = Arc::new(super::roots(authorities)?);
        let webpki = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).allow_unauthenticated().build()?;
        Ok(Arc::new(Self { webpki, roots }))
    }

    fn verify(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        let verified = self.webpki.verify_client_cert(leaf, rest, now).map(drop);
        verified.or_else(|error| verify_version_1(leaf, &self.roots, now).unwrap_or(Err(error)))
    }

    /// The client that presented `chain`.
    pub fn peer(&self, chain: Option<&[CertificateDer<'static>]>) -> Peer {
        let Some((leaf, rest)) = chain.and_then(|chain| chain.split_first()) else { return Peer::Anonymous };
        if let Err(error) = self.verify(leaf, rest, UnixTime::now()) {
            return Peer::Invalid(error.to_string());
        }
        let mut peer = user(leaf).unwrap_or_else(|| Peer::Invalid("the certificate has no common name".into()));
        if let Peer::User { credential, .. } | Peer::Pod { credential, .. } = &mut peer {
            // One of the others that had ended before was not needed to verify it.
            let now = Timestamp::now().as_second();
            let others = rest.iter().filter_map(expiry).filter(|end| *end >= now);
            credential.expiry = others.fold(credential.expiry, i64::min);
        }
        peer
    }
}

impl Peer {
    /// The certificate by which it has proved who it is.
    pub fn credential(&self) -> Option<&Credential> {
        match self {
            Self::User { credential, .. } | Self::Pod { credential, .. } => Some(credential),
            Self::Anonymous | Self::Invalid(_) => None,
        }
    }
}

/// When a certificate ends to be valid, in seconds since the Unix epoch.
fn expiry(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn user(leaf: &CertificateDer<'_>) -> Option<Peer> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let digest = |bytes: &[u8]| super::signing::hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    let (fingerprint, key) = (digest(leaf), digest(certificate.public_key().raw));
    let credential = Credential { fingerprint, key, expiry: certificate.validity().not_after.timestamp() };
    match PodIdentity::of(&certificate) {
        Some(Ok(identity)) => return Some(Peer::Pod { identity: Box::new(identity), credential }),
        Some(Err(why)) => return Some(Peer::Invalid(why.into())),
        None => {}
    }
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().ok().map(str::to_owned);
    // Who it is must be read alike by everybody.
    let ambiguous = |why: &str| Some(Peer::Invalid(why.into()));
    let mut names = certificate.subject().iter_common_name();
    let (name, None) = (names.next()?, names.next()) else { return ambiguous("the certificate has more than one common name") };
    let groups: Option<Vec<String>> = certificate.subject().iter_organization().map(text).collect();
    let (Some(name), Some(groups)) = (text(name), groups) else { return ambiguous("the certificate's subject is no plain text") };
    if name.is_empty() {
        return None;
    }
    let mut uids = certificate.subject().iter_by_oid(&UID);
    let uid = match (uids.next(), uids.next()) {
        (None, _) => String::new(),
        (Some(uid), None) => match text(uid) {
            Some(uid) => uid,
            None => return Some(Peer::Invalid("unable to parse UID into a string".into())),
        },
        (Some(_), Some(_)) => return Some(Peer::Invalid("expected 1 UID, but found multiple".into())),
    };
    Some(Peer::User { name, groups, uid, credential })
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
        self.webpki.root_hint_subjects()
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
        verify_handshake(ProtocolVersion::TLSv1_2, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_handshake(ProtocolVersion::TLSv1_3, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;
    use crate::tls::{Authority, Request, fingerprint_of_key};

    /// RFC 5280, section 4.1.2.5: "the period of time from notBefore through notAfter, inclusive".
    #[test]
    fn credentials_end() {
        let authority = Authority::in_memory("cluster").unwrap();
        let request = Request::Client { user: "jane".into(), groups: vec![] };
        let identity = authority.issue_for(&request, Duration::from_secs(100)).unwrap();
        let peer = Verifier::new(authority.bundle()).unwrap().peer(Some(&identity.certified().unwrap().cert));
        let credential = peer.credential().unwrap();
        assert_eq!(credential.key, fingerprint_of_key(&identity.key).unwrap());
        let end = Timestamp::try_from(identity.validity().unwrap().1).unwrap().as_second();
        let check = |second: i64, expected: bool| {
            assert_eq!(credential.has_ended(Timestamp::from_second(second).unwrap()), expected, "{second}");
        };
        check(end - 100, false);
        check(end, false);
        check(end + 1, true);
        assert!(Peer::Anonymous.credential().is_none() && Peer::Invalid(String::new()).credential().is_none());
    }

    #[tokio::test]
    async fn who_waits_for_the_end_is_told() {
        let now = Timestamp::now().as_second();
        Credential { expiry: now - 1, ..Credential::default() }.ended().await;
        let mut later = std::pin::pin!(async { Credential { expiry: now + 7200, ..Credential::default() }.ended().await });
        assert!(futures::poll!(later.as_mut()).is_pending());
    }

    #[test]
    fn subjects_are_read_in_one_way() {
        let check = |names: &[DnValue], groups: &[DnValue], expected: Option<&str>| {
            // As rcgen has one value for an attribute, the second is given under an identifier that is written as the first one's.
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            let both = [(DnType::CommonName, [2, 5, 4, 3], names), (DnType::OrganizationName, [2, 5, 4, 10], groups)];
            for (first, object, values) in both {
                for (index, value) in values.iter().enumerate() {
                    let kind = if index == 0 { first.clone() } else { DnType::CustomDnType(object.to_vec()) };
                    params.distinguished_name.push(kind, value.clone());
                }
            }
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let name = match user(certificate.der()) {
                Some(Peer::User { name, .. }) => Some(name),
                _ => None,
            };
            assert_eq!(name.as_deref(), expected, "{names:?} {groups:?}");
        };
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let teletex = || DnValue::TeletexString("system:masters".try_into().unwrap());
        check(&[utf8("jane")], &[utf8("a"), utf8("b")], Some("jane"));
        check(&[], &[utf8("a")], None);
        check(&[utf8("")], &[], None);
        check(&[utf8("jane"), utf8("kubernetes-admin")], &[], None);
        check(&[utf8("jane")], &[utf8("a"), teletex()], None);
        check(&[utf8("jane")], &[teletex()], None);
        check(&[teletex()], &[], None);
    }

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
