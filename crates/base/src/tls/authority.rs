//! The cluster's certificate authority and what it issues.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Error;
use crate::files;

const DAY: Duration = Duration::from_secs(24 * 3600);
const CA_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Since the epoch: the beginning of 2026, before which no clock is right.
const FIRST: Duration = Duration::from_secs(1_767_225_600);
const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// How far back certificates are valid, for machines whose clocks differ.
pub(super) const BACKDATE: Duration = Duration::from_secs(3600);

/// A certificate authority with its key, ECDSA P-256.
pub struct Authority {
    bundle: String,
    /// The signer's own certificate, PEM: the first of the bundle.
    own: String,
    /// What comes after each certificate of its own, PEM: while another authority is on its way out, the signer's certificate as that one
    /// has signed it. Whoever trusts only the former authority then trusts the present one.
    chain: String,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

/// The private key of an authority.
pub(super) struct Key(KeyPair);

impl Key {
    /// Whether a certificate (PEM) is of this key.
    pub(super) fn is_of(&self, certificate: &str) -> Result<bool, Error> {
        let unreadable = |why: String| Error::Parse(format!("certificate authority: {why}"));
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|error| unreadable(error.to_string()))?;
        let (_, read) = x509_parser::parse_x509_certificate(&der).map_err(|error| unreadable(error.to_string()))?;
        Ok(read.public_key().subject_public_key.data.as_ref() == self.0.public_key_raw())
    }
}

/// The private keys in the text of a file.
pub(super) fn keys_of(text: &str) -> Result<Vec<Key>, Error> {
    let unreadable = |why: String| Error::Parse(format!("the authority's key: {why}"));
    let blocks = pem::parse_many(text).map_err(|error| unreadable(error.to_string()))?;
    // Other programs put the parameters of the curve beside the key.
    let keys = blocks.iter().filter(|block| block.tag().ends_with("PRIVATE KEY"));
    keys.map(|block| Ok(Key(KeyPair::from_pem(&pem::encode(block))?))).collect()
}

/// A key as a PEM block (PKCS #8).
pub(super) fn block_of(key: &Key) -> String {
    key.0.serialize_pem()
}

/// A certificate chain and its key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The chain, leaf first.
    pub certificate: String,
    /// The private key (PKCS #8).
    pub key: String,
}

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A server that answers to these DNS names and IP addresses.
    Server {
        /// Common name.
        name: String,
        /// Subject alternative names.
        sans: Vec<String>,
    },
    /// A client: a user in groups.
    Client {
        /// Common name.
        user: String,
        /// Organizations.
        groups: Vec<String>,
    },
    /// Both, as a kubelet has it: `CN=user`, `O=groups`, and the names that it serves.
    Both {
        /// Common name.
        user: String,
        /// Organizations.
        groups: Vec<String>,
        /// Subject alternative names.
        sans: Vec<String>,
    },
}

impl Authority {
    /// Reads `NAME.crt` and `NAME.key` under `dir`, or makes them (mode 0600) with `common_name`.
    pub fn load_or_create(dir: &Path, name: &str, common_name: &str) -> Result<Self, Error> {
        if let Some(present) = Self::load(dir, name)? {
            return Ok(present);
        }
        let identity = Self::generate(common_name)?;
        identity.store(&dir.join(format!("{name}.crt")), &dir.join(format!("{name}.key")))?;
        Self::from_pem(&identity.certificate, &identity.key)
    }

    /// Reads `NAME.crt` and `NAME.key` under `dir`; none when there is no such certificate.
    ///
    /// # Errors
    /// They cannot be read, or the keys have none of the first certificate.
    pub fn load(dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        let present = Identity::load(&dir.join(format!("{name}.crt")), &dir.join(format!("{name}.key")))?;
        present.map(|present| Self::from_pem(&present.certificate, &present.key)).transpose()
    }

    /// An authority that lives in memory only.
    pub fn in_memory(common_name: &str) -> Result<Self, Error> {
        let identity = Self::generate(common_name)?;
        Self::from_pem(&identity.certificate, &identity.key)
    }

