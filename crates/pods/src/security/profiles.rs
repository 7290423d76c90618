//! Checks of the level baseline that look at the profiles of security modules: AppArmor, SELinux, seccomp.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{AppArmorProfile, SELinuxOptions, SeccompProfile};

use super::subject::{Setters, Words, plural, quoted, violation};
use super::{Subject, Violation};
use crate::app_armor;

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// A type of profile that a pod may have: the runtime's own, or one of the node's.
fn is_allowed(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

pub(super) fn app_armor(pod: &Subject) -> Option<Violation> {
    fn bad(profile: Option<&AppArmorProfile>) -> Option<&str> {
        profile.map(|profile| profile.type_.as_str()).filter(|kind| !is_allowed(kind))
    }
    let own = bad(pod.spec.security_context.as_ref().and_then(|security| security.app_armor_profile.as_ref()));
    let of = |member: &super::subject::Member<'_>| {
        bad(member.security.and_then(|security| security.app_armor_profile.as_ref())).map(str::to_owned)
    };
    let setters = Setters { pod: own.is_some(), containers: pod.which(|member| of(member).is_some()) };
    let kinds: BTreeSet<String> = own.map(str::to_owned).into_iter().chain(pod.members().filter_map(|m| of(&m))).collect();
    let allowed = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let annotations = pod.annotations.iter().filter(|(key, value)| key.starts_with(app_armor::ANNOTATION) && !allowed(value));
    let annotations: Vec<String> = annotations.map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    if setters.is_empty() && annotations.is_empty() {
        return None;
    }
    let mut who = setters.words();
    if !annotations.is_empty() {
        let word = plural(annotations.len(), "annotation", "annotations");
        who = if who.is_empty() { word.to_owned() } else { format!("{who} and {word}") };
    }
    let count = kinds.len() + annotations.len();
    let what = quoted(kinds.into_iter().chain(annotations));
    let reason = plural(count, "forbidden AppArmor profile", "forbidden AppArmor profiles");
    violation(reason, format!("{who} must not set AppArmor profile type to {what}"))
}

pub(super) fn se_linux(pod: &Subject) -> Option<Violation> {
    se_linux_of(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub(super) fn se_linux_1_31(pod: &Subject) -> Option<Violation> {
    se_linux_of(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn se_linux_of(pod: &Subject, allowed: &[&str]) -> Option<Violation> {
    fn text(field: Option<&String>) -> &str {
        field.map(String::as_str).unwrap_or_default()
    }
    let bad = |options: &SELinuxOptions| {
        let kind = text(options.type_.as_ref());
        !allowed.contains(&kind) || !text(options.user.as_ref()).is_empty() || !text(options.role.as_ref()).is_empty()
    };
    let own = pod.spec.security_context.as_ref().and_then(|security| security.se_linux_options.as_ref());
    let theirs = pod.members().filter_map(|member| Some((member.name, member.security?.se_linux_options.as_ref()?)));
    let theirs: Vec<_> = theirs.filter(|(_, options)| bad(options)).collect();
    let own = own.filter(|options| bad(options));
    let setters = Setters { pod: own.is_some(), containers: theirs.iter().map(|(name, _)| *name).collect() };
    if setters.is_empty() {
        return None;
    }
    let all: Vec<&SELinuxOptions> = own.into_iter().chain(theirs.iter().map(|(_, options)| *options)).collect();
    let kinds: Words<'_> =
        all.iter().map(|options| text(options.type_.as_ref())).filter(|kind| !allowed.contains(kind)).collect();
    let mut what = Vec::new();
    if !kinds.is_empty() {
        what.push(format!("{} {}", plural(kinds.len(), "type", "types"), quoted(kinds)));
    }
    if all.iter().any(|options| !text(options.user.as_ref()).is_empty()) {
        what.push("user may not be set".to_owned());
    }
    if all.iter().any(|options| !text(options.role.as_ref()).is_empty()) {
        what.push("role may not be set".to_owned());
    }
    let detail = format!("{} set forbidden securityContext.seLinuxOptions: {}", setters.words(), what.join("; "));
    violation("seLinuxOptions", detail)
}

/// Before v1.19 annotations said the profile.
pub(super) fn seccomp_annotations(pod: &Subject) -> Option<Violation> {
    let allowed = |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let keys = pod.members().map(|member| format!("{SECCOMP_CONTAINER}{}", member.name));
    let keys: BTreeSet<String> = keys.chain([SECCOMP_POD.to_owned()]).collect();
    let values = keys.iter().filter_map(|key| Some((key, pod.annotations.get(key)?)));
    let bad: Vec<_> = values.filter(|(_, value)| !allowed(value)).map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    if bad.is_empty() {
        return None;
    }
    violation("seccompProfile", format!("forbidden {} {}", plural(bad.len(), "annotation", "annotations"), bad.join(", ")))
}

/// The type of a profile that is not allowed.
pub(super) fn bad_seccomp(profile: Option<&SeccompProfile>) -> Option<&str> {
    profile.map(|profile| profile.type_.as_str()).filter(|kind| !is_allowed(kind))
}

pub(super) fn seccomp(pod: &Subject) -> Option<Violation> {
    let own = bad_seccomp(pod.spec.security_context.as_ref().and_then(|security| security.seccomp_profile.as_ref()));
    let theirs = pod.members().filter_map(|member| Some((member.name, bad_seccomp(member.security?.seccomp_profile.as_ref())?)));
    let theirs: Vec<_> = theirs.collect();
    let setters = Setters { pod: own.is_some(), containers: theirs.iter().map(|(name, _)| *name).collect() };
    if setters.is_empty() {
        return None;
    }
    let kinds: Words<'_> = own.into_iter().chain(theirs.iter().map(|(_, kind)| *kind)).collect();
    let detail = format!("{} must not set securityContext.seccompProfile.type to {}", setters.words(), quoted(kinds));
    violation("seccompProfile", detail)
}
