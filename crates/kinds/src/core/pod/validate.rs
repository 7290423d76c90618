//! Rules for pods and pod templates (upstream: `pkg/apis/core/validation/validation.go`), one file per theme. Wording, paths and the
//! order of errors are upstream's, its oddities included: clients and tests match on them.

mod affinity;
pub(super) mod annotations;
mod certificates;
mod container;
mod containers;
mod dns;
mod drivers;
mod env;
mod field_ref;
mod files;
mod mounts;
mod ports;
mod probes;
mod profiles;
mod projected;
mod resources;
mod scheduling;
mod scope;
mod security;
mod spec;
mod spread;
mod sysctls;
#[cfg(test)]
mod tests;
mod volumes;
mod windows;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodTemplateSpec, SecurityContext};

use crate::rules;

pub(crate) use affinity::node_selector;
pub(super) use container::image_is_trimmed;
pub(crate) use ports::PROTOCOLS;
pub(super) use profiles::is_app_armor;
pub(crate) use resources::validate_overhead;
pub(crate) use scheduling::TAINT_EFFECTS;
pub use scheduling::tolerations;
use scope::Scope;
pub(crate) use volumes::host_path;

/// A whole pod, new or changed.
pub(super) fn validate_pod(pod: &Pod, errors: &mut Errors) {
    let (spec, path) = (pod.spec.as_ref().unwrap_or(&EMPTY), Path::new("spec"));
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    annotations::validate(pod.metadata.annotations.as_ref(), spec, &Path::new("metadata.annotations"), errors);
    spec::validate(&Scope::new(spec, Some(name)), &path, errors);
    tokens_have_an_account(spec, &path, errors);
    for (list, containers) in [("containers", &spec.containers[..]), ("initContainers", rules::list(&spec.init_containers))] {
        for (index, container) in containers.iter().enumerate() {
            container::image_is_trimmed(container, &path.child(list).index(index), errors);
        }
    }
}

/// What holds for a new pod only.
pub(super) fn validate_new_pod(pod: &Pod, errors: &mut Errors) {
    let (spec, path) = (pod.spec.as_ref().unwrap_or(&EMPTY), Path::new("spec"));
    if !rules::list(&spec.ephemeral_containers).is_empty() {
        errors.push(Error::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !rules::text(&spec.node_name).is_empty() && !rules::list(&spec.scheduling_gates).is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(Error::forbidden(&path.child("nodeName"), detail));
    }
    annotations::validate_match(pod.metadata.annotations.as_ref(), spec, &path, errors);
}

/// A template inside a workload.
pub(crate) fn validate_template(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    validate_template_metadata(template, path, errors);
    validate_template_pod(template, path, errors);
}

/// The pod of a template.
pub(crate) fn validate_template_pod(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    let (spec, at) = (template.spec.as_ref().unwrap_or(&EMPTY), path.child("spec"));
    let notes = template.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
    spec::validate(&Scope::new(spec, None), &at, errors);
    annotations::validate_match(notes, spec, &at, errors);
    if !rules::list(&spec.ephemeral_containers).is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(Error::forbidden(&at.child("ephemeralContainers"), detail));
    }
}

/// Labels and annotations of a template.
pub(crate) fn validate_template_metadata(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    let metadata = template.metadata.as_ref();
    let notes = metadata.and_then(|metadata| metadata.annotations.as_ref());
    rules::labels(&path.child("labels"), metadata.and_then(|metadata| metadata.labels.as_ref()), errors);
    rules::annotations(&path.child("annotations"), notes, errors);
    annotations::validate(notes, template.spec.as_ref().unwrap_or(&EMPTY), &path.child("annotations"), errors);
}

/// The security contexts of all containers, by name.
pub(super) fn each_security(spec: &PodSpec) -> impl Iterator<Item = (&str, Option<&SecurityContext>)> {
    Scope::new(spec, None).all().map(|container| (container.name, container.security))
}

/// A pod without a spec is one whose fields are all missing.
static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

/// A token speaks for a ServiceAccount, so there must be one.
fn tokens_have_an_account(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if !rules::text(&spec.service_account_name).is_empty() {
        return;
    }
    for (index, volume) in rules::list(&spec.volumes).iter().enumerate() {
        let sources = volume.projected.as_ref().map(|projected| rules::list(&projected.sources)).unwrap_or_default();
        for (source, _) in sources.iter().enumerate().filter(|(_, source)| source.service_account_token.is_some()) {
            let path = path.child("volumes").index(index).child("projected.sources").index(source).child("serviceAccountToken");
            errors.push(Error::forbidden(&path, "must not be specified when serviceAccountName is not set"));
        }
    }
}
