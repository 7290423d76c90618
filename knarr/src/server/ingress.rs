//! The way in from outside, on this node.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;

use ::ingress::gateway::streams::Port;
use ::ingress::issuer::Issuers;
use anyhow::{Context, Result};
use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use client::kube;
use ipnet::IpNet;
use tokio::sync::watch;

use super::own_ports;
use crate::bootstrap::refusals::{RETRY, Refusals};
use crate::node;
use crate::{bootstrap, cli, identity};

/// Where ingress listens and is reached. Sockets, statuses and EndpointSlices all follow from here.
#[derive(Debug, PartialEq, Eq)]
struct Reach {
    /// Addresses to listen on.
    listen: Vec<IpAddr>,
    /// By which addresses clients reach it.
    addresses: Vec<IpAddr>,
    /// Those of them to which other nodes can lead.
    endpoints: Vec<IpAddr>,
}

impl Reach {
    /// `bind` is the API server's `--bind-address`: an unspecified one is every address of the machine, of both families (as upstream has it), and
    /// an address of the node stands for all of the node; there the nodes' ports lead, in the families of Services. Another one is that alone: who
    /// hides ingress there, be it at loopback or in a network of his own, would find it at every address of every node otherwise.
    fn of(bind: IpAddr, node: &[IpAddr], services: &[IpNet]) -> Self {
        if !bind.is_unspecified() && !node.contains(&bind) {
            return Self { listen: vec![bind], addresses: vec![bind], endpoints: Vec::new() };
        }
        let is_served = |address: &IpAddr| services.iter().any(|range| range.addr().is_ipv4() == address.is_ipv4());
        let endpoints = node.iter().copied().filter(|address| !is_of_machine(*address) && is_served(address)).collect();
        let listen = if bind.is_unspecified() { vec![bind] } else { node.to_vec() };
        Self { listen, addresses: node.to_vec(), endpoints }
    }
}

/// Whether an address leads to another machine, or to none, from elsewhere: no EndpointSlice may have it.
fn is_of_machine(address: IpAddr) -> bool {
    address.is_loopback()
        || match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        }
}

/// Starts it. Nobody waits for it but who uses it.
pub(super) fn start(
    options: &cli::Server,
    node: node::Identity,
    api: &apiserver::Api,
    readiness: &Readiness,
    tasks: &Tasks,
) -> Result<()> {
    let reach = Reach::of(options.bind_address, &node.ips, &options.service_cidrs);
    let service = ::ingress::Options {
        client: identity::ingress(api),
        listen: reach.listen,
        http_port: options.ingress.http_port,
        https_port: options.ingress.https_port,
        addresses: reach.addresses,
        nodes_lead_here: !reach.endpoints.is_empty(),
        own: node.ips,
        reserved: own_ports(options).iter().filter_map(|(protocol, port)| Port::named(protocol.name(), *port)).collect(),
        ranges: options.cluster_cidrs.iter().chain(&options.service_cidrs).copied().collect(),
        domain: options.cluster_domain.clone(),
        proxy_protocol: options.ingress.proxy_protocol,
        at_once: None,
        trusted: options.ingress.trusted.clone(),
        access_log: options.ingress.access_log,
        acme_issuers: Issuers::with(options.ingress.acme_issuers.clone()),
        acme_authorities: acme_authorities(options)?,
    };
    let service = ::ingress::Service::build(service, tasks.clone())?;
    let (client, gate) = (identity::apiserver(api), readiness.gate("ingress"));
    let web = [options.ingress.http_port, options.ingress.https_port];
    tasks.spawn_until_cancelled("start of ingress", OnFailure::Shutdown, async move {
        // Ingress has its rights before it uses them, unless somebody refuses them; in a cluster that was there before it has them already.
        let mut refusals = Refusals::default();
        let is_refused = refusals.tell(bootstrap::ingress(client.clone()).await);
        let started = service.start(gate);
        let rights = async { while is_refused && refusals.again(bootstrap::ingress(client.clone()).await).await {} };
        let place = bootstrap::Place { node: &node.name, addresses: &reach.endpoints };
        if place.addresses.is_empty() {
            tokio::join!(rights, lead_nowhere(&client));
        } else {
            tokio::join!(rights, lead_to_web(&client, &place, &started, web), lead_to_gateways(&client, &place, started.ports()));
        }
        Ok::<_, Infallible>(())
    });
    Ok(())
}

/// Takes away what an earlier process with ingress has left, in the background.
pub(super) fn none(api: &apiserver::Api, tasks: &Tasks) {
    let client = identity::apiserver(api);
    tasks.spawn_until_cancelled("end of ingress", OnFailure::Shutdown, async move {
        lead_nowhere(&client).await;
        Ok::<_, Infallible>(())
    });
}

