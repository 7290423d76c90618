//! CertificateSigningRequest (upstream: `pkg/apis/certificates/validation` and `pkg/registry/certificates`).
//!
//! Upstream forgives objects that older versions let in some of the rules; here there are none.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use serde_json::{Value, json};

use super::pem;
use crate::columns::Column;
use crate::def::{KindDef, NameRule};
use crate::rules::{self, list};
use crate::sub::Sub;
use crate::typed::{Kind, Requester};
use crate::util::{carry_over, child_object, each, or_none, remove, text};
use crate::verb::VerbSet;

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
/// The sub-resource through which a request is approved or denied.
const APPROVAL: &str = "approval";
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";
const MIN_SECONDS: i32 = 600;

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

impl Kind for CertificateSigningRequest {
    const DEF: KindDef = KindDef::new(
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "certificatesigningrequest",
    )
    .short(&["csr"])
    .cluster()
    .name(NameRule::PathSegment)
    .subresources(&[Sub::part(APPROVAL, VerbSet::PART, keep_all_but_conditions), Sub::STATUS]);
    const SELECTABLE: &'static [&'static str] = &["spec.signerName"];

    fn field(object: &Value, _name: &'static str) -> String {
        text(object, "/spec/signerName").to_owned()
    }

    /// What is asked for never changes.
    fn prepare_update(object: &mut Value, old: &Value) {
        carry_over(object, old, "spec");
    }

    /// Who asks is not for the client to say. Conditions carry the time at which they came.
    fn record(object: &mut Value, old: Option<&Value>, by: &Requester<'_>) {
        match old {
            None => record_requester(object, by),
            Some(old) => record_times(object, old, by.now),
        }
    }

    fn validate(&self, errors: &mut Errors) {
        validate_spec(&self.spec, &Path::new("spec"), errors);
        validate_conditions(conditions(self), &Path::new("status").child("conditions"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        validate_changed_conditions(self, old, false, errors);
    }

    fn validate_sub(&self, sub: &str, old: &Self, errors: &mut Errors) {
        self.validate(errors);
        validate_changed_conditions(self, old, sub == APPROVAL, errors);
        validate_certificate(self, old, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::NAME,
                Column::AGE,
                Column::new("SignerName", "signerName indicates the requested signer, and is a qualified name.", |request, _| {
                    or_none(request.spec.signer_name.as_str())
                }),
                Column::new(
                    "Requestor",
                    "request contains an x509 certificate signing request encoded in a \"CERTIFICATE REQUEST\" PEM block.",
                    |request, _| rules::text(&request.spec.username).into(),
                ),
                Column::new(
                    "RequestedDuration",
                    "expirationSeconds is the requested duration of validity of the issued certificate.",
                    |request, _| {
                        let seconds = request.spec.expiration_seconds;
                        or_none(seconds.map(|s| apimachinery::table::human_duration(s.into())).unwrap_or_default())
                    },
                ),
                Column::new(
                    "Condition",
                    "conditions applied to the request. Known conditions are \"Approved\", \"Denied\", and \"Failed\".",
                    |request, _| state(request).into(),
                ),
            ]
        }
    }
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default()
}

/// Through `approval`, conditions change and nothing else.
fn keep_all_but_conditions(object: &mut Value, old: &Value) {
    let conditions = object.pointer("/status/conditions").cloned();
    let metadata = object.get("metadata").cloned();
    *object = old.clone();
    if let Some(metadata) = metadata {
        object["metadata"] = metadata;
    }
    let status = child_object(object, "status");
    match conditions {
        Some(conditions) => status["conditions"] = conditions,
        None => remove(status, "conditions"),
    }
}

fn record_requester(object: &mut Value, by: &Requester<'_>) {
    let spec = child_object(object, "spec");
    let known = [
        ("username", json!(by.name), by.name.is_empty()),
        ("uid", json!(by.uid), by.uid.is_empty()),
        ("groups", json!(by.groups), by.groups.is_empty()),
        ("extra", json!(by.extra), by.extra.is_empty()),
    ];
    for (field, value, is_empty) in known {
        remove(spec, field);
        if !is_empty {
            spec[field] = value;
        }
    }
}

fn record_times(object: &mut Value, old: &Value, now: &str) {
    fn of(condition: &Value) -> (&str, &str) {
        (text(condition, "/type"), text(condition, "/status"))
    }
    let before = old.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten().rev();
    let before: HashMap<_, _> = before.map(|other| (of(other), text(other, "/lastTransitionTime"))).collect();
    let Some(status) = object.get_mut("status") else { return };
    for condition in each(status, "conditions") {
        if text(condition, "/lastUpdateTime").is_empty() {
            condition["lastUpdateTime"] = now.into();
        }
        if text(condition, "/lastTransitionTime").is_empty() {
            let since = before.get(&of(condition)).copied().unwrap_or_default();
            condition["lastTransitionTime"] = if since.is_empty() { now.into() } else { since.into() };
        }
    }
}

