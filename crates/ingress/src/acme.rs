//! Certificates by ACME (RFC 8555), proved by HTTP-01: for those Ingresses and Gateways that name an issuer.
//!
//! What is wanted follows from the objects and from the Secrets that they name ([`Wanted`]); whether something has to be done now is
//! decided by [`step`], which is pure. [`keeper`] does it: one task for each Secret. Where a certificate is wanted and what is there
//! change by the same watches that the routing table has, so that a Secret that is deleted is made again.

mod attempts;
pub(crate) mod challenges;
mod issue;
pub(crate) mod keeper;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::tls::Request;
use client::Key;
use k8s_openapi::api::core::v1::{ObjectReference, Secret};

use crate::certificates;
use crate::issuer::{ISSUER, Issuer};

/// A certificate that has to be in a Secret.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The names that it is for.
    pub names: BTreeSet<String>,
    /// Who issues it.
    pub issuer: Issuer,
    /// Whom to tell of it.
    pub about: ObjectReference,
    /// What the Secret is now.
    pub present: Present,
}

/// What is known of a Secret.
#[derive(Clone, Debug)]
pub enum Present {
    /// Nobody has looked yet.
    Unknown,
    /// It is not there.
    Absent,
    /// It is this.
    There(Arc<Secret>),
}

impl Present {
    fn version(&self) -> (bool, Option<&str>) {
        match self {
            Self::Unknown => (false, None),
            Self::Absent => (true, None),
            Self::There(secret) => (true, Some(secret.metadata.resource_version.as_deref().unwrap_or_default())),
        }
    }
}

impl Wanted {
    /// Whether an order for one is an order for the other, whoever wants it.
    fn is_same_order(&self, other: &Self) -> bool {
        self.names == other.names && self.issuer == other.issuer && self.present.version() == other.present.version()
    }
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        self.is_same_order(other) && self.about == other.about
    }
}

/// All certificates that are wanted, by Secret.
pub type All = BTreeMap<Key, Wanted>;

/// Adds a name to what is wanted of a Secret. Of two that name different issuers the first has it.
pub(crate) fn want(
    all: &mut All,
    secret: &Key,
    name: &str,
    issuer: &Issuer,
    about: &ObjectReference,
    present: impl FnOnce() -> Present,
) {
    let wanted = all.entry(secret.clone()).or_insert_with(|| Wanted {
        names: BTreeSet::new(),
        issuer: issuer.clone(),
        about: about.clone(),
        present: present(),
    });
    if wanted.issuer == *issuer {
        wanted.names.insert(name.to_owned());
    }
}

/// What has to be done for a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, until something changes.
    Rest,
    /// It is to be issued.
    Issue,
    /// It is good for now.
    IssueIn(Duration),
    /// The Secret is somebody else's, and its certificate is not the one that is wanted.
    Foreign,
}

/// Decides it.
pub(crate) fn step(wanted: &Wanted, now: SystemTime) -> Step {
    let secret = match &wanted.present {
        Present::Unknown => return Step::Rest,
        Present::Absent => return Step::Issue,
        Present::There(secret) => secret,
    };
    let identity = certificates::identity(secret).ok();
    let sans: Vec<String> = wanted.names.iter().cloned().collect();
    let request = Request::Server { name: String::new(), sans };
    let fitting = identity.filter(|identity| identity.fits(&request));
    let issuer = secret.metadata.annotations.as_ref().and_then(|all| all.get(ISSUER));
    match (issuer, fitting) {
        (None, Some(identity)) if identity.is_valid(now) => Step::Rest,
        (None, _) => Step::Foreign,
        (Some(url), Some(identity)) if *url == wanted.issuer.url => match identity.due_in(now) {
            Some(left) if !left.is_zero() => Step::IssueIn(left),
            _ => Step::Issue,
        },
        _ => Step::Issue,
    }
}

/// Part of a name, for what names cannot hold.
fn digest(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base::tls::Authority;
    use serde_json::json;

    use super::*;

    #[test]
    fn steps() {
        let authority = Authority::in_memory("test").unwrap();
        let issuer = Issuer { url: "https://ca.example/".into(), email: None };
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let secret = |hosts: &[&str], by: Option<&str>, lifetime: Duration| {
            let sans: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
            let identity = authority.issue_for(&Request::Server { name: "x".into(), sans }, lifetime).unwrap();
            let bytes = |text: String| k8s_openapi::ByteString(text.into_bytes());
            let data = [("tls.crt".to_owned(), bytes(identity.certificate)), ("tls.key".to_owned(), bytes(identity.key))];
            let mut secret = Secret { data: Some(data.into()), ..Secret::default() };
            secret.metadata.annotations = by.map(|by| [(ISSUER.to_owned(), by.to_owned())].into());
            Present::There(Arc::new(secret))
        };
        let later = |present: Present, after: Duration, expected: fn(&Step) -> bool| {
            let names = ["a.example", "b.example"].map(str::to_owned).into();
            let wanted = Wanted { names, issuer: issuer.clone(), about: ObjectReference::default(), present };
            let found = step(&wanted, now + after);
            assert!(expected(&found), "{found:?}");
        };
        let check = |present: Present, expected: fn(&Step) -> bool| later(present, Duration::ZERO, expected);
        let (both, ours) = (["a.example", "b.example"], Some("https://ca.example/"));
        check(Present::Unknown, |step| *step == Step::Rest);
        check(Present::Absent, |step| *step == Step::Issue);
        check(secret(&both, ours, 90 * hour), |step| matches!(step, Step::IssueIn(left) if left.as_secs() > 50 * 3600));
        later(secret(&both, ours, 90 * hour), 70 * hour, |step| *step == Step::Issue);
        check(secret(&["a.example"], ours, 90 * hour), |step| *step == Step::Issue);
        check(secret(&both, Some("https://other.example/"), 90 * hour), |step| *step == Step::Issue);
        // What somebody has put there by hand stays, and is told when it does not do.
        check(secret(&both, None, 90 * hour), |step| *step == Step::Rest);
        check(secret(&["a.example"], None, 90 * hour), |step| *step == Step::Foreign);
        check(Present::There(Arc::default()), |step| *step == Step::Foreign);
    }

    #[test]
    fn names_of_one_secret_are_joined() {
        let (issuer, other) =
            (Issuer { url: "https://a/".into(), email: None }, Issuer { url: "https://b/".into(), email: None });
        let about = |name: &str| serde_json::from_value::<ObjectReference>(json!({"name": name})).unwrap();
        let (mut all, secret) = (All::new(), Key::namespaced("a", "s"));
        want(&mut all, &secret, "a.example", &issuer, &about("one"), || Present::Absent);
        want(&mut all, &secret, "b.example", &issuer, &about("two"), || Present::Absent);
        want(&mut all, &secret, "c.example", &other, &about("three"), || Present::Absent);
        let wanted = &all[&secret];
        assert_eq!(wanted.names.iter().collect::<Vec<_>>(), ["a.example", "b.example"]);
        assert_eq!(wanted.about.name.as_deref(), Some("one"));
    }
}
