//! Listeners of Gateways, their own and those of ListenerSets, in one list for each Gateway: which routes they take by their protocol, which of
//! them are distinct, who has which port, and by which door their connections come. Pure.

use std::collections::{BTreeMap, HashSet};

use client::Key;

use super::attach::selects;
use super::conflicts::{Conflict, conflicts};
use super::overlaps::overlapping;
use super::owners::{Owner, Owners, keeps};
use super::placed::{Placed, Refusal, Served};
use super::streams::{Carries, MOST, OF_NAMESPACE, Port};
use super::types::{GROUP, Gateway, Listener, ListenerSet};
use super::{Around, Door, Entrance, Objects, created};

/// A Gateway with all its listeners.
#[derive(Debug)]
pub struct Listed<'a> {
    pub gateway: &'a Gateway,
    /// Its own first, then those of ListenerSets, of the older ones first.
    pub listeners: Vec<Placed<'a>>,
    /// The places of those whose hosts over TLS overlap.
    pub overlapping: HashSet<usize>,
}

impl<'a> Listed<'a> {
    /// The listeners of one parent of routes with their places: of a ListenerSet, or the Gateway's own.
    pub fn of<'s>(&'s self, set: Option<&Key>) -> impl Iterator<Item = (usize, &'s Placed<'a>)> {
        self.listeners.iter().enumerate().filter(move |(_, placed)| placed.set == set)
    }
}

/// The Gateways with their listeners.
pub type AllListed<'a> = BTreeMap<&'a Key, Listed<'a>>;

/// Makes the list of each Gateway, and says who has which port.
pub fn list<'a>(
    objects: &'a Objects,
    around: &Around<'_>,
    gateways: &BTreeMap<&'a Key, &'a Gateway>,
) -> (AllListed<'a>, Owners<'a>) {
    let mut all: AllListed<'_> = gateways.iter().map(|(key, gateway)| (*key, merged(objects, around, key, gateway))).collect();
    let owners = owners(&all, around);
    for (key, listed) in &mut all {
        for (place, placed) in listed.listeners.iter_mut().enumerate() {
            if let Ok(served) = placed.served {
                placed.served = keeps(key, place, placed.listener, served, &owners, around);
            }
        }
        listed.overlapping = overlapping(&listed.listeners);
    }
    (all, owners)
}

/// A Gateway's listeners, so far as nothing but each other is in their way. "Implementations MUST treat the parent Gateway as having the merged list of
/// all listeners from itself and attached ListenerSets" (ListenerSetSpec): its own, then those of ListenerSets by age and name.
fn merged<'a>(objects: &'a Objects, around: &Around<'_>, key: &Key, gateway: &'a Gateway) -> Listed<'a> {
    let of = |listener, set, metadata| Placed { listener, set, metadata, served: kind_of(listener, around) };
    let mut listeners: Vec<Placed<'_>> =
        gateway.spec.listeners.iter().map(|listener| of(listener, None, &gateway.metadata)).collect();
    let mut sets: Vec<_> = objects.listener_sets.iter().filter(|(_, set)| parent_of(set).as_ref() == Some(key)).collect();
    sets.retain(|(_, set)| allows(gateway, set, around));
    sets.sort_by_key(|(key, set)| (created(&set.metadata), *key));
    for (key, set) in sets {
        listeners.extend(set.spec.listeners.iter().map(|listener| of(listener, Some(key), &set.metadata)));
    }
    for (place, conflict) in conflicts(&listeners, around) {
        let placed = &mut listeners[place];
        placed.served = Err(refused(conflict, placed.set.is_some()));
    }
    Listed { gateway, listeners, overlapping: HashSet::new() }
}

/// What a listener is told that another one is in the way of. Its own resource may be named: who may read a ListenerSet may not know others.
fn refused(Conflict { reason, other }: Conflict, is_of_set: bool) -> Refusal {
    let message = match other {
        Some(name) => format!("it is not distinct from listener {name}"),
        None => "it is not distinct from another listener of the Gateway, which comes first".to_owned(),
    };
    // GatewayListenerProtocolAndRouteKindConflicts and ListenerSetProtocolAndRouteKindConflicts of the conformance tests.
    Refusal { reason: if is_of_set { reason } else { "Invalid" }, message, conflict: Some(reason) }
}

