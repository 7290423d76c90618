//! What the table's maps hold: elements claimed by owners (services, pods), and the changes between two states. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::batch::{Pair, Value};
pub use super::map::Map;
use super::{Family, octets};

/// Transport protocols that services have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// By the name that the API uses; none means TCP.
    pub fn from_name(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// Where clients connect to. The unspecified address stands for every address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Address
    pub address: IpAddr,
    /// Protocol
    pub protocol: Protocol,
    /// Port
    pub port: u16,
}

/// Where connections are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address
    pub address: IpAddr,
    /// Port
    pub port: u16,
}

/// What happens to connections when there is no endpoint to send them to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Empty {
    /// TCP reset or ICMP port unreachable.
    Reject,
    /// Silence, as the Local traffic policies ask for when only other nodes have endpoints.
    Drop,
}

/// How an endpoint is chosen. All keys of one code share a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    /// Number of endpoints.
    pub slots: u32,
    /// When `slots` is 0.
    pub empty: Empty,
    /// Session affinity by client address, seconds; 0 is none.
    pub sticky: u32,
    /// Hide the client's address behind the node's.
    pub masquerade: bool,
    /// The key has the unspecified address: a node port.
    pub any_address: bool,
    /// The slots are those of the `External` map.
    pub local: bool,
    /// Only clients in `Sources` are served; the packets of others are dropped.
    pub restricted: bool,
}

/// Slots of the `External` map are numbered from here.
pub(crate) const LOCAL_OFFSET: u32 = 0x8000_0000;

/// Values that rules look further up begin with it; [`super::skeleton`] says why.
const FILLER: [u8; 4] = [0; 4];

impl Code {
    /// As map data: two words in host byte order. Codes without endpoints are equal when they refuse alike.
    pub(crate) fn encode(self) -> [u8; 8] {
        let flags = if self.slots == 0 {
            u32::from(self.empty == Empty::Drop)
        } else {
            let bits = [(self.masquerade, 24), (self.any_address, 25), (self.local, 26), (self.restricted, 27)];
            bits.into_iter().fold(self.sticky, |flags, (bit, at)| flags | u32::from(bit) << at)
        };
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.slots.to_ne_bytes());
        bytes[4..].copy_from_slice(&flags.to_ne_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let slots = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
        let flags = u32::from_ne_bytes(bytes.get(4..8)?.try_into().ok()?);
        let none = slots == 0;
        Some(Self {
            slots,
            empty: if none && flags == 1 { Empty::Drop } else { Empty::Reject },
            sticky: if none { 0 } else { flags & 0x00ff_ffff },
            masquerade: flags & 1 << 24 != 0,
            any_address: flags & 1 << 25 != 0,
            local: flags & 1 << 26 != 0,
            restricted: flags & 1 << 27 != 0,
        })
    }
}

/// By what right an owner claims a key; the first one wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// The cluster has given the address to the owner.
    ClusterIp,
    /// The owner has named the address itself: node ports, host ports, external addresses, load balancers.
    #[default]
    External,
}

/// One element of a map or set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    family: Family,
    map: Map,
    key: Box<[u8]>,
    value: Box<[u8]>,
    claim: Claim,
}

impl Element {
    fn new(family: Family, map: Map, key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { family, map, key: key.into(), value: value.into(), claim: Claim::default() }
    }

    /// The same element with another right to it.
    pub fn claimed(self, claim: Claim) -> Self {
        Self { claim, ..self }
    }

    /// An entry of `Services` or `External`.
    pub fn entry(map: Map, key: Key, code: Code) -> Self {
        Self::new(Family::of(key.address), map, key_bytes(key), [FILLER.to_vec(), code.encode().to_vec()].concat())
    }

    /// The endpoint in a slot.
    pub fn slot(key: Key, local: bool, index: u32, endpoint: Endpoint) -> Self {
        let slot = if local { LOCAL_OFFSET + index } else { index };
        let bytes = [key_bytes(key), slot.to_ne_bytes().to_vec()].concat();
        Self::new(Family::of(key.address), Map::Slots, bytes, [FILLER.to_vec(), endpoint_bytes(endpoint)].concat())
    }

    /// Affinity to `endpoint` holds.
    pub fn affine(key: Key, endpoint: Endpoint) -> Self {
        Self::new(Family::of(key.address), Map::Affine, [endpoint_bytes(endpoint), key_bytes(key)].concat(), Vec::new())
    }

    /// Connections of `address` to itself are masqueraded.
    pub fn hairpin(address: IpAddr) -> Self {
        Self::new(Family::of(address), Map::Hairpin, octets(address).repeat(2), Vec::new())
    }

    /// Clients in `range` may use the key. Ranges of one key must not overlap.
    pub fn source(key: Key, range: IpNet) -> Self {
        let end = |address| [key_bytes(key), octets(address)].concat();
        // The first and the last of a range, one after the other.
        let bytes = [end(range.network()), end(range.broadcast())].concat();
        Self::new(Family::of(key.address), Map::Sources, bytes, Vec::new())
    }

