//! What may change in a job once it exists.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::meta::IMMUTABLE;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Affinity, Container, PodSpec, PodTemplateSpec};
use serde::Serialize;
use serde_json::json;

use super::spec::is_indexed;

pub(super) fn validate(job: &Job, old: &Job, errors: &mut Errors) {
    let (Some(spec), Some(old_spec)) = (&job.spec, &old.spec) else { return };
    let path = Path::new("spec");
    validate_completions(spec, old_spec, &path, errors);
    immutable(&spec.selector, &old_spec.selector, &path.child("selector"), errors);
    validate_template(spec, old, old_spec, &path, errors);
    immutable(&spec.completion_mode, &old_spec.completion_mode, &path.child("completionMode"), errors);
    immutable(&spec.pod_failure_policy, &old_spec.pod_failure_policy, &path.child("podFailurePolicy"), errors);
    immutable(&spec.backoff_limit_per_index, &old_spec.backoff_limit_per_index, &path.child("backoffLimitPerIndex"), errors);
    immutable(&spec.managed_by, &old_spec.managed_by, &path.child("managedBy"), errors);
    immutable(&spec.success_policy, &old_spec.success_policy, &path.child("successPolicy"), errors);
}

fn immutable<T: PartialEq + Serialize>(new: &T, old: &T, path: &Path, errors: &mut Errors) {
    if new != old {
        errors.push(Error::invalid(path, json!(new), IMMUTABLE));
    }
}

/// Indexed jobs are elastic (KEP-3715): their size changes where both numbers of it do.
fn validate_completions(spec: &JobSpec, old: &JobSpec, path: &Path, errors: &mut Errors) {
    let at = path.child("completions");
    if !is_indexed(spec) {
        return immutable(&spec.completions, &old.completions, &at, errors);
    }
    if spec.completions.is_some() && spec.completions != old.completions && spec.completions != spec.parallelism {
        let detail = format!("can only be modified in tandem with {}", path.child("parallelism"));
        errors.push(Error::invalid(&at, json!(spec.completions), detail));
    }
}

/// The template of a suspended job without pods may get other resources (KEP-5440) and directives for the scheduler (KEP-2926).
fn validate_template(spec: &JobSpec, old: &Job, old_spec: &JobSpec, path: &Path, errors: &mut Errors) {
    let status = old.status.as_ref();
    let idle = status.and_then(|status| status.active).unwrap_or(0) == 0;
    let started = status.is_some_and(|status| status.start_time.is_some());
    let mut allowed = old_spec.template.clone();
    if old_spec.suspend != Some(true) {
        return immutable(&spec.template, &allowed, &path.child("template"), errors);
    }
    if !started || (idle && super::status::is_true(old, "Suspended")) {
        take_directives(&mut allowed, &spec.template);
    }
    if !idle {
        return immutable(&spec.template, &allowed, &path.child("template"), errors);
    }
    let (new, mut allowed) = (spec.template.spec.clone().unwrap_or_default(), allowed.spec.unwrap_or_default());
    take_resources(&mut allowed, &new);
    immutable(&new, &allowed, &path.child("template.spec"), errors);
}

/// Gives `allowed` the scheduling directives and the metadata of the new template.
fn take_directives(allowed: &mut PodTemplateSpec, new: &PodTemplateSpec) {
    allowed.metadata.clone_from(&new.metadata);
    let (Some(allowed), Some(new)) = (&mut allowed.spec, &new.spec) else { return };
    allowed.node_selector.clone_from(&new.node_selector);
    allowed.tolerations.clone_from(&new.tolerations);
    allowed.scheduling_gates.clone_from(&new.scheduling_gates);
    let wanted = new.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    match (&mut allowed.affinity, &new.affinity) {
        (Some(affinity), Some(_)) => affinity.node_affinity = wanted,
        (slot @ None, Some(_)) => *slot = Some(Affinity { node_affinity: wanted, ..Affinity::default() }),
        (slot @ Some(_), None) => {
            let rest = slot.take().map(|affinity| Affinity { node_affinity: None, ..affinity });
            *slot = rest.filter(|rest| *rest != Affinity::default());
        }
        (None, None) => {}
    }
}

fn take_resources(allowed: &mut PodSpec, new: &PodSpec) {
    let take = |allowed: &mut [Container], new: &[Container]| {
        if allowed.len() == new.len() {
            for (allowed, new) in allowed.iter_mut().zip(new).filter(|(allowed, new)| allowed.name == new.name) {
                allowed.resources.clone_from(&new.resources);
            }
        }
    };
    take(&mut allowed.containers, &new.containers);
    let init = new.init_containers.as_deref().unwrap_or_default();
    take(allowed.init_containers.as_deref_mut().unwrap_or_default(), init);
}
