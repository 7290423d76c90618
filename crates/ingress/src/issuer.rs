//! Who issues certificates by ACME: the issuers that the administrator lists, and what annotations of Ingresses and Gateways say. Pure.
//!
//! The author of an Ingress names an issuer, and the server asks it from its own place in the network. So only those are asked that are
//! listed: an [`Issuer`] comes from [`Issuers`] and from nowhere else, and has the URL that stands in the list.

use std::collections::BTreeMap;
use std::str::FromStr;

/// The annotation that names the issuer: a name or a URL of the list. Secrets that are kept here have its URL there.
pub const ISSUER: &str = "acme.knarr.io/issuer";
/// The annotation with the address that the issuer may write to.
pub const EMAIL: &str = "acme.knarr.io/email";

/// Issuers that are always listed: public ones that ask for nothing but an account.
const PUBLIC: [(&str, &str); 2] = [
    ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
];

/// Who issues a certificate, and for which account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Issuer {
    /// The URL of its directory.
    pub url: String,
    /// Where it may write to.
    pub email: Option<String>,
}

/// An issuer that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    name: Option<String>,
    url: http::Uri,
}

/// The issuers that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuers(Vec<Listed>);

/// What the administrator has written is no issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither the URL of an ACME directory (https://...) nor NAME=URL")]
pub struct NoIssuer;

/// An annotation that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It names nobody who may be asked.
    #[error("{ISSUER}: {named:?} is not among the issuers that this cluster asks, which are {listed}")]
    NotListed {
        /// Whom it names.
        named: String,
        /// Who is listed.
        listed: String,
    },
    /// It is no address.
    #[error("{EMAIL}: {0:?} is no address")]
    Email(String),
}

impl Wrong {
    /// The reason of the event that tells it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotListed { .. } => "IssuerNotAllowed",
            Self::Email(_) => "InvalidAnnotation",
        }
    }
}

impl FromStr for Listed {
    type Err = NoIssuer;

    fn from_str(text: &str) -> Result<Self, NoIssuer> {
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains([':', '/']) => (Some(name), url),
            _ => (None, text),
        };
        let url: http::Uri = url.parse().map_err(|_| NoIssuer)?;
        let good = url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty());
        let name = name.map(str::to_owned);
        (good && name.as_ref().is_none_or(|name| !name.is_empty())).then_some(Self { name, url }).ok_or(NoIssuer)
    }
}

impl Default for Issuers {
    /// The public ones.
    fn default() -> Self {
        let listed = |(name, url): (&str, &'static str)| Listed { name: Some(name.to_owned()), url: http::Uri::from_static(url) };
        Self(PUBLIC.map(listed).into())
    }
}

impl Issuers {
    /// The public ones, and these, whose names come first.
    pub fn with(listed: impl IntoIterator<Item = Listed>) -> Self {
        Self(listed.into_iter().chain(Self::default().0).collect())
    }

