//! Datagrams that come back to ingress, by whatever way: a session over UDP whose client is itself one of ingress's own.

use std::collections::HashSet;
use std::net::SocketAddr;

use parking_lot::Mutex;

/// The addresses from which sessions over UDP speak with their endpoints.
#[derive(Debug, Default)]
pub(crate) struct SessionAddresses(Mutex<HashSet<SocketAddr>>);

impl SessionAddresses {
    /// Whether a client is a session itself. It gets none: a datagram has no count of its hops, so one that comes back to a port from which it
    /// was forwarded would go around for ever.
    pub(crate) fn has(&self, client: &SocketAddr) -> bool {
        self.0.lock().contains(client)
    }

    /// A session speaks from here.
    pub(crate) fn add(&self, own: SocketAddr) {
        self.0.lock().insert(own);
    }

    /// It has ended.
    pub(crate) fn remove(&self, own: &SocketAddr) {
        self.0.lock().remove(own);
    }
}
