//! BackendTLSPolicies: the ports of Services that are asked over TLS, and what their certificates have to be like. Pure.
//!
//! A policy that cannot be followed leads nowhere: a back end whose certificate was to be verified is never asked without that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::Key;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};

use super::status::{Kind, condition, generation};
use super::streams::Port;
use super::types::{BackendTlsPolicy, BackendValidation, GROUP, ObjectRef};
use super::{Around, CONTROLLER, Objects};
use crate::endpoints::PortRef;
use crate::policy::Protocol;
use crate::upstream::{Place, UpstreamKey};
use crate::verify::{Name, Roots, Trust, Verify};

/// Reason and message of a condition that does not hold.
pub(super) type Wrong = (&'static str, String);

/// A policy, and what comes of it.
struct Judged<'a> {
    policy: &'a BackendTlsPolicy,
    /// None leads nowhere.
    trust: Option<Arc<Trust>>,
    accepted: Result<(), Wrong>,
    resolved: Result<(), Wrong>,
    /// Whether a ConfigMap was not looked at yet: then there is nothing to tell.
    early: bool,
}

/// The policies, by what they are for.
#[derive(Default)]
pub struct Policies<'a> {
    judged: BTreeMap<&'a Key, Judged<'a>>,
    /// By Service and, where a policy is for one port only, its name: who has it, and who would have it.
    targets: BTreeMap<(Key, Option<String>), Vec<&'a Key>>,
}

/// Which Gateways lead to what a policy is for, by policy.
pub type Ancestors = BTreeMap<Key, BTreeSet<Key>>;

impl<'a> Policies<'a> {
    /// Judges them all. The ConfigMaps that they refer to are added to `wanted`.
    pub fn of(objects: &'a Objects, around: &Around<'_>, wanted: &mut BTreeSet<Key>) -> Self {
        let mut policies = Self::default();
        for (key, policy) in &objects.backend_tls {
            policies.judged.insert(key, judge(policy, around, wanted));
            for target in policy.spec.target_refs.iter().filter(|target| is_service(target)) {
                let service = Key::namespaced(policy.namespace(), &target.name);
                let section = target.section_name.clone().filter(|section| !section.is_empty());
                policies.targets.entry((service, section)).or_default().push(key);
            }
        }
        let age = |key: &&Key| {
            let created = objects.backend_tls.get(*key).and_then(|policy| policy.metadata.creation_timestamp.as_ref());
            (created.map_or(i64::MAX, |time| time.0.as_second()), (*key).clone())
        };
        policies.targets.values_mut().for_each(|keys| keys.sort_by_key(age));
        policies
    }

    /// Those for a port of a Service, the one that counts first: one for the port comes before those for all ports.
    fn of_port(&self, service: &Key, number: u16, around: &Around<'_>) -> &[&'a Key] {
        let offer = (around.service)(service).unwrap_or_default();
        // The same number may be a port of UDP, too, with another name.
        let name = offer.ports.iter().find(|(port, _)| *port == Port::tcp(number)).and_then(|(_, name)| name.clone());
        let of_port = name.and_then(|name| self.targets.get(&(service.clone(), Some(name))));
        of_port.or_else(|| self.targets.get(&(service.clone(), None))).map(Vec::as_slice).unwrap_or_default()
    }

    /// The back end as policies want it; none when they lead nowhere.
    pub fn apply(&self, key: UpstreamKey, around: &Around<'_>) -> Option<UpstreamKey> {
        let Place::Service(service, PortRef::Number(number)) = &key.place else { return Some(key) };
        let Some(first) = self.of_port(service, *number, around).first() else { return Some(key) };
        let judged = self.judged.get(*first)?;
        let protocol = if key.protocol.is_some_and(Protocol::is_http2) { Protocol::Grpcs } else { Protocol::Https };
        let name = judged.policy.spec.validation.hostname.clone();
        Some(UpstreamKey { protocol: Some(protocol), tls_name: Some(name), trust: Some(judged.trust.clone()?), ..key })
    }

    /// Notes that a Gateway leads to a back end.
    pub fn note(&self, key: &UpstreamKey, gateway: &Key, around: &Around<'_>, ancestors: &mut Ancestors) {
        if let Place::Service(service, PortRef::Number(number)) = &key.place {
            for policy in self.of_port(service, *number, around) {
                ancestors.entry((*policy).clone()).or_default().insert(gateway.clone());
            }
        }
    }

    /// What the status of each policy has to be. What other controllers wrote stays.
    pub fn statuses(&self, ancestors: &Ancestors) -> Vec<(Kind, Key, Value)> {
        let first: BTreeSet<&Key> = self.targets.values().filter_map(|keys| keys.first()).copied().collect();
        let mut statuses = Vec::new();
        for (key, judged) in self.judged.iter().filter(|(_, judged)| !judged.early) {
            let seen = generation(&judged.policy.metadata);
            let accepted = match &judged.accepted {
                Ok(()) if !first.contains(key) => Err(("Conflicted", "an older policy is for the same".to_owned())),
                other => other.clone(),
            };
            let told = |kind, result: &Result<(), Wrong>| match result {
                Ok(()) => condition(kind, Ok(()), kind, "", seen),
                Err((reason, message)) => condition(kind, Err(()), reason, message, seen),
            };
            let conditions = json!([told("Accepted", &accepted), told("ResolvedRefs", &judged.resolved)]);
            let ours = ancestors.get(*key).into_iter().flatten().map(|gateway| {
                let reference = json!({"group": GROUP, "kind": "Gateway", "namespace": gateway.namespace, "name": gateway.name});
                json!({"ancestorRef": reference, "controllerName": CONTROLLER, "conditions": conditions})
            });
            let had: Vec<&Value> =
                judged.policy.status.pointer("/ancestors").and_then(Value::as_array).into_iter().flatten().collect();
            let others = had.iter().filter(|one| one["controllerName"] != CONTROLLER).map(|one| (*one).clone());
            let wanted: Vec<Value> = others.chain(ours).collect();
            if !wanted.is_empty() || !had.is_empty() {
                statuses.push((Kind::BackendTlsPolicy, (*key).clone(), json!({"ancestors": wanted})));
            }
        }
        statuses
    }
}

