//! What must be true of the machine, checked before anything is changed.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use apimachinery::names;
use ipnet::IpNet;

use crate::cli;
use crate::node::Identity;
use crate::paths::Paths;

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

/// Whether the pod network of this machine is this node's, or nobody's.
pub(crate) fn pod_network(data_dir: &Path) -> Result<()> {
    Ok(network::check_owner(&network::Options::new(Paths::new(data_dir).network(), Vec::new(), Vec::new()))?)
}

/// Whether the networks of a cluster can be told apart, there is one of each family, and the DNS has its addresses among the services.
pub(crate) fn networks(clusters: &[IpNet], services: &[IpNet], dns: &[IpAddr]) -> Result<()> {
    for (option, ranges) in [("--cluster-cidr", clusters), ("--service-cidr", services)] {
        match ranges {
            [_] => {}
            [first, second] if first.addr().is_ipv4() != second.addr().is_ipv4() => {}
            _ => bail!("{option} takes one network, or two of different families"),
        }
    }
    let (pods, of_services) = (families(clusters), families(services));
    if pods != of_services {
        bail!("the networks of the pods ({pods}) and those of the services ({of_services}) are of different families");
    }
    for (cluster, service) in clusters.iter().zip(services) {
        if cluster.contains(service) || service.contains(cluster) {
            bail!(
                "the network of the pods {cluster} and that of the services {service} overlap: set --cluster-cidr and --service-cidr apart"
            );
        }
        if service.max_prefix_len() - service.prefix_len() < 4 {
            bail!("the network of the services {service} is too small: it needs room for 16 addresses");
        }
    }
    for (index, dns) in dns.iter().enumerate() {
        if !services.iter().any(|service| service.contains(dns)) {
            let services = services.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",");
            bail!("the address of the cluster DNS {dns} is not in the network of the services {services}: see --cluster-dns");
        }
        if dns.is_ipv4() != services[index].addr().is_ipv4() {
            bail!("the addresses of the cluster DNS are of other families than the networks of the services: see --cluster-dns");
        }
    }
    Ok(())
}

/// The families of networks, in their order.
fn families(ranges: &[IpNet]) -> String {
    let family = |range: &IpNet| if range.addr().is_ipv4() { "IPv4" } else { "IPv6" };
    ranges.iter().map(family).collect::<Vec<_>>().join(", ")
}

/// Whether the API takes the name of the cluster's domain.
pub(crate) fn domain(domain: &str) -> Result<()> {
    match names::dns1123_subdomain(domain).first() {
        Some(problem) => bail!("{domain:?} cannot be the domain of the cluster: {problem}"),
        None => Ok(()),
    }
}

/// Whether the node's name, labels and taints are ones that the API takes, its address is this machine's, and its amounts are some.
pub(crate) fn node(options: &cli::Node) -> Result<()> {
    Identity::name(options)?;
    for (key, value) in &options.labels {
        let problems = names::qualified_name(key).into_iter().chain(names::label_value(value)).next();
        if let Some(problem) = problems {
            bail!("{key:?}={value:?} cannot be a label of the node: {problem}");
        }
        if apiserver::forbidden_label(key) {
            bail!(
                "no node may give itself the label {key:?} (--label): the administrator gives it, when it has joined (kubectl label node NAME {key}={value})"
            );
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
    options.image_gc.policy()?;
    options.shutdown.periods()?;
    if let [first, rest @ ..] = options.node_ips.as_slice()
        && (rest.len() > 1 || rest.iter().any(|other| other.is_ipv4() == first.is_ipv4()))
    {
        bail!("--node-ip takes one address, or two of different families");
    }
    for address in &options.node_ips {
        // Only an address of this machine can be bound.
        if let Err(error) = std::net::UdpSocket::bind((*address, 0)) {
            bail!("--node-ip {address} is not an address of this machine: {error}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[track_caller]
    fn check(cluster: &str, service: &str, dns: &str, problem: &str) {
        let ranges = |texts: &str| texts.split(',').map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let dns: Vec<IpAddr> = dns.split(',').filter_map(|text| text.parse().ok()).collect();
        let found = networks(&ranges(cluster), &ranges(service), &dns);
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
        check("10.42.0.0/16", "10.43.0.0/30", "", "too small");
        check("10.42.0.0/16,fd42::/48", "10.43.0.0/16,fd43::/112", "10.43.0.10,fd43::a", "");
        check("fd42::/48,10.42.0.0/16", "fd43::/112,10.43.0.0/16", "", "");
        check("fd42::/48", "fd43::/112", "", "");
        check("10.42.0.0/16,fd42::/48", "10.43.0.0/16", "", "different families");
        check("10.42.0.0/16,fd42::/48", "fd43::/112,10.43.0.0/16", "", "different families");
        check("10.42.0.0/16,10.44.0.0/16", "10.43.0.0/16,10.45.0.0/16", "", "two of different families");
        check("10.42.0.0/16,fd42::/48", "10.43.0.0/16,fd42::/112", "", "overlap");
        check("10.42.0.0/16,fd42::/48", "10.43.0.0/16,fd43::/112", "fd43::a", "other families");
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
        refused(&["--label", "node-role.kubernetes.io/worker=true"], "no node may give itself the label");
        refused(
            &["--label", "node.kubernetes.io/rack=7", "--label", "topology.kubernetes.io/zone=z", "--node-ip", "127.0.0.1"],
            "",
        );
        refused(&["--label", "a b=c"], "cannot be a label");
        refused(&["--label", "a=b c"], "cannot be a label");
        refused(&["--cluster-domain", "A_B"], "cannot be the domain");
        refused(&["--node-ip", "192.0.2.7"], "not an address of this machine");
        refused(&["--taint", "a b:NoExecute"], "cannot be a taint");
    }
}
