//! Certificates of pods (KEP-4317): keys and requests as kubelets make them, and the certificates of clients of the API server that the
//! cluster's authority issues for them.
//!
//! Such a certificate has no name. Whose it is says an extension, `PodIdentity`. The KEP has it marked as critical, which no verifier that
//! does not know it accepts; rustls, with which many clients are built, then refuses the certificate on the side of its own holder, too. So it
//! is not marked: without a name the certificate is nobody's to whoever does not know the extension.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use ring::rand::SecureRandom;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::asn1_rs::{Any, Class};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::Error;
use super::authority::Authority;
use super::der::{self, BIT_STRING, INTEGER, OCTET_STRING, SEQUENCE, certificate_pem, pem_block, tlv};
use super::signing::{Content, Usage};

/// The object identifier 1.3.6.1.4.1.57683.1, as it is encoded.
const POD_IDENTITY: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xc2, 0x53, 0x01];
const POD_IDENTITY_TEXT: &str = "1.3.6.1.4.1.57683.1";
/// The longest life of a certificate of a signer of `kubernetes.io`.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How far back a certificate is valid. The API takes at most five minutes, from when it is told.
const BACKDATE: Duration = Duration::from_secs(120);

/// A type of key that kubelets make here. The API also knows RSA3072 and RSA4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// Edwards curve 25519 (RFC 8032).
    Ed25519,
    /// ECDSA on the curve P-256.
    EcdsaP256,
    /// ECDSA on the curve P-384.
    EcdsaP384,
    /// ECDSA on the curve P-521.
    EcdsaP521,
}

impl KeyType {
    /// The types by the names that the API has for them.
    pub const ALL: [(&'static str, Self); 4] = [
        ("ECDSAP256", Self::EcdsaP256),
        ("ECDSAP384", Self::EcdsaP384),
        ("ECDSAP521", Self::EcdsaP521),
        ("ED25519", Self::Ed25519),
    ];

    /// The type with this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    fn generate(self) -> Result<PodKey, Error> {
        let key = match self {
            Self::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
            Self::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
            Self::EcdsaP521 => return p521(),
            Self::Ed25519 => {
                // In the first version of PKCS #8 (RFC 5208): OpenSSL does not read the second one, which has the public key, too.
                let mut seed = [0; 32];
                let random = ring::rand::SystemRandom::new();
                random.fill(&mut seed).map_err(|_| Error::Parse("random bytes for a key".into()))?;
                let algorithm = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
                let key = tlv(OCTET_STRING, &[&tlv(OCTET_STRING, &[&seed])]);
                let der = tlv(SEQUENCE, &[&[0x02, 0x01, 0x00], &algorithm, &key]);
                let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der));
                KeyPair::from_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)?
            }
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?.der().to_vec();
        Ok(PodKey { key: key.serialize_pem(), request })
    }
}

fn p521() -> Result<PodKey, Error> {
    let made = signatures::generate_p521().ok_or_else(|| Error::Parse("random bytes for a key".into()))?;
    // Version 0, no name, no attributes.
    let content = tlv(SEQUENCE, &[&tlv(INTEGER, &[&[0]]), &tlv(SEQUENCE, &[]), &made.public, &tlv(0xa0, &[])]);
    let signature = tlv(BIT_STRING, &[&[0], &made.sign(&content)?]);
    let request = tlv(SEQUENCE, &[&content, &tlv(SEQUENCE, &[&signatures::alg_id::ECDSA_SHA512]), &signature]);
    Ok(PodKey { key: pem_block("PRIVATE KEY", made.key), request })
}

/// A new key, and a request that proves it and says nothing else.
pub struct PodKey {
    /// The private key: a PEM block `PRIVATE KEY` (PKCS #8).
    pub key: String,
    /// The request (PKCS #10, DER), which is empty but for the key.
    pub request: Vec<u8>,
}

impl PodKey {
    /// Makes a key.
    pub fn generate(kind: KeyType) -> Result<Self, Error> {
        kind.generate()
    }
}

