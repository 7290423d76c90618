//! Certificates of clients: asked for by hosts whose Ingress names an authority (`auth-tls-secret`), and verified for each request, since the
//! host of a request is not always the one that its connection was made for.

use std::sync::Arc;

use base::tls::{provider, verify_handshake, verify_version_1};
use k8s_openapi::api::core::v1::Secret;
use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ProtocolVersion, RootCertStore, SignatureScheme};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Name;

use super::words;
use crate::patterns::Pattern;

/// What is asked of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// A certificate that the authority has issued.
    #[default]
    On,
    /// None, but one that is shown has to be the authority's.
    Optional,
    /// None, and any is passed on.
    OptionalNoCa,
    /// Nothing.
    Off,
}

/// What an Ingress says of its clients' certificates.
#[derive(Clone, Debug, Default)]
pub struct ClientAuth {
    /// The Secret with the authorities (`ca.crt`), `namespace/name`.
    pub secret: Option<String>,
    /// What is asked for.
    pub verify: Verify,
    /// Back ends get the certificate.
    pub pass: bool,
    /// What the subject has to be like.
    pub subject: Option<Arc<Pattern>>,
    /// Where those are sent who have no good one.
    pub error_page: Option<String>,
}

impl ClientAuth {
    /// Whether clients are asked for a certificate.
    pub fn asks(&self) -> bool {
        self.secret.is_some() && self.verify != Verify::Off
    }
}

/// What a client has shown when its connection was made.
#[derive(Clone, Debug, Default)]
pub enum Shown {
    /// It was not asked.
    #[default]
    NotAsked,
    /// It was asked and has shown nothing.
    Nothing,
    /// A certificate.
    Chain(Arc<Chain>),
}

/// The certificate of a client, and what an authority said of it.
#[derive(Debug)]
pub struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    /// Verifying costs as much as a handshake: of a connection's requests the first does it.
    verdict: Mutex<Option<(Arc<Authorities>, Verdict)>>,
}

type Verdict = Result<(), String>;

impl Chain {
    /// Of what a handshake has brought, the client's own first.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        Self { certificates, verdict: Mutex::default() }
    }

    fn verdict(&self, authorities: &Arc<Authorities>) -> Verdict {
        let mut known = self.verdict.lock();
        if let Some((of, verdict)) = &*known
            && Arc::ptr_eq(of, authorities)
        {
            return verdict.clone();
        }
        let verdict = authorities.verify(&self.certificates);
        *known = Some((authorities.clone(), verdict.clone()));
        verdict
    }

    /// Subject and issuer as RFC 4514 writes them.
    pub fn names(&self) -> Option<(String, String)> {
        let (_, certificate) = x509_parser::parse_x509_certificate(self.certificates.first()?).ok()?;
        Some((distinguished(certificate.subject()), distinguished(certificate.issuer())))
    }

    /// The certificate as PEM, with what has a meaning in URLs escaped.
    pub fn escaped(&self) -> String {
        use base64::Engine;
        let der = self.certificates.first().map(|one| one.as_ref()).unwrap_or_default();
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
        pem.bytes().map(escape).collect()
    }
}

fn escape(byte: u8) -> String {
    match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    }
}

/// The last part first, with commas.
fn distinguished(name: &X509Name<'_>) -> String {
    let registry = x509_parser::objects::oid_registry();
    let part = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        let kind = x509_parser::objects::oid2abbrev(attribute.attr_type(), registry).map(str::to_owned);
        let value = attribute.as_str().unwrap_or_default();
        let mut escaped = String::with_capacity(value.len());
        for letter in value.chars().filter(|letter| !letter.is_control()) {
            if ",+\"\\<>;=".contains(letter) {
                escaped.push('\\');
            }
            escaped.push(letter);
        }
        format!("{}={escaped}", kind.unwrap_or_else(|_| attribute.attr_type().to_id_string()))
    };
    let mut parts: Vec<String> = name.iter_attributes().map(part).collect();
    parts.reverse();
    parts.join(",")
}

/// The authorities in a Secret, and what they have revoked.
#[derive(Debug)]
pub struct Authorities {
    webpki: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
}

/// A Secret has no authorities.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It has none.
    #[error("it has no certificates in ca.crt")]
    Missing,
    /// They cannot be used.
    #[error("ca.crt or ca.crl: {0}")]
    Unusable(#[from] rustls::server::VerifierBuilderError),
}

