//! The answer to a question about the cluster domain. Pure.
//!
//! Names follow the DNS-Based Service Discovery specification of Kubernetes, version 1.1.0, and CoreDNS where the
//! specification leaves room (pod names, ExternalName, SOA).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::state::{Endpoint, Group, State, Target};

/// Seconds that clients may keep an answer.
pub const TTL: u32 = 5;
/// Aliases may lead in circles: follow no more of them.
const MAX_ALIASES: usize = 8;
const SCHEMA_VERSION: &str = "1.1.0";
/// Bytes of the shortest record: a pointer to its name, type, class, time to live, length and an address.
const RECORD: usize = 16;

/// How much of an answer there is to be: what a service has may be more than any message takes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Records of each kind that are collected; one more than fit, so that the answer is seen to be cut.
    most: usize,
    /// Where to begin among many, so that who gets only some of them gets others the next time.
    first: usize,
}

impl Room {
    /// Room in a message of so many bytes.
    pub fn new(bytes: usize, first: usize) -> Self {
        Self { most: bytes / RECORD + 1, first }
    }

    /// All of `count`, from another one on each time if there is no room for all.
    fn turned<T>(self, all: impl Iterator<Item = T> + Clone, count: usize) -> impl Iterator<Item = T> {
        let first = if count > self.most { self.first % count } else { 0 };
        all.clone().skip(first).chain(all.take(first))
    }
}

/// The cluster domain.
#[derive(Clone, Debug)]
pub struct Zone {
    name: Name,
}

/// What to reply.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// No error, or NXDOMAIN.
    pub code: ResponseCode,
    /// Records that answer.
    pub answers: Vec<Record>,
    /// The zone's SOA when there is no answer.
    pub authorities: Vec<Record>,
    /// Addresses of names in `answers`.
    pub additionals: Vec<Record>,
    /// The answer is an alias of this name outside the zone, whose records belong into the answer too.
    pub alias: Option<Name>,
}

/// The domain is not a DNS name.
#[derive(Debug, thiserror::Error)]
#[error("cluster domain {domain:?} is not a DNS name: {source}")]
pub struct ZoneError {
    domain: String,
    source: hickory_proto::ProtoError,
}

impl Zone {
    /// The zone of `domain`, such as `cluster.local`.
    pub fn new(domain: &str) -> Result<Self, ZoneError> {
        let parsed = Name::from_ascii(domain.trim_end_matches('.'));
        let mut name = parsed.map_err(|source| ZoneError { domain: domain.to_owned(), source })?.to_lowercase();
        name.set_fqdn(true);
        Ok(Self { name })
    }

    /// Whether `name` is the domain or below it.
    pub fn contains(&self, name: &Name) -> bool {
        self.name.zone_of(name)
    }

    /// The domain's name.
    pub(crate) fn into_name(self) -> Name {
        self.name
    }

    /// `below` (labels with dots) in this zone.
    fn name(&self, below: &str) -> Option<Name> {
        Name::from_ascii(below).ok()?.append_domain(&self.name).ok()
    }

    /// The start-of-authority record, which tells resolvers how long a negative answer holds.
    fn soa(&self) -> Option<Record> {
        let data = SOA::new(self.name("ns.dns")?, self.name("hostmaster")?, 1, 7200, 1800, 86_400, TTL);
        Some(Record::from_rdata(self.name.clone(), TTL, RData::SOA(data)))
    }

    /// The answer to a question for `name`; none when somebody else has to answer it.
    pub fn answer(&self, name: &Name, kind: RecordType, state: &State, room: Room) -> Option<Answer> {
        self.follow(name, kind, state, room, 0)
    }