    /// A port of the node that leads to a pod.
    pub fn host_port(key: Key, endpoint: Endpoint) -> Self {
        Self::new(Family::of(key.address), Map::HostPorts, key_bytes(key), endpoint_bytes(endpoint))
    }
}

fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn key_bytes(key: Key) -> Vec<u8> {
    [&octets(key.address)[..], &[key.protocol.number(), 0, 0, 0], &padded_port(key.port)].concat()
}

fn endpoint_bytes(endpoint: Endpoint) -> Vec<u8> {
    [&octets(endpoint.address)[..], &padded_port(endpoint.port)].concat()
}

type Place = (Family, Map, Box<[u8]>);
/// The claims of a place with their values: the first has it.
type Claims = BTreeMap<(Claim, String), Box<[u8]>>;

/// The wanted contents of all maps. Several owners may claim one key: the better right has it, among equals the first name
/// in order.
#[derive(Debug, Default)]
pub struct Ruleset {
    claims: HashMap<Place, Claims>,
    owners: HashMap<String, Vec<(Place, Claim)>>,
    codes: HashMap<(Family, [u8; 8]), usize>,
}

/// The difference between two states of the maps of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub(crate) remove: BTreeMap<Map, Vec<Box<[u8]>>>,
    pub(crate) add: BTreeMap<Map, Vec<Pair>>,
    pub(crate) new_codes: Vec<[u8; 8]>,
    pub(crate) gone_codes: Vec<[u8; 8]>,
}

impl Delta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Number of element changes.
    pub fn len(&self) -> usize {
        self.remove.values().map(Vec::len).sum::<usize>() + self.add.values().map(Vec::len).sum::<usize>()
    }

    fn put(&mut self, map: Map, key: Box<[u8]>, value: &[u8]) {
        let value = if value.is_empty() { Value::None } else { Value::Data(value.into()) };
        self.add.entry(map).or_default().push((key, value));
    }
}

impl Ruleset {
    /// Replaces all elements of each owner and says what changes. No element removes the owner.
    pub fn replace(&mut self, changes: impl IntoIterator<Item = (String, Vec<Element>)>) -> BTreeMap<Family, Delta> {
        let mut before: HashMap<Place, Option<Box<[u8]>>> = HashMap::new();
        for (owner, elements) in changes {
            for (place, claim) in self.owners.remove(&owner).unwrap_or_default() {
                before.entry(place.clone()).or_insert_with(|| self.winner(&place));
                self.release(&(claim, owner.clone()), &place);
            }
            let mut places = HashSet::with_capacity(elements.len());
            for Element { family, map, key, value, claim } in elements {
                let place = (family, map, key);
                before.entry(place.clone()).or_insert_with(|| self.winner(&place));
                self.claims.entry(place.clone()).or_default().insert((claim, owner.clone()), value);
                places.insert((place, claim));
            }
            if !places.is_empty() {
                self.owners.insert(owner, places.into_iter().collect());
            }
        }
        self.differences(before)
    }

    /// The change from an empty table to this state.
    pub fn everything(&self) -> BTreeMap<Family, Delta> {
        let mut deltas: BTreeMap<Family, Delta> = BTreeMap::new();
        for ((family, map, key), claims) in &self.claims {
            if let Some(value) = claims.values().next() {
                deltas.entry(*family).or_default().put(*map, key.clone(), value);
            }
        }
        for (family, code) in self.codes.keys() {
            deltas.entry(*family).or_default().new_codes.push(*code);
        }
        deltas
    }

