//! What is the node's own: service addresses that it serves itself, and the ports of the API server and of the kubelet.

use super::{Config, Part, rules};
use crate::nft::Family;
use crate::nft::batch::{Chain, Rule};
use crate::nft::expr::Verdict;

pub(super) const CHAIN: &str = "reserved";

/// Connections to it keep their destination.
pub(super) fn part(config: &Config, family: Family) -> Part {
    let untouched = || rules::verdict(Verdict::Accept);
    let mut all = Vec::new();
    for cidr in Config::of_family(&config.service_cidrs, family) {
        let to_service = rules::within(rules::destination(family, 0), cidr, true);
        all.push(Rule::new([to_service, rules::to_node(), untouched()].concat()));
    }
    for port in &config.reserved_ports {
        let to_port = vec![rules::destination_port(0), rules::equals(port.to_be_bytes())];
        all.push(Rule::new([rules::to_node(), rules::of_protocol(6).to_vec(), to_port, untouched()].concat()));
    }
    Part { sets: Vec::new(), chains: vec![Chain::regular(CHAIN, all)] }
}
