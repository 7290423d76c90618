//! Requests under way, over all Ingresses and Gateways: how many there may be in all, and of one client.
//!
//! Over HTTP/2 one connection carries many requests, and each may need a connection of its own to a back end: who bounds connections of clients
//! has not bounded those to back ends, whose descriptors the store, the API and shims need as well.

use std::net::IpAddr;

use base::budgets::shares::{Share, Shares};
use base::budgets::{Meter, descriptors};

use crate::guard::limits::network;

/// Most requests and led connections at once. Each has at most one connection to a back end.
const MOST: usize = 32_768;

/// One request, or one connection that is led to a back end. It is over when this is dropped.
pub(crate) type Place = Share<IpAddr>;

/// What is under way. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Underway(Shares<IpAddr>);

/// How many the process's descriptors allow.
pub(crate) fn of_process() -> usize {
    descriptors::share(descriptors::limit(), descriptors::percent::INGRESS_REQUESTS, MOST)
}

impl Underway {
    /// At most so many. Many clients may stand behind one address; one of them does not get all.
    pub(crate) fn new(all: usize) -> Self {
        Self(Shares::of(Some(Meter::new("ingress_requests", all)), (all * 3 / 4).max(1), all))
    }

    /// A place for a request of a client; none when it is one too many.
    pub(crate) fn enter(&self, client: IpAddr) -> Option<Place> {
        self.0.take(&network(client.to_canonical()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_client_has_its_share_and_all_have_the_whole() {
        let underway = Underway::new(8);
        let enter = |from: &str, count: usize| -> Vec<Place> {
            (0..count).filter_map(|_| underway.enter(from.parse().unwrap())).collect()
        };
        let one = enter("10.0.0.1", 100);
        assert_eq!(one.len(), 6, "three quarters");
        assert_eq!(enter("::ffff:10.0.0.1", 1).len(), 0, "it is the same one");
        let others = enter("2001:db8::1", 1);
        assert_eq!((others.len(), enter("2001:db8::2", 100).len()), (1, 1), "room is left for others, and no more than that");
    }
}
