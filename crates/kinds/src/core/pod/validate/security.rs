//! Security contexts of pods and containers.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::SecurityContext;
use serde_json::json;

use super::scope::Scope;
use super::{profiles, sysctls, windows};
use crate::rules::{self, list};

const MAX_ID: i64 = i32::MAX as i64;

/// Of the pod; `path` is that of the context.
pub(super) fn validate_pod(scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let Some(context) = &scope.spec.security_context else { return };
    for (field, id) in [("fsGroup", context.fs_group), ("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
        rules::in_range(&path.child(field), id, 0, MAX_ID, errors);
    }
    for (index, group) in list(&context.supplemental_groups).iter().enumerate() {
        rules::in_range(&path.child("supplementalGroups").index(index), Some(*group), 0, MAX_ID, errors);
    }
    if scope.spec.share_process_namespace == Some(true) && scope.spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(Error::invalid(&path.child("shareProcessNamespace"), true, detail));
    }
    sysctls::validate(list(&context.sysctls), scope.spec, &path.child("sysctls"), errors);
    let policy = context.fs_group_change_policy.as_deref();
    rules::supported(&path.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"], errors);
    if let Some(profile) = &context.seccomp_profile {
        profiles::validate_seccomp(profile, &path.child("seccompProfile"), errors);
    }
    if let Some(options) = &context.windows_options {
        windows::validate_options(options, &path.child("windowsOptions"), errors);
    }
    if let Some(profile) = &context.app_armor_profile {
        profiles::validate_app_armor(profile, &path.child("appArmorProfile"), errors);
    }
    let policy = context.supplemental_groups_policy.as_deref();
    rules::supported(&path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"], errors);
    let policy = context.se_linux_change_policy.as_deref();
    rules::supported(&path.child("seLinuxChangePolicy"), policy, &["MountOption", "Recursive"], errors);
}

/// Of a container.
pub(super) fn validate_container(context: &SecurityContext, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    for (field, id) in [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
        rules::in_range(&path.child(field), id, 0, MAX_ID, errors);
    }
    let proc = context.proc_mount.as_deref();
    rules::supported(&path.child("procMount"), proc, &["Default", "Unmasked"], errors);
    if scope.host_users() && proc == Some("Unmasked") {
        let detail = "`hostUsers` must be false to use `Unmasked`";
        errors.push(Error::invalid(&path.child("procMount"), "Unmasked", detail));
    }
    if let Some(profile) = &context.seccomp_profile {
        profiles::validate_seccomp(profile, &path.child("seccompProfile"), errors);
    }
    validate_escalation(context, path, errors);
    if let Some(options) = &context.windows_options {
        windows::validate_options(options, &path.child("windowsOptions"), errors);
    }
    if let Some(profile) = &context.app_armor_profile {
        profiles::validate_app_armor(profile, &path.child("appArmorProfile"), errors);
    }
}

/// No way up for who is at the top already.
fn validate_escalation(context: &SecurityContext, path: &Path, errors: &mut Errors) {
    if context.allow_privilege_escalation != Some(false) {
        return;
    }
    if context.privileged == Some(true) {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(Error::invalid(path, json!(context), detail));
    }
    let added = context.capabilities.iter().flat_map(|capabilities| list(&capabilities.add));
    for _ in added.filter(|capability| *capability == "CAP_SYS_ADMIN") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(Error::invalid(path, json!(context), detail));
    }
}
