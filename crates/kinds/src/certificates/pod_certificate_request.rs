//! PodCertificateRequest: a kubelet asks for a certificate of a pod (KEP-4317; upstream: `pkg/apis/certificates/validation`).

mod issued;
mod key;
#[cfg(test)]
mod tests;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::{meta, names};
use k8s_openapi::api::certificates::v1beta1::{PodCertificateRequest, PodCertificateRequestSpec, PodCertificateRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use crate::def::KindDef;
use crate::rules::{self, list};
use crate::sub::Sub;
use crate::typed::Kind;
use crate::util::{child_object, remove, set_default, text};

const ISSUED: &str = "Issued";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";
/// Shortest and longest life of a certificate, in seconds; the last is that of signers of Kubernetes's own.
pub(crate) const MIN_SECONDS: i32 = 3600;
const MAX_SECONDS: i32 = 91 * 86400;
const MAX_OF_KUBERNETES: i32 = 86400;
const DEFAULT_SECONDS: i32 = 86400;
const MAX_UID: usize = 128;

impl Kind for PodCertificateRequest {
    const DEF: KindDef =
        KindDef::of::<Self>("podcertificaterequest").versioned().status_keeps_metadata().subresources(&[Sub::STATUS]);
    const SELECTABLE: &'static [&'static str] = &["spec.nodeName", "spec.podName", "spec.signerName"];

    fn field(object: &Value, name: &'static str) -> String {
        text(object, &format!("/{}", name.replace('.', "/"))).to_owned()
    }

    fn apply_defaults(object: &mut Value) {
        set_default(child_object(object, "spec"), "maxExpirationSeconds", DEFAULT_SECONDS);
    }

    fn prepare_create(object: &mut Value) {
        remove(object, "status");
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate_spec(&self.spec, &Path::new("spec"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        rules::immutable(&Path::new("spec"), &self.spec, &old.spec, errors);
    }

    fn validate_sub(&self, _sub: &str, old: &Self, errors: &mut Errors) {
        let (new, old) = (self.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
        validate_status(&new, &old, &self.spec, errors);
    }
}

fn validate_spec(spec: &PodCertificateRequestSpec, path: &Path, errors: &mut Errors) {
    rules::signer_name(&path.child("signerName"), &spec.signer_name, errors);
    if let Some(annotations) = &spec.unverified_user_annotations {
        validate_annotations(annotations, &path.child("unverifiedUserAnnotations"), errors);
    }
    for (field, name, uid) in [
        ("pod", &spec.pod_name, &spec.pod_uid),
        ("serviceAccount", &spec.service_account_name, &spec.service_account_uid),
        ("node", &spec.node_name, &spec.node_uid),
    ] {
        errors.invalid_each(&path.child(&format!("{field}Name")), name, names::dns1123_subdomain(name));
        let at = path.child(&format!("{field}UID"));
        if uid.is_empty() {
            errors.push(Error::invalid(&at, "", "must not be empty"));
        }
        if uid.len() > MAX_UID {
            errors.push(Error::too_long(&at, MAX_UID));
        }
    }
    let at = path.child("maxExpirationSeconds");
    let Some(seconds) = spec.max_expiration_seconds else { return errors.push(Error::required(&at, "must be set")) };
    let max = longest(&spec.signer_name);
    if !(MIN_SECONDS..=max).contains(&seconds) {
        errors.push(Error::invalid(&at, seconds, format!("must be in the range [{MIN_SECONDS}, {max}]")));
    }
    key::validate(spec, path, errors);
}

/// Annotations whose keys have a domain.
pub(crate) fn validate_annotations(annotations: &std::collections::BTreeMap<String, String>, path: &Path, errors: &mut Errors) {
    let Value::Object(object) = json!(annotations) else { return };
    meta::validate_annotations(&object, path, errors);
    for key in annotations.keys().filter(|key| !key.contains('/')) {
        errors.push(Error::invalid(path, key.as_str(), "must be a domain-prefixed key"));
    }
}

/// The longest life of a signer's certificates, in seconds.
pub(crate) fn longest(signer: &str) -> i32 {
    if is_of_kubernetes(signer) { MAX_OF_KUBERNETES } else { MAX_SECONDS }
}

fn is_of_kubernetes(signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}

/// The condition by which a request has ended.
fn outcome(conditions: &[Condition]) -> Option<&str> {
    let ended =
        |condition: &&Condition| condition.status == "True" && [ISSUED, DENIED, FAILED].contains(&condition.type_.as_str());
    conditions.iter().find(ended).map(|condition| condition.type_.as_str())
}

fn validate_conditions(conditions: &[Condition], path: &Path, errors: &mut Errors) {
    let mut known = 0;
    for (index, condition) in conditions.iter().enumerate() {
        let (at, kind) = (path.index(index), condition.type_.as_str());
        if ![ISSUED, DENIED, FAILED].contains(&kind) {
            errors.push(Error::not_supported(&at.child("type"), kind, &[ISSUED, DENIED, FAILED]));
            continue;
        }
        known += 1;
        if known > 1 {
            let detail = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.push(Error::invalid(&at.child("type"), kind, detail));
        }
        if condition.status != "True" {
            errors.push(Error::not_supported(&at.child("status"), condition.status.as_str(), &["True"]));
        }
    }
    rules::conditions(path, conditions, errors);
}

/// A request ends once: with a certificate, or with a condition and nothing else.
fn validate_status(
    new: &PodCertificateRequestStatus,
    old: &PodCertificateRequestStatus,
    spec: &PodCertificateRequestSpec,
    errors: &mut Errors,
) {
    let path = Path::new("status");
    let mut wrong = Errors::new();
    validate_conditions(list(&new.conditions), &path.child("conditions"), &mut wrong);
    if !wrong.is_empty() {
        return errors.extend(wrong);
    }
    let mut refuse = |detail: &str| errors.push(Error::invalid(&path, "<value omitted>", detail));
    if outcome(list(&old.conditions)).is_some() {
        if new != old {
            refuse("immutable after PodCertificateRequest is issued, denied, or failed");
        }
        return;
    }
    match outcome(list(&new.conditions)) {
        Some(ISSUED) => issued::validate(new, spec, &path, errors),
        Some(_) => {
            let alone = PodCertificateRequestStatus { conditions: new.conditions.clone(), ..Default::default() };
            if *new != alone {
                refuse("non-condition status fields must be empty when denying or failing the PodCertificateRequest");
            }
        }
        None if new != old => refuse("status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\""),
        None => {}
    }
}
