//! What must be true of the machine, checked before anything is changed.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Result, bail};
use ipnet::IpNet;

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

/// Whether the networks of a cluster can be told apart, and the DNS has its address among the services.
pub(crate) fn networks(cluster: IpNet, service: IpNet, dns: Option<IpAddr>) -> Result<()> {
    if cluster.contains(&service) || service.contains(&cluster) {
        bail!(
            "the network of the pods {cluster} and that of the services {service} overlap: set --cluster-cidr and --service-cidr apart"
        );
    }
    match dns.filter(|dns| !service.contains(dns)) {
        Some(dns) => {
            bail!("the address of the cluster DNS {dns} is not in the network of the services {service}: see --cluster-dns")
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[track_caller]
    fn check(cluster: &str, service: &str, dns: &str, problem: &str) {
        let found = networks(cluster.parse().unwrap(), service.parse().unwrap(), dns.parse().ok());
        let found = found.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(if problem.is_empty() { found.is_empty() } else { found.contains(problem) }, "{found}");
    }

    #[test]
    fn networks_do_not_overlap() {
        check("10.42.0.0/16", "10.43.0.0/16", "", "");
        check("10.42.0.0/16", "10.43.0.0/16", "10.43.0.53", "");
        check("10.42.0.0/16", "10.42.0.0/16", "", "overlap");
        check("10.0.0.0/8", "10.43.0.0/16", "", "overlap");
        check("10.42.0.0/24", "10.42.0.0/16", "", "overlap");
        check("10.42.0.0/16", "10.43.0.0/16", "1.2.3.4", "1.2.3.4 is not in the network");
    }
}
