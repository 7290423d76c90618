//! Bundles: PEM texts of the certificates of authorities that somebody trusts.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::der::certificate_pem;
use super::{Error, digest_of_bundle};

/// The certificates of a bundle, each a PEM text as this program writes it: equal texts are equal certificates.
///
/// # Errors
/// A block cannot be read, or there is none.
pub fn certificates(bundle: &str) -> Result<Vec<String>, Error> {
    let read = CertificateDer::pem_slice_iter(bundle.as_bytes()).collect::<Result<Vec<_>, _>>();
    let read = read.map_err(|error| Error::Parse(format!("certificate authority: {error}")))?;
    match read.is_empty() {
        true => Err(Error::Parse("certificate authority: no certificate in the bundle".into())),
        false => Ok(read.into_iter().map(|der| certificate_pem(der.to_vec())).collect()),
    }
}

/// What of a bundle whoever has the digest may trust: all of it if that is the digest of the whole, one certificate if it is that of this one,
/// and nothing otherwise. The other certificates of the bundle are nobody's word.
pub fn vouched(bundle: &str, digest: &str) -> Option<String> {
    if digest_of_bundle(bundle).is_ok_and(|whole| whole == digest) {
        return Some(bundle.to_owned());
    }
    certificates(bundle).ok()?.into_iter().find(|one| digest_of_bundle(one).is_ok_and(|of_one| of_one == digest))
}

/// The digest of the first certificate of a bundle, by which its authority is known: the one that signs.
///
/// # Errors
/// There is none.
pub fn digest_of_signer(bundle: &str) -> Result<String, Error> {
    let all = certificates(bundle)?;
    digest_of_bundle(all.first().map(String::as_str).unwrap_or_default())
}

/// What is left of a bundle of those certificates that another one has, too; none where nothing is left or nothing goes.
pub fn reduced(bundle: &str, to: &str) -> Option<String> {
    let (mine, others) = (certificates(bundle).ok()?, certificates(to).ok()?);
    let left: Vec<String> = mine.iter().filter(|one| others.contains(one)).cloned().collect();
    (!left.is_empty() && left.len() < mine.len()).then(|| left.concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tls::Authority;

    fn one(name: &str) -> String {
        Authority::in_memory(name).unwrap().bundle().to_owned()
    }

    #[test]
    fn a_digest_vouches_for_what_it_is_of() {
        let (a, b, c) = (one("a"), one("b"), one("c"));
        let (both, digest) = (format!("{a}{b}"), |text: &str| digest_of_bundle(text).unwrap());
        let check = |bundle: &str, of: &str, expected: Option<&str>| {
            assert_eq!(vouched(bundle, &digest(of)).as_deref(), expected);
        };
        check(&a, &a, Some(&a));
        check(&both, &both, Some(&both));
        check(&both, &a, Some(&a));
        check(&both, &b, Some(&b));
        check(&both, &c, None);
        check(&a, &both, None);
        assert_eq!(vouched("", &digest(&a)), None);
        assert_eq!(digest_of_signer(&both).unwrap(), digest(&a));
        assert!(digest_of_signer("").is_err());
    }

    #[test]
    fn trust_is_reduced_and_never_grows() {
        let (a, b, c) = (one("a"), one("b"), one("c"));
        let check = |bundle: &[&String], to: &[&String], expected: Option<&[&String]>| {
            let text = |all: &[&String]| all.iter().map(|one| one.as_str()).collect::<String>();
            assert_eq!(reduced(&text(bundle), &text(to)), expected.map(text));
        };
        check(&[&a, &b], &[&a], Some(&[&a]));
        check(&[&a, &b], &[&c, &b], Some(&[&b]));
        check(&[&a, &b], &[&b, &a], None);
        check(&[&a], &[&a, &b], None);
        check(&[&a], &[&b], None);
    }
}
