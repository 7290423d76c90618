//! Sysctls that pods may set: those that are safe, and the unsafe ones that the node allows (`--allowed-unsafe-sysctls`).

use std::str::FromStr;

use pods::sysctls::{Namespace, all_with, namespace};

/// Sysctls that any pod may set: they have namespaces and do no harm outside (upstream's `safe_sysctls.go`).
const SAFE: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Longest name, characters.
const LONGEST: usize = 253;

/// Unsafe sysctls that pods of the node may set: one, or with `*` at the end all that begin so. Only those that have namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// With dots, without the asterisk.
    name: String,
    is_prefix: bool,
}

/// Why something is no such pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatternError {
    /// It is not the name of a sysctl.
    #[error("sysctl {0:?} is not a name of at most {longest} lower-case letters, digits and .-_/ that may end with *", longest = LONGEST)]
    Name(String),
    /// A pod would set it for the whole machine.
    #[error(
        "the sysctls {0:?} are not known to be namespaced: begin with net., kernel.shm, kernel.msg, fs.mqueue. or name kernel.sem"
    )]
    NotNamespaced(String),
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
        let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_/".contains(c);
        if name.is_empty() || text.len() > LONGEST || !name.chars().all(is_fine) {
            return Err(PatternError::Name(text.to_owned()));
        }
        let name = name.replace('/', ".");
        match if is_prefix { all_with(&name) } else { namespace(&name) } {
            Some(_) => Ok(Self { name, is_prefix }),
            None => Err(PatternError::NotNamespaced(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.name, if self.is_prefix { "*" } else { "" })
    }
}

impl Pattern {
    fn has(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.name) } else { name == self.name }
    }
}

/// Why a pod must not set a sysctl, in upstream's words; none when it may.
pub(crate) fn refusal(name: &str, allowed: &[Pattern], host_network: bool, host_ipc: bool) -> Option<&'static str> {
    let name = name.replace('/', ".");
    if !SAFE.contains(&name.as_str()) && !allowed.iter().any(|pattern| pattern.has(&name)) {
        return Some("not allowlisted");
    }
    match namespace(&name) {
        Some(Namespace::Net) if host_network => Some("not allowed with host net enabled"),
        Some(Namespace::Ipc) if host_ipc => Some("not allowed with host ipc enabled"),
        Some(_) => None,
        // Whatever allows it: it would be set for the whole machine.
        None => Some("not allowlisted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_safe_is_namespaced() {
        assert!(SAFE.iter().all(|name| namespace(name).is_some()));
    }

    /// tasks/administer-cluster/sysctl-cluster: "--allowed-unsafe-sysctls 'kernel.msg*,net.core.somaxconn'", and "Only namespaced sysctls can
    /// be enabled this way."
    #[test]
    fn patterns_are_of_namespaced_sysctls() {
        let check = |text: &str, is_one: bool| assert_eq!(text.parse::<Pattern>().is_ok(), is_one, "{text}");
        for pattern in ["kernel.msg*", "net.core.somaxconn", "net.*", "net/ipv4/*", "kernel.sem", "fs.mqueue.*", "kernel.shmmax"]
        {
            check(pattern, true);
        }
        for pattern in [
            "*",
            "",
            "kernel.*",
            "kernel.semx",
            "kernel.core_pattern",
            "vm.swappiness",
            "ne*",
            "net.*.x",
            "net. *",
            "fs.mqueue*",
            "kernel.sem*",
        ] {
            check(pattern, false);
        }
        let error = "vm.*".parse::<Pattern>().unwrap_err().to_string();
        assert!(error.starts_with("the sysctls \"vm.*\" are not known to be namespaced"), "{error}");
    }

    #[test]
    fn what_is_allowed_is_of_the_pod_itself() {
        let allowed: Vec<Pattern> = ["kernel.msg*", "net.core.somaxconn"].map(|text| text.parse().unwrap()).to_vec();
        let check =
            |name: &str, host: bool, expected: Option<&str>| assert_eq!(refusal(name, &allowed, host, host), expected, "{name}");
        check("net.core.somaxconn", false, None);
        check("net/core/somaxconn", false, None);
        check("kernel.msgmax", false, None);
        check("net.core.somaxconn2", false, Some("not allowlisted"));
        check("net.core.rmem_max", false, Some("not allowlisted"));
        check("net.core.somaxconn", true, Some("not allowed with host net enabled"));
        check("kernel.msgmax", true, Some("not allowed with host ipc enabled"));
        let machine = [Pattern { name: "kernel.".to_owned(), is_prefix: true }];
        assert_eq!(refusal("kernel.sem_next_id", &machine, false, false), Some("not allowlisted"));
    }
}
