//! What the table is made of: features, each of which contributes sets and chains for good, and elements (and more sets and
//! chains) as services, pods and policies come and go.
//!
//! Administrators list rules with the nft program. It takes the value of a map for an expression without length, gives it
//! the first register only, and aborts (1.0.6) where a later expression reads that register as a part of a key. Values
//! that are read so begin with a filler, and the registers after it are loaded before the lookup with something of
//! the type that the value has: see [`rules::lookup`]. The nft program then shows what was loaded, and a comment of the rule
//! says so.

pub(crate) mod frames;
pub mod guards;
pub mod host_ports;
pub(crate) mod masquerade;
pub(crate) mod policies;
pub(crate) mod reserved;
pub(crate) mod rules;
pub mod services;
pub(crate) mod translation;

use ipnet::IpNet;

use super::Family;
use super::batch::Chain;
use super::contents::Fragment;
use super::element::Protocol;
use super::set::SetId;

/// What the rules must know of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Name of the pod bridge.
    pub bridge: String,
    /// Its hardware address.
    pub bridge_address: [u8; 6],
    /// Ranges of this node's pods.
    pub pod_cidrs: Vec<IpNet>,
    /// Ranges of all pods of the cluster: clients with these addresses are inside, and traffic to them is never masqueraded.
    pub cluster_cidrs: Vec<IpNet>,
    /// Ranges of service addresses; connections to addresses in them that no service has are refused.
    pub service_cidrs: Vec<IpNet>,
    /// Ports of the node that no service and no pod gets.
    pub reserved_ports: Vec<(Protocol, u16)>,
    /// Who sends to the port of the overlay speaks for pods of other nodes, whoever it is: it is guarded.
    pub is_overlay_open: bool,
    /// Hide pods behind the node's address when they talk to the outside.
    pub masquerade: bool,
}

impl Config {
    /// The ranges in `cidrs` of a family.
    pub(crate) fn of_family(cidrs: &[IpNet], family: Family) -> impl Iterator<Item = &IpNet> {
        cidrs.iter().filter(move |cidr| Family::of(cidr.addr()) == family)
    }
}

/// What a feature always has in the table of one family.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    pub(crate) sets: Vec<SetId>,
    pub(crate) chains: Vec<Chain>,
}

type Feature = fn(&Config, Family) -> Part;

/// Policies are not among them: they have nothing in the table before there is a policy.
const FEATURES: [Feature; 6] =
    [guards::part, translation::part, reserved::part, host_ports::part, services::part, masquerade::part];

/// What all features always have.
pub(crate) fn fixed(config: &Config, families: &[Family]) -> Fragment {
    let mut fragment = Fragment::default();
    for family in families {
        let parts = match family {
            Family::Bridge => vec![frames::part(config)],
            Family::V4 | Family::V6 => FEATURES.map(|feature| feature(config, *family)).to_vec(),
        };
        for Part { sets, chains } in parts {
            fragment.sets.extend(sets.into_iter().map(|set| (*family, set)));
            fragment.chains.extend(chains.into_iter().map(|chain| (*family, chain)));
        }
        if *family != Family::Bridge {
            fragment.claimed.extend(reserved::own(config, *family));
        }
    }
    fragment
}

/// Everything that features contribute, to find out whether the kernel takes it.
pub(crate) fn samples(config: &Config, family: Family) -> Fragment {
    let mut all = fixed(config, &[family]);
    if family != Family::Bridge {
        all.extend(services::sample(family));
        all.extend(policies::sample(config, family));
    }
    all
}
