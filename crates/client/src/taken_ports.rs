//! What a node tells of its ports: those that load balancers, or external addresses that are the node's own, ask for and that somebody else has
//! there, be it a program, a host port, a node port or an external address. It stands in an annotation of the Node, which only the node itself
//! writes; the load balancer controller and the other nodes read it. Services may have any number of ports and annotations have an end, so ports that
//! follow each other are told as ranges, no Service takes the room of all, and no namespace that of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::Node;

use crate::Key;

/// The annotation.
pub const TAKEN_PORTS: &str = "knarr.io/taken-ports";

/// Ranges of ports of one protocol that are told of a Service; the further ones are left out.
const RANGES: usize = 100;
/// Ports of all Services that are told, which bounds what a reader makes of ranges, too.
const PORTS: usize = 1 << 16;
/// Bytes of the annotation: all annotations of an object have 256 KiB.
const LENGTH: usize = 128 << 10;

/// A port that a load balancer or an external address has not got on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TakenPort {
    /// The Service.
    pub service: Key,
    /// The port, with its protocol as the API names it.
    pub port: (i32, String),
}

/// What is told of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The value of the annotation; none where there is nothing to tell.
    pub text: Option<String>,
    /// Services of whose ports some are left out.
    pub left_out: BTreeSet<Key>,
}

/// Ports of one protocol of a Service.
struct Entry<'a> {
    service: &'a Key,
    protocol: &'a str,
    ranges: Vec<(i32, i32)>,
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:", self.service.ns(), self.service.name)?;
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            f.write_str(if index > 0 { "+" } else { "" })?;
            match first == last {
                true => write!(f, "{first}")?,
                false => write!(f, "{first}-{last}")?,
            }
        }
        write!(f, "/{}", self.protocol)
    }
}

impl Entry<'_> {
    fn ports(&self) -> usize {
        self.ranges.iter().map(|(first, last)| (last - first) as usize + 1).sum()
    }
}

