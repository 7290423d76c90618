//! The profile `RuntimeDefault`, and profiles from files.
//!
//! The default denies what the default profile of other runtimes is documented to block, unless the container has the
//! capability that goes with it. What is denied fails with EPERM.

use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::program;

/// Filtered system calls and the capability (without `CAP_`) that allows them; empty when none does.
const FILTERED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "add_key",
            "keyctl",
            "request_key",
            "kexec_load",
            "kexec_file_load",
            "swapon",
            "swapoff",
            "userfaultfd",
            "nfsservctl",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "move_pages",
            "migrate_pages",
            "uselib",
        ],
    ),
    (
        "SYS_ADMIN",
        &[
            "mount",
            "umount2",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "pivot_root",
            "setns",
            "unshare",
            "setdomainname",
            "sethostname",
            "quotactl",
            "quotactl_fd",
            "lookup_dcookie",
            "fanotify_init",
        ],
    ),
    ("SYS_MODULE", &["init_module", "finit_module", "delete_module"]),
    ("SYS_BOOT", &["reboot"]),
    ("SYS_PACCT", &["acct"]),
    ("SYS_TIME", &["settimeofday", "clock_settime", "clock_adjtime"]),
    ("SYS_PTRACE", &["process_vm_readv", "process_vm_writev", "kcmp", "process_madvise"]),
    ("SYS_NICE", &["mbind", "get_mempolicy", "set_mempolicy", "set_mempolicy_home_node"]),
    ("SYS_TTY_CONFIG", &["vhangup"]),
    ("DAC_READ_SEARCH", &["open_by_handle_at", "name_to_handle_at"]),
    ("BPF", &["bpf"]),
    ("PERFMON", &["perf_event_open"]),
    ("SYSLOG", &["syslog"]),
    ("SYS_RAWIO", &["iopl", "ioperm"]),
];

/// New namespaces by `clone`: mount, cgroup, uts, ipc, user, pid, net.
const NEW_NAMESPACES: [u64; 7] = [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: &[&str] = &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];

/// `RuntimeDefault` for a container with these capabilities (`CAP_...`).
pub(crate) fn runtime_default(capabilities: &[String]) -> Value {
    let has = |name: &str| capabilities.iter().any(|capability| capability.strip_prefix("CAP_") == Some(name));
    let deny = |names: &[&str], code: i32| json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": code});
    let denied = FILTERED.iter().filter(|(capability, _)| capability.is_empty() || !has(capability));
    let mut rules: Vec<Value> = denied.map(|(_, names)| deny(names, libc::EPERM)).collect();
    if !has("SYS_ADMIN") {
        // The flags of clone3 are in memory, where a filter cannot look: C libraries then take clone.
        rules.push(deny(&["clone3"], libc::ENOSYS));
        for flag in NEW_NAMESPACES {
            let mut rule = deny(&["clone"], libc::EPERM);
            rule["args"] = json!([{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}]);
            rules.push(rule);
        }
    }
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ARCHITECTURES, "syscalls": rules})
}

/// Most bytes of a profile.
const LONGEST: u64 = 1 << 20;

/// The profile in the file at `path`. The error says what is wrong with it.
pub(crate) fn from_file(path: &Path) -> Result<Value, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot load seccomp profile {}: {error}", path.display());
    let bytes = base::records::read_file(path, LONGEST).map_err(|error| failed(&error))?;
    let document: Value = serde_json::from_slice(&bytes).map_err(|error| failed(&error))?;
    let profile: LinuxSeccomp = serde_json::from_value(document.clone()).map_err(|error| failed(&error))?;
    program::compile(&profile).map_err(|error| failed(&error))?;
    Ok(document)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(text: &str, error: Option<&str>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.json");
        std::fs::write(&path, text).unwrap();
        match (from_file(&path), error) {
            (Ok(_), None) => {}
            (Err(text), Some(error)) => assert!(text.contains(error), "{text}"),
            (result, _) => panic!("{result:?}"),
        }
    }

    #[test]
    fn files_are_checked_before_they_are_used() {
        check(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "later"], "action": "SCMP_ACT_ERRNO"}]}"#,
            None,
        );
        check("{}", Some("missing field"));
        check("nonsense", Some("cannot load seccomp profile"));
        check(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, Some("SCMP_ACT_NOTIFY"));
        assert!(from_file(Path::new("/nowhere")).unwrap_err().contains("No such file"));
    }
}