fn validate_spec(spec: &CertificateSigningRequestSpec, path: &Path, errors: &mut Errors) {
    if let Err(why) = pem::check_request(&spec.request.0) {
        errors.push(Error::invalid(&path.child("request"), json!(spec.request), why.to_string()));
    }
    let (usages, at) = (list(&spec.usages), path.child("usages"));
    if usages.is_empty() {
        errors.push(Error::required(&at, ""));
    }
    for (index, usage) in usages.iter().enumerate() {
        rules::supported(&at.index(index), Some(usage), USAGES, errors);
    }
    for (index, usage) in usages.iter().enumerate().filter(|(index, usage)| usages[..*index].contains(usage)) {
        errors.push(Error::duplicate(&at.index(index), usage.as_str()));
    }
    let at = path.child("signerName");
    if spec.signer_name == LEGACY_UNKNOWN {
        let detail = "the legacy signerName is not allowed via this API version";
        errors.push(Error::invalid(&at, spec.signer_name.as_str(), detail));
    } else {
        rules::signer_name(&at, &spec.signer_name, errors);
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|seconds| *seconds < MIN_SECONDS) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(Error::invalid(&path.child("expirationSeconds"), seconds, detail));
    }
}

fn validate_conditions(conditions: &[CertificateSigningRequestCondition], path: &Path, errors: &mut Errors) {
    let mut earlier = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let (at, kind) = (path.index(index), condition.type_.as_str());
        rules::required(&at.child("type"), kind, errors);
        let allowed: &[&str] = if [APPROVED, DENIED, FAILED].contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        rules::one_of(&at.child("status"), &condition.status, allowed, errors);
        let opposite = match kind {
            APPROVED => DENIED,
            DENIED => APPROVED,
            _ => "",
        };
        if !opposite.is_empty() && earlier.contains(opposite) {
            errors.push(Error::invalid(path, kind, "Approved and Denied conditions are mutually exclusive"));
        }
        if !earlier.insert(kind) {
            errors.push(Error::duplicate(&at.child("type"), kind));
        }
    }
}

/// Decisions stay; only who approves may add one.
fn validate_changed_conditions(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    approves: bool,
    errors: &mut Errors,
) {
    let path = Path::new("status").child("conditions");
    let of = |request, kind| conditions(request).iter().filter(move |condition| condition.type_ == kind).collect::<Vec<_>>();
    let mut refuse = |detail: String| errors.push(Error::forbidden(&path, detail));
    for kind in [APPROVED, DENIED, FAILED] {
        if of(new, kind).len() < of(old, kind).len() {
            refuse(format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    for kind in [APPROVED, DENIED].into_iter().filter(|_| !approves) {
        let (is, was) = (of(new, kind), of(old, kind));
        if is.len() > was.len() {
            refuse(format!("updates may not add a condition of type {kind:?}"));
        } else if is.len() == was.len() && is != was {
            refuse(format!("updates may not modify a condition of type {kind:?}"));
        }
    }
}

/// A certificate is set once, and is one.
fn validate_certificate(new: &CertificateSigningRequest, old: &CertificateSigningRequest, errors: &mut Errors) {
    let of = |request: &CertificateSigningRequest| {
        request.status.as_ref().and_then(|status| status.certificate.clone()).unwrap_or_default().0
    };
    let (is, was, path) = (of(new), of(old), Path::new("status").child("certificate"));
    if is == was {
        return;
    }
    if let Err(why) = pem::check_certificates(&is) {
        errors.push(Error::invalid(&path, "<certificate data>", why.to_string()));
    }
    if !was.is_empty() {
        errors.push(Error::forbidden(&path, "updates may not modify existing certificate content"));
    }
}

/// What became of the request.
fn state(request: &CertificateSigningRequest) -> String {
    let has = |kind: &str| conditions(request).iter().any(|condition| condition.type_ == kind);
    let issued = request.status.as_ref().and_then(|status| status.certificate.as_ref()).is_some_and(|bytes| !bytes.0.is_empty());
    let decision = if has(DENIED) {
        DENIED
    } else if has(APPROVED) {
        APPROVED
    } else {
        "Pending"
    };
    let further = [(has(FAILED), FAILED), (issued, "Issued")];
    let words = further.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word);
    std::iter::once(decision).chain(words).collect::<Vec<_>>().join(",")
}
