//! Requests for certificates (PKCS #10, RFC 2986) and certificates that answer them (RFC 5280).
//!
//! The subject and the names of the certificate are written from what was read of the request, and what cannot be read is refused: other
//! readers must not find more in a certificate than was checked here.

mod subject;

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair, SigningKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use signatures::{PublicKey, Signed};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use self::subject::Subject;
use super::authority::{Authority, BACKDATE, subject};
use super::der::{self, BIT_STRING, ECDSA_WITH_SHA256, INTEGER, OBJECT, SEQUENCE, extension, tlv};
use super::{Error, Request};

/// The annotation of a Node that says by which key it has joined: the SHA-256 of the public key, hex. Its name is given to nobody else. By the same
/// name users who are nodes have an extra: the key of the certificate that they have shown.
pub const NODE_KEY: &str = "knarr.io/node-key";

/// What a certificate may be used for, as far as the cluster's authority certifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Signatures of handshakes.
    DigitalSignature,
    /// Encryption of keys, which RSA handshakes need.
    KeyEncipherment,
    /// A server.
    ServerAuth,
    /// A client.
    ClientAuth,
}

/// What is asked for. Its signature is by the key that it names.
#[derive(Clone, Debug)]
pub struct SigningRequest {
    /// Common name.
    pub name: String,
    /// Organizations.
    pub organizations: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
    /// Whether it has names of other kinds: mail addresses, URIs.
    pub others: bool,
    subject: Vec<u8>,
    key: Vec<u8>,
    names: Option<Vec<u8>>,
}

impl SigningRequest {
    /// Reads a PEM block `CERTIFICATE REQUEST`.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let wrong = |why: String| Error::Parse(format!("certificate request: {why}"));
        let block = pem::parse(text).map_err(|error| wrong(error.to_string()))?;
        let (_, request) = X509CertificationRequest::from_der(block.contents()).map_err(|error| wrong(error.to_string()))?;
        let info = &request.certification_request_info;
        let key = PublicKey::read(info.subject_pki.raw);
        if !key.zip(Signed::read(block.contents())).is_some_and(|(key, signed)| signed.is_by(key)) {
            return Err(wrong("its signature is not by its key".to_owned()));
        }
        let Subject { name, organizations, encoded } = Subject::read(&info.subject).map_err(wrong)?;
        let mut found = Self {
            name,
            organizations,
            dns: Vec::new(),
            ips: Vec::new(),
            others: false,
            subject: encoded,
            key: info.subject_pki.raw.to_vec(),
            names: None,
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                found.take_names(&names.general_names).map_err(wrong)?;
            }
        }
        Ok(found)
    }

    fn take_names(&mut self, names: &[GeneralName<'_>]) -> Result<(), String> {
        let mut encoded = Vec::new();
        for name in names {
            match name {
                GeneralName::DNSName(name) => {
                    self.dns.push((*name).to_owned());
                    encoded.push(tlv(0x82, &[name.as_bytes()]));
                }
                GeneralName::IPAddress(octets) => {
                    let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
                    let address = v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from));
                    self.ips.push(address.map_err(|_| "an IP address has neither 4 nor 16 bytes".to_owned())?);
                    encoded.push(tlv(0x87, &[octets]));
                }
                GeneralName::RFC822Name(name) => {
                    self.others = true;
                    encoded.push(tlv(0x81, &[name.as_bytes()]));
                }
                GeneralName::URI(name) => {
                    self.others = true;
                    encoded.push(tlv(0x86, &[name.as_bytes()]));
                }
                other => return Err(format!("names of this kind are not certified: {other:?}")),
            }
        }
        let parts: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
        self.names = Some(tlv(SEQUENCE, &parts));
        Ok(())
    }

    /// The SHA-256 of the public key, hex: the same for all requests of a key.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.key))
    }
}

/// The SHA-256 of the public key of a private key (PEM), hex, as [`SigningRequest::fingerprint`] tells it.
pub fn fingerprint_of_key(key: &str) -> Result<String, Error> {
    use rcgen::PublicKeyData;
    Ok(hex(&Sha256::digest(KeyPair::from_pem(key)?.subject_public_key_info())))
}

