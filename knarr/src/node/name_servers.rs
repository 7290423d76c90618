//! Whom the cluster DNS of a node asks.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, bail};

use super::Cluster;

/// Port of the cluster DNS.
const PORT: u16 = 53;

/// The name servers of each domain, also where a domain was given more than once.
pub(super) fn merged(given: &[(String, Vec<SocketAddr>)]) -> BTreeMap<String, Vec<SocketAddr>> {
    let mut all: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
    for (domain, servers) in given {
        let known = all.entry(domain.clone()).or_default();
        for server in servers {
            if !known.contains(server) {
                known.push(*server);
            }
        }
    }
    all
}

/// What the cluster DNS is started with. It does not ask itself, which would go round in circles.
pub(super) fn options(
    cluster: &Cluster,
    upstreams: &[SocketAddr],
    stub_domains: &BTreeMap<String, Vec<SocketAddr>>,
) -> Result<dns::Options> {
    let listen: Vec<_> = cluster.dns.iter().map(|address| SocketAddr::new(*address, PORT)).collect();
    let stubs = stub_domains.values().flatten().map(|server| ("--dns-stub-domain", server));
    for (option, server) in upstreams.iter().map(|server| ("--dns-upstream", server)).chain(stubs) {
        if listen.contains(server) {
            bail!("the name server {server} ({option}) is the cluster DNS itself");
        }
    }
    Ok(dns::Options {
        listen,
        domain: cluster.domain.clone(),
        upstreams: match upstreams {
            [] => dns::Upstreams::File("/etc/resolv.conf".into()),
            servers => dns::Upstreams::Servers(servers.to_vec()),
        },
        stub_domains: stub_domains.clone(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ::network::Backend;

    use super::*;

    fn servers(all: &[&str]) -> Vec<SocketAddr> {
        all.iter().map(|server| server.parse().unwrap()).collect()
    }

    #[test]
    fn a_domain_has_all_its_servers() {
        let given = [
            ("a.example".to_owned(), servers(&["10.0.0.1:53"])),
            ("b.example".to_owned(), servers(&["10.0.0.3:53"])),
            ("a.example".to_owned(), servers(&["10.0.0.2:53", "10.0.0.1:53"])),
        ];
        let expected = [
            ("a.example".to_owned(), servers(&["10.0.0.1:53", "10.0.0.2:53"])),
            ("b.example".to_owned(), servers(&["10.0.0.3:53"])),
        ];
        assert_eq!(merged(&given), expected.into());
    }

    #[test]
    fn the_cluster_dns_does_not_ask_itself() {
        let cluster = Cluster {
            pods: Vec::new(),
            services: Vec::new(),
            dns: vec!["10.43.0.10".parse().unwrap(), "fd43::a".parse().unwrap()],
            domain: "cluster.local".to_owned(),
            backend: Backend::default(),
        };
        let check = |upstreams: &[&str], stubs: &[&str], expected: Option<&str>| {
            let stubs = merged(&[("a.example".to_owned(), servers(stubs))]);
            let found = options(&cluster, &servers(upstreams), &stubs).err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), expected);
        };
        check(&[], &["10.43.0.10:5353"], None);
        check(&["10.0.0.1:53"], &["10.43.0.11:53"], None);
        let itself = "the name server 10.43.0.10:53 (--dns-upstream) is the cluster DNS itself";
        check(&["10.0.0.1:53", "10.43.0.10:53"], &[], Some(itself));
        check(&[], &["[fd43::a]:53"], Some("the name server [fd43::a]:53 (--dns-stub-domain) is the cluster DNS itself"));
    }
}