/// The certificates of a chain (PEM) and nothing that stands between them, nor headers of the blocks.
pub fn clean_chain(chain: &str) -> Result<String, Error> {
    let mut clean = String::new();
    // The API accepts headers, which not every reader of certificates does.
    let blocks = pem::parse_many(chain).map_err(|error| Error::Parse(format!("certificate chain: {error}")))?;
    for block in blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE") {
        clean.push_str(&certificate_pem(block.into_contents()));
    }
    if clean.is_empty() { Err(Error::Parse("certificate chain: no certificate in it".into())) } else { Ok(clean) }
}

/// The public key that a request (PKCS #10, DER) is for, with its algorithm (DER).
pub fn requested_key(request: &[u8]) -> Result<Vec<u8>, Error> {
    let (_, request) = X509CertificationRequest::from_der(request).map_err(|error| Error::Parse(format!("request: {error}")))?;
    Ok(request.certification_request_info.subject_pki.raw.to_vec())
}

/// What a certificate says of the pod that has it. The order is that of the extension's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentity {
    /// The pod's namespace.
    pub namespace: String,
    /// Its UID.
    pub namespace_uid: String,
    /// The service account as which the pod runs.
    pub service_account: String,
    /// Its UID.
    pub service_account_uid: String,
    /// The pod.
    pub pod: String,
    /// Its UID.
    pub pod_uid: String,
    /// The node on which it runs.
    pub node: String,
    /// Its UID.
    pub node_uid: String,
}

impl PodIdentity {
    fn fields(&self) -> [&str; 8] {
        [
            &self.namespace,
            &self.namespace_uid,
            &self.service_account,
            &self.service_account_uid,
            &self.pod,
            &self.pod_uid,
            &self.node,
            &self.node_uid,
        ]
    }

    /// The extension's value: a sequence of texts, each under its number.
    fn encode(&self) -> Vec<u8> {
        let fields = self.fields();
        let parts: Vec<Vec<u8>> = (0x80..).zip(fields).map(|(tag, text)| tlv(tag, &[text.as_bytes()])).collect();
        tlv(SEQUENCE, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (rest, sequence) = Any::from_der(value).ok()?;
        if !rest.is_empty() || sequence.class() != Class::Universal || sequence.tag().0 != 16 {
            return None;
        }
        let mut left = sequence.data;
        let mut next = |number: u32| {
            let (rest, field) = Any::from_der(left).ok()?;
            left = rest;
            let is_it = field.class() == Class::ContextSpecific && field.tag().0 == number && !field.header.is_constructed();
            is_it.then(|| std::str::from_utf8(field.data).ok().map(str::to_owned)).flatten()
        };
        let identity = Self {
            namespace: next(0)?,
            namespace_uid: next(1)?,
            service_account: next(2)?,
            service_account_uid: next(3)?,
            pod: next(4)?,
            pod_uid: next(5)?,
            node: next(6)?,
            node_uid: next(7)?,
        };
        (left.is_empty() && identity.fields().iter().all(|field| !field.is_empty())).then_some(identity)
    }

    /// What a certificate says of its pod: none when it has no such extension. An error when it is no certificate of a pod all the same: it has
    /// names, or the extension cannot be read.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Option<Result<Self, &'static str>> {
        let mut found = certificate.extensions().iter().filter(|extension| extension.oid.to_id_string() == POD_IDENTITY_TEXT);
        let extension = found.next()?;
        if found.next().is_some() {
            return Some(Err("the certificate has more than one PodIdentity"));
        }
        if !matches!(certificate.subject_alternative_name(), Ok(None)) {
            return Some(Err("the certificate of a pod has alternative names"));
        }
        Some(Self::decode(extension.value).ok_or("the certificate's PodIdentity cannot be read"))
    }
}

