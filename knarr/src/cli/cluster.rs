//! Options of what all of a cluster has in common. The names are those of kube-apiserver and kube-controller-manager.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use controllers::ClusterCidr;
use ipnet::IpNet;

use super::duration;

/// Figures of a cluster that most leave as they are.
#[derive(Args, Clone)]
pub(crate) struct Cluster {
    /// Name of the cluster and of the context in the kubeconfig, so that those of several clusters can be merged.
    #[arg(long, value_name = "NAME", default_value = "knarr", value_parser = cluster_name)]
    pub(crate) cluster_name: String,
    /// Ports of nodes that Services of type NodePort get: FIRST-LAST, or FIRST+COUNT.
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767", value_parser = ports)]
    pub(crate) service_node_port_range: RangeInclusive<u16>,
    /// Prefix length of the part of the cluster network that a node gets for its pods, in a cluster of one family.
    #[arg(long, value_name = "LENGTH", conflicts_with_all = ["node_cidr_mask_size_ipv4", "node_cidr_mask_size_ipv6"])]
    node_cidr_mask_size: Option<u8>,
    /// That of the IPv4 network: 24, which is 254 pods, by default.
    #[arg(long, value_name = "LENGTH")]
    node_cidr_mask_size_ipv4: Option<u8>,
    /// That of the IPv6 network: 64 by default.
    #[arg(long, value_name = "LENGTH")]
    node_cidr_mask_size_ipv6: Option<u8>,
    /// How long events are kept.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = time_to_live)]
    pub(crate) event_ttl: Duration,
    /// Seconds that pods which do not say how long stay on a node that is not ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    default_not_ready_toleration_seconds: i64,
    /// Seconds that they stay on a node that nobody hears of.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    default_unreachable_toleration_seconds: i64,
    /// Finished pods that may stay before the oldest are removed; 0 for all.
    #[arg(long, value_name = "COUNT", default_value_t = 12_500)]
    terminated_pod_gc_threshold: usize,
}

/// Whether a name of a cluster may have a character: those that quotes of YAML, and shells, leave as they are.
pub(crate) fn fits_cluster_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || "._-".contains(character)
}

/// A name of a cluster, which nobody takes for an option.
fn cluster_name(text: &str) -> Result<String> {
    if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) || !text.chars().all(fits_cluster_name) || text.len() > 253
    {
        bail!("a name has letters, digits, '.', '_' and '-', and begins with one of the first two");
    }
    Ok(text.to_owned())
}

impl Cluster {
    /// The networks that nodes get parts of.
    ///
    /// # Errors
    /// When parts of such a size are no parts of them.
    pub(crate) fn cidrs(&self, networks: &[IpNet]) -> Result<Vec<ClusterCidr>> {
        if self.node_cidr_mask_size.is_some() && networks.len() > 1 {
            bail!("a cluster of two families takes --node-cidr-mask-size-ipv4 and --node-cidr-mask-size-ipv6");
        }
        networks.iter().map(|network| self.cidr(*network)).collect()
    }

    fn cidr(&self, network: IpNet) -> Result<ClusterCidr> {
        let ipv4 = network.addr().is_ipv4();
        let of_family = if ipv4 { self.node_cidr_mask_size_ipv4 } else { self.node_cidr_mask_size_ipv6 };
        let default = ClusterCidr::from(network);
        let node_prefix = of_family.or(self.node_cidr_mask_size).unwrap_or(default.node_prefix);
        let option = if ipv4 { "--node-cidr-mask-size-ipv4" } else { "--node-cidr-mask-size-ipv6" };
        let (length, largest) = (network.prefix_len(), network.max_prefix_len() - 2);
        if node_prefix < length {
            bail!("the network of the pods {network} is too small: a node takes a /{node_prefix} of it ({option})");
        }
        // However many parts there are: a free one is looked for among those that nodes have, where upstream keeps a bitmap of all.
        if node_prefix > largest {
            bail!("{option}: a /{node_prefix} has no room for pods; the most is {largest}");
        }
        Ok(ClusterCidr { network, node_prefix })
    }