/// The SHA-256 of a bundle's certificates (DER, one after the other), hex: by it whoever has only the digest knows the bundle.
pub fn digest_of_bundle(bundle: &str) -> Result<String, Error> {
    let mut digest = Sha256::new();
    let mut any = false;
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        digest.update(certificate.map_err(|error| Error::Parse(format!("certificate authority: {error}")))?);
        any = true;
    }
    if any {
        Ok(hex(&digest.finalize()))
    } else {
        Err(Error::Parse("certificate authority: no certificate in the bundle".into()))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Asks for a certificate for the key (PEM). The answer is a PEM block `CERTIFICATE REQUEST`.
pub fn request(key: &str, wanted: &Request) -> Result<String, Error> {
    let (name, organizations, sans) = match wanted {
        Request::Server { name, sans } => (name, &[][..], sans.as_slice()),
        Request::Client { user, groups } => (user, groups.as_slice(), &[][..]),
        Request::Both { user, groups, sans } => (user, groups.as_slice(), sans.as_slice()),
    };
    let mut params = CertificateParams::new(sans.to_vec())?;
    params.distinguished_name = subject(name, organizations)?;
    Ok(params.serialize_request(&KeyPair::from_pem(key)?)?.pem()?)
}

/// What a certificate says.
pub(super) struct Content<'a> {
    /// Of whom, encoded.
    pub(super) subject: &'a [u8],
    /// Whose key, encoded with its algorithm.
    pub(super) key: &'a [u8],
    /// Alternative names, encoded.
    pub(super) names: Option<&'a [u8]>,
    /// What it may be used for.
    pub(super) usages: &'a [Usage],
    /// An extension of its own, encoded.
    pub(super) extension: Option<&'a [u8]>,
}

impl Authority {
    /// Answers a request with a certificate (PEM) that is valid for `lifetime`, but not longer than the authority's own.
    pub fn sign(&self, request: &SigningRequest, usages: &[Usage], lifetime: Duration) -> Result<String, Error> {
        let now = Timestamp::now().as_second();
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        // Upstream's signers set it back by five minutes; a short life is not spent on that.
        let start = now.saturating_sub(i64::try_from(BACKDATE.as_secs()).unwrap_or_default().min(300));
        let end = now.saturating_add(seconds).min(self.end()?);
        let SigningRequest { subject, key, names, .. } = request;
        let content = Content { subject, key, names: names.as_deref(), usages, extension: None };
        Ok(self.chained(self.seal(&content, (start, end))?))
    }

    /// When the authority's own certificate ends, in seconds since the Unix epoch.
    pub(super) fn end(&self) -> Result<i64, Error> {
        self.with_own(|own| own.validity().not_after.timestamp())
    }

    /// Signs a certificate (PEM) that is valid from one second to another.
    pub(super) fn seal(&self, content: &Content<'_>, (start, end): (i64, i64)) -> Result<String, Error> {
        let key = self.issuer.key();
        if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(Error::Parse("the authority's key: only ECDSA P-256 keys sign requests".into()));
        }
        let (start, end) = (der::time(start)?, der::time(end)?);
        let certificate = self.with_own(|own| tbs(content, own.subject().as_raw(), key_id(own), (&start, &end)))?;
        let signature = key.sign(&certificate)?;
        let signature = tlv(BIT_STRING, &[&[0], &signature]);
        Ok(der::certificate_pem(tlv(SEQUENCE, &[&certificate, ECDSA_WITH_SHA256, &signature])))
    }

    /// What the authority's own certificate says.
    fn with_own<T>(&self, read: impl FnOnce(&X509Certificate<'_>) -> T) -> Result<T, Error> {
        let wrong = |why: String| Error::Parse(format!("certificate authority: {why}"));
        let own = CertificateDer::from_pem_slice(self.own().as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let (_, own) = x509_parser::parse_x509_certificate(&own).map_err(|error| wrong(error.to_string()))?;
        Ok(read(&own))
    }
}

/// The certificate of an authority, signed by another one with its key: what it is of stays the same, also when it begins and ends.
///
/// # Errors
/// One of them cannot be read, or the key is none of P-256.
pub(super) fn crossed(own: &str, by: &str, key: &KeyPair) -> Result<String, Error> {
    let wrong = |why: String| Error::Parse(format!("certificate authority: {why}"));
    if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(wrong("the former authority's key is none of ECDSA P-256".into()));
    }
    let der = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| wrong(error.to_string()));
    let (own, by) = (der(own)?, der(by)?);
    let (_, own) = x509_parser::parse_x509_certificate(&own).map_err(|error| wrong(error.to_string()))?;
    let (_, by) = x509_parser::parse_x509_certificate(&by).map_err(|error| wrong(error.to_string()))?;
    if by.basic_constraints().ok().flatten().is_some_and(|basic| basic.value.path_len_constraint == Some(0)) {
        return Err(wrong(format!("{} lets no authority be below it (its pathlen is 0)", by.subject())));
    }
    let end = own.validity().not_after.timestamp().min(by.validity().not_after.timestamp());
    let validity = tlv(SEQUENCE, &[&der::time(own.validity().not_before.timestamp())?, &der::time(end)?]);
    let is_of_issuer = |parsed: &ParsedExtension<'_>| matches!(parsed, ParsedExtension::AuthorityKeyIdentifier(_));
    let kept = own.extensions().iter().filter(|kept| !is_of_issuer(kept.parsed_extension()));
    let mut extensions: Vec<Vec<u8>> = kept.map(|kept| extension(kept.oid.as_bytes(), kept.critical, kept.value)).collect();
    extensions.extend(key_id(&by).map(issued_by));
    let extensions: Vec<&[u8]> = extensions.iter().map(Vec::as_slice).collect();
    let extensions = tlv(0xa3, &[&tlv(SEQUENCE, &extensions)]);
    let (issuer, subject) = (by.subject().as_raw(), own.subject().as_raw());
    let parts: [&[u8]; 8] =
        [&version(), &serial(), ECDSA_WITH_SHA256, issuer, &validity, subject, own.public_key().raw, &extensions];
    let certificate = tlv(SEQUENCE, &parts);
    let signature = tlv(BIT_STRING, &[&[0], &key.sign(&certificate)?]);
    Ok(der::certificate_pem(tlv(SEQUENCE, &[&certificate, ECDSA_WITH_SHA256, &signature])))
}

