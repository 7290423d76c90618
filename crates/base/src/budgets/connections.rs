//! Connections of an endpoint.
//!
//! Nobody has to prove who they are to connect, so connections of nobody are what there may suddenly be thousands of. They share a
//! part of the endpoint's places, and each address a part of that. When a part is used up, the oldest connection that has proved
//! nothing makes room: a client that goes about its handshake needs some milliseconds, one that holds connections open needs them for
//! ever. Those of users who have proved who they are stay; a user may have a part of all places.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Meter;
use crate::listen::{Listener, accepted};

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub all: usize,
    /// Of those that have proved nothing.
    pub unproven: usize,
    /// Of those from one address.
    pub unproven_of_peer: usize,
    /// Of one user.
    pub of_user: usize,
}

impl Limits {
    /// Parts of so many connections in all.
    pub fn of(all: usize) -> Self {
        let unproven = all.div_ceil(2);
        Self { all, unproven, unproven_of_peer: unproven.min(256).max(unproven / 4), of_user: (all / 2).max(1) }
    }
}

/// The connections of one endpoint. Cheap to clone.
#[derive(Clone)]
pub struct Connections(Arc<Shared>);

struct Shared {
    limits: Limits,
    state: Mutex<State<CancellationToken>>,
    meter: Meter,
}

/// The place of one connection; it is free again when this is dropped.
pub struct Place {
    id: u64,
    peer: IpAddr,
    shared: Arc<Shared>,
    ended: CancellationToken,
}

impl Connections {
    /// No connections yet, for the endpoint of this name.
    pub fn new(endpoint: &'static str, limits: Limits) -> Self {
        let meter = Meter::new(endpoint, limits.all);
        Self(Arc::new(Shared { limits, state: Mutex::default(), meter }))
    }

    /// The next connection that has a place, none when it is time to `end`. Without a place it is closed at once: what would wait in
    /// the queue could not make room for anybody.
    pub async fn accept(&self, listener: &Listener, end: &CancellationToken) -> Option<(TcpStream, SocketAddr, Place)> {
        loop {
            let (stream, peer) = end.run_until_cancelled(accepted(|| listener.accept())).await?;
            if let Some(place) = self.admit(peer.ip()) {
                return Some((stream, peer, place));
            }
        }
    }

    /// A place for a new connection. None when all are taken by connections that stay: it should be closed.
    pub fn admit(&self, peer: IpAddr) -> Option<Place> {
        let ended = CancellationToken::new();
        let admitted = self.0.state.lock().admit(&self.0.limits, network(peer), ended.clone());
        let Some((id, evicted)) = admitted else {
            self.0.meter.refused();
            return None;
        };
        for token in evicted {
            self.0.meter.refused();
            token.cancel();
        }
        self.0.meter.taken();
        Some(Place { id, peer, shared: self.0.clone(), ended })
    }
}

impl Place {
    /// The other side's address.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Cancelled when the connection has to end, for others.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// The other side has proved to be this user. False when the user has too many connections already.
    pub fn prove(&self, user: &str) -> bool {
        self.prove_within(user, self.shared.limits.of_user)
    }

    /// The same where this user may have so many connections and others more or fewer.
    pub fn prove_within(&self, user: &str, most: usize) -> bool {
        let proved = self.shared.state.lock().prove(most, self.id, user);
        if !proved {
            self.shared.meter.refused();
        }
        proved
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.state.lock().leave(self.id);
        self.shared.meter.left();
    }
}

/// The part of an address that one peer has: whoever has an IPv6 address has 2^64 of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
        v4 => v4,
    }
}

enum Owner<T> {
    Nobody(IpAddr, T),
    /// Has to end; its place is counted until it has.
    Evicted,
    User(String),
}

struct State<T> {
    next: u64,
    owners: HashMap<u64, Owner<T>>,
    unproven: BTreeSet<u64>,
    peers: BTreeMap<IpAddr, BTreeSet<u64>>,
    users: HashMap<String, usize>,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self { next: 0, owners: HashMap::new(), unproven: BTreeSet::new(), peers: BTreeMap::new(), users: HashMap::new() }
    }
}

