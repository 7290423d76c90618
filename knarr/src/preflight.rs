//! What must be true of the machine, checked before anything is changed.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use apimachinery::names;
use ipnet::IpNet;

use crate::cli;

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
    if cluster.addr().is_ipv4() != service.addr().is_ipv4() {
        bail!("the network of the pods {cluster} and that of the services {service} are of different families");
    }
    if cluster.addr().is_ipv4() && cluster.prefix_len() > 24 {
        bail!("the network of the pods {cluster} is too small: a node takes 256 addresses of it (/24)");
    }
    match dns.filter(|dns| !service.contains(dns)) {
        Some(dns) => {
            bail!("the address of the cluster DNS {dns} is not in the network of the services {service}: see --cluster-dns")
        }
        None => Ok(()),
    }
}

/// Whether the API takes the name of the cluster's domain.
pub(crate) fn domain(domain: &str) -> Result<()> {
    match names::dns1123_subdomain(domain).first() {
        Some(problem) => bail!("{domain:?} cannot be the domain of the cluster: {problem}"),
        None => Ok(()),
    }
}

/// Whether the node's labels and taints are ones that the API takes, its address is this machine's, and its amounts are some.
pub(crate) fn node(options: &cli::Node) -> Result<()> {
    for (key, value) in &options.labels {
        let problems = names::qualified_name(key).into_iter().chain(names::label_value(value)).next();
        if let Some(problem) = problems {
            bail!("{key:?}={value:?} cannot be a label of the node: {problem}");
        }
    }
    for taint in &options.taints {
        let problems = names::qualified_name(&taint.key).into_iter();
        let problems = problems.chain(names::label_value(taint.value.as_deref().unwrap_or_default())).next();
        if let Some(problem) = problems {
            bail!("{:?} cannot be a taint of the node: {problem}", taint.key);
        }
    }
    options.pressure.system_reserved().context("--system-reserved")?;
    options.pressure.kube_reserved().context("--kube-reserved")?;
    options.pressure.eviction()?;
    let Some(address) = options.node_ip else { return Ok(()) };
    // Only an address of this machine can be bound.
    match std::net::UdpSocket::bind((address, 0)) {
        Ok(_) => Ok(()),
        Err(error) => bail!("--node-ip {address} is not an address of this machine: {error}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

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
        check("fd00::/48", "10.43.0.0/16", "", "different families");
        check("10.42.0.0/30", "10.43.0.0/16", "", "too small");
    }

    #[test]
    fn a_node_has_proper_labels_and_an_address_of_its_own() {
        let refused = |arguments: &[&str], problem: &str| {
            let cli = crate::cli::Cli::try_parse_from(["knarr", "server"].iter().chain(arguments)).unwrap();
            let crate::cli::Command::Server(options) = cli.command else { panic!("not a server") };
            let found = domain(&options.cluster_domain)
                .and_then(|()| node(&options.node))
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(if problem.is_empty() { found.is_empty() } else { found.contains(problem) }, "{arguments:?}: {found}");
        };
        refused(&["--label", "a=b", "--node-ip", "127.0.0.1"], "");
        refused(&["--label", "a b=c"], "cannot be a label");
        refused(&["--label", "a=b c"], "cannot be a label");
        refused(&["--cluster-domain", "A_B"], "cannot be the domain");
        refused(&["--node-ip", "192.0.2.7"], "not an address of this machine");
        refused(&["--taint", "a b:NoExecute"], "cannot be a taint");
    }
}
