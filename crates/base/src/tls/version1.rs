//! Certificates of X.509 version 1: what `openssl x509 -req` makes unless it is told of extensions. They have none, so they say nothing of
//! what they are for, and are nobody's authority. webpki reads version 3 only; clients and servers in Go take the older one.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, RootCertStore};
use signatures::{PublicKey, Signed};
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::X509Version;

/// Verifies the certificate of a client that is of version 1: one of the authorities themselves has signed it. None where it is of another version.
///
/// # Errors
/// None of them has, or it is not valid then.
pub fn verify_version_1(leaf: &CertificateDer<'_>, roots: &RootCertStore, now: UnixTime) -> Option<Result<(), rustls::Error>> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let is_old = certificate.version() == X509Version::V1 && certificate.extensions().is_empty() && rest.is_empty();
    is_old.then(|| verify(leaf, &certificate, roots, now))
}

fn verify(
    leaf: &CertificateDer<'_>,
    certificate: &X509Certificate<'_>,
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let signed = Signed::read(leaf).ok_or(CertificateError::BadEncoding)?;
    // The issuer's name without tag and length, as trust anchors have theirs.
    let issuer = signatures::content(certificate.issuer().as_raw()).ok_or(CertificateError::BadEncoding)?;
    let mut named = roots.roots.iter().filter(|root| root.subject.as_ref() == issuer).peekable();
    if named.peek().is_none() {
        return Err(CertificateError::UnknownIssuer.into());
    }
    // Names that an authority is limited to are those of extensions, and of the subject: they are not compared here.
    let by = |key: &[u8]| PublicKey::of_content(key).is_some_and(|key| signed.is_by(key));
    if !named.any(|root| root.name_constraints.is_none() && by(root.subject_public_key_info.as_ref())) {
        return Err(CertificateError::BadSignature.into());
    }
    let at = |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let validity = certificate.validity();
    let (not_before, not_after) = (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
    match now {
        time if time < not_before => Err(CertificateError::NotValidYetContext { time, not_before }.into()),
        time if time > not_after => Err(CertificateError::ExpiredContext { time, not_after }.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;
    use std::process::Command;

    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::tls::{Peer, Verifier, roots};

    /// Runs OpenSSL in a directory.
    fn openssl(dir: &Path, args: &str) {
        let out = Command::new("openssl").args(args.split_whitespace()).current_dir(dir).output().unwrap();
        assert!(out.status.success(), "{args}: {}", String::from_utf8_lossy(&out.stderr));
    }

    fn read(dir: &Path, name: &str) -> String {
        std::fs::read_to_string(dir.join(name)).unwrap()
    }

    /// An authority and a user, as guides make them: <https://kubernetes.io/docs/tasks/administer-cluster/certificates/>.
    fn made(dir: &Path, key: &str, how: &str) -> CertificateDer<'static> {
        openssl(dir, &format!("req -x509 -newkey {key} -nodes -keyout ca.key -out ca.crt -subj /CN=ca -days 2"));
        openssl(dir, &format!("req -newkey {key} -nodes -keyout jane.key -out jane.csr -subj /O=dev/CN=jane"));
        openssl(dir, &format!("x509 -req -in jane.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out jane.crt -days 1 {how}"));
        CertificateDer::from_pem_slice(read(dir, "jane.crt").as_bytes()).unwrap()
    }

    #[test]
    fn users_of_guides() {
        let check = |key: &str, how: &str| {
            let dir = tempfile::tempdir().unwrap();
            let jane = made(dir.path(), key, how);
            let verifier = Verifier::new(&read(dir.path(), "ca.crt")).unwrap();
            let peer = verifier.peer(Some(std::slice::from_ref(&jane)));
            let Peer::User { name, groups, .. } = &peer else { panic!("{key} {how}: {peer:?}") };
            assert_eq!((name.as_str(), groups.as_slice()), ("jane", &["dev".to_owned()][..]));
            // Somebody else's authority of the same name.
            let other = tempfile::tempdir().unwrap();
            made(other.path(), key, how);
            let verifier = Verifier::new(&read(other.path(), "ca.crt")).unwrap();
            let peer = verifier.peer(Some(&[jane]));
            assert!(matches!(peer, Peer::Invalid(_)), "{key} {how}: {peer:?}");
        };
        check("rsa:2048", "-sha256");
        check("rsa:2048", "-sha512");
        for curve in ["P-256", "P-384", "P-521"] {
            for digest in ["-sha256", "-sha384", "-sha512"] {
                check(&format!("ec -pkeyopt ec_paramgen_curve:{curve}"), digest);
            }
        }
        check("ed25519", "");
    }

    #[test]
    fn they_begin_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let jane = made(dir.path(), "ec -pkeyopt ec_paramgen_curve:P-256", "");
        let authorities = roots(&read(dir.path(), "ca.crt")).unwrap();
        let check = |seconds: i64, expected: bool| {
            let now = UnixTime::now().as_secs().saturating_add_signed(seconds);
            let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
            assert_eq!(verify_version_1(&jane, &authorities, now).unwrap().is_ok(), expected, "{seconds}");
        };
        check(60, true);
        check(-3600, false);
        check(2 * 24 * 3600, false);
        // What is changed is not signed.
        let mut changed = jane.to_vec();
        let at = changed.windows(4).position(|part| part == b"jane").unwrap();
        changed[at] = b'k';
        assert!(verify_version_1(&changed.into(), &authorities, UnixTime::now()).unwrap().is_err());
        // One of version 3 is for webpki.
        let own = CertificateDer::from_pem_slice(read(dir.path(), "ca.crt").as_bytes()).unwrap();
        assert!(verify_version_1(&own, &authorities, UnixTime::now()).is_none());
    }
}
