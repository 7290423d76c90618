//! What Gateways ask of clients (`spec.tls.frontend`): a certificate of an authority, on the listeners for HTTPS. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::Key;

use super::backend_tls::{Wrong, certificates, is_unknown};
use super::listeners::AllListed;
use super::types::{Frontend, FrontendValidation, Gateway, Listener};
use super::{Around, Objects, granted};
use crate::guard::clients::{Authorities, ClientAuth, Verify};

/// What clients of a listener have to show.
#[derive(Clone, Debug)]
pub struct Clients {
    /// What is asked of them.
    pub auth: ClientAuth,
    /// Whose certificates are good; while nobody knows, nobody may pass.
    pub authorities: Option<Arc<Authorities>>,
}

/// A listener that asks for certificates, and what is wrong with what it says.
pub struct Asking {
    /// What clients have to show.
    pub clients: Arc<Clients>,
    /// Whether the references lead somewhere.
    pub resolved: Result<(), Wrong>,
    /// Whether there is any good authority.
    pub accepted: Result<(), Wrong>,
}

/// The listeners that ask for certificates, by Gateway and place.
pub type Askings<'a> = BTreeMap<(&'a Key, usize), Asking>;

/// Looks at all listeners. The ConfigMaps that Gateways refer to are added to `wanted`.
pub fn askings<'a>(objects: &Objects, around: &Around<'_>, all: &AllListed<'a>, wanted: &mut BTreeSet<Key>) -> Askings<'a> {
    let mut askings = Askings::new();
    for (key, listed) in all {
        let gateway = listed.gateway;
        let Some(frontend) = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) else { continue };
        // Those of ListenerSets, too: who has the Gateway says what clients of its ports have to show.
        for (place, placed) in listed.listeners.iter().enumerate() {
            if let Some(validation) = validation(frontend, placed.listener) {
                askings.insert((*key, place), asking(objects, around, gateway, validation, wanted));
            }
        }
    }
    askings
}

/// Whether clients may pass at a port of the Gateway whose certificate is nobody's.
pub fn is_insecure(gateway: &Gateway) -> bool {
    let frontend = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
    let all = frontend.into_iter().flat_map(|frontend| frontend.per_port.iter().map(|one| &one.tls).chain(&frontend.default));
    all.filter_map(|tls| tls.validation.as_ref()).any(falls_back)
}

fn falls_back(validation: &FrontendValidation) -> bool {
    validation.mode.as_deref() == Some("AllowInsecureFallback")
}

/// What is said of the listener's port, else of all ports.
fn validation<'f>(frontend: &'f Frontend, listener: &Listener) -> Option<&'f FrontendValidation> {
    let of_port = frontend.per_port.iter().find(|one| one.port == listener.port).map(|one| &one.tls);
    of_port.or(frontend.default.as_ref()).and_then(|tls| tls.validation.as_ref()).filter(|_| listener.protocol == "HTTPS")
}

fn asking(
    objects: &Objects,
    around: &Around<'_>,
    gateway: &Gateway,
    validation: &FrontendValidation,
    wanted: &mut BTreeSet<Key>,
) -> Asking {
    let (mut bundle, mut resolved, mut early) = (String::new(), Ok(()), false);
    for reference in &validation.certificate_refs {
        let namespace = reference.namespace.as_deref().unwrap_or(gateway.namespace());
        let key = Key::namespaced(namespace, &reference.name);
        if !granted(objects, "Gateway", gateway.namespace(), ("", "ConfigMap"), &key) {
            let why = format!("no ReferenceGrant lets this namespace refer to ConfigMap {key}");
            resolved = resolved.and(Err(("RefNotPermitted", why)));
            continue;
        }
        match certificates(reference, namespace, around, wanted) {
            Ok(more) => bundle.extend([more.as_str(), "\n"]),
            Err(("InvalidKind", why)) => resolved = resolved.and(Err(("InvalidCACertificateKind", why))),
            Err(wrong) => resolved = resolved.and(Err(wrong)),
        }
        early |= is_unknown(&key, around, wanted);
    }
    let verify = if falls_back(validation) { Verify::OptionalNoCa } else { Verify::On };
    let auth = ClientAuth { secret: Some(String::new()), verify, ..ClientAuth::default() };
    let authorities = Authorities::of_bundle(bundle.as_bytes(), b"").ok().map(Arc::new);
    let accepted = match (&authorities, &resolved) {
        // There is nothing to tell yet.
        _ if early => Ok(()),
        (Some(_), _) => Ok(()),
        (None, Err((_, why))) => Err(("NoValidCACertificate", why.clone())),
        (None, Ok(())) => Err(("NoValidCACertificate", "there are no caCertificateRefs".to_owned())),
    };
    let resolved = if early { Ok(()) } else { resolved };
    Asking { clients: Arc::new(Clients { auth, authorities }), resolved, accepted }
}