fn is_service(target: &ObjectRef) -> bool {
    matches!(target.group.as_deref(), None | Some("")) && target.kind.as_deref() == Some("Service")
}

fn judge<'a>(policy: &'a BackendTlsPolicy, around: &Around<'_>, wanted: &mut BTreeSet<Key>) -> Judged<'a> {
    let validation = &policy.spec.validation;
    let (roots, resolved) = match validation.well_known.as_deref().unwrap_or_default() {
        "" => bundle(&validation.certificate_refs, policy.namespace(), around, wanted),
        "System" => (Some(Roots::System), Ok(())),
        _ => (None, Ok(())),
    };
    let trust = names(validation).and_then(|names| {
        let roots = roots.ok_or_else(|| match &resolved {
            Ok(()) => ("Invalid", "there are no such wellKnownCACertificates".to_owned()),
            Err((_, message)) => ("NoValidCACertificate", message.clone()),
        })?;
        Trust::of(Verify { roots, names }).map_err(|error| ("NoValidCACertificate", error.to_string()))
    });
    let accepted = trust.as_ref().map(drop).map_err(Clone::clone);
    let mut maps = validation.certificate_refs.iter().map(|reference| Key::namespaced(policy.namespace(), &reference.name));
    let early = maps.any(|key| is_unknown(&key, around, wanted));
    Judged { policy, trust: trust.ok().map(Arc::new), accepted, resolved, early }
}

/// One of these has to be in the certificate; none is the policy's host name.
fn names(validation: &BackendValidation) -> Result<Vec<Name>, Wrong> {
    let is_host = |host: &str| matches!(ServerName::try_from(host), Ok(ServerName::DnsName(_)));
    if !is_host(&validation.hostname) {
        return Err(("Invalid", format!("hostname {:?} is no name of a host", validation.hostname)));
    }
    let name = |one: &super::types::SubjectAltName| match (one.kind.as_str(), &one.hostname, &one.uri) {
        ("Hostname", Some(host), _) if is_host(host) => Ok(Name::Host(host.clone())),
        ("URI", _, Some(uri)) => Ok(Name::Uri(uri.clone())),
        _ => Err(("Invalid", "of subjectAltNames one is neither the name of a host nor a URI".to_owned())),
    };
    validation.subject_alt_names.iter().map(name).collect()
}

/// The certificates that references lead to, as far as they do, and the first that does not.
fn bundle(
    references: &[ObjectRef],
    namespace: &str,
    around: &Around<'_>,
    wanted: &mut BTreeSet<Key>,
) -> (Option<Roots>, Result<(), Wrong>) {
    let (mut bundle, mut wrong) = (String::new(), Ok(()));
    for reference in references {
        match certificates(reference, namespace, around, wanted) {
            Ok(more) => bundle.extend([more.as_str(), "\n"]),
            Err(error) => wrong = wrong.and(Err(error)),
        }
    }
    if references.is_empty() {
        wrong = Err(("InvalidCACertificateRef", "there are no caCertificateRefs".to_owned()));
    }
    (Some(bundle).filter(|bundle| !bundle.is_empty()).map(Roots::Bundle), wrong)
}

/// Whether nobody has looked at a ConfigMap yet that somebody refers to.
pub(super) fn is_unknown(key: &Key, around: &Around<'_>, wanted: &BTreeSet<Key>) -> bool {
    wanted.contains(key) && (around.bundle)(key).is_none()
}

/// The authorities in a ConfigMap that a reference leads to.
pub(super) fn certificates(
    reference: &ObjectRef,
    namespace: &str,
    around: &Around<'_>,
    wanted: &mut BTreeSet<Key>,
) -> Result<String, Wrong> {
    if !matches!(reference.group.as_deref(), None | Some("")) || reference.kind.as_deref() != Some("ConfigMap") {
        return Err(("InvalidKind", format!("{} is no ConfigMap", reference.name)));
    }
    let key = Key::namespaced(namespace, &reference.name);
    wanted.insert(key.clone());
    let wrong = |why: String| ("InvalidCACertificateRef", format!("ConfigMap {key} {why}"));
    let text = (around.bundle)(&key).ok_or_else(|| wrong("was not looked at yet".to_owned()))?;
    let text = text.ok_or_else(|| wrong("is not there or has no ca.crt".to_owned()))?;
    base::tls::roots(&text).map_err(|error| wrong(format!("has no good ca.crt: {error}")))?;
    Ok(text)
}