    /// The one that annotations name; none when they name nobody.
    ///
    /// # Errors
    /// An issuer that is not listed, an address that is none.
    pub fn named(&self, annotations: Option<&BTreeMap<String, String>>) -> Result<Option<Issuer>, Wrong> {
        let text = |name| annotations.and_then(|all| all.get(name)).map(|value| value.trim()).filter(|value| !value.is_empty());
        let Some(named) = text(ISSUER) else { return Ok(None) };
        // Case of scheme and host means nothing; the URL is the list's, to the letter.
        let as_url: Option<http::Uri> = named.parse().ok();
        let is_it = |one: &&Listed| one.name.as_deref() == Some(named) || as_url.as_ref() == Some(&one.url);
        let Some(listed) = self.0.iter().find(is_it) else {
            let label = |one: &Listed| one.name.clone().unwrap_or_else(|| one.url.to_string());
            let listed = self.0.iter().map(label).collect::<Vec<_>>().join(", ");
            return Err(Wrong::NotListed { named: named.to_owned(), listed });
        };
        let is_address = |text: &str| text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
        match text(EMAIL) {
            Some(email) if !is_address(email) => Err(Wrong::Email(email.to_owned())),
            email => Ok(Some(Issuer { url: listed.url.to_string(), email: email.map(str::to_owned) })),
        }
    }
}

/// Whether a name can be proved by HTTP-01: neither any host nor a wildcard can. Hosts are named as in the routing table.
pub(crate) fn is_provable(host: &str) -> bool {
    !host.is_empty() && !host.starts_with(['.', '*'])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn issuers() {
        let own = ["https://ca.example/acme/directory", "internal=https://10.0.0.9:14000/dir"];
        let issuers = Issuers::with(own.map(|listed| listed.parse().unwrap()));
        let check = |issuer: &str, email: Option<&str>, expected: Result<&str, &str>| {
            let mut annotations = BTreeMap::from([(ISSUER.to_owned(), issuer.to_owned())]);
            annotations.extend(email.map(|email| (EMAIL.to_owned(), email.to_owned())));
            let found = issuers.named(Some(&annotations));
            let found = found.as_ref().map(|found| found.as_ref().unwrap().url.as_str()).map_err(Wrong::reason);
            assert_eq!(found, expected, "{issuer}");
        };
        let refused = Err("IssuerNotAllowed");
        check("letsencrypt", None, Ok("https://acme-v02.api.letsencrypt.org/directory"));
        check("letsencrypt-staging", Some("ops@a.example"), Ok("https://acme-staging-v02.api.letsencrypt.org/directory"));
        check("https://acme-v02.api.letsencrypt.org/directory", None, Ok("https://acme-v02.api.letsencrypt.org/directory"));
        check(" HTTPS://CA.example/acme/directory ", None, Ok("https://ca.example/acme/directory"));
        check("internal", None, Ok("https://10.0.0.9:14000/dir"));
        check("https://10.0.0.9:14000/dir", None, Ok("https://10.0.0.9:14000/dir"));
        // Another path, port, host or user is another place in the network.
        check("https://ca.example/acme/other", None, refused);
        check("https://ca.example:8443/acme/directory", None, refused);
        check("https://ca.example@169.254.169.254/acme/directory", None, refused);
        check("https://ca.example.evil.example/acme/directory", None, refused);
        check("https://ca.example/acme/directory?x", None, refused);
        check("https://10.43.0.1/", None, refused);
        check("http://ca.example/acme/directory", None, refused);
        check("other", None, refused);
        check("letsencrypt", Some("nobody"), Err("InvalidAnnotation"));
        assert_eq!((issuers.named(None), issuers.named(Some(&BTreeMap::new()))), (Ok(None), Ok(None)));
        let wrong = issuers.named(Some(&[(ISSUER.to_owned(), "other".to_owned())].into())).unwrap_err().to_string();
        assert!(wrong.ends_with("https://ca.example/acme/directory, internal, letsencrypt, letsencrypt-staging"), "{wrong}");
    }

    #[test]
    fn lists() {
        let check = |text: &str, expected: Option<(Option<&str>, &str)>| {
            let found: Option<Listed> = text.parse().ok();
            let found = found.map(|listed| (listed.name, listed.url.to_string()));
            let expected = expected.map(|(name, url)| (name.map(str::to_owned), url.to_owned()));
            assert_eq!(found, expected, "{text}");
        };
        check("https://ca.example/dir", Some((None, "https://ca.example/dir")));
        check("https://ca.example/dir?a=b", Some((None, "https://ca.example/dir?a=b")));
        check("ours=https://ca.example/dir?a=b", Some((Some("ours"), "https://ca.example/dir?a=b")));
        check("ours=http://ca.example/dir", None);
        check("=https://ca.example/dir", None);
        check("ours", None);
        check("ours=", None);
        check("https://", None);
        check("https://a b/", None);
    }

    #[test]
    fn names_that_can_be_proved() {
        for (host, expected) in [("a.example", true), ("", false), (".example", false), ("*.example", false)] {
            assert_eq!(is_provable(host), expected, "{host}");
        }
    }
}
