//! What must be true of the machine, checked before anything is changed.

use std::path::Path;

use anyhow::{Result, bail};

/// Whether a server can run here; says what is missing and what to do.
pub(crate) fn check(runs_pods: bool) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this needs root: pods are made from namespaces, mounts and cgroups. Run it as root, or with sudo");
    }
    if !runs_pods {
        return Ok(());
    }
    let systems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !systems.split_whitespace().any(|name| name == "overlay") {
        bail!("this kernel has no overlayfs: load the module (modprobe overlay), or build the kernel with CONFIG_OVERLAY_FS");
    }
    let cgroups = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = cgroups.lines().any(|line| matches!(line.split_whitespace().nth(2), Some("cgroup" | "cgroup2")));
    if !mounted {
        bail!("no cgroup hierarchy is mounted: mount one (mount -t cgroup2 none /sys/fs/cgroup)");
    }
    for (namespace, option) in [("net", "NET_NS"), ("pid", "PID_NS"), ("ipc", "IPC_NS"), ("uts", "UTS_NS")] {
        if !Path::new("/proc/self/ns").join(namespace).exists() {
            bail!("this kernel has no {namespace} namespaces: it needs CONFIG_{option}");
        }
    }
    Ok(())
}