    /// The certificate and the key of a new authority.
    ///
    /// # Errors
    /// The machine makes no key.
    pub fn generate(common_name: &str) -> Result<Identity, Error> {
        let mut params = params(subject(common_name, &[])?, CA_LIFETIME);
        // An authority cannot be made anew: it holds whatever the clock said at its making.
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = (SystemTime::now().max(UNIX_EPOCH + FIRST) + CA_LIFETIME).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        Ok(Identity { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// The authority of the first certificate of a bundle. Keys of other certificates of the bundle are those of former authorities.
    pub(super) fn from_pem(bundle: &str, keys: &str) -> Result<Self, Error> {
        let certificates = super::bundle::certificates(bundle)?;
        let own = certificates[0].clone();
        let (mut signer, mut chain) = (None, String::new());
        for key in keys_of(keys)? {
            if signer.is_none() && key.is_of(&own)? {
                signer = Some(key.0);
                continue;
            }
            for former in &certificates[1..] {
                if key.is_of(former)? {
                    chain.push_str(&super::signing::crossed(&own, former, &key.0)?);
                }
            }
        }
        let missing = || Error::Parse("certificate authority: none of the keys is that of its first certificate".into());
        let issuer = Issuer::from_ca_cert_pem(&own, signer.ok_or_else(missing)?)?;
        Ok(Self { bundle: bundle.to_owned(), own, chain, issuer })
    }

    /// The certificates that others must trust, PEM.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// The certificate of the authority that signs, PEM: the first of the bundle.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// A certificate of its own (PEM) with what others need to believe it.
    pub(super) fn chained(&self, certificate: String) -> String {
        certificate + &self.chain
    }

    /// Issues a certificate for a year.
    pub fn issue(&self, request: &Request) -> Result<Identity, Error> {
        self.issue_for(request, LEAF_LIFETIME)
    }

    /// Issues a certificate with a lifetime of the caller's.
    pub fn issue_for(&self, request: &Request, lifetime: Duration) -> Result<Identity, Error> {
        let (name, organizations, sans, usages) = match request {
            Request::Server { name, sans } => (name, &[][..], sans.as_slice(), vec![ExtendedKeyUsagePurpose::ServerAuth]),
            Request::Client { user, groups } => (user, groups.as_slice(), &[][..], vec![ExtendedKeyUsagePurpose::ClientAuth]),
            Request::Both { user, groups, sans } => (
                user,
                groups.as_slice(),
                sans.as_slice(),
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            ),
        };
        let mut params = params(subject(name, organizations)?, lifetime);
        params.subject_alt_names = CertificateParams::new(sans.to_vec())?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = self.chained(params.signed_by(&key, &self.issuer)?.pem());
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    /// Whether a certificate is what this authority would issue today: its signature, and what comes with it.
    fn has_issued(&self, identity: &Identity) -> bool {
        let certificates = |text: &str| CertificateDer::pem_slice_iter(text.as_bytes()).count();
        identity.is_issued_by(&self.own) && certificates(&identity.certificate) == 1 + certificates(&self.chain)
    }

    /// The identity of `NAME.crt` and `NAME.key` under `dir`, issued anew when it is missing, when it does not fit the
    /// request or when two thirds of its lifetime have passed.
    pub fn load_or_issue(&self, dir: &Path, name: &str, request: &Request) -> Result<Identity, Error> {
        let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        if let Some(identity) = Identity::load(&certificate, &key)?
            && identity.fits(request)
            && !identity.is_due(SystemTime::now())
            && self.has_issued(&identity)
            && identity.certified().is_ok()
        {
            return Ok(identity);
        }
        let identity = self.issue(request)?;
        identity.store(&certificate, &key)?;
        Ok(identity)
    }
}

impl Identity {
    /// Reads both files; none when the certificate does not exist.
    pub fn load(certificate: &Path, key: &Path) -> Result<Option<Self>, Error> {
        let read = |path: &Path| fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source });
        match read(certificate) {
            Ok(certificate) => Ok(Some(Self { certificate, key: read(key)? })),
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes both files with mode 0600, the key first, each replaced atomically.
    pub fn store(&self, certificate: &Path, key: &Path) -> Result<(), Error> {
        write_private(key, self.key.as_bytes())?;
        write_private(certificate, self.certificate.as_bytes())
    }

    /// As rustls wants it.
    pub fn certified(&self) -> Result<Arc<CertifiedKey>, Error> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::Parse(format!("certificate: {error}")))?;
        let key =
            PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|error| Error::Parse(format!("private key: {error}")))?;
        let key = signatures::provider().key_provider.load_private_key(key)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            // Whoever writes the two files is between the one and the other, or did not come further.
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                Err(Error::Parse("private key: it is that of another certificate".into()))
            }
            _ => Ok(Arc::new(certified)),
        }
    }

    /// When the leaf starts and ends to be valid.
    pub fn validity(&self) -> Result<(SystemTime, SystemTime), Error> {
        self.with_leaf(|leaf| {
            let at = |time: x509_parser::time::ASN1Time| {
                UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
            };
            (at(leaf.validity().not_before), at(leaf.validity().not_after))
        })
    }

    /// Whether two thirds of the lifetime have passed, or none of it: a clock that was ahead leaves certificates that nobody takes for as long.
    /// What cannot be read is due.
    pub fn is_due(&self, now: SystemTime) -> bool {
        self.validity().map_or(true, |(start, end)| now < start || due(start, end) <= now)
    }

    /// How long until two thirds of the lifetime have passed; none of what cannot be read.
    pub fn due_in(&self, now: SystemTime) -> Option<Duration> {
        let (start, end) = self.validity().ok()?;
        Some(due(start, end).duration_since(now).unwrap_or_default())
    }

    /// Whether the leaf is valid at this time.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.validity().is_ok_and(|(start, end)| start <= now && now < end)
    }

    /// Whether the leaf will be valid, and is not yet.
    pub fn is_early(&self, now: SystemTime) -> bool {
        self.validity().is_ok_and(|(start, _)| now < start)
    }

    /// Whether the leaf has the names that the request asks for, and is the user's.
    pub fn fits(&self, request: &Request) -> bool {
        let (user, wanted): (Option<&String>, &[String]) = match request {
            Request::Server { sans, .. } => (None, sans),
            Request::Both { user, sans, .. } => (Some(user), sans),
            Request::Client { user, .. } => (Some(user), &[]),
        };
        self.with_leaf(|leaf| {
            let have = super::peer::alternative_names(leaf);
            let names = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok());
            wanted.iter().all(|name| have.contains(name)) && user.is_none_or(|user| names.into_iter().any(|name| name == user))
        })
        .unwrap_or(false)
    }

    /// Whether the leaf names an authority of this bundle as its issuer, or one does that comes with the leaf, so that a replaced authority
    /// replaces what it issued.
    pub fn is_issued_by(&self, bundle: &str) -> bool {
        use x509_parser::prelude::*;
        let issuer = |der: CertificateDer<'_>| {
            let (_, read) = X509Certificate::from_der(&der).ok()?;
            read.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
                _ => None,
            })
        };
        let issuers: Vec<Vec<u8>> =
            CertificateDer::pem_slice_iter(self.certificate.as_bytes()).flatten().filter_map(issuer).collect();
        let is_one = |der: CertificateDer<'_>| {
            let Ok((_, authority)) = X509Certificate::from_der(&der) else { return false };
            authority.extensions().iter().any(|extension| {
                matches!(extension.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(id) if issuers.iter().any(|issuer| id.0 == issuer))
            })
        };
        CertificateDer::pem_slice_iter(bundle.as_bytes()).flatten().any(is_one)
    }

    fn with_leaf<T>(&self, read: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T) -> Result<T, Error> {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|error| Error::Parse(format!("certificate: {error}")))?;
        let (_, leaf) =
            x509_parser::parse_x509_certificate(&der).map_err(|error| Error::Parse(format!("certificate: {error}")))?;
        Ok(read(&leaf))
    }
}

