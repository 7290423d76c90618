//! References to a pod's own fields and resources: the downward API.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{ObjectFieldSelector, ResourceFieldSelector};

use crate::rules::{self, text};

/// Fields that a variable may have.
pub(super) const ENVIRONMENT: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that a file may have.
pub(super) const VOLUME: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields of a pod that have a name at all.
const KNOWN: &[&str] = &["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
const RESOURCES: &[&str] =
    &["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];
const BYTES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// One field, of those in `allowed`.
pub(super) fn validate_field(source: &ObjectFieldSelector, allowed: &[&str], path: &Path, errors: &mut Errors) {
    let (version, field) = (text(&source.api_version), source.field_path.as_str());
    let missing = [("apiVersion", version), ("fieldPath", field)].into_iter().find(|(_, value)| value.is_empty());
    if let Some((name, _)) = missing {
        return errors.push(Error::required(&path.child(name), ""));
    }
    let subscripted = subscript(field);
    if let Some(problem) = unknown(version, field, subscripted) {
        let detail = format!("error converting fieldPath: {problem}");
        return errors.push(Error::invalid(&path.child("fieldPath"), field, detail));
    }
    match subscripted {
        Some(("metadata.annotations", key)) => rules::qualified_name(path, &key.to_lowercase(), errors),
        Some((_, key)) => rules::qualified_name(path, key, errors),
        None => {
            let field = if field == "spec.host" { "spec.nodeName" } else { field };
            rules::supported(&path.child("fieldPath"), Some(field), allowed, errors);
        }
    }
}

/// `metadata.labels['key']` is a field and a key.
fn subscript(field: &str) -> Option<(&str, &str)> {
    field.strip_suffix("']")?.split_once("['").filter(|(field, _)| !field.is_empty())
}

fn unknown(version: &str, field: &str, subscripted: Option<(&str, &str)>) -> Option<String> {
    if version != "v1" {
        return Some(format!("unsupported pod version: {version}"));
    }
    match subscripted {
        Some(("metadata.annotations" | "metadata.labels", _)) => None,
        Some(_) => Some(format!("field label does not support subscript: {field}")),
        None if field == "spec.host" || ENVIRONMENT.contains(&field) || KNOWN.contains(&field) => None,
        None => Some(format!("field label not supported: {field}")),
    }
}

/// A request or limit of a container; `in_volume` it must be said of which.
pub(super) fn validate_resource(source: &ResourceFieldSelector, in_volume: bool, path: &Path, errors: &mut Errors) {
    let resource = source.resource.as_str();
    if in_volume && text(&source.container_name).is_empty() {
        errors.push(Error::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(Error::required(&path.child("resource"), ""));
    } else if !is_hugepages(resource) {
        rules::supported(&path.child("resource"), Some(resource), RESOURCES, errors);
    }
    let divisor = source.divisor.as_ref().map_or("", |divisor| &divisor.0);
    if Quantity::parse(divisor).is_ok_and(|divisor| !divisor.is_zero()) {
        validate_divisor(resource, divisor, &path.child("divisor"), errors);
    }
}

fn is_hugepages(resource: &str) -> bool {
    resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-")
}

fn validate_divisor(resource: &str, divisor: &str, path: &Path, errors: &mut Errors) {
    let sized = |what| format!("only divisor's values {} are supported with the {what} resource", BYTES.join(", "));
    let (allowed, detail) = match resource.split_once('.').map(|(_, name)| name) {
        Some("cpu") => (&["1m", "1"][..], "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()),
        Some("memory") => (BYTES, sized("memory")),
        Some("ephemeral-storage") => (BYTES, sized("local ephemeral storage")),
        _ if is_hugepages(resource) => (BYTES, sized("hugepages")),
        _ => return,
    };
    if !allowed.contains(&divisor) {
        errors.push(Error::invalid(path, resource, detail));
    }
}
