//! The table of all checks.

use super::{Level, Rule, Subject, Version, Violation, baseline, profiles, restricted};

/// Whether a pod does what is forbidden.
pub(super) type Check = fn(&Subject) -> Option<Violation>;

/// A check through the versions of the standards.
pub(super) struct Row {
    /// Upstream's name of it.
    pub id: &'static str,
    pub level: Level,
    /// The check of the next lower level that it takes the place of.
    pub replaces: Option<&'static str>,
    /// First minor version of each form, ascending.
    pub forms: &'static [(u32, Check)],
}

const fn base(id: &'static str, forms: &'static [(u32, Check)]) -> Row {
    Row { id, level: Level::Baseline, replaces: None, forms }
}

const fn strict(id: &'static str, replaces: Option<&'static str>, forms: &'static [(u32, Check)]) -> Row {
    Row { id, level: Level::Restricted, replaces, forms }
}

/// All checks, in the order in which upstream tells what they find: by level, then by name.
pub(super) const CHECKS: [Row; 19] = [
    base("appArmorProfile", &[(0, profiles::app_armor)]),
    base("capabilities_baseline", &[(0, baseline::capabilities)]),
    base("hostNamespaces", &[(0, baseline::host_namespaces)]),
    base("hostPathVolumes", &[(0, baseline::host_path_volumes)]),
    base("hostPorts", &[(0, baseline::host_ports)]),
    base("hostProbesAndHostLifecycle", &[(34, baseline::probe_hosts)]),
    base("privileged", &[(0, baseline::privileged)]),
    base("procMount", &[(0, baseline::proc_mount), (35, baseline::proc_mount_1_35)]),
    base("seLinuxOptions", &[(0, profiles::se_linux), (31, profiles::se_linux_1_31)]),
    base("seccompProfile_baseline", &[(0, profiles::seccomp_annotations), (19, profiles::seccomp)]),
    base(
        "sysctls",
        &[(0, baseline::sysctls), (27, baseline::sysctls_1_27), (29, baseline::sysctls_1_29), (32, baseline::sysctls_1_32)],
    ),
    base("windowsHostProcess", &[(0, baseline::host_process)]),
    strict(
        "allowPrivilegeEscalation",
        None,
        &[(8, restricted::privilege_escalation), (25, restricted::privilege_escalation_1_25)],
    ),
    strict(
        "capabilities_restricted",
        Some("capabilities_baseline"),
        &[(22, restricted::capabilities), (25, restricted::capabilities_1_25)],
    ),
    strict("procMount_restricted", Some("procMount"), &[(35, baseline::proc_mount)]),
    strict("restrictedVolumes", Some("hostPathVolumes"), &[(0, restricted::volumes)]),
    strict("runAsNonRoot", None, &[(0, restricted::non_root), (35, restricted::non_root_1_35)]),
    strict("runAsUser", None, &[(23, restricted::user), (35, restricted::user_1_35)]),
    strict(
        "seccompProfile_restricted",
        Some("seccompProfile_baseline"),
        &[(19, restricted::seccomp), (25, restricted::seccomp_1_25)],
    ),
];

/// The form of a check in a version; None before there was one.
fn form(row: &Row, version: Version) -> Option<Check> {
    let holds = |since: u32| match version {
        Version::Latest => true,
        Version::Minor(minor) => since <= minor,
    };
    row.forms.iter().rev().find(|(since, _)| holds(*since)).map(|(_, check)| *check)
}

/// The checks of a rule.
pub(super) fn of(rule: Rule) -> impl Iterator<Item = Check> {
    let replaced = move |id: &str| {
        let by = |row: &&Row| row.level <= rule.level && row.replaces == Some(id);
        CHECKS.iter().filter(by).any(|row| form(row, rule.version).is_some())
    };
    let counts = move |row: &&Row| row.level <= rule.level && !replaced(row.id);
    CHECKS.iter().filter(counts).filter_map(move |row| form(row, rule.version))
}