    fn follow(&self, name: &Name, kind: RecordType, state: &State, room: Room, aliases: usize) -> Option<Answer> {
        let lower = name.to_lowercase();
        if !self.name.zone_of(&lower) {
            return self.reverse(name, kind, state, room);
        }
        let depth = usize::from(lower.num_labels() - self.name.num_labels());
        let labels: Vec<String> = lower.iter().take(depth).map(|label| String::from_utf8_lossy(label).into_owned()).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let lookup = Lookup { zone: self, state, name, kind, room, aliases };
        let mut answer = match labels.as_slice() {
            [] => lookup.apex(),
            ["dns-version"] => lookup.data(RecordType::TXT, RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]))),
            ["svc" | "pod" | "dns"] => Some(Answer::default()),
            ["ns", "dns"] => Some(Answer::default()),
            [namespace, "svc" | "pod"] => state.has_namespace(namespace).then(Answer::default),
            [service, namespace, "svc"] => lookup.service(service, namespace, None),
            [port, protocol, service, namespace, "svc"] if port.starts_with('_') && protocol.starts_with('_') => {
                lookup.service(service, namespace, Some((&port[1..], &protocol[1..])))
            }
            [host, service, namespace, "svc"] => lookup.endpoint(host, service, namespace),
            [address, namespace, "pod"] => state.has_namespace(namespace).then(|| lookup.pod(address)).flatten(),
            _ => None,
        }
        .unwrap_or(Answer { code: ResponseCode::NXDomain, ..Answer::default() });
        if answer.answers.is_empty() {
            answer.authorities.extend(self.soa());
        }
        Some(answer)
    }

    fn reverse(&self, name: &Name, kind: RecordType, state: &State, room: Room) -> Option<Answer> {
        let network = name.parse_arpa_name().ok()?;
        let address = (network.prefix_len() == network.max_prefix_len()).then_some(network.addr())?;
        let names = state.names_of(address, room.most);
        names.first()?;
        let mut answer = Answer::default();
        if kind == RecordType::PTR || kind == RecordType::ANY {
            let targets = names.iter().filter_map(|below| self.name(below));
            answer.answers = targets.map(|target| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target)))).collect();
        }
        Some(answer)
    }
}

struct Lookup<'a> {
    zone: &'a Zone,
    state: &'a State,
    name: &'a Name,
    kind: RecordType,
    room: Room,
    /// How many aliases led here.
    aliases: usize,
}

