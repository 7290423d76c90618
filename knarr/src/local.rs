//! What the node in the server's process gets of the server: clients that are function calls, certificates of the authority.

use std::path::PathBuf;
use std::sync::Arc;

use apiserver::Api;
use base::tls::{self, Authority, Request, Resolver};
use client::Client;

use crate::identity;
use crate::node::{Certificates, Clients, Identity};

/// The API in this process.
pub(crate) struct InProcess {
    pub(crate) api: Api,
    /// The node's name.
    pub(crate) node: String,
}

impl Clients for InProcess {
    fn kubelet(&self) -> Client {
        identity::node(&self.api, &self.node)
    }

    fn proxy(&self) -> Client {
        identity::proxy(&self.api)
    }
}

/// Certificates that the authority of this process issues.
pub(crate) struct Issued {
    pub(crate) authority: Arc<Authority>,
    /// Where they are kept.
    pub(crate) pki: PathBuf,
}

impl Certificates for Issued {
    fn bundle(&self) -> String {
        self.authority.bundle().to_owned()
    }

    fn client(&self, node: &Identity) -> Result<rustls::ClientConfig, tls::Error> {
        tls::client(self.authority.bundle(), Some(self.serving(node)?))
    }

    fn serving(&self, node: &Identity) -> Result<Arc<Resolver>, tls::Error> {
        let request = Request::Both {
            user: format!("system:node:{}", node.name),
            groups: vec!["system:nodes".to_owned()],
            sans: node.names().chain(["127.0.0.1".to_owned()]).collect(),
        };
        Resolver::issued(self.authority.clone(), &self.pki, "kubelet", request)
    }
}