/// A distinguished name keeps one value per attribute type; the organization's object identifier, spelled out, is a
/// second type, and no identity of the cluster needs a third group.
pub(super) fn subject(name: &str, organizations: &[String]) -> Result<DistinguishedName, Error> {
    let types = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    if organizations.len() > types.len() {
        return Err(Error::Parse(format!("the groups of {name}: a certificate carries at most two")));
    }
    let mut subject = DistinguishedName::new();
    for (kind, organization) in types.into_iter().zip(organizations) {
        subject.push(kind, organization.as_str());
    }
    subject.push(DnType::CommonName, name);
    Ok(subject)
}

fn params(subject: DistinguishedName, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.distinguished_name = subject;
    params.not_before = (now - BACKDATE.min(lifetime)).into();
    params.not_after = (now + lifetime.max(Duration::from_secs(1)).min(CA_LIFETIME + DAY)).into();
    params
}

/// When two thirds of a lifetime have passed.
fn due(start: SystemTime, end: SystemTime) -> SystemTime {
    start + end.duration_since(start).unwrap_or_default() * 2 / 3
}

/// A new ECDSA P-256 key as PEM (PKCS #8).
pub fn generate_key() -> Result<String, Error> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// Reads a file; none when it does not exist.
pub fn read_private(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.into(), source }),
    }
}