impl<T> State<T> {
    /// The number of the connection, and those that make room for it.
    fn admit(&mut self, limits: &Limits, peer: IpAddr, handle: T) -> Option<(u64, Vec<T>)> {
        let mut evicted = Vec::new();
        if self.peers.get(&peer).is_some_and(|own| own.len() >= limits.unproven_of_peer) {
            let oldest = self.peers.get(&peer).and_then(|own| own.first().copied());
            evicted.extend(oldest.and_then(|id| self.evict(id)));
        } else if self.unproven.len() >= limits.unproven || self.owners.len() >= limits.all {
            let oldest = self.unproven.first().copied();
            evicted.extend(oldest.and_then(|id| self.evict(id)));
        }
        // Those that have to end are about to: a few more than there are places do no harm.
        if self.owners.len() >= limits.all + evicted.len().min(1) * limits.all.div_ceil(8) {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.owners.insert(id, Owner::Nobody(peer, handle));
        self.unproven.insert(id);
        self.peers.entry(peer).or_default().insert(id);
        Some((id, evicted))
    }

    fn evict(&mut self, id: u64) -> Option<T> {
        match self.owners.insert(id, Owner::Evicted) {
            Some(Owner::Nobody(peer, handle)) => {
                self.forget(id, peer);
                Some(handle)
            }
            _ => None,
        }
    }

    fn forget(&mut self, id: u64, peer: IpAddr) {
        self.unproven.remove(&id);
        if let Some(own) = self.peers.get_mut(&peer) {
            own.remove(&id);
            if own.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }

    fn prove(&mut self, most: usize, id: u64, user: &str) -> bool {
        match self.owners.get(&id) {
            // Requests of other users may share a connection; the first one answers for it.
            Some(Owner::User(_)) => return true,
            Some(Owner::Nobody(peer, _)) => {
                let peer = *peer;
                if self.users.get(user).is_some_and(|count| *count >= most) {
                    return false;
                }
                self.forget(id, peer);
            }
            Some(Owner::Evicted) | None => return false,
        }
        *self.users.entry(user.to_owned()).or_default() += 1;
        self.owners.insert(id, Owner::User(user.to_owned()));
        true
    }

    fn leave(&mut self, id: u64) {
        match self.owners.remove(&id) {
            Some(Owner::Nobody(peer, _)) => self.forget(id, peer),
            Some(Owner::User(user)) => {
                if let Some(count) = self.users.get_mut(&user) {
                    *count -= 1;
                    if *count == 0 {
                        self.users.remove(&user);
                    }
                }
            }
            Some(Owner::Evicted) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIMITS: Limits = Limits { all: 8, unproven: 4, unproven_of_peer: 2, of_user: 3 };

    fn peer(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// Who connects, and which connection has to end for it; none when it is refused.
    #[track_caller]
    fn check(state: &mut State<u64>, from: u8, expected: Option<&[u64]>) -> u64 {
        let next = state.next;
        let admitted = state.admit(&LIMITS, peer(from), next);
        assert_eq!(admitted.as_ref().map(|(_, evicted)| evicted.as_slice()), expected);
        let evicted: Vec<u64> = admitted.into_iter().flat_map(|(_, evicted)| evicted).collect();
        evicted.into_iter().for_each(|id| state.leave(id));
        next
    }

    #[test]
    fn one_peer_takes_its_part_only() {
        let mut state = State::default();
        let others = check(&mut state, 1, Some(&[]));
        for n in 0..100 {
            let evicted: &[u64] = if n < 2 { &[] } else { &[n - 1] };
            check(&mut state, 2, Some(evicted));
        }
        assert!(state.prove(LIMITS.of_user, others, "jane"));
        assert_eq!((state.owners.len(), state.unproven.len(), state.peers.len()), (3, 2, 1));
    }

    #[test]
    fn many_peers_make_room_for_each_other() {
        let mut state = State::default();
        for n in 0..4 {
            check(&mut state, n, Some(&[]));
        }
        check(&mut state, 4, Some(&[0]));
        check(&mut state, 5, Some(&[1]));
        assert_eq!(state.owners.len(), 4);
    }

    #[test]
    fn users_stay_and_have_their_part() {
        let mut state = State::default();
        for user in ["a", "a", "a", "b", "b", "b", "c", "c"] {
            let id = check(&mut state, 1, Some(&[]));
            assert!(state.prove(LIMITS.of_user, id, user));
            assert!(state.prove(LIMITS.of_user, id, "somebody else"));
        }
        check(&mut state, 1, None);
        state.leave(7);
        let id = check(&mut state, 1, Some(&[]));
        assert!(!state.prove(LIMITS.of_user, id, "a"), "a has three already");
        check(&mut state, 2, Some(&[id]));
        assert!(!state.prove(LIMITS.of_user, id, "d"), "it has made room");
        (0..8).for_each(|id| state.leave(id));
        assert!(state.users.is_empty());
    }

    #[test]
    fn places_are_free_again() {
        let connections = Connections::new("test", LIMITS);
        let held: Vec<Place> = (0..4).map(|n| connections.admit(peer(n)).unwrap()).collect();
        let fifth = connections.admit(peer(9)).unwrap();
        assert!(held[0].ended().is_cancelled() && !held[1].ended().is_cancelled() && !fifth.ended().is_cancelled());
        drop((held, fifth));
        assert!(connections.0.state.lock().owners.is_empty());
    }

    #[test]
    fn networks() {
        let check = |address: &str, expected: &str| {
            assert_eq!(network(address.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
        };
        check("10.1.2.3", "10.1.2.3");
        check("::ffff:10.1.2.3", "10.1.2.3");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
    }
}