/// The identifier of an authority's key, as its certificate has it.
fn key_id<'a>(authority: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    authority.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

/// The extension that says by which key a certificate was signed.
fn issued_by(key_id: &[u8]) -> Vec<u8> {
    extension(&[0x55, 0x1d, 0x23], false, &tlv(SEQUENCE, &[&tlv(0x80, &[key_id])]))
}

fn version() -> Vec<u8> {
    tlv(0xa0, &[&tlv(INTEGER, &[&[2]])])
}

/// Positive and of full length, whatever the first byte is.
fn serial() -> Vec<u8> {
    let mut serial = *uuid::Uuid::new_v4().as_bytes();
    serial[0] = serial[0] & 0x3f | 0x40;
    tlv(INTEGER, &[&serial])
}

/// TBSCertificate of RFC 5280, section 4.1.
fn tbs(content: &Content<'_>, issuer: &[u8], key_id: Option<&[u8]>, (start, end): (&[u8], &[u8])) -> Vec<u8> {
    let validity = tlv(SEQUENCE, &[start, end]);
    let has = |usage| content.usages.contains(&usage);
    let mut extensions = Vec::new();
    let bits = u8::from(has(Usage::DigitalSignature)) << 7 | u8::from(has(Usage::KeyEncipherment)) << 5;
    if bits != 0 {
        let unused = bits.trailing_zeros() as u8;
        extensions.push(extension(&[0x55, 0x1d, 0x0f], true, &tlv(BIT_STRING, &[&[unused, bits]])));
    }
    let purposes = [(Usage::ServerAuth, 1), (Usage::ClientAuth, 2)].into_iter().filter(|(usage, _)| has(*usage));
    let purposes: Vec<_> = purposes.map(|(_, last)| tlv(OBJECT, &[&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, last]])).collect();
    if !purposes.is_empty() {
        let purposes: Vec<&[u8]> = purposes.iter().map(Vec::as_slice).collect();
        extensions.push(extension(&[0x55, 0x1d, 0x25], false, &tlv(SEQUENCE, &purposes)));
    }
    extensions.push(extension(&[0x55, 0x1d, 0x13], true, &tlv(SEQUENCE, &[])));
    extensions.extend(key_id.map(issued_by));
    if let Some(names) = content.names {
        extensions.push(extension(&[0x55, 0x1d, 0x11], false, names));
    }
    extensions.extend(content.extension.map(<[u8]>::to_vec));
    let extensions: Vec<&[u8]> = extensions.iter().map(Vec::as_slice).collect();
    let extensions = tlv(0xa3, &[&tlv(SEQUENCE, &extensions)]);
    let (subject, key) = (content.subject, content.key);
    let parts: [&[u8]; 8] = [&version(), &serial(), ECDSA_WITH_SHA256, issuer, &validity, subject, key, &extensions];
    tlv(SEQUENCE, &parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::tls::{Identity, Peer, Resolver, Verifier, client, generate_key, server};

    const ALL: [Usage; 3] = [Usage::DigitalSignature, Usage::ServerAuth, Usage::ClientAuth];

    fn both() -> Request {
        let sans = vec!["localhost".to_owned(), "10.0.0.1".to_owned(), "fd00::1".to_owned()];
        Request::Both { user: "system:node:a".into(), groups: vec!["system:nodes".into(), "b".into()], sans }
    }

    #[test]
    fn a_request_says_what_it_was_made_of() {
        let key = generate_key().unwrap();
        let parsed = SigningRequest::parse(request(&key, &both()).unwrap().as_bytes()).unwrap();
        assert_eq!((parsed.name.as_str(), parsed.organizations.len(), parsed.others), ("system:node:a", 2, false));
        assert_eq!((parsed.dns, parsed.ips.len()), (vec!["localhost".to_owned()], 2));
        let again = SigningRequest::parse(request(&key, &both()).unwrap().as_bytes()).unwrap();
        assert_eq!(again.fingerprint(), fingerprint_of_key(&key).unwrap());
        let other = generate_key().unwrap();
        assert_ne!(again.fingerprint(), fingerprint_of_key(&other).unwrap());
        assert!(
            SigningRequest::parse(b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n").is_err()
        );
    }

    #[tokio::test]
    async fn handshakes_accept_what_was_signed() {
        let authority = Arc::new(Authority::in_memory("cluster").unwrap());
        let key = generate_key().unwrap();
        let asked = SigningRequest::parse(request(&key, &both()).unwrap().as_bytes()).unwrap();
        let certificate = authority.sign(&asked, &ALL, Duration::from_secs(3600)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let paths = (dir.path().join("a.crt"), dir.path().join("a.key"));
        let identity = Identity { certificate, key };
        assert!(identity.is_issued_by(authority.bundle()) && identity.fits(&both()));
        identity.store(&paths.0, &paths.1).unwrap();
        let resolver = Resolver::files(&paths.0, &paths.1).unwrap();
        let verifier = Verifier::new(authority.bundle()).unwrap();
        let acceptor = TlsAcceptor::from(server(resolver.clone(), Some(verifier.clone())).unwrap());
        let connector = TlsConnector::from(Arc::new(client(authority.bundle(), Some(resolver)).unwrap()));
        for name in ["localhost", "10.0.0.1"] {
            let (a, b) = tokio::io::duplex(64 << 10);
            let name = ServerName::try_from(name).unwrap();
            let (served, connected) = tokio::join!(acceptor.accept(a), connector.connect(name, b));
            connected.unwrap();
            let peer = verifier.peer(served.unwrap().get_ref().1.peer_certificates());
            let Peer::User { name, groups, .. } = peer else { panic!("{peer:?}") };
            assert_eq!((name.as_str(), groups), ("system:node:a", vec!["system:nodes".to_owned(), "b".to_owned()]));
        }
    }

    #[test]
    fn a_certificate_is_valid_as_long_as_was_asked() {
        let authority = Authority::in_memory("cluster").unwrap();
        let check = |hours: u64, expected: u64| {
            let key = generate_key().unwrap();
            let asked = SigningRequest::parse(request(&key, &both()).unwrap().as_bytes()).unwrap();
            let certificate = authority.sign(&asked, &ALL, Duration::from_secs(3600 * hours)).unwrap();
            let (start, end) = Identity { certificate, key }.validity().unwrap();
            let lasts = end.duration_since(start).unwrap().as_secs();
            assert!(lasts.abs_diff(3600 * expected) <= 600, "{hours}: {lasts}");
        };
        check(1, 1);
        check(24 * 365, 24 * 365);
        // The authority's own end, in the next decade but not later.
        check(24 * 365 * 40, 24 * 3650);
    }

    #[test]
    fn a_bundle_is_known_by_its_digest() {
        let (a, b) = (Authority::in_memory("a").unwrap(), Authority::in_memory("b").unwrap());
        let digest = |text: &str| digest_of_bundle(text).unwrap();
        assert_eq!(digest(a.bundle()), digest(&format!("{}\n", a.bundle())));
        assert_ne!(digest(a.bundle()), digest(b.bundle()));
        assert_ne!(digest(a.bundle()), digest(&format!("{}{}", a.bundle(), b.bundle())));
        assert!(digest_of_bundle("").is_err());
    }
}
