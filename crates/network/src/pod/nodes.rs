//! What the kernel knows of other nodes: the ways to their pods, and which ports are theirs. All of it follows from the Node objects.
//!
//! How packets go from node to node is the cluster's choice ([`Backend`]).

mod changes;
mod localnet;
mod peers;
mod ports;
mod routes;
mod vxlan;
pub(crate) mod wireguard;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};

use super::rtnl::Links;
use super::{Error, Options, blocking, open_links, sysctl};
use crate::nft::contents::Fragment;
use crate::nft::element::Protocol;
use crate::nft::features::guards;
use crate::nft::features::reserved;
use crate::nft::machine;
use crate::nft::table::{Holder, Table};
use changes::{Changes, Ways};
pub(crate) use peers::pod_ranges;
pub use peers::{Own, Peer};
use ports::Ports;
pub use wireguard::{ANNOTATION as KEY_ANNOTATION, PublicKey};

pub(crate) use vxlan::Entries;

/// How packets of pods go from node to node. All nodes of a cluster do it alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// In packets between nodes (RFC 7348), over any network.
    #[default]
    Vxlan,
    /// As they are, by routes: the nodes are on one link, and each is the gateway to its pods.
    HostGw,
    /// Encrypted in packets between nodes, by WireGuard, over any network.
    #[serde(rename = "wireguard")]
    WireGuard,
    /// As network plugins have it, to which the whole network of pods is left ([`super::cni`]).
    Cni,
}

impl Backend {
    /// What this takes of the largest packet between nodes that have such addresses, bytes.
    fn headers(self, address: IpAddr) -> u32 {
        match self {
            Self::Vxlan => vxlan::headers(address),
            Self::WireGuard => wireguard::headers(address),
            Self::HostGw | Self::Cni => 0,
        }
    }

    /// Where nodes hear each other; none where they need nothing for it.
    pub fn port(self) -> Option<(Protocol, u16)> {
        match self {
            Self::Vxlan => Some(guards::OVERLAY),
            Self::WireGuard => Some((Protocol::Udp, wireguard::PORT)),
            Self::HostGw | Self::Cni => None,
        }
    }
}

fn added<'a, K: Ord, V: PartialEq>(old: &BTreeMap<K, V>, new: &'a BTreeMap<K, V>) -> impl Iterator<Item = (&'a K, &'a V)> {
    new.iter().filter(|(key, value)| old.get(*key) != Some(*value))
}

fn gone<'a, K: Ord, V>(old: &'a BTreeMap<K, V>, new: &BTreeMap<K, V>) -> impl Iterator<Item = &'a K> {
    old.keys().filter(|key| !new.contains_key(*key))
}

/// Readies the machine for the ways to other nodes, and takes away what another backend has left.
pub(super) fn set_up(options: &Options, links: &mut Links, address: IpAddr, mtu: u32) -> Result<(), Error> {
    if options.backend != Backend::HostGw {
        localnet::take_back(options)?;
    }
    match options.backend {
        Backend::Vxlan => {
            wireguard::remove(options, links)?;
            routes::remove(links)?;
            vxlan::set_up(options, links, address, mtu)?;
        }
        Backend::WireGuard => {
            // Before the ways that others have left are taken away: nothing finds the default route meanwhile.
            wireguard::refuse_the_rest(options, links)?;
            links.delete(&options.overlay)?;
            routes::remove(links)?;
            wireguard::set_up(options, links, mtu)?;
        }
        Backend::HostGw => {
            links.delete(&options.overlay)?;
            wireguard::remove(options, links)?;
        }
        Backend::Cni => remove(options, links)?,
    }
    Ok(())
}

/// Switches a device to other nodes on, with the network addresses of the node's pod ranges: from there the node itself speaks to other nodes' pods. Returns
/// its index.
fn switch_on(options: &Options, links: &mut Links, name: &str, mtu: u32) -> Result<u32, Error> {
    links.set_mtu(name, mtu)?;
    links.up(name)?;
    let link = links.link(name)?.ok_or_else(|| Error::NoOverlay(name.to_owned()))?.index;
    for range in &options.pod_cidrs {
        links.add_address(link, range.network(), range.max_prefix_len())?;
    }
    // A node port at 127.0.0.1 may lead to another node's pod.
    if options.pod_cidrs.iter().any(|range| range.addr().is_ipv4()) {
        sysctl::set(format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
    }
    Ok(link)
}

/// Removes the ways to other nodes, of whichever backend.
pub(super) fn remove(options: &Options, links: &mut Links) -> Result<(), Error> {
    links.delete(&options.overlay)?;
    wireguard::remove(options, links)?;
    localnet::take_back(options)?;
    Ok(routes::remove(links)?)
}

/// The largest packet of pods on a link of this MTU.
pub(super) fn mtu(options: &Options, address: IpAddr, lower: u32) -> u32 {
    lower.saturating_sub(options.backend.headers(address))
}

/// What is known of other nodes.
#[derive(PartialEq, Eq)]
struct Known {
    peers: BTreeSet<Peer>,
    ports: Ports,
}

/// Keeps what the kernel knows of other nodes as their objects say.
pub struct Nodes {
    options: Options,
    address: IpAddr,
    mtu: u32,
    name: String,
    table: Table,
    known: Option<Known>,
    /// The pod ranges for which there is no way.
    unreached: Unreached,
    /// None before the first look, and where the ways are somebody else's.
    changes: Option<Changes>,
}

/// Pod ranges of other nodes to which there is no way, and what is missing.
pub type Unreached = BTreeMap<IpNet, Missing>;

/// Why there is no way to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The node, at this address, is on no link of this one.
    Link(IpAddr),
    /// It has no address of the range's family.
    Address,
    /// It has told no public key yet.
    Key,
}

