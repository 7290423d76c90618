//! Capabilities of containers.

use crate::api::SecurityContext;

/// What a container has unless it says otherwise; the same as with other runtimes.
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// All, in the order of their numbers (capabilities(7)).
const ALL: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// How many there are.
pub(crate) const COUNT: usize = ALL.len();

/// The bits of capabilities (`CAP_...`).
pub(crate) fn mask(capabilities: &[String]) -> u64 {
    let numbers = capabilities.iter().filter_map(|name| ALL.iter().position(|known| Some(*known) == name.strip_prefix("CAP_")));
    numbers.fold(0, |mask, number| mask | 1 << number)
}

/// The capabilities that this process may give away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Available(pub(crate) u64);

impl Available {
    /// Reads those of this process.
    pub(crate) fn detect() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
        Self(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
    }

    /// Whether `name` (without `CAP_`) is among them.
    pub(crate) fn has(self, name: &str) -> bool {
        ALL.iter().position(|known| *known == name).is_some_and(|number| self.0 >> number & 1 == 1)
    }
}

/// The capabilities of a container, as `CAP_...`. What the machine lacks is left out.
pub(crate) fn for_container(security: &SecurityContext, available: Available) -> Vec<String> {
    let has = |list: &[String], name: &str| list.iter().any(|entry| plain(entry) == name);
    let (add, drop) = (&security.add_capabilities, &security.drop_capabilities);
    let wanted = |name: &&&str| {
        if security.privileged {
            return true;
        }
        if has(drop, name) {
            return false;
        }
        let base = !has(drop, "ALL") && (has(add, "ALL") || DEFAULT.contains(name));
        base || has(add, name) || (has(add, "ALL") && has(drop, "ALL"))
    };
    ALL.iter().filter(wanted).filter(|name| available.has(name)).map(|name| format!("CAP_{name}")).collect()
}

fn plain(name: &str) -> String {
    let name = name.to_uppercase();
    name.strip_prefix("CAP_").unwrap_or(&name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], privileged: bool, expected: &[&str], missing: &[&str]) {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let security =
            SecurityContext { add_capabilities: owned(add), drop_capabilities: owned(drop), privileged, ..Default::default() };
        // A machine without SYS_RESOURCE (24).
        let given = for_container(&security, Available(0x1ff_feff_ffff));
        for name in expected {
            assert!(given.contains(&format!("CAP_{name}")), "{add:?} {drop:?}: {name} in {given:?}");
        }
        for name in missing {
            assert!(!given.contains(&format!("CAP_{name}")), "{add:?} {drop:?}: {name} not in {given:?}");
        }
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        check(&[], &[], false, &["CHOWN", "NET_RAW"], &["SYS_ADMIN"]);
        check(&["SYS_ADMIN", "cap_net_admin"], &["CHOWN"], false, &["SYS_ADMIN", "NET_ADMIN"], &["CHOWN"]);
        check(&["NET_BIND_SERVICE"], &["ALL"], false, &["NET_BIND_SERVICE"], &["CHOWN"]);
        check(&["ALL"], &["SYS_TIME"], false, &["SYS_ADMIN"], &["SYS_TIME", "SYS_RESOURCE"]);
        check(&[], &["ALL"], true, &["SYS_ADMIN", "BPF"], &["SYS_RESOURCE"]);
    }
}
