//! What a pod contributes to the nf_tables table of its node.

use super::Lease;
use super::devices::veth_name;
use crate::nft::Family;
use crate::nft::contents::Fragment;
use crate::nft::element::{Endpoint, Key};
use crate::nft::features::{self, frames, masquerade};

/// Whose what a sandbox contributes is.
pub(super) fn owner(sandbox: &str) -> String {
    format!("pod:{sandbox}")
}

/// The ports of the node that lead to a pod.
fn host_ports(lease: &Lease) -> impl Iterator<Item = (Key, Endpoint)> {
    lease.wanted.ports.iter().flat_map(|port| {
        let host_ip = port.host_ip.filter(|address| !address.is_unspecified());
        let pods = lease.addresses.iter().filter(move |pod| host_ip.is_none_or(|address| address.is_ipv4() == pod.is_ipv4()));
        pods.map(move |pod| {
            let address = host_ip.unwrap_or(Family::of(*pod).unspecified());
            let key = Key { address, protocol: port.protocol, port: port.host_port };
            (key, Endpoint { address: *pod, port: port.container_port })
        })
    })
}

/// What a pod contributes to the table: the addresses that it may send with, and its host ports.
pub(super) fn contribution(sandbox: &str, lease: &Lease) -> Fragment {
    let (port, mac) = (veth_name(sandbox), lease.mac());
    let ours = lease.addresses.iter().filter(|_| lease.cni.is_none());
    let mut elements: Vec<_> = ours.map(|address| frames::sender(&port, mac, *address)).collect();
    let ports: Vec<(Key, Endpoint)> = host_ports(lease).collect();
    elements.extend(ports.iter().map(|(_, pod)| masquerade::hairpin(pod.address)));
    let mut fragment = Fragment::from(elements);
    fragment.extend(ports.into_iter().map(|(key, pod)| features::host_ports::claim(key, pod)).collect::<Vec<_>>().into());
    fragment
}
