//! How the API server reaches kubelets.

use std::sync::Arc;

use base::tls::{self, Authority, Request, Resolver};
use rustls::ClientConfig;
use serde_json::Value;

use super::backend::Backend;

const KUBELET_PORT: u16 = 10250;

/// How the API server proves to kubelets who it is.
pub struct KubeletClient {
    config: Arc<ClientConfig>,
}

impl KubeletClient {
    /// With a client certificate of the cluster's authority, which also vouches for the kubelets.
    pub fn new(authority: &Arc<Authority>) -> Result<Self, tls::Error> {
        // Kubelets know the name. It has no rights in the API: a Node that gives the API server's own address gains nothing.
        let request = Request::Client { user: "system:kube-apiserver".into(), groups: Vec::new() };
        let resolver = Resolver::memory(authority.clone(), request)?;
        Ok(Self { config: Arc::new(tls::client(authority.bundle(), Some(resolver))?) })
    }

    /// The kubelet of a Node object.
    pub(super) fn backend(&self, node: &Value) -> Option<Backend> {
        let addresses = node.pointer("/status/addresses")?.as_array()?;
        let of_kind = |kind: &str| addresses.iter().find(|address| address["type"] == kind)?["address"].as_str();
        let host = ["InternalIP", "Hostname", "InternalDNS", "ExternalIP"].into_iter().find_map(of_kind)?;
        let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
        let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(KUBELET_PORT);
        let name = Some(apimachinery::meta::name(node).to_owned());
        Some(Backend { node: name, host: host.to_owned(), port, tls: Some(self.config.clone()) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn kubelet_addresses() {
        let client = KubeletClient::new(&Arc::new(Authority::in_memory("ca").unwrap())).unwrap();
        let node = json!({"status": {"addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 1234}}}});
        let backend = client.backend(&node).unwrap();
        assert_eq!((backend.host.as_str(), backend.port), ("10.0.0.1", 1234));
        assert!(client.backend(&json!({})).is_none());
    }
}
