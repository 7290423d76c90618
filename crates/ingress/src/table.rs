//! The routing table: an immutable snapshot that every request looks into.

use std::collections::HashMap;
use std::sync::Arc;

use client::Key;
use rustls::sign::CertifiedKey;

use crate::live::Live;
use crate::paths::{Matcher, Paths};
use crate::policy::Policy;
use crate::upstream::Upstream;

/// Where a request leads, and what holds on the way.
#[derive(Debug)]
pub struct Route {
    /// Whose it is.
    pub ingress: Key,
    /// The path as it was written.
    pub text: String,
    /// What it matches.
    pub matcher: Matcher,
    /// What holds on the way.
    pub policy: Arc<Policy>,
    /// What is counted and known of the Ingress.
    pub live: Arc<Live>,
    /// Who answers.
    pub upstream: Arc<Upstream>,
    /// Who answers when that has no endpoints.
    pub spare: Option<Arc<Upstream>>,
    /// Who takes a part of the requests.
    pub canary: Option<(Arc<Policy>, Arc<Upstream>)>,
}

/// The routes of one host.
#[derive(Debug, Default)]
pub struct HostRoutes {
    /// By path.
    pub paths: Paths<Route>,
    /// What no path matches.
    pub default: Option<Arc<Route>>,
}

/// A host with TLS, and its certificate when there is a good one.
#[derive(Clone, Debug, Default)]
pub struct HostTls {
    /// None shows the fallback certificate.
    pub certified: Option<Arc<CertifiedKey>>,
}

/// Everything by host, named as in [`crate::compile::host_name`]. Cloning copies one pointer for each host.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub(crate) hosts: HashMap<Arc<str>, Arc<HostRoutes>>,
    pub(crate) tls: HashMap<Arc<str>, HostTls>,
}

/// The names under which a host is looked for, the closest first: itself, the wildcard one label above, any.
fn candidates(host: &str) -> [Option<&str>; 3] {
    [Some(host).filter(|host| !host.is_empty()), host.find('.').map(|dot| &host[dot..]), Some("")]
}

impl Table {
    /// The route of a request. `host` is in small letters, without port; `path` is normal ([`crate::paths::normalize`]).
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let hosts = candidates(host).map(|name| name.and_then(|name| self.hosts.get(name)));
        let by_path = hosts.iter().flatten().find_map(|routes| routes.paths.find(path));
        by_path.or_else(|| hosts.iter().flatten().find_map(|routes| routes.default.as_ref()))
    }

    /// What a handshake for this name shows; none when the fallback certificate has to do.
    pub fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        candidates(name).into_iter().flatten().find_map(|name| self.tls.get(name)?.certified.clone())
    }

    /// Whether TLS is configured for a host.
    pub fn has_tls(&self, host: &str) -> bool {
        candidates(host).into_iter().flatten().any(|name| self.tls.contains_key(name))
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}