    /// Number of elements in the maps.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    fn winner(&self, place: &Place) -> Option<Box<[u8]>> {
        self.claims.get(place)?.values().next().cloned()
    }

    fn release(&mut self, claim: &(Claim, String), place: &Place) {
        if let Some(claims) = self.claims.get_mut(place) {
            claims.remove(claim);
            if claims.is_empty() {
                self.claims.remove(place);
            }
        }
    }

    fn differences(&mut self, before: HashMap<Place, Option<Box<[u8]>>>) -> BTreeMap<Family, Delta> {
        let mut deltas: BTreeMap<Family, Delta> = BTreeMap::new();
        let mut touched: HashMap<(Family, [u8; 8]), usize> = HashMap::new();
        for (place, old) in before {
            let new = self.winner(&place);
            if old == new {
                continue;
            }
            let (family, map, key) = place;
            for (code, added) in [(&old, false), (&new, true)] {
                let Some(code) =
                    code.as_deref().filter(|_| map.holds_codes()).and_then(|value| value.get(FILLER.len()..)?.try_into().ok())
                else {
                    continue;
                };
                let count = self.codes.entry((family, code)).or_default();
                touched.entry((family, code)).or_insert(*count);
                *count = if added { *count + 1 } else { count.saturating_sub(1) };
            }
            let delta = deltas.entry(family).or_default();
            if old.is_some() {
                delta.remove.entry(map).or_default().push(key.clone());
            }
            if let Some(value) = new {
                delta.put(map, key, &value);
            }
        }
        for ((family, code), count) in touched {
            let now = self.codes.get(&(family, code)).copied().unwrap_or_default();
            let delta = deltas.entry(family).or_default();
            match (count, now) {
                (0, 1..) => delta.new_codes.push(code),
                (1.., 0) => delta.gone_codes.push(code),
                _ => (),
            }
            if now == 0 {
                self.codes.remove(&(family, code));
            }
        }
        deltas
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(port: u16) -> Key {
        Key { address: IpAddr::from([10, 43, 0, 1]), protocol: Protocol::Tcp, port }
    }

    fn service(port: u16, endpoints: u32) -> Vec<Element> {
        let code = Code {
            slots: endpoints,
            empty: Empty::Reject,
            sticky: 0,
            masquerade: false,
            any_address: false,
            local: false,
            restricted: false,
        };
        let endpoint = |i| Endpoint { address: IpAddr::from([10, 42, 0, i as u8 + 2]), port: 80 };
        let slots = (0..endpoints).map(|i| Element::slot(key(port), false, i, endpoint(i)));
        slots.chain([Element::entry(Map::Services, key(port), code)]).collect()
    }

    /// Applies `changes` and compares (elements removed, elements added, codes new, codes gone).
    fn check(ruleset: &mut Ruleset, changes: Vec<(&str, Vec<Element>)>, expected: (usize, usize, usize, usize)) {
        let deltas = ruleset.replace(changes.into_iter().map(|(owner, elements)| (owner.to_owned(), elements)));
        let delta = deltas.get(&Family::V4).cloned().unwrap_or_default();
        let count = (
            delta.remove.values().map(Vec::len).sum(),
            delta.add.values().map(Vec::len).sum(),
            delta.new_codes.len(),
            delta.gone_codes.len(),
        );
        assert_eq!(count, expected);
    }

    #[test]
    fn deltas_are_minimal_and_claims_are_ordered() {
        let mut ruleset = Ruleset::default();
        check(&mut ruleset, vec![("b", service(80, 2))], (0, 3, 1, 0));
        check(&mut ruleset, vec![("b", service(80, 2))], (0, 0, 0, 0));
        check(&mut ruleset, vec![("c", service(81, 2))], (0, 3, 0, 0));
        // One endpoint more: the entry changes, one slot is added, a new code appears.
        check(&mut ruleset, vec![("b", service(80, 3))], (1, 2, 1, 0));
        // "a" claims the key of "b" with one endpoint and wins the entry; the equal slot stays.
        check(&mut ruleset, vec![("a", service(80, 1))], (1, 1, 1, 1));
        check(&mut ruleset, vec![("a", Vec::new())], (1, 1, 1, 1));
        check(&mut ruleset, vec![("b", Vec::new()), ("c", Vec::new())], (7, 0, 0, 2));
        assert!(ruleset.is_empty() && ruleset.owners.is_empty() && ruleset.codes.is_empty());
    }

    #[test]
    fn a_cluster_ip_comes_before_every_external_claim() {
        let claimed = |endpoints: u32, claim: Claim| -> Vec<Element> {
            service(80, endpoints).into_iter().map(|element| element.claimed(claim)).collect()
        };
        // Who claims what first, who claims second, and who has the key with how many endpoints.
        let check = |first: (&str, Claim), second: (&str, Claim), expected: u32| {
            let mut ruleset = Ruleset::default();
            for ((owner, claim), endpoints) in [(first, 1), (second, 2)] {
                ruleset.replace([(owner.to_owned(), claimed(endpoints, claim))]);
            }
            let entry = ruleset.winner(&(Family::V4, Map::Services, key_bytes(key(80)).into())).unwrap();
            let [_, code] = entry.split_at(FILLER.len()).into();
            assert_eq!(Code::decode(code).unwrap().slots, expected, "{first:?} {second:?}");
        };
        check(("a", Claim::External), ("b", Claim::ClusterIp), 2);
        check(("a", Claim::ClusterIp), ("b", Claim::External), 1);
        check(("b", Claim::ClusterIp), ("a", Claim::External), 1);
        check(("b", Claim::External), ("a", Claim::ClusterIp), 2);
        check(("b", Claim::External), ("a", Claim::External), 2);
    }

    #[test]
    fn codes_survive_encoding() {
        for (slots, sticky, masquerade) in [(1, 0, false), (70_000, 86_400, true)] {
            let code =
                Code { slots, empty: Empty::Reject, sticky, masquerade, any_address: true, local: false, restricted: true };
            assert_eq!(Code::decode(&code.encode()), Some(code));
        }
        let none =
            Code { slots: 0, empty: Empty::Drop, sticky: 5, masquerade: true, any_address: true, local: true, restricted: false };
        assert_eq!(Code::decode(&none.encode()).unwrap().empty, Empty::Drop);
    }
}
