//! Certificates of listeners: those of Secrets, and those that an issuer is asked for.

use std::collections::BTreeSet;

use client::Key;

use super::types::{Gateway, Listener, ObjectRef};
use super::{Around, Objects, Order, granted};
use crate::issuer::{Issuer, is_provable};

/// The certificates of a listener that its Gateway's issuer is asked for: those of Secrets in its own namespace.
pub(super) fn orders(gateway: &Gateway, listener: &Listener, issuer: &Issuer) -> Vec<Order> {
    let host = listener.hostname.as_deref().filter(|host| listener.protocol == "HTTPS" && is_provable(host));
    let (Some(host), Some(tls)) = (host, &listener.tls) else { return Vec::new() };
    let own = |reference: &&ObjectRef| reference.namespace.as_deref().is_none_or(|namespace| namespace == gateway.namespace());
    let order = |reference: &ObjectRef| Order {
        secret: Key::namespaced(gateway.namespace(), &reference.name),
        host: host.to_ascii_lowercase(),
        issuer: issuer.clone(),
        gateway: Key::namespaced(gateway.namespace(), gateway.name()),
        uid: gateway.metadata.uid.clone(),
    };
    tls.certificate_refs.iter().filter(own).take(1).map(order).collect()
}

/// The Secrets with a listener's certificates.
pub(super) fn certificates(
    objects: &Objects,
    around: &Around<'_>,
    gateway: &Gateway,
    listener: &Listener,
    watched: &mut BTreeSet<Key>,
) -> Result<Vec<Key>, (&'static str, String)> {
    if listener.protocol != "HTTPS" {
        return Ok(Vec::new());
    }
    let references = listener.tls.as_ref().map(|tls| &tls.certificate_refs[..]).unwrap_or_default();
    let mut secrets = Vec::new();
    for reference in references {
        let is_secret =
            matches!(reference.group.as_deref(), None | Some("")) && matches!(reference.kind.as_deref(), None | Some("Secret"));
        let key = Key::namespaced(reference.namespace.as_deref().unwrap_or(gateway.namespace()), &reference.name);
        if !granted(objects, "Gateway", gateway.namespace(), ("", "Secret"), &key) {
            return Err(("RefNotPermitted", format!("no ReferenceGrant lets this namespace refer to Secret {key}")));
        }
        if is_secret {
            watched.insert(key.clone());
        }
        if !is_secret || (around.has_certificate)(&key) == Some(false) {
            return Err(("InvalidCertificateRef", format!("Secret {key} has no certificate that can be used")));
        }
        secrets.push(key);
    }
    if secrets.is_empty() { Err(("InvalidCertificateRef", "a certificate is missing".to_owned())) } else { Ok(secrets) }
}
