//! Fields that exist on one operating system only, and the options of Windows containers.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{SecurityContext, WindowsSecurityContextOptions};

use super::scope::Scope;
use crate::rules;

/// Largest GMSA credential spec, in KiB.
const MAX_SPEC_KIB: usize = 64;
const MAX_DOMAIN: usize = 256;
const MAX_USER: usize = 104;

pub(super) fn validate_options(options: &WindowsSecurityContextOptions, path: &Path, errors: &mut Errors) {
    if let Some(name) = &options.gmsa_credential_spec_name {
        rules::dns_subdomain(&path.child("gmsaCredentialSpecName"), name, errors);
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(Error::invalid(&path, "", "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > MAX_SPEC_KIB * 1024 {
            let detail = format!("gmsaCredentialSpec size must be under {MAX_SPEC_KIB} KiB");
            errors.push(Error::invalid(&path, spec.as_str(), detail));
        }
    }
    if let Some(name) = &options.run_as_user_name {
        let path = path.child("runAsUserName");
        errors.extend(user_name(name).into_iter().map(|detail| Error::invalid(&path, name.as_str(), detail)));
    }
}

/// What is wrong with `DOMAIN\user` or `user`.
fn user_name(name: &str) -> Vec<String> {
    let refuse = |detail: &str| vec![format!("runAsUserName {detail}")];
    if name.is_empty() {
        return refuse("cannot be an empty string");
    }
    if name.bytes().any(|b| b.is_ascii_control()) {
        return refuse("cannot contain control characters");
    }
    if name.matches('\\').count() > 1 {
        return refuse("cannot contain more than one backslash");
    }
    let (domain, user) = name.split_once('\\').map_or((None, name), |(domain, user)| (Some(domain), user));
    let of_domain = domain.unwrap_or_default();
    let rules = [
        (of_domain.len() >= MAX_DOMAIN, format!("Domain length must be under {MAX_DOMAIN} characters")),
        (
            domain.is_some_and(|domain| !is_net_bios(domain) && !is_dns(domain)),
            "Domain doesn't match the NetBios nor the DNS format".to_owned(),
        ),
        (user.is_empty(), "User cannot be empty".to_owned()),
        (user.len() > MAX_USER, format!("User length must not be longer than {MAX_USER} characters")),
        (
            !user.is_empty() && user.bytes().all(|b| matches!(b, b'.' | b' ')),
            "User cannot contain only periods or spaces".to_owned(),
        ),
        (
            user.contains(|c| r#""/\:;|=,+*?<>@[]"#.contains(c)),
            r#"User cannot contain the following characters: "/\:;|=,+*?<>@[]"#.to_owned(),
        ),
    ];
    rules.into_iter().filter(|(broken, _)| *broken).map(|(_, detail)| format!("runAsUserName's {detail}")).collect()
}

fn is_net_bios(domain: &str) -> bool {
    let count = domain.chars().count();
    (1..=15).contains(&count) && !domain.starts_with('.') && !domain.contains(|c| r#"\/:*?"<>|"#.contains(c))
}

fn is_dns(domain: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    domain.split('.').map(str::as_bytes).all(|label| {
        edge(label.first())
            && edge(label.last())
            && label.len() <= 63
            && label.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    })
}

/// HostProcess containers: all or none, and in the host's network. `path` is that of the spec.
pub(super) fn validate_host_process(scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let option = |options: Option<&WindowsSecurityContextOptions>| options.and_then(|options| options.host_process);
    let pod = option(scope.spec.security_context.as_ref().and_then(|context| context.windows_options.as_ref()));
    let (mut all, mut on) = (0, 0);
    for container in scope.all() {
        let own = option(container.security.and_then(|context| context.windows_options.as_ref()));
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let path = container.path(path).child("securityContext.windowsOptions.hostProcess");
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.push(Error::invalid(&path, own, detail));
        }
        all += 1;
        on += usize::from(own.or(pod) == Some(true));
    }
    if on > 0 && on != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(Error::invalid(path, "", detail));
    }
    if on > 0 && !scope.host_network() {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(Error::invalid(&path.child("hostNetwork"), false, detail));
    }
}

/// The operating system, and what its pods cannot have.
pub(super) fn validate_os(scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let Some(os) = &scope.spec.os else { return };
    match os.name.as_str() {
        "" => errors.push(Error::required(&path.child("os").child("name"), "cannot be empty")),
        "linux" => validate_linux(scope, path, errors),
        "windows" => validate_windows(scope, path, errors),
        other => errors.push(Error::not_supported(&path.child("os"), other, &["linux", "windows"])),
    }
}

fn validate_linux(scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let detail = "windows options cannot be set for a linux pod";
    if scope.spec.security_context.as_ref().is_some_and(|context| context.windows_options.is_some()) {
        errors.push(Error::forbidden(&path.child("securityContext.windowsOptions"), detail));
    }
    for container in scope.all().filter(|container| container.security.is_some_and(|own| own.windows_options.is_some())) {
        errors.push(Error::forbidden(&container.path(path).child("securityContext.windowsOptions"), detail));
    }
}

fn validate_windows(scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let detail = "cannot be set for a windows pod";
    let spec = scope.spec;
    let context = spec.security_context.clone().unwrap_or_default();
    let fields = [
        ("securityContext.appArmorProfile", context.app_armor_profile.is_some()),
        ("securityContext.seLinuxOptions", context.se_linux_options.is_some()),
        ("hostUsers", spec.host_users.is_some()),
        ("hostPID", spec.host_pid == Some(true)),
        ("hostIPC", spec.host_ipc == Some(true)),
        ("securityContext.seccompProfile", context.seccomp_profile.is_some()),
        ("securityContext.fsGroup", context.fs_group.is_some()),
        ("securityContext.fsGroupChangePolicy", context.fs_group_change_policy.is_some()),
        ("securityContext.sysctls", context.sysctls.is_some_and(|sysctls| !sysctls.is_empty())),
        ("shareProcessNamespace", spec.share_process_namespace.is_some()),
        ("securityContext.runAsUser", context.run_as_user.is_some()),
        ("securityContext.runAsGroup", context.run_as_group.is_some()),
        ("securityContext.supplementalGroups", context.supplemental_groups.is_some()),
        ("securityContext.supplementalGroupsPolicy", context.supplemental_groups_policy.is_some()),
        ("securityContext.seLinuxChangePolicy", context.se_linux_change_policy.is_some()),
    ];
    for (field, _) in fields.into_iter().filter(|(_, set)| *set) {
        errors.push(Error::forbidden(&path.child(field), detail));
    }
    for container in scope.all() {
        let Some(context) = container.security else { continue };
        let path = container.path(path).child("securityContext");
        errors.extend(linux_only(context).into_iter().map(|field| Error::forbidden(&path.child(field), detail)));
    }
}

/// Fields of a container's context that only Linux has.
fn linux_only(context: &SecurityContext) -> Vec<&'static str> {
    let fields = [
        ("appArmorProfile", context.app_armor_profile.is_some()),
        ("seLinuxOptions", context.se_linux_options.is_some()),
        ("seccompProfile", context.seccomp_profile.is_some()),
        ("capabilities", context.capabilities.is_some()),
        ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some()),
        ("privileged", context.privileged.is_some()),
        ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some()),
        ("procMount", context.proc_mount.is_some()),
        ("runAsUser", context.run_as_user.is_some()),
        ("runAsGroup", context.run_as_group.is_some()),
    ];
    fields.into_iter().filter(|(_, set)| *set).map(|(field, _)| field).collect()
}
