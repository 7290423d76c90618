//! Annotations that say something about a pod: mirror pods, the cost of deletion, and the older form of security profiles.

use std::collections::{BTreeMap, HashSet};

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::PodSpec;

use super::scope::Scope;
use crate::rules::{self, text};

pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
pub(crate) use pods::app_armor::ANNOTATION as APP_ARMOR;
pub(crate) const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(crate) const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

type Annotations = BTreeMap<String, String>;

/// `path` is that of the annotations.
pub(super) fn validate(annotations: Option<&Annotations>, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let is_armored = annotations.into_iter().flatten().any(|(key, _)| key.starts_with(APP_ARMOR));
    let scope = is_armored.then(|| Scope::new(spec, None));
    let containers: HashSet<_> = scope.iter().flat_map(|scope| scope.all()).map(|container| container.name.to_owned()).collect();
    for (key, value) in annotations.into_iter().flatten() {
        let at = || path.key(key);
        match key.as_str() {
            MIRROR if text(&spec.node_name).is_empty() => {
                let detail = "must set spec.nodeName if mirror pod annotation is set";
                errors.push(Error::invalid(&at(), value.as_str(), detail));
            }
            DELETION_COST if !is_cost(value) => errors.push(Error::invalid(&at(), value.as_str(), "must be a 32bit integer")),
            SECCOMP_POD => validate_seccomp(value, &path.child(key), errors),
            key if key.starts_with(SECCOMP_CONTAINER) => validate_seccomp(value, &path.child(key), errors),
            _ => {}
        }
        if let Some(container) = key.strip_prefix(APP_ARMOR) {
            validate_app_armor(container, value, &containers, &at(), errors);
        }
    }
}

/// A number as people write it: no plus, no zeros before it.
fn is_cost(value: &str) -> bool {
    value.parse::<i32>().is_ok_and(|cost| cost.to_string() == value || value == "-0")
}

fn validate_seccomp(value: &str, path: &Path, errors: &mut Errors) {
    if let Some(file) = value.strip_prefix("localhost/") {
        rules::descending_path(path, file, errors);
    } else if !["runtime/default", "docker/default", "unconfined"].contains(&value) {
        errors.push(Error::invalid(path, value, "must be a valid seccomp profile"));
    }
}

fn validate_app_armor(container: &str, value: &str, containers: &HashSet<String>, path: &Path, errors: &mut Errors) {
    if !containers.contains(container) {
        errors.push(Error::invalid(path, container, "container not found"));
    }
    if !["", "runtime/default", "unconfined"].contains(&value) && !value.starts_with("localhost/") {
        errors.push(Error::invalid(path, value, format!("invalid AppArmor profile name: {value:?}")));
    }
}

/// Where a profile is said in both forms, they agree; `path` is that of the spec.
pub(super) fn validate_match(annotations: Option<&Annotations>, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(annotations) = annotations.filter(|annotations| !annotations.is_empty()) else { return };
    let context = spec.security_context.as_ref();
    if let (Some(field), Some(said)) =
        (context.and_then(|context| context.seccomp_profile.as_ref()), annotations.get(SECCOMP_POD))
    {
        let field = Profile { what: "seccomp", kind: &field.type_, file: text(&field.localhost_profile) };
        field.matches(said, &path.child("securityContext.seccompProfile"), errors);
    }
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    for container in Scope::new(spec, None).all() {
        let security = container.path(path).child("securityContext");
        let own = container.security;
        if let (Some(field), Some(said)) = (
            own.and_then(|context| context.seccomp_profile.as_ref()),
            annotations.get(&format!("{SECCOMP_CONTAINER}{}", container.name)),
        ) {
            let field = Profile { what: "seccomp", kind: &field.type_, file: text(&field.localhost_profile) };
            field.matches(said, &security.child("seccompProfile"), errors);
        }
        let field = own.and_then(|own| own.app_armor_profile.as_ref()).or(context.and_then(|pod| pod.app_armor_profile.as_ref()));
        if let (Some(field), Some(said), false) = (field, annotations.get(&format!("{APP_ARMOR}{}", container.name)), windows) {
            let field = Profile { what: "apparmor", kind: &field.type_, file: text(&field.localhost_profile) };
            field.matches(said, &security.child("appArmorProfile"), errors);
        }
    }
}

/// A profile as a field says it.
struct Profile<'a> {
    what: &'static str,
    kind: &'a str,
    file: &'a str,
}

impl Profile<'_> {
    fn matches(&self, said: &str, path: &Path, errors: &mut Errors) {
        let local = said.strip_prefix("localhost/");
        let same_kind = match self.kind {
            "Unconfined" => said == "unconfined",
            "RuntimeDefault" => said == "runtime/default" || (self.what == "seccomp" && said == "docker/default"),
            "Localhost" => local.is_some(),
            _ => true,
        };
        if !same_kind {
            let detail = format!("{} type in annotation and field must match", self.what);
            errors.push(Error::forbidden(&path.child("type"), detail));
        } else if self.kind == "Localhost" && local != Some(self.file) {
            let detail = format!("{} profile in annotation and field must match", self.what);
            errors.push(Error::forbidden(&path.child("localhostProfile"), detail));
        }
    }
}