/// The Gateway that a ListenerSet wants to be attached to.
pub fn parent_of(set: &ListenerSet) -> Option<Key> {
    let parent = &set.spec.parent_ref;
    let is_gateway =
        parent.kind.as_deref().is_none_or(|kind| kind == "Gateway") && parent.group.as_deref().is_none_or(|group| group == GROUP);
    is_gateway.then(|| Key::namespaced(parent.namespace.as_deref().unwrap_or(set.namespace()), &parent.name))
}

/// Whether a Gateway lets a ListenerSet add listeners: "The default value is to allow no ListenerSets" (AllowedListeners).
pub fn allows(gateway: &Gateway, set: &ListenerSet, around: &Around<'_>) -> bool {
    let allowed = gateway.spec.allowed_listeners.as_ref().map(|allowed| &allowed.namespaces);
    allowed.is_some_and(|namespaces| {
        namespaces.from.is_some() && selects(namespaces, gateway.namespace(), set.namespace(), around.labels)
    })
}

/// How a listener would be served, by its protocol.
fn kind_of(listener: &Listener, around: &Around<'_>) -> Result<Served, Refusal> {
    let mode = listener.tls.as_ref().map_or("Terminate", |tls| tls.mode.as_deref().unwrap_or("Terminate"));
    let door = match (listener.protocol.as_str(), mode) {
        ("HTTP", _) => Door::Http,
        ("HTTPS", "Terminate") => Door::Https,
        ("TLS", "Passthrough") => Door::Passthrough,
        ("TLS", "Terminate") => Door::Terminated,
        ("HTTPS", _) => return Err(unsupported("UnsupportedValue", "HTTPS must have TLS of the mode Terminate".to_owned())),
        ("TLS", _) => return Err(unsupported("UnsupportedValue", "TLS must be of the mode Passthrough or Terminate".to_owned())),
        (protocol, _) => {
            let port = Port::named(protocol, listener.port).map(Served::Stream);
            return port.ok_or_else(|| unsupported("UnsupportedProtocol", format!("protocol {protocol} is not served")));
        }
    };
    let web = if door == Door::Http { around.http_port } else { around.https_port };
    Ok(Served::Hosts(if listener.port == web { Entrance::Ingress } else { Entrance::Port(listener.port) }, door))
}

fn unsupported(reason: &'static str, message: String) -> Refusal {
    Refusal { reason, message, conflict: None }
}

/// Says who has which port: the oldest listener that asks for it. Those after it may have it, too, if it has hosts and they are of the same kind.
fn owners<'a>(all: &AllListed<'a>, around: &Around<'_>) -> Owners<'a> {
    let mut asking: Vec<_> = all.iter().flat_map(|(key, listed)| asked(key, listed)).collect();
    asking.sort_by_key(|(_, _, owner)| (owner.created, owner.gateway, owner.place));
    let mut owners = Owners::new();
    let mut of_namespaces = BTreeMap::<&str, usize>::new();
    for (port, is_web, owner) in asking {
        let is_given = !is_web && !around.reserved.contains(&port) && !around.balancers.contains_key(&port);
        let placed = &all[owner.gateway].listeners[owner.place];
        let own = of_namespaces.entry(placed.set.unwrap_or(owner.gateway).ns()).or_default();
        if is_given && owners.len() < MOST && *own < OF_NAMESPACE && !owners.contains_key(&port) {
            owners.insert(port, owner);
            *own += 1;
        }
    }
    owners
}

/// The ports that the listeners of a Gateway ask for, whether it is one of ingress, and what for.
fn asked<'a>(key: &&'a Key, listed: &Listed<'a>) -> Vec<(Port, bool, Owner<'a>)> {
    let owner = |place: usize, placed: &Placed<'_>| {
        let (port, is_web, carries) = match placed.served {
            Ok(Served::Hosts(entrance, door)) => {
                (Port::tcp(placed.listener.port), entrance == Entrance::Ingress, Carries::of(door))
            }
            Ok(Served::Stream(port)) => (port, false, Carries::Stream),
            Err(_) => return None,
        };
        Some((port, is_web, Owner { gateway: key, place, created: created(placed.metadata), carries }))
    };
    listed.listeners.iter().enumerate().filter_map(|(place, placed)| owner(place, placed)).collect()
}