impl Authorities {
    /// Those of `ca.crt`, and the revocations of `ca.crl`.
    ///
    /// # Errors
    /// There are none.
    pub fn of(secret: &Secret) -> Result<Self, Error> {
        let data =
            |name| secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice()).unwrap_or_default();
        Self::of_bundle(data("ca.crt"), data("ca.crl"))
    }

    /// Those of a bundle, and the revocations of another.
    ///
    /// # Errors
    /// There are none.
    pub fn of_bundle(authorities: &[u8], revoked: &[u8]) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authorities).flatten());
        if roots.is_empty() {
            return Err(Error::Missing);
        }
        let (roots, revoked) =
            (Arc::new(roots), CertificateRevocationListDer::pem_slice_iter(revoked).flatten().collect::<Vec<_>>());
        let builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).with_crls(revoked.iter().cloned());
        let builder = builder.allow_unknown_revocation_status().only_check_end_entity_revocation();
        Ok(Self { webpki: builder.build()?, roots, revoked })
    }

    fn verify(&self, chain: &[CertificateDer<'static>]) -> Verdict {
        let (leaf, rest) = chain.split_first().ok_or("no certificate")?;
        let now = UnixTime::now();
        let verified = self.webpki.verify_client_cert(leaf, rest, now).map(drop);
        let verified = verified.or_else(|error| match verify_version_1(leaf, &self.roots, now) {
            Some(Ok(())) if self.has_revoked(leaf) => Err(CertificateError::Revoked.into()),
            other => other.unwrap_or(Err(error)),
        });
        verified.map_err(|error| words::unverified(&error))
    }

    /// Whether a certificate of version 1, which webpki does not read, stands in a list of its issuer.
    fn has_revoked(&self, leaf: &CertificateDer<'_>) -> bool {
        let Ok((_, leaf)) = x509_parser::parse_x509_certificate(leaf) else { return true };
        self.revoked.iter().any(|list| match CertificateRevocationList::from_der(list) {
            Ok((_, list)) => {
                let is_its = list.issuer().as_raw() == leaf.issuer().as_raw();
                is_its && list.iter_revoked_certificates().any(|one| one.raw_serial() == leaf.raw_serial())
            }
            Err(_) => true,
        })
    }
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may pass; back ends are told this of the certificate.
    Pass(String),
    /// It came over a connection on which nobody was asked: another one will do.
    Misdirected,
    /// The certificate is missing or not good.
    Refused,
    /// The subject is not the one.
    Forbidden,
    /// The authorities are not known.
    Closed,
}

/// Whether a client may ask by what it has shown.
pub fn admit(auth: &ClientAuth, authorities: Option<&Arc<Authorities>>, tls: bool, shown: &Shown) -> Admission {
    let Some(authorities) = authorities else { return Admission::Closed };
    let none = || "NONE".to_owned();
    let (chain, verdict) = match (shown, auth.verify) {
        (_, Verify::Off) => return Admission::Pass(none()),
        (Shown::NotAsked, Verify::On) => return if tls { Admission::Misdirected } else { Admission::Refused },
        (Shown::Nothing, Verify::On) => return Admission::Refused,
        (Shown::NotAsked | Shown::Nothing, _) => {
            return if auth.subject.is_some() { Admission::Forbidden } else { Admission::Pass(none()) };
        }
        (Shown::Chain(chain), _) => (chain, chain.verdict(authorities)),
    };
    if verdict.is_err() && auth.verify != Verify::OptionalNoCa {
        return Admission::Refused;
    }
    let subject = chain.names().map(|(subject, _)| subject).unwrap_or_default();
    if auth.subject.as_ref().is_some_and(|wanted| !wanted.is_match(&subject)) {
        return Admission::Forbidden;
    }
    Admission::Pass(verdict.map_or_else(
        |why| format!("FAILED:{}", why.replace(|c: char| !c.is_ascii() || c.is_ascii_control(), " ")),
        |()| "SUCCESS".to_owned(),
    ))
}

/// Asks every client for a certificate and takes any, or none: what it is worth is said when the route of a request is known.
#[derive(Debug)]
pub(crate) struct Anyone;