/// A certificate of a pod, and its times.
#[derive(Clone, Debug)]
pub struct PodCertificate {
    /// The certificate, PEM.
    pub certificate: String,
    /// From when on it is valid.
    pub from: Timestamp,
    /// When a new one should be asked for.
    pub refresh: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

impl Authority {
    /// Issues a certificate by which a pod is a client of the API server, for a public key (DER, with its algorithm). It is valid for `most`, but
    /// for no more than a day, and should be renewed at half of that (KEP-4317, "API Server Pod Client Certificate Signer").
    pub fn certify_pod(&self, key: &[u8], identity: &PodIdentity, most: Duration) -> Result<PodCertificate, Error> {
        let life = i64::try_from(most.min(LONGEST).as_secs()).unwrap_or_default();
        let now = Timestamp::now().as_second();
        let from = now - i64::try_from(BACKDATE.as_secs()).unwrap_or_default();
        let until = (from + life).min(self.end()?);
        let extension = der::extension(POD_IDENTITY, false, &identity.encode());
        let content = Content {
            // No name (an empty sequence).
            subject: &tlv(SEQUENCE, &[]),
            key,
            names: None,
            usages: &[Usage::DigitalSignature, Usage::ClientAuth],
            extension: Some(&extension),
        };
        let certificate = self.chained(self.seal(&content, (from, until))?);
        let at = |second| Timestamp::from_second(second).map_err(|error| Error::Parse(format!("a time: {error}")));
        let half = SignedDuration::from_secs((until - from) / 2);
        let (from, until) = (at(from)?, at(until)?);
        Ok(PodCertificate { certificate, from, refresh: from.saturating_add(half).unwrap_or(until), until })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::tls::{Identity, Peer, Request, Resolver, Verifier, client, server};

    fn identity() -> PodIdentity {
        let text = |text: &str| text.to_owned();
        PodIdentity {
            namespace: text("ns"),
            namespace_uid: text("u1"),
            service_account: text("default"),
            service_account_uid: text("u2"),
            pod: text("web-0"),
            pod_uid: text("u3"),
            node: text("n1"),
            node_uid: "n".repeat(200),
        }
    }

    /// KEP-4317: "Have a PodIdentity extension"; the API server takes what it says for the client of the connection.
    #[tokio::test]
    async fn the_api_server_knows_pods_by_their_certificates() {
        let authority = Arc::new(Authority::in_memory("cluster").unwrap());
        let directory = tempfile::tempdir().unwrap();
        let of_server = Request::Server { name: "api".into(), sans: vec!["localhost".into()] };
        let resolver = Resolver::issued(authority.clone(), directory.path(), "server", of_server).unwrap();
        let verifier = Verifier::new(authority.bundle()).unwrap();
        let acceptor = TlsAcceptor::from(server(resolver, Some(verifier.clone())).unwrap());
        for (name, kind) in KeyType::ALL {
            let PodKey { key, request } = PodKey::generate(kind).unwrap();
            assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "{name}");
            let public = requested_key(&request).unwrap();
            let issued = authority.certify_pod(&public, &identity(), Duration::from_secs(3600)).unwrap();
            let paths = (directory.path().join("pod.crt"), directory.path().join("pod.key"));
            Identity { certificate: issued.certificate, key }.store(&paths.0, &paths.1).unwrap();
            let own = Resolver::files(&paths.0, &paths.1).unwrap();
            let connector = TlsConnector::from(Arc::new(client(authority.bundle(), Some(own)).unwrap()));
            let (a, b) = tokio::io::duplex(64 << 10);
            let host = ServerName::try_from("localhost").unwrap();
            let (served, connected) = tokio::join!(acceptor.accept(a), connector.connect(host, b));
            connected.unwrap();
            let peer = verifier.peer(served.unwrap().get_ref().1.peer_certificates());
            let Peer::Pod { identity: found, credential } = peer else { panic!("{name}: {peer:?}") };
            assert_eq!((*found, credential.fingerprint.len()), (identity(), 64), "{name}");
        }
    }

    /// Who trusts the former authority alone knows pods, too, while the authority changes.
    #[test]
    fn certificates_of_pods_come_with_what_others_need_to_believe_them() {
        let [own, former] = ["own", "former"].map(|name| Authority::generate(name).unwrap());
        let bundle = own.certificate + &former.certificate;
        let authority = Authority::from_pem(&bundle, &(own.key + &former.key)).unwrap();
        let public = requested_key(&PodKey::generate(KeyType::EcdsaP256).unwrap().request).unwrap();
        let issued = authority.certify_pod(&public, &identity(), Duration::from_secs(3600)).unwrap();
        let chain: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(issued.certificate.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(chain.len(), 2);
        let peer = Verifier::new(&former.certificate).unwrap().peer(Some(&chain));
        assert!(matches!(&peer, Peer::Pod { identity: found, .. } if **found == identity()), "{peer:?}");
    }

    #[test]
    fn identities_are_read_as_they_are_written() {
        let good = identity().encode();
        assert_eq!(PodIdentity::decode(&good), Some(identity()));
        let check = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bad = good.clone();
            change(&mut bad);
            assert_eq!(PodIdentity::decode(&bad), None, "{bad:02x?}");
        };
        check(&|der| der.truncate(der.len() - 1));
        check(&|der| der.push(0));
        check(&|der| der[0] = 0x31);
        // The first field under another number, with bytes that are no text, or made of parts. Two bytes of length come before it.
        check(&|der| der[4] = 0x81);
        check(&|der| der[6] = 0xff);
        check(&|der| der[4] = 0xa0);
        check(&|der| der.clear());
        let nobody = PodIdentity { pod: String::new(), ..identity() };
        assert_eq!(PodIdentity::decode(&nobody.encode()), None);
    }

