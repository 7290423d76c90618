//! HTTPS to what the API server itself calls: admission and conversion webhooks, and the servers of aggregated APIs.
//!
//! A [`Target`] says what is called, by URL or by the name of a service, and whom it has to prove to be. [`Remotes`] hands out one
//! [`Endpoint`] for each target, which keeps its connections for the next call. Services are looked up in the API server's own
//! caches and their pods are dialled directly, or by the tunnels of their nodes: that works where no service proxy runs. Whoever is called is not trusted: a call ends
//! with its time, an answer has a largest size, redirects are not followed, and large answers share memory of which nobody can keep too much ([`large`]).

mod endpoint;
mod kubeconfig;
mod large;
mod resolve;
mod streams;
mod target;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use base::tasks::Tasks;
use base::tls::Resolver;
use http::StatusCode;
use parking_lot::Mutex;

use crate::tunnels::Tunnels;

pub(crate) use endpoint::{Endpoint, Limits};
pub(crate) use kubeconfig::Named;
pub(crate) use streams::DIAL;
pub(crate) use target::{Place, Target, ca_bundle};

/// Header lines of an answer at most: hyper takes 100 unless it is told, Go counts bytes.
pub(crate) const HEADERS: usize = 1000;

/// Why a call has no answer. The words are those that clients know from upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It says no place that can be called.
    #[error("{0}")]
    Target(String),
    /// The service does not exist.
    #[error("service {0:?} not found")]
    NoService(String),
    /// The service has no such port.
    #[error("no service port {port} found for service {service:?}")]
    NoPort { service: String, port: u16 },
    /// Nobody is behind the service.
    #[error("no endpoints available for service {0:?}")]
    NoEndpoints(String),
    /// The certificates that it is trusted by cannot be read.
    #[error("unable to load root certificates: {0}")]
    Roots(String),
    /// No connection.
    #[error("{0}")]
    Dial(String),
    /// The server is not whom it has to be.
    #[error("{0}")]
    Tls(String),
    /// The time of the call is over.
    #[error("context deadline exceeded")]
    Timeout,
    /// More than is read of an answer.
    #[error("the response body is larger than {0} bytes")]
    TooLarge(usize),
    /// Large answers have taken all that there is for them, and this one is the largest.
    #[error("too many large responses are read at the same time")]
    Crowded,
    /// The user has too many streams to the node.
    #[error("{0}")]
    Streams(String),
    /// What comes is no HTTP, or ends too early.
    #[error("{0}")]
    Http(String),
    /// The answer has begun, and its body cannot be read.
    #[error("{why}")]
    Body { status: StatusCode, why: Box<Error> },
}

/// All that is called. Endpoints live as long as somebody holds them.
pub(crate) struct Remotes {
    tasks: Tasks,
    tunnels: Arc<Tunnels>,
    endpoints: Mutex<HashMap<Target, Weak<Endpoint>>>,
}

impl Remotes {
    /// Connections end with the tasks.
    pub(crate) fn new(tasks: Tasks, tunnels: Arc<Tunnels>) -> Self {
        Self { tasks, tunnels, endpoints: Mutex::default() }
    }

    /// The one endpoint of a target. Its connections are shared by all who hold it.
    pub(crate) fn endpoint(&self, target: &Target) -> Arc<Endpoint> {
        let mut endpoints = self.endpoints.lock();
        if let Some(known) = endpoints.get(target).and_then(Weak::upgrade) {
            return known;
        }
        endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
        let endpoint = Arc::new(Endpoint::new(target.clone(), None, self.tasks.clone(), self.tunnels.clone()));
        endpoints.insert(target.clone(), Arc::downgrade(&endpoint));
        endpoint
    }

    /// An endpoint to which the API server proves who it is by a client certificate. It is not shared.
    pub(crate) fn endpoint_with_identity(&self, target: &Target, identity: Arc<Resolver>) -> Arc<Endpoint> {
        Arc::new(Endpoint::new(target.clone(), Some(identity), self.tasks.clone(), self.tunnels.clone()))
    }
}