    /// How long pods stay on nodes that are lost.
    pub(crate) fn tolerations(&self) -> apiserver::Tolerations {
        apiserver::Tolerations {
            not_ready: self.default_not_ready_toleration_seconds,
            unreachable: self.default_unreachable_toleration_seconds,
        }
    }

    /// Finished pods that may stay.
    pub(crate) fn finished_pods(&self) -> Option<usize> {
        Some(self.terminated_pod_gc_threshold).filter(|most| *most > 0)
    }
}

/// Ports as upstream writes them (`PortRange` of apimachinery).
fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let number = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
    let (first, last) = match (text.split_once('-'), text.split_once('+')) {
        (Some((first, last)), _) => (number(first)?, number(last)?),
        (None, Some((first, count))) => (number(first)?, number(first)?.checked_add(number(count)?).ok_or("ports end at 65535")?),
        (None, None) => (number(text)?, number(text)?),
    };
    if first == 0 || last < first {
        return Err("expected FIRST-LAST, such as 30000-32767".to_owned());
    }
    Ok(first..=last)
}

/// Events that were kept for ever would fill the store.
fn time_to_live(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.as_secs() == 0 { Err("events are kept for a second at least".to_owned()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    /// `PortRange` of apimachinery: "'a-b' (between, inclusive), 'a+o' (from, to), 'a'".
    #[test]
    fn ranges_of_ports() {
        let check = |text: &str, expected: Option<RangeInclusive<u16>>| assert_eq!(ports(text).ok(), expected, "{text}");
        check("30000-32767", Some(30000..=32767));
        check("80", Some(80..=80));
        check("100+50", Some(100..=150));
        check("200-100", None);
        check("0-100", None);
        check("65000+1000", None);
        check("1-65536", None);
        check("", None);
    }

    #[test]
    fn times_of_events() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(time_to_live(text).ok().map(|time| time.as_secs()), expected, "{text}")
        };
        check("30m", Some(1800));
        check("0s", None);
        check("500ms", None);
    }

    /// kube-controller-manager(1): --node-cidr-mask-size, --node-cidr-mask-size-ipv4, --node-cidr-mask-size-ipv6.
    #[test]
    fn parts_of_the_cluster_network() {
        let check = |args: &[&str], networks: &[&str], expected: Result<&[u8], &str>| {
            let cli = Cli::try_parse_from(["knarr", "server"].iter().chain(args)).unwrap();
            let Command::Server(options) = cli.command else { panic!("another command") };
            let networks: Vec<IpNet> = networks.iter().map(|text| text.parse().unwrap()).collect();
            match (options.cluster.cidrs(&networks), expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!(found.iter().map(|cidr| cidr.node_prefix).collect::<Vec<_>>(), expected, "{args:?}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{args:?}: {error}"),
                (found, expected) => panic!("{args:?}: {found:?} instead of {expected:?}"),
            }
        };
        let (v4, v6) = ("10.42.0.0/16", "fd42::/48");
        check(&[], &[v4, v6], Ok(&[24, 64]));
        check(&["--node-cidr-mask-size=22"], &[v4], Ok(&[22]));
        check(&["--node-cidr-mask-size-ipv4=25", "--node-cidr-mask-size-ipv6=56"], &[v6, v4], Ok(&[56, 25]));
        check(&["--node-cidr-mask-size=22"], &[v4, v6], Err("two families"));
        check(&["--node-cidr-mask-size=15"], &[v4], Err("too small"));
        check(&["--node-cidr-mask-size=31"], &[v4], Err("the most is 30"));
        check(&["--node-cidr-mask-size=72"], &[v6], Ok(&[72]));
        check(&["--node-cidr-mask-size=25"], &["10.0.0.0/8"], Ok(&[25]));
        check(&[], &["fd00:42::/32"], Ok(&[64]));
        check(&[], &["fd42::/80"], Err("a node takes a /64 of it (--node-cidr-mask-size-ipv6)"));
        check(&[], &["10.42.0.0/25"], Err("a node takes a /24"));
    }
}