impl TakenPort {
    /// The ports of an entry, as long as there is room for them.
    fn parse(text: &str, room: &mut usize) -> Option<Vec<Self>> {
        let (service, ports) = text.split_once(':')?;
        let ((namespace, name), (ranges, protocol)) = (service.split_once('/')?, ports.split_once('/')?);
        let mut found = Vec::new();
        for range in ranges.split('+') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
            let ports = (i32::from(first)..=i32::from(last)).take(*room);
            let before = found.len();
            found.extend(
                ports.map(|number| Self { service: Key::namespaced(namespace, name), port: (number, protocol.to_owned()) }),
            );
            *room -= found.len() - before;
        }
        Some(found)
    }

    /// What a node tells.
    pub fn told(node: &Node) -> BTreeSet<Self> {
        let text = node.metadata.annotations.as_ref().and_then(|all| all.get(TAKEN_PORTS));
        let mut room = PORTS;
        text.into_iter().flat_map(|text| text.split(',')).filter_map(|one| Self::parse(one, &mut room)).flatten().collect()
    }

    /// What a node with these ports tells of them.
    pub fn tell(all: &BTreeSet<Self>) -> Told {
        let mut told = Told::default();
        let mut entries: BTreeMap<(&Key, &str), Entry<'_>> = BTreeMap::new();
        for Self { service, port: (number, protocol) } in all {
            let entry = Entry { service, protocol, ranges: Vec::new() };
            let ranges = &mut entries.entry((service, protocol)).or_insert(entry).ranges;
            let is_full = ranges.len() == RANGES;
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *number => *last = *number,
                _ if is_full => drop(told.left_out.insert(service.clone())),
                _ => ranges.push((*number, *number)),
            }
        }
        let mut texts: Vec<(usize, String, Entry<'_>)> =
            entries.into_values().map(|entry| (0, entry.to_string(), entry)).collect();
        // Each namespace tells one first, the shortest, then each another one.
        texts.sort_by(|(_, a, of_a), (_, b, of_b)| (of_a.service.ns(), a.len(), a).cmp(&(of_b.service.ns(), b.len(), b)));
        for index in 1..texts.len() {
            if texts[index].2.service.ns() == texts[index - 1].2.service.ns() {
                texts[index].0 = texts[index - 1].0 + 1;
            }
        }
        texts.sort_by_key(|(turn, ..)| *turn);
        let (mut room, mut ports) = (LENGTH, PORTS);
        let mut kept: Vec<String> = Vec::new();
        for (_, text, entry) in texts {
            let fits = room.checked_sub(text.len() + 1).zip(ports.checked_sub(entry.ports()));
            match fits {
                Some(left) => {
                    (room, ports) = left;
                    kept.push(text);
                }
                None => drop(told.left_out.insert(entry.service.clone())),
            }
        }
        kept.sort_unstable();
        told.text = (!kept.is_empty()).then(|| kept.join(","));
        told
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn port(service: &str, number: i32, protocol: &str) -> TakenPort {
        let (namespace, name) = service.split_once('/').unwrap();
        TakenPort { service: Key::namespaced(namespace, name), port: (number, protocol.to_owned()) }
    }

    fn told(text: &str) -> BTreeSet<TakenPort> {
        let mut node = Node::default();
        node.metadata.annotations = Some([(TAKEN_PORTS.to_owned(), text.to_owned())].into());
        TakenPort::told(&node)
    }

    fn check(ports: &[TakenPort], text: Option<&str>) {
        let all: BTreeSet<TakenPort> = ports.iter().cloned().collect();
        let found = TakenPort::tell(&all);
        assert_eq!((found.text.as_deref(), found.left_out.len()), (text, 0));
        assert_eq!(told(text.unwrap_or_default()), all);
    }

    #[test]
    fn what_is_told_is_heard() {
        check(&[], None);
        check(&[port("a/web", 80, "TCP"), port("a/dns", 53, "UDP")], Some("a/dns:53/UDP,a/web:80/TCP"));
        let many = [79, 80, 81, 90, 443, 444].map(|number| port("a/web", number, "TCP"));
        check(&many, Some("a/web:79-81+90+443-444/TCP"));
        check(&[port("a/web", 80, "TCP"), port("a/web", 81, "UDP")], Some("a/web:80/TCP,a/web:81/UDP"));
        for nonsense in ["x", "a/b:1-2-3/TCP", "a/b:-1/TCP", "a/b:70000/TCP", "a/b:2-1/TCP", "a:1/TCP", "a/b:/TCP"] {
            assert_eq!(told(nonsense), BTreeSet::new(), "{nonsense}");
        }
        assert_eq!(TakenPort::told(&Node::default()), BTreeSet::new());
    }

    /// Whoever makes Services chooses how many ports they have: the annotation stays one that the API takes, with the ports of all others.
    #[test]
    fn there_is_room_for_everybody() {
        let alternate = |service: &str| (0..20_000).map(|number| port(service, 3 * number + 1, "TCP")).collect::<Vec<_>>();
        let mut all: BTreeSet<TakenPort> = alternate("evil/many").into_iter().collect();
        all.insert(port("good/web", 80, "TCP"));
        let found = TakenPort::tell(&all);
        assert_eq!(found.left_out, [Key::namespaced("evil", "many")].into());
        let heard = told(&found.text.unwrap());
        assert_eq!((heard.len(), heard.contains(&port("good/web", 80, "TCP"))), (RANGES + 1, true));
        // Many Services of one namespace.
        for number in 0..9000 {
            all.insert(port(&format!("evil/service-with-a-long-name-{number}"), 80, "TCP"));
        }
        all.insert(port("zoo/web", 80, "TCP"));
        let found = TakenPort::tell(&all);
        let text = found.text.unwrap();
        assert!(text.len() <= LENGTH && found.left_out.iter().all(|service| service.ns() == "evil"));
        assert!(told(&text).contains(&port("zoo/web", 80, "TCP")) && told(&text).len() > 1000);
    }

    /// A node tells what it likes: who hears it makes no more of it than a node has ports.
    #[test]
    fn ranges_have_an_end() {
        let all: Vec<String> = (0..1000).map(|number| format!("a/s{number}:1-65535/TCP")).collect();
        assert_eq!(told(&all.join(",")).len(), PORTS);
        let wide: BTreeSet<TakenPort> =
            ["a/x", "a/y"].into_iter().flat_map(|service| (1..=65_535).map(move |number| port(service, number, "TCP"))).collect();
        let found = TakenPort::tell(&wide);
        assert_eq!((found.text.as_deref(), found.left_out.len()), (Some("a/x:1-65535/TCP"), 1));
    }
}
