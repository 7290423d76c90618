//! What certificates say, for people who look at them.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use signatures::{PublicKey, Signed};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::peer::alternative_names;
use super::{Error, Request};

/// A certificate, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    /// Of whom, as text: `O=system:masters, CN=kubernetes-admin`.
    pub subject: String,
    /// Who says that it has signed it, as text.
    pub issuer: String,
    /// The common name, if it has just one.
    pub common_name: Option<String>,
    /// Organizations.
    pub organizations: Vec<String>,
    /// Whether it may sign other certificates.
    pub is_authority: bool,
    /// What it may be used for, as the API names usages: `digital signature`, `server auth`.
    pub usages: Vec<String>,
    /// The names and addresses of the server, and others that it has: `URI:...`.
    pub names: Vec<String>,
    /// The first second in which it is valid.
    pub from: Timestamp,
    /// The last one.
    pub until: Timestamp,
}

/// Reads all certificates of a PEM text.
///
/// # Errors
/// A block cannot be read, or there is none.
pub fn inspect(text: &str) -> Result<Vec<Certificate>, Error> {
    let wrong = |why: String| Error::Parse(format!("certificate: {why}"));
    let read = CertificateDer::pem_slice_iter(text.as_bytes()).map(|block| {
        let der = block.map_err(|error| wrong(error.to_string()))?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|error| wrong(error.to_string()))?;
        Certificate::of(&certificate, &der)
    });
    let all = read.collect::<Result<Vec<_>, Error>>()?;
    if all.is_empty() { Err(wrong("there is none".to_owned())) } else { Ok(all) }
}

impl Certificate {
    fn of(certificate: &X509Certificate<'_>, der: &[u8]) -> Result<Self, Error> {
        let time = |second: i64| Timestamp::from_second(second).map_err(|error| Error::Parse(format!("a time: {error}")));
        let mut common = certificate.subject().iter_common_name().map(|name| name.as_str().ok());
        let common_name = match (common.next(), common.next()) {
            (Some(Some(name)), None) => Some(name.to_owned()),
            _ => None,
        };
        let organizations = certificate.subject().iter_organization().filter_map(|name| name.as_str().ok());
        Ok(Self {
            der: der.to_owned(),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            common_name,
            organizations: organizations.map(str::to_owned).collect(),
            is_authority: certificate.is_ca(),
            usages: usages(certificate),
            names: alternative_names(certificate).into_iter().chain(other_names(certificate)).collect(),
            from: time(certificate.validity().not_before.timestamp())?,
            until: time(certificate.validity().not_after.timestamp())?,
        })
    }

    /// Whether the key of another one has signed it.
    pub fn is_signed_by(&self, other: &Self) -> bool {
        let read = |der: &[u8], other: &[u8]| {
            let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
            let (_, other) = x509_parser::parse_x509_certificate(other).ok()?;
            let is_its = certificate.issuer().as_raw() == other.subject().as_raw();
            Some(is_its && Signed::read(der)?.is_by(PublicKey::read(other.public_key().raw)?))
        };
        read(&self.der, &other.der).unwrap_or(false)
    }

    /// Whether both are the same certificate.
    pub fn is(&self, other: &Self) -> bool {
        self.der == other.der
    }

    /// By what an authority would issue such a certificate. None for authorities and for certificates without a common name.
    pub fn request(&self) -> Option<Request> {
        let (user, groups, sans) = (self.common_name.clone()?, self.organizations.clone(), self.names.clone());
        let has = |usage: &str| self.usages.iter().any(|known| known == usage);
        match (has("server auth"), has("client auth")) {
            _ if self.is_authority => None,
            (true, true) => Some(Request::Both { user, groups, sans }),
            (true, false) => Some(Request::Server { name: user, sans }),
            (false, true) => Some(Request::Client { user, groups }),
            (false, false) => None,
        }
    }
}

fn usages(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut all = Vec::new();
    if let Ok(Some(usage)) = certificate.key_usage() {
        let usage = usage.value;
        let known = [
            (usage.digital_signature(), "digital signature"),
            (usage.non_repudiation(), "content commitment"),
            (usage.key_encipherment(), "key encipherment"),
            (usage.data_encipherment(), "data encipherment"),
            (usage.key_agreement(), "key agreement"),
            (usage.key_cert_sign(), "cert sign"),
            (usage.crl_sign(), "crl sign"),
        ];
        all.extend(known.into_iter().filter(|(has, _)| *has).map(|(_, name)| name.to_owned()));
    }
    if let Ok(Some(usage)) = certificate.extended_key_usage() {
        let usage = usage.value;
        let known = [(usage.any, "any"), (usage.server_auth, "server auth"), (usage.client_auth, "client auth")];
        all.extend(known.into_iter().filter(|(has, _)| *has).map(|(_, name)| name.to_owned()));
        all.extend(usage.other.iter().map(ToString::to_string));
    }
    all
}

fn other_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::URI(name) => Some(format!("URI:{name}")),
        GeneralName::RFC822Name(name) => Some(format!("email:{name}")),
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tls::Authority;

    #[test]
    fn certificates_say_what_was_asked_for() {
        let (authority, stranger) = (Authority::in_memory("ca").unwrap(), Authority::in_memory("ca").unwrap());
        let of = |text: &str| inspect(text).unwrap().remove(0);
        let (own, other) = (of(authority.bundle()), of(stranger.bundle()));
        let check = |request: Request, subject: &str, usages: &[&str]| {
            let found = of(&authority.issue(&request).unwrap().certificate);
            assert_eq!((found.subject.as_str(), found.is_authority), (subject, false));
            assert_eq!(found.usages, usages);
            assert_eq!(found.request(), Some(request));
            assert!(found.is_signed_by(&own) && !found.is_signed_by(&other) && !own.is_signed_by(&found));
        };
        let sans = || vec!["localhost".to_owned(), "10.0.0.1".to_owned(), "fd00::1".to_owned()];
        let groups = || vec!["system:nodes".to_owned()];
        check(Request::Server { name: "a".into(), sans: sans() }, "CN=a", &["digital signature", "server auth"]);
        check(
            Request::Client { user: "u".into(), groups: groups() },
            "O=system:nodes, CN=u",
            &["digital signature", "client auth"],
        );
        let both = Request::Both { user: "u".into(), groups: groups(), sans: sans() };
        check(both, "O=system:nodes, CN=u", &["digital signature", "server auth", "client auth"]);
        assert!(own.is_authority && own.is_signed_by(&own) && own.is(&own) && !own.is(&other) && own.request().is_none());
        assert_eq!(own.usages, ["digital signature", "cert sign", "crl sign"]);
        assert!(inspect("").is_err() && inspect("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
        assert_eq!(inspect(&format!("{}{}", authority.bundle(), stranger.bundle())).unwrap().len(), 2);
    }
}