    /// KEP-4317: "valid for the lesser of `Spec.MaxExpirationSeconds` or 24 hours, and tells Kubelet to begin refreshing them at the lesser of
    /// `0.5 * Spec.MaxExpirationSeconds` or 12 hours".
    #[test]
    fn certificates_of_pods_are_short() {
        let authority = Authority::in_memory("cluster").unwrap();
        let public = requested_key(&PodKey::generate(KeyType::EcdsaP256).unwrap().request).unwrap();
        let check = |most: u64, life: i64| {
            let issued = authority.certify_pod(&public, &identity(), Duration::from_secs(most)).unwrap();
            let since = |time: Timestamp| time.duration_since(issued.from).as_secs();
            assert_eq!((since(issued.until), since(issued.refresh)), (life, life / 2), "{most}");
            let (start, end) = Identity { certificate: issued.certificate, key: String::new() }.validity().unwrap();
            let second = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
            assert_eq!((second(start), second(end)), (issued.from.as_second(), issued.until.as_second()));
        };
        check(3600, 3600);
        check(86_400, 86_400);
        check(91 * 86_400, 86_400);
    }

    /// KEP-4317: "Contain no SubjectAlternateName data".
    #[test]
    fn what_is_no_certificate_of_a_pod_is_none() {
        let authority = Authority::in_memory("cluster").unwrap();
        let public = requested_key(&PodKey::generate(KeyType::EcdsaP256).unwrap().request).unwrap();
        let verifier = Verifier::new(authority.bundle()).unwrap();
        let check = |names: Option<&[u8]>, value: &[u8], expected: &str| {
            let extension = der::extension(POD_IDENTITY, false, value);
            let content = Content {
                // Somebody: a common name does not make up for a bad extension.
                subject: &tlv(SEQUENCE, &[&tlv(0x31, &[&tlv(SEQUENCE, &[&[0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, b'a']])])]),
                key: &public,
                names,
                usages: &[Usage::ClientAuth],
                extension: Some(&extension),
            };
            let now = Timestamp::now().as_second();
            let certificate = authority.seal(&content, (now - 60, now + 3600)).unwrap();
            let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            assert_eq!(verifier.peer(Some(&[der])), Peer::Invalid(expected.to_owned()));
        };
        let names = tlv(SEQUENCE, &[&tlv(0x82, &[b"api.example"])]);
        check(Some(&names), &identity().encode(), "the certificate of a pod has alternative names");
        check(None, b"?", "the certificate's PodIdentity cannot be read");
    }

    #[test]
    fn chains_are_certificates_only() {
        let (a, b) = (Authority::in_memory("a").unwrap(), Authority::in_memory("b").unwrap());
        let chain = format!("leaf:\n{}\nand\n{}rest", a.bundle().replace("-----\nM", "-----\nX: y\n\nM"), b.bundle());
        let blocks = |text: &str| CertificateDer::pem_slice_iter(text.as_bytes()).map(Result::unwrap).collect::<Vec<_>>();
        let clean = clean_chain(&format!("said\n{}more\n{}", a.bundle(), b.bundle())).unwrap();
        assert_eq!(blocks(&clean), blocks(&format!("{}{}", a.bundle(), b.bundle())));
        assert!(!clean.contains("said") && !clean.contains("more"));
        assert!(clean_chain("").is_err() && clean_chain("nothing").is_err());
        // The API accepts headers of PEM blocks from a signer (RFC 7468 has none); they are left out.
        let with_headers = clean_chain(&chain).unwrap();
        assert_eq!(with_headers, clean);
    }
}