/// Replaces a file atomically; only the owner can read it. Directories are made with mode 0700.
pub fn write_private(path: &Path, contents: &[u8]) -> Result<(), Error> {
    files::replace_private(path, contents).map_err(|source| Error::File { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_private_and_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        let first = Authority::load_or_create(&pki, "ca", "test-ca").unwrap();
        let second = Authority::load_or_create(&pki, "ca", "test-ca").unwrap();
        assert_eq!(first.bundle(), second.bundle());
        let mode = |name: &str| fs::metadata(pki.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("ca.key"), mode("ca.crt")), (0o600, 0o600));
        let request = Request::Server { name: "api".into(), sans: vec!["localhost".into(), "127.0.0.1".into()] };
        let issued = second.load_or_issue(&pki, "api", &request).unwrap();
        assert_eq!(second.load_or_issue(&pki, "api", &request).unwrap().certificate, issued.certificate);
        let wider = Request::Server { name: "api".into(), sans: vec!["localhost".into(), "10.0.0.1".into()] };
        assert_ne!(second.load_or_issue(&pki, "api", &wider).unwrap().certificate, issued.certificate);
        let client = |user: &str| Request::Client { user: user.into(), groups: vec![] };
        let jane = second.load_or_issue(&pki, "client", &client("jane")).unwrap();
        assert_eq!(second.load_or_issue(&pki, "client", &client("jane")).unwrap().certificate, jane.certificate);
        std::fs::write(pki.join("client.key"), "").unwrap();
        let again = second.load_or_issue(&pki, "client", &client("jane")).unwrap();
        assert!(again.certificate != jane.certificate && again.certified().is_ok(), "its key was lost");
        let jane = again;
        assert_ne!(second.load_or_issue(&pki, "client", &client("joe")).unwrap().certificate, jane.certificate);
        let other = Authority::in_memory("test-ca").unwrap();
        assert!(issued.is_issued_by(second.bundle()));
        assert!(issued.is_issued_by(&format!("{}{}", other.bundle(), second.bundle())));
        assert!(!issued.is_issued_by(other.bundle()), "another key under the same name");
    }

    #[test]
    fn renewal_is_due_after_two_thirds() {
        let authority = Authority::in_memory("test-ca").unwrap();
        let request = Request::Client { user: "u".into(), groups: vec![] };
        let hours = |n: u64| Duration::from_secs(3600 * n);
        // Valid from an hour ago for five hours more: due three hours from now.
        let identity = authority.issue_for(&request, hours(5)).unwrap();
        let now = SystemTime::now();
        assert!(identity.is_due(now - hours(2)) && !identity.is_due(now), "a clock that was ahead has made it");
        assert!(!identity.is_due(now + hours(2)));
        assert!(identity.is_due(now + hours(4)));
        assert!(identity.due_in(now).unwrap().as_secs().abs_diff(3 * 3600) < 60);
        assert!(identity.is_valid(now) && identity.is_valid(now + hours(4)) && !identity.is_valid(now + hours(6)));
        assert!(identity.is_early(now - hours(2)) && !identity.is_early(now) && !identity.is_early(now + hours(6)));
    }

    #[test]
    fn a_third_group_is_refused() {
        let authority = Authority::in_memory("test-ca").unwrap();
        let groups = |n: usize| (0..n).map(|i| format!("g{i}")).collect();
        assert!(authority.issue(&Request::Client { user: "u".into(), groups: groups(2) }).is_ok());
        assert!(authority.issue(&Request::Client { user: "u".into(), groups: groups(3) }).is_err());
    }
}