impl ClientCertVerifier for Anyone {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
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
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_handshake(ProtocolVersion::TLSv1_2, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_handshake(ProtocolVersion::TLSv1_3, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base::tls::{Authority, Request};

    use super::*;

    fn authorities(of: &Authority) -> Arc<Authorities> {
        let data = [("ca.crt".to_owned(), k8s_openapi::ByteString(of.bundle().as_bytes().to_vec()))];
        Arc::new(Authorities::of(&Secret { data: Some(data.into()), ..Secret::default() }).unwrap())
    }

    fn shown(by: &Authority, name: &str) -> Shown {
        let identity = by.issue(&Request::Client { user: name.into(), groups: vec!["ops, all".into()] }).unwrap();
        Shown::Chain(Arc::new(Chain::new(CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).flatten().collect())))
    }

    #[test]
    fn who_may_pass() {
        let (ours, other) = (Authority::in_memory("ours").unwrap(), Authority::in_memory("other").unwrap());
        let trusted = authorities(&ours);
        let check = |verify: Verify, subject: Option<&str>, shown: &Shown, expected: &str| {
            let subject = subject.map(|subject| crate::patterns::pattern("a", subject, false).unwrap());
            let auth = ClientAuth { secret: Some("a/s".into()), verify, subject, ..ClientAuth::default() };
            let found = admit(&auth, Some(&trusted), true, shown);
            let found = match &found {
                Admission::Pass(said) => said.split(':').next().unwrap_or_default().to_owned(),
                other => format!("{other:?}"),
            };
            assert_eq!(found, expected, "{verify:?} {subject:?} {shown:?}", subject = auth.subject);
        };
        let (good, bad) = (shown(&ours, "anna"), shown(&other, "anna"));
        check(Verify::On, None, &good, "SUCCESS");
        check(Verify::On, None, &good, "SUCCESS");
        check(Verify::On, None, &bad, "Refused");
        check(Verify::On, None, &Shown::Nothing, "Refused");
        check(Verify::On, None, &Shown::NotAsked, "Misdirected");
        check(Verify::Optional, None, &Shown::Nothing, "NONE");
        check(Verify::Optional, None, &bad, "Refused");
        check(Verify::OptionalNoCa, None, &bad, "FAILED");
        // As nginx says it: "FAILED:reason".
        let optional = ClientAuth { secret: Some("a/s".into()), verify: Verify::OptionalNoCa, ..ClientAuth::default() };
        let said = admit(&optional, Some(&trusted), true, &bad);
        assert_eq!(said, Admission::Pass("FAILED:unable to get local issuer certificate".to_owned()));
        check(Verify::Off, None, &Shown::NotAsked, "NONE");
        check(Verify::On, Some("CN=anna"), &good, "SUCCESS");
        check(Verify::On, Some("CN=berta"), &good, "Forbidden");
        check(Verify::Optional, Some("CN=anna"), &Shown::Nothing, "Forbidden");
        let auth = ClientAuth { secret: Some("a/s".into()), ..ClientAuth::default() };
        assert_eq!(admit(&auth, None, true, &good), Admission::Closed);
        assert_eq!(admit(&auth, Some(&trusted), false, &Shown::NotAsked), Admission::Refused);
        assert!(Authorities::of(&Secret::default()).is_err());
    }

    /// Another authority is asked anew, whatever the one before has said.
    #[test]
    fn verdicts_are_an_authoritys_own() {
        let (ours, other) = (Authority::in_memory("ours").unwrap(), Authority::in_memory("other").unwrap());
        let Shown::Chain(chain) = shown(&ours, "anna") else { panic!("no chain") };
        assert!(chain.verdict(&authorities(&ours)).is_ok());
        assert!(chain.verdict(&authorities(&other)).is_err());
        let (subject, issuer) = chain.names().unwrap();
        assert!(
            subject.contains("CN=anna") && subject.contains("O=ops\\, all") && issuer.contains("CN=ours"),
            "{subject} {issuer}"
        );
        assert!(chain.escaped().starts_with("-----BEGIN%20CERTIFICATE-----%0A"));
    }

    /// `openssl x509 -req` makes certificates of X.509 version 1, as the guides of ingress-nginx do; the authority can revoke them, too.
    #[test]
    fn certificates_of_version_1() {
        use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
        use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, date_time_ymd};
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "ca");
        let key = KeyPair::generate().unwrap();
        std::fs::write(directory.path().join("ca.key"), key.serialize_pem()).unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        std::fs::write(directory.path().join("ca.crt"), issuer.pem()).unwrap();
        for command in [
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout anna.key -out anna.csr -subj /CN=anna",
            "x509 -req -in anna.csr -CA ca.crt -CAkey ca.key -set_serial 7 -out anna.crt -days 2",
        ] {
            let mut openssl = std::process::Command::new("openssl");
            let out = openssl.args(command.split(' ')).current_dir(directory.path()).output().unwrap();
            assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
        }
        let anna = std::fs::read(directory.path().join("anna.crt")).unwrap();
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&anna).flatten().collect();
        let revoking = |serial: u64| {
            let revoked = RevokedCertParams {
                serial_number: serial.into(),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            };
            let list = CertificateRevocationListParams {
                this_update: date_time_ymd(2026, 1, 1),
                next_update: date_time_ymd(4000, 1, 1),
                crl_number: 1.into(),
                issuing_distribution_point: None,
                revoked_certs: vec![revoked],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            list.signed_by(&issuer).unwrap().pem().unwrap()
        };
        let check = |lists: &str, expected: Verdict| {
            let authorities = Authorities::of_bundle(issuer.pem().as_bytes(), lists.as_bytes()).unwrap();
            assert_eq!(authorities.verify(&chain), expected);
        };
        check("", Ok(()));
        check(&revoking(8), Ok(()));
        check(&revoking(7), Err("certificate revoked".to_owned()));
        let other = Authorities::of_bundle(Authority::in_memory("ca").unwrap().bundle().as_bytes(), b"").unwrap();
        assert!(other.verify(&chain).is_err());
    }
}
