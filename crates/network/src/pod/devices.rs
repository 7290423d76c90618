//! The bridge of the node and the links of sandboxes at it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ipam::gateway;
use super::nodes::{self, Backend};
use super::rtnl::{Links, Mac};
use super::{Bandwidth, Error, Options, sysctl};
use crate::netlink;
use crate::nft::Family;
use crate::nft::features::frames;

/// What the names of devices begin with in which packets of pods wait.
pub(in crate::pod) const SHAPERS: &str = "knq";

/// The largest packet of pods: other nodes may join at any time, so there is always room for the headers of the way to them.
pub(super) fn find_mtu(options: &Options, links: &mut Links) -> Result<u32, Error> {
    if let Some(mtu) = options.mtu {
        return Ok(mtu);
    }
    let Some(address) = options.node_ip else { return Ok(links.default_mtu()?.unwrap_or(1500)) };
    let lower = match links.mtu_at(address)? {
        Some(mtu) => mtu,
        None => links.default_mtu()?.unwrap_or(1500),
    };
    // A loopback has packets that no other link takes.
    Ok(nodes::mtu(options, address, lower.min(9216)))
}

pub(super) fn open_links() -> Result<Links, Error> {
    Links::open().map_err(|source| Error::Namespace { path: "/proc/self/ns/net".into(), source })
}

pub(super) fn set_up_bridge(options: &Options, links: &mut Links) -> Result<(), Error> {
    let bridge = &options.bridge;
    // Where the network of pods is left to plugins, one of them may be the gateway of their range.
    let is_ours = options.backend != Backend::Cni;
    let gateways: Vec<IpAddr> = options.pod_cidrs.iter().filter(|_| is_ours).map(|range| gateway(*range)).collect();
    let index = links.link(bridge)?.ok_or_else(|| Error::NoBridge(bridge.clone()))?.index;
    for (range, gateway) in options.pod_cidrs.iter().zip(&gateways) {
        links.add_address(index, *gateway, range.prefix_len())?;
    }
    for address in &options.local_addresses {
        links.add_address(index, *address, IpNet::from(*address).prefix_len())?;
    }
    // With an address of a range that the node had before, it would keep what is now another node's to itself.
    let is_own = |address: &IpAddr| gateways.contains(address) || options.local_addresses.contains(address);
    let is_link_local = |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    for one in links.addresses()?.into_iter().filter(|one| one.link == index) {
        if !is_own(&one.address) && !is_link_local(&one.address) {
            links.delete_address(one)?;
        }
    }
    // A pod must not be able to tell the node where the world is.
    sysctl::set_if_there(&format!("net/ipv6/conf/{bridge}/accept_ra"), "0")?;
    let has = |family| options.pod_cidrs.iter().any(|range| Family::of(range.addr()) == family);
    if has(Family::V4) {
        sysctl::set("net/ipv4/ip_forward".to_owned(), "1")?;
        sysctl::set(format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
        // Pods of one node must keep talking through the host; a redirect would tell them not to.
        sysctl::set("net/ipv4/conf/all/send_redirects".to_owned(), "0")?;
        sysctl::set(format!("net/ipv4/conf/{bridge}/send_redirects"), "0")?;
    }
    if has(Family::V6) {
        sysctl::keep_router_advertisements(&[bridge, &options.overlay, &options.wireguard, frames::PORTS])?;
        sysctl::set("net/ipv6/conf/all/forwarding".to_owned(), "1")?;
    }
    for range in &options.service_cidrs {
        // Without a default route the host would not even try; with this one it uses an address that pods can answer.
        let mut sources = gateways.iter().chain(options.node_ip.as_ref().filter(|_| !is_ours));
        let source = sources.find(|source| source.is_ipv4() == range.addr().is_ipv4()).copied();
        if source.is_some() {
            links.add_route(index, *range, None, source)?;
        }
    }
    Ok(())
}

/// A pod whose address is used again must not be reached at its predecessor's hardware address: derive it.
pub(super) fn mac_of(address: IpAddr) -> Mac {
    let octets = crate::nft::octets(address);
    let [a, b, c, d] = [4, 3, 2, 1].map(|back| octets[octets.len() - back]);
    [0x0a, 0x58, a, b, c, d]
}

/// Name of the host's end.
pub(super) fn veth_name(sandbox: &str) -> String {
    link_name(frames::PORTS, sandbox)
}

/// Name of a link of a sandbox, from its id by FNV-1a.
pub(super) fn link_name(prefix: &str, sandbox: &str) -> String {
    let hash =
        sandbox.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{prefix}{:012x}", hash & 0xffff_ffff_ffff)
}

/// Deletes the host's end and what shapes it.
pub(super) fn delete_port(links: &mut Links, sandbox: &str) -> Result<(), Error> {
    links.delete(&veth_name(sandbox))?;
    links.delete(&link_name(SHAPERS, sandbox))?;
    Ok(())
}

/// Limits what the pod receives where the host's end sends, and what it sends in a device through which goes all that the host's end receives:
/// out of reach of the pod, whatever its capabilities.
pub(super) fn shape(links: &mut Links, sandbox: &str, bandwidth: Bandwidth) -> Result<(), Error> {
    let index = |links: &mut Links, name: &str| Ok::<_, netlink::Error>(links.link(name)?.map_or(0, |link| link.index));
    let mut limit = || {
        if let Some(rate) = bandwidth.ingress {
            let port = index(links, &veth_name(sandbox))?;
            links.limit_rate(port, rate)?;
        }
        if let Some(rate) = bandwidth.egress {
            let name = link_name(SHAPERS, sandbox);
            links.make_ifb(&name)?;
            let (port, through) = (index(links, &veth_name(sandbox))?, index(links, &name)?);
            links.limit_rate(through, rate)?;
            links.redirect_received(port, through)?;
        }
        Ok(())
    };
    limit().map_err(Error::Bandwidth)
}
