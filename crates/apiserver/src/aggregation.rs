//! Aggregation: group versions that other servers serve (upstream: kube-aggregator).
//!
//! An APIService with a service makes a [`Remote`] of the catalog, from which routes, discovery and OpenAPI derive. One task follows
//! APIServices, services and their endpoints; it asks a server for its resources when something of it has changed, when a request
//! has failed, and now and then, and writes what it finds into the condition `Available`. Requests are authenticated and authorized
//! here, and forwarded with the user's name in headers that the front-proxy certificate vouches for ([`forward`]).

mod configuration;
mod follow;
mod forward;
mod local;
mod probe;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use base::tls::{self, Authority, Request, Resolver};
use parking_lot::Mutex;
use registry::Remote;
use tokio::sync::Notify;

use crate::remote::{Endpoint, Remotes, Target};

pub(crate) use follow::Aggregation;
pub(crate) use local::{group_priority, local_priority};

/// The name in the certificate that the API server shows to other API servers.
const FRONT_PROXY: &str = "front-proxy-client";

/// How the API server reaches other API servers.
pub(crate) struct Servers {
    remotes: Arc<Remotes>,
    /// The certificate that vouches for the headers that name the user.
    identity: Arc<Resolver>,
    /// Who has issued it, in PEM.
    front_proxy_authority: String,
    endpoints: Mutex<HashMap<Target, Arc<Endpoint>>>,
    /// A request could not be forwarded: who is asked for is to be looked at.
    doubted: Notify,
}

impl Servers {
    /// The authority of the front proxy is kept in `pki`: it vouches for nobody else.
    pub(crate) fn new(remotes: Arc<Remotes>, pki: &Path) -> Result<Self, tls::Error> {
        let authority = Arc::new(Authority::load_or_create(pki, "front-proxy-ca", "front-proxy-ca")?);
        let request = Request::Client { user: FRONT_PROXY.into(), groups: Vec::new() };
        let identity = Resolver::issued(authority.clone(), pki, FRONT_PROXY, request)?;
        let front_proxy_authority = authority.bundle().to_owned();
        Ok(Self { remotes, identity, front_proxy_authority, endpoints: Mutex::default(), doubted: Notify::new() })
    }

    /// The endpoint of an API.
    fn endpoint(&self, remote: &Remote) -> Arc<Endpoint> {
        let target = Target {
            ca_bundle: remote.ca_bundle.clone(),
            unverified: remote.unverified,
            ..Target::service(&remote.namespace, &remote.service, remote.port)
        };
        let mut endpoints = self.endpoints.lock();
        let made = || self.remotes.endpoint_with_identity(&target, self.identity.clone());
        endpoints.entry(target.clone()).or_insert_with(made).clone()
    }

    /// Forgets the endpoints of all but these.
    fn keep(&self, remotes: &[Arc<Remote>]) {
        let is_used = |target: &Target| {
            let of = |remote: &Remote| Target::service(&remote.namespace, &remote.service, remote.port).place;
            remotes.iter().any(|remote| of(remote) == target.place)
        };
        self.endpoints.lock().retain(|target, _| is_used(target));
    }
}
