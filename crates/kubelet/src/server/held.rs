//! Whose a connection is: the API server speaks for all others and has as many as there are, everybody else a small share of a part of them.

use base::budgets::connections::{Limits, Place};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Of all connections those that one client has at most who is not the API server, and those that all of these have: one part of so many.
const OF_ONE: usize = 16;
const OF_OTHERS: usize = 2;

/// A client that may do what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// The API server.
    Server,
    /// Another one, by its name.
    Other(String),
}

/// How many connections there may be.
#[derive(Clone)]
pub(super) struct ClientLimits {
    all: usize,
    others: Arc<Semaphore>,
}

impl ClientLimits {
    /// Parts of so many in all.
    pub(super) fn new(all: usize) -> Self {
        Self { all, others: Arc::new(Semaphore::new((all / OF_OTHERS).max(1))) }
    }

    /// What holds for connections before anybody has said who he is.
    pub(super) fn unproven(&self) -> Limits {
        Limits::of(self.all)
    }

    /// A connection that has this place.
    pub(super) fn hold(&self, place: Place) -> Held {
        Held { place, limits: self.clone(), other: Mutex::default() }
    }
}

/// The place of a connection.
pub(super) struct Held {
    pub(super) place: Place,
    limits: ClientLimits,
    /// Its part of those that are not the API server's.
    other: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Held {
    /// The other side has proved to be this client. False when there are too many connections of it, or of its like, already.
    pub(super) fn prove(&self, client: &Client) -> bool {
        let Client::Other(name) = client else { return self.place.prove_within("", self.limits.all) };
        let mut other = self.other.lock();
        if other.is_none() {
            let Ok(permit) = self.limits.others.clone().try_acquire_owned() else { return false };
            *other = Some(permit);
        }
        let proved = self.place.prove_within(name, (self.limits.all / OF_ONE).max(1));
        if !proved {
            *other = None;
        }
        proved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::budgets::connections::Connections;

    /// Whoever has the credentials of a node, or of many, does not keep the API server out.
    #[test]
    fn the_api_server_has_room_whoever_else_comes() {
        let limits = ClientLimits::new(64);
        let connections = Connections::new("test", limits.unproven());
        let connect = |client: &Client| {
            let held = connections.admit([127, 0, 0, 1].into()).map(|place| limits.hold(place))?;
            held.prove(client).then_some(held)
        };
        let node = |number: usize| Client::Other(format!("system:node:n{number}"));
        let one: Vec<Held> = (0..100).filter_map(|_| connect(&node(0))).collect();
        assert_eq!(one.len(), 4);
        let many: Vec<Held> = (1..100).filter_map(|number| connect(&node(number))).collect();
        assert_eq!(many.len(), 28, "half of all are theirs");
        let server: Vec<Held> = (0..100).filter_map(|_| connect(&Client::Server)).collect();
        assert_eq!(server.len(), 32);
        assert!(one[0].prove(&node(0)), "who is in stays");
        drop((one, many));
        assert!(connect(&node(7)).is_some());
    }
}
