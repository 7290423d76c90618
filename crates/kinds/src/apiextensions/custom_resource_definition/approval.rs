//! API groups of the Kubernetes community: a definition in one of them says who approved it (KEP-1111).

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::util::text;

const ANNOTATION: &str = "api-approved.kubernetes.io";
const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

#[derive(PartialEq, Eq)]
enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

fn is_protected(group: &str) -> bool {
    let below = |domain: &str| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    below("k8s.io") || below("kubernetes.io")
}

fn annotation(definition: &CustomResourceDefinition) -> &str {
    let annotations = definition.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(ANNOTATION)).map(String::as_str).unwrap_or_default()
}

fn approval(annotation: &str) -> Approval {
    let url = annotation.split_once("://").filter(|(scheme, _)| !scheme.is_empty());
    match url.map(|(_, rest)| rest.split('/').next().unwrap_or_default()) {
        _ if annotation.is_empty() => Approval::Missing,
        _ if annotation.starts_with("unapproved") => Approval::Bypassed,
        Some(host) if !host.is_empty() => Approval::Approved,
        _ => Approval::Invalid,
    }
}

/// A definition in a protected group is approved, or says that it is not. One that was there without stays as it was.
pub(super) fn validate(new: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>, errors: &mut Errors) {
    if !is_protected(&new.spec.group) {
        return;
    }
    let given = annotation(new);
    let now = approval(given);
    if old.is_some_and(|old| approval(annotation(old)) == now) {
        return;
    }
    let path = Path::new("metadata").child("annotations").key(ANNOTATION);
    match now {
        Approval::Missing => {
            let detail = format!("protected groups must have approval annotation {ANNOTATION:?}, {SEE}");
            errors.push(Error::required(&path, detail));
        }
        Approval::Invalid => {
            let either = "with either a URL or a reason starting with \"unapproved\"";
            let detail = format!("protected groups must have approval annotation {ANNOTATION:?} {either}, {SEE}");
            errors.push(Error::invalid(&path, given, detail));
        }
        Approval::Approved | Approval::Bypassed => {}
    }
}

/// What the condition KubernetesAPIApprovalPolicyConformant says of a definition in a protected group: status, reason, message.
pub(crate) fn condition(definition: &Value) -> Option<(&'static str, &'static str, String)> {
    if !is_protected(text(definition, "/spec/group")) {
        return None;
    }
    let given = apimachinery::meta::annotation(definition, ANNOTATION).unwrap_or_default();
    Some(match approval(given) {
        Approval::Missing => {
            let message = format!("protected groups must have approval annotation {ANNOTATION:?}, {SEE}");
            ("False", "MissingAnnotation", message)
        }
        Approval::Invalid => {
            let either = "with either a URL or a reason starting with \"unapproved\"";
            let message = format!("protected groups must have approval annotation {ANNOTATION:?} {either}, {SEE}");
            ("False", "InvalidAnnotation", message)
        }
        Approval::Bypassed => ("False", "UnapprovedAnnotation", format!("not approved: {given:?}")),
        Approval::Approved => ("True", "ApprovedAnnotation", format!("approved in {given}")),
    })
}
