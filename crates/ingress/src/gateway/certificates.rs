//! Certificates of listeners: those of Secrets, and those that an issuer is asked for.

use std::collections::BTreeSet;

use client::Key;

use super::placed::{Placed, ends_tls};
use super::types::ObjectRef;
use super::{Around, Objects, Order, created, granted};
use crate::issuer::{Issuer, is_provable};

/// The certificates of a listener that the issuer is asked for whom its Gateway or ListenerSet names: those of Secrets in its own namespace.
pub(super) fn orders(gateway: &Key, placed: &Placed<'_>, issuer: &Issuer) -> Vec<Order> {
    let (listener, namespace) = (placed.listener, placed.namespace());
    let host = listener.hostname.as_deref().filter(|host| ends_tls(listener) && placed.served.is_ok() && is_provable(host));
    let (Some(host), Some(tls)) = (host, &listener.tls) else { return Vec::new() };
    let own = |reference: &&ObjectRef| is_secret(reference) && reference.namespace.as_deref().is_none_or(|of| of == namespace);
    let order = |reference: &ObjectRef| Order {
        secret: Key::namespaced(namespace, &reference.name),
        host: host.to_ascii_lowercase(),
        issuer: issuer.clone(),
        kind: placed.kind(),
        owner: placed.set.unwrap_or(gateway).clone(),
        uid: placed.metadata.uid.clone(),
        created: created(placed.metadata),
    };
    tls.certificate_refs.iter().filter(own).map(order).collect()
}

fn is_secret(reference: &ObjectRef) -> bool {
    matches!(reference.group.as_deref(), None | Some("")) && matches!(reference.kind.as_deref(), None | Some("Secret"))
}

/// The Secrets with a listener's certificates.
pub(super) fn certificates(
    objects: &Objects,
    around: &Around<'_>,
    placed: &Placed<'_>,
    watched: &mut BTreeSet<Key>,
) -> Result<Vec<Key>, (&'static str, String)> {
    let (listener, namespace) = (placed.listener, placed.namespace());
    if !ends_tls(listener) {
        return Ok(Vec::new());
    }
    let references = listener.tls.as_ref().map(|tls| &tls.certificate_refs[..]).unwrap_or_default();
    let mut secrets = Vec::new();
    for reference in references {
        let is_secret = is_secret(reference);
        let key = Key::namespaced(reference.namespace.as_deref().unwrap_or(namespace), &reference.name);
        // What is granted to a Gateway is not granted to its ListenerSets, nor the other way around (GEP-1713).
        if !granted(objects, placed.kind().name(), namespace, ("", "Secret"), &key) {
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
