//! Requests under way, over all Ingresses and Gateways: how many there may be in all, and of one client.
//!
//! Over HTTP/2 one connection carries many requests, and each may need a connection of its own to a back end: who bounds connections of clients
//! has not bounded those to back ends, whose descriptors the store, the API and shims need as well.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use base::budgets::{Meter, descriptors};
use parking_lot::Mutex;

use crate::guard::limits::network;

/// Requests and led connections at once, in percent of all descriptors and at most. Each has at most one connection to a back end.
const PERCENT: usize = 20;
const MOST: usize = 32_768;

/// What is under way. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Underway(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all: usize,
    of_client: usize,
    state: Mutex<State>,
    meter: Meter,
}

#[derive(Debug, Default)]
struct State {
    count: usize,
    clients: HashMap<IpAddr, usize>,
}

/// One request, or one connection that is led to a back end. It is over when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    client: IpAddr,
}

/// How many the process's descriptors allow.
pub(crate) fn of_process() -> usize {
    descriptors::share(descriptors::limit(), PERCENT, MOST)
}

impl Underway {
    /// At most so many.
    pub(crate) fn new(all: usize) -> Self {
        // Many clients may stand behind one address; one of them does not get all.
        let of_client = (all * 3 / 4).max(1);
        let meter = Meter::new("ingress_requests", all);
        Self(Arc::new(Shared { all, of_client, state: Mutex::default(), meter }))
    }

    /// A place for a request of a client; none when it is one too many.
    pub(crate) fn enter(&self, client: IpAddr) -> Option<Place> {
        let (shared, client) = (self.0.clone(), network(client.to_canonical()));
        let mut state = shared.state.lock();
        let own = state.clients.get(&client).copied().unwrap_or_default();
        if state.count >= shared.all || own >= shared.of_client {
            shared.meter.refused();
            return None;
        }
        state.count += 1;
        state.clients.insert(client, own + 1);
        shared.meter.taken();
        drop(state);
        Some(Place { shared, client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.count -= 1;
        if let Some(own) = state.clients.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                state.clients.remove(&self.client);
            }
        }
        self.shared.meter.left();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_client_has_its_share_and_all_have_the_whole() {
        let underway = Underway::new(8);
        let enter =
            |from: &str, count: usize| -> Vec<Place> { (0..count).filter_map(|_| underway.enter(client(from))).collect() };
        let one = enter("10.0.0.1", 100);
        assert_eq!(one.len(), 6, "three quarters");
        assert_eq!(enter("::ffff:10.0.0.1", 1).len(), 0, "it is the same one");
        let others = enter("2001:db8::1", 1);
        assert_eq!((others.len(), enter("2001:db8::2", 100).len()), (1, 1), "room is left for others, and no more than that");
        drop(others);
        drop(one);
        assert_eq!(enter("10.0.0.2", 100).len(), 6);
        assert!(underway.0.state.lock().clients.is_empty());
    }
}