impl Lookup<'_> {
    fn wants(&self, kind: RecordType) -> bool {
        self.kind == kind || self.kind == RecordType::ANY
    }

    fn data(&self, kind: RecordType, data: RData) -> Option<Answer> {
        let answers = if self.wants(kind) { vec![Record::from_rdata(self.name.clone(), TTL, data)] } else { Vec::new() };
        Some(Answer { answers, ..Answer::default() })
    }

    fn apex(&self) -> Option<Answer> {
        match self.kind {
            RecordType::NS => self.data(RecordType::NS, RData::NS(NS(self.zone.name("ns.dns")?))),
            _ => self.data(RecordType::SOA, self.zone.soa()?.data),
        }
    }

    /// The address as a record of `name`, when its family is asked for.
    fn address(&self, name: &Name, address: IpAddr, any_family: bool) -> Option<Record> {
        let (kind, data) = match address {
            IpAddr::V4(v4) => (RecordType::A, RData::A(v4.into())),
            IpAddr::V6(v6) => (RecordType::AAAA, RData::AAAA(v6.into())),
        };
        (any_family || self.wants(kind)).then(|| Record::from_rdata(name.clone(), TTL, data))
    }

    /// Whether the addresses of a group may be in the answer: where they are not, they are not gone through.
    fn wants_family(&self, group: &Group) -> bool {
        self.wants(if group.is_v6 { RecordType::AAAA } else { RecordType::A })
    }

    fn addresses(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Answer {
        let mut seen = HashSet::new();
        let own = addresses.into_iter().filter(|address| seen.insert(*address));
        let records = own.filter_map(|address| self.address(self.name, address, false));
        Answer { answers: records.take(self.room.most).collect(), ..Answer::default() }
    }

    /// A service by name, or one port of it.
    fn service(&self, service: &str, namespace: &str, port: Option<(&str, &str)>) -> Option<Answer> {
        let below = format!("{service}.{namespace}.svc");
        match self.state.service(namespace, service)?.as_ref() {
            Target::External { name } => self.external(name),
            Target::Cluster { addresses, ports } => {
                let ports = ports.wanted(port);
                if ports.is_empty() && port.is_some() {
                    return None;
                }
                if self.kind != RecordType::SRV {
                    return Some(self.addresses(addresses.iter().copied()));
                }
                let target = self.zone.name(&below)?;
                let answers = ports.iter().take(self.room.most).map(|port| self.srv(port.number, target.clone())).collect();
                let additionals = addresses.iter().filter_map(|address| self.address(&target, *address, true)).collect();
                Some(Answer { answers, additionals, ..Answer::default() })
            }
            Target::Headless { groups } => self.headless(&below, groups, port),
        }
    }

    fn headless(&self, below: &str, groups: &[Group], port: Option<(&str, &str)>) -> Option<Answer> {
        let mut chosen = groups.iter().filter(|group| port.is_none() || !group.ports.wanted(port).is_empty()).peekable();
        // A headless service without ready endpoints does not resolve, as with CoreDNS.
        chosen.peek()?;
        if self.kind != RecordType::SRV {
            let chosen: Vec<&Group> = chosen.filter(|group| self.wants_family(group)).collect();
            let count = chosen.iter().map(|group| group.addresses.len()).sum();
            let all = chosen.iter().flat_map(|group| &group.addresses);
            return Some(self.addresses(self.room.turned(all, count).copied()));
        }
        let chosen: Vec<_> =
            chosen.map(|group| (group.ports.numbers(port), group)).filter(|(ports, _)| !ports.is_empty()).collect();
        let count = chosen.iter().map(|(_, group)| group.endpoints.len()).sum();
        let all = chosen.iter().enumerate();
        let all = all.flat_map(|(index, (ports, group))| group.endpoints.iter().map(move |endpoint| (index, ports, endpoint)));
        let mut answer = Answer::default();
        let (mut hosts, mut seen) = (HashSet::new(), HashSet::new());
        for (group, ports, Endpoint { host, address }) in self.room.turned(all, count) {
            let left = self.room.most.saturating_sub(answer.answers.len());
            if left == 0 || answer.additionals.len() >= self.room.most {
                break;
            }
            let target = self.zone.name(&format!("{host}.{below}"))?;
            // An endpoint with two addresses has its ports once, and they are not gone through again.
            if hosts.insert((group, host)) {
                let ports = ports.iter().filter(|port| seen.insert((host, **port)));
                answer.answers.extend(ports.take(left).map(|port| self.srv(*port, target.clone())));
            }
            answer.additionals.extend(self.address(&target, *address, true));
        }
        Some(answer)
    }

    fn srv(&self, port: u16, target: Name) -> Record {
        Record::from_rdata(self.name.clone(), TTL, RData::SRV(SRV::new(0, 100, port, target)))
    }

    fn endpoint(&self, host: &str, service: &str, namespace: &str) -> Option<Answer> {
        let target = self.state.service(namespace, service)?;
        let Target::Headless { groups } = target.as_ref() else { return None };
        groups.iter().find(|group| !group.named(host).is_empty())?;
        let found = groups.iter().filter(|group| self.wants_family(group)).flat_map(|group| group.named(host));
        Some(self.addresses(found.map(|one| one.address)))
    }

    fn external(&self, target: &str) -> Option<Answer> {
        let mut target = Name::from_ascii(target.trim_end_matches('.')).ok()?;
        target.set_fqdn(true);
        let record = Record::from_rdata(self.name.clone(), TTL, RData::CNAME(CNAME(target.clone())));
        let mut answer = Answer { answers: vec![record], ..Answer::default() };
        if !matches!(self.kind, RecordType::A | RecordType::AAAA) {
            return Some(answer);
        }
        if self.aliases == MAX_ALIASES {
            return Some(answer);
        }
        match self.zone.follow(&target, self.kind, self.state, self.room, self.aliases + 1) {
            Some(next) => {
                answer.answers.extend(next.answers);
                answer.alias = next.alias;
            }
            None => answer.alias = Some(target),
        }
        Some(answer)
    }

    /// `a-b-c-d.NAMESPACE.pod` means a.b.c.d whether or not such a pod is there, as with CoreDNS (`pods insecure`).
    fn pod(&self, label: &str) -> Option<Answer> {
        let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
        let address = v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()?;
        Some(self.addresses([address]))
    }
}

#[cfg(test)]
mod tests;