/// Has no node lead to ingress.
async fn lead_nowhere(client: &kube::Client) {
    let mut refusals = Refusals::default();
    while refusals.again(bootstrap::no_ingress(client.clone()).await).await {}
}

/// Has all nodes lead to the ports for HTTP and HTTPS, from the first Ingress or Gateway on.
async fn lead_to_web(client: &kube::Client, place: &bootstrap::Place<'_>, ingress: &::ingress::service::Handle, web: [u16; 2]) {
    let mut refusals = Refusals::default();
    if ingress.http().await.is_some() {
        while refusals.again(bootstrap::ingress_on_all_nodes(client.clone(), place, web).await).await {}
    }
}

/// Has all nodes lead to the ports of Gateways that are open.
async fn lead_to_gateways(client: &kube::Client, place: &bootstrap::Place<'_>, mut ports: watch::Receiver<BTreeSet<Port>>) {
    let (mut led, mut refusals) = (BTreeSet::new(), Refusals::default());
    loop {
        // The first time also when there are none: an earlier process may have left some.
        let open = ports.borrow_and_update().clone();
        let result = bootstrap::gateways_on_all_nodes(client.clone(), place, &open, &mut led).await;
        let is_due = refusals.tell(result);
        tokio::select! {
            changed = ports.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if is_due => {}
        }
    }
}

/// The file with authorities by which ACME servers are trusted beside the machine's own. What cannot be used is said at the start.
fn acme_authorities(options: &cli::Server) -> Result<Option<PathBuf>> {
    let Some(path) = &options.ingress.acme_ca else { return Ok(None) };
    let read = || Ok::<_, anyhow::Error>(base::tls::roots(&std::fs::read_to_string(path)?)?);
    read().with_context(|| path.display().to_string())?;
    Ok(Some(path.clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SINGLE: &str = "10.43.0.0/16";
    const DUAL: &str = "10.43.0.0/16 fd43::/112";
    const BOTH: &str = "192.0.2.1 fd77::1";

    /// Lists are separated by spaces.
    #[track_caller]
    fn check(bind: &str, node: &str, services: &str, [listen, addresses, endpoints]: [&str; 3]) {
        let list = |text: &str| text.split_whitespace().map(|one| one.parse().unwrap()).collect::<Vec<IpAddr>>();
        let services: Vec<IpNet> = services.split_whitespace().map(|one| one.parse().unwrap()).collect();
        let expected = Reach { listen: list(listen), addresses: list(addresses), endpoints: list(endpoints) };
        assert_eq!(Reach::of(bind.parse().unwrap(), &list(node), &services), expected, "{bind}");
    }

    #[test]
    fn every_address_of_the_machine() {
        // kube-apiserver's --bind-address: "If blank or an unspecified address (0.0.0.0 or ::), all interfaces and IP address families will be used."
        check("0.0.0.0", BOTH, DUAL, ["0.0.0.0", BOTH, BOTH]);
        check("::", BOTH, DUAL, ["::", BOTH, BOTH]);
        check("0.0.0.0", "192.0.2.1", SINGLE, ["0.0.0.0", "192.0.2.1", "192.0.2.1"]);
    }

    #[test]
    fn an_address_of_the_node_is_all_of_the_node() {
        check("192.0.2.1", BOTH, DUAL, [BOTH; 3]);
        check("fd77::1", BOTH, DUAL, [BOTH; 3]);
        check("192.0.2.1", "192.0.2.1", SINGLE, ["192.0.2.1"; 3]);
    }

    #[test]
    fn another_address_is_that_one_alone() {
        // No node leads to what is hidden: not from its own ports, and not from the server's.
        for bind in ["198.51.100.1", "fd99::1", "127.0.0.1", "::1", "169.254.0.1", "fe80::1"] {
            check(bind, BOTH, DUAL, [bind, bind, ""]);
            check(bind, "192.0.2.1", SINGLE, [bind, bind, ""]);
        }
    }

    #[test]
    fn a_node_without_an_address_for_others() {
        check("0.0.0.0", "127.0.0.1", SINGLE, ["0.0.0.0", "127.0.0.1", ""]);
        check("127.0.0.1", "127.0.0.1", SINGLE, ["127.0.0.1", "127.0.0.1", ""]);
        // Services have addresses of one family only.
        check("192.0.2.1", BOTH, SINGLE, [BOTH, BOTH, "192.0.2.1"]);
    }
}
