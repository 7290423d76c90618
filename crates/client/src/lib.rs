//! How components talk to the API: a [`Client`] over whatever transport the composition chose, shared informers
//! and events.
//!
//! The same code runs in the server's process, where the transport is the API server's own service, and on another
//! machine, where it is HTTPS.

mod api;
pub mod brief;
pub mod changes;
pub mod custom;
mod entry;
pub mod events;
pub mod fake;
mod index;
mod informer;
mod informers;
mod key;
mod lean;
pub mod load_balancer;
pub mod measured;
pub mod metadata;
mod names;
pub mod node_addresses;
pub mod remote;
pub mod resource_version;
mod services;
mod slot;
mod store;
pub mod taken_ports;
pub mod watch;

pub use api::Api;
pub use changes::{Change, Changes, Step};
pub use entry::Entry;
pub use index::{Index, Lean, Values};
pub use informer::{Informer, Object};
pub use informers::Informers;
pub use key::Key;
pub use kube;
pub use kube::Client;
pub use names::segment;
pub use services::ServiceWatch;
pub use slot::{Facts, LabelSet};

/// What went wrong, for people: of an answer of the API its message, without the wire form that [`kube::Error`] shows, and of a connection what
/// kept it from coming about.
pub fn why(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => base::connection::why(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_by_its_message() {
        let status = kube::core::Status::failure("pods \"a\" not found", "NotFound").with_code(404);
        assert_eq!(why(&kube::Error::Api(Box::new(status))), "pods \"a\" not found");
    }

    #[test]
    fn a_connection_is_told_by_what_it_lacks() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(why(&kube::Error::Service(Box::new(refused))), "connect: connection refused");
    }
}