impl Nodes {
    pub(super) fn new(options: &Options, address: IpAddr, mtu: u32, name: &str, table: Table) -> Self {
        let (options, name) = (options.clone(), name.to_owned());
        Self { options, address, mtu, name, table, known: None, unreached: Unreached::new(), changes: None }
    }

    /// Makes the ways to these nodes, and takes away all others. Says which of them there cannot be.
    pub async fn update<'a>(&mut self, nodes: impl Iterator<Item = &'a Node> + Clone) -> Result<&Unreached, Error> {
        let Options { pod_cidrs: ranges, cluster_cidrs: cluster, service_cidrs: services, .. } = &self.options;
        let peers = Peer::all(nodes.clone(), Own { name: &self.name, address: self.address, ranges, cluster });
        let known = Known {
            peers,
            ports: Ports::of(nodes, &self.name, self.options.backend.port(), &[&ranges[..], cluster, services].concat()),
        };
        if self.known.as_ref() == Some(&known) {
            return Ok(&self.unreached);
        }
        // Before anything is looked at: what changes after that is told.
        if self.changes.is_none() && self.options.backend != Backend::Cni {
            self.changes =
                Some(Changes::listen().map_err(|source| Error::Namespace { path: "/proc/self/ns/net".into(), source })?);
        }
        let nodes: Vec<_> = known.peers.iter().map(|peer| guards::node(peer.address)).collect();
        let ports = known.ports.own.iter().copied().map(reserved::claim);
        let ports: Vec<_> = ports.chain(known.ports.taken.iter().copied().map(reserved::elsewhere)).collect();
        let (options, address, mtu, table, peers) =
            (self.options.clone(), self.address, self.mtu, self.table.clone(), known.peers.clone());
        let before = self.known.as_ref().map(|known| known.peers.clone());
        self.unreached = blocking(move || {
            let mut fragment = Fragment::from(nodes);
            // Somebody else's word takes no port of ours.
            let own = machine::addresses();
            let ports = ports.into_iter().filter(|port| !own.contains(&port.key.address));
            fragment.extend(ports.collect::<Vec<_>>().into());
            table.replace([("nodes".to_owned(), fragment)])?;
            table.release(Holder::Nodes)?;
            let mut links = open_links()?;
            match options.backend {
                Backend::Vxlan => vxlan::follow(&options, &mut links, address, mtu, &peers).map(|()| Unreached::new()),
                Backend::WireGuard => wireguard::follow(&options, &mut links, mtu, &peers, before.as_ref()),
                Backend::HostGw => {
                    let unreached = routes::follow(&mut links, &peers)?;
                    // The ways to pods are there all the same.
                    if let Err(error) = localnet::let_out(&options, &mut links) {
                        tracing::warn!(%error, "node ports at 127.0.0.1 do not reach pods of other nodes");
                    }
                    Ok(unreached)
                }
                Backend::Cni => Ok(Unreached::new()),
            }
        })
        .await?;
        self.known = Some(known);
        Ok(&self.unreached)
    }

    /// Waits until something that leads to other nodes is taken away, or a link comes back by which one might be reached. The next
    /// [`Self::update`] then looks at everything.
    pub async fn disturbed(&mut self) -> std::io::Result<()> {
        let (Some(changes), Some(known)) = (&mut self.changes, &self.known) else { return std::future::pending().await };
        let device = self.options.device();
        let refused = if self.options.backend == Backend::WireGuard { wireguard::refused(&self.options) } else { Vec::new() };
        changes.disturb(&Ways { peers: &known.peers, device, refused: &refused, missing: !self.unreached.is_empty() }).await?;
        self.known = None;
        Ok(())
    }
}
