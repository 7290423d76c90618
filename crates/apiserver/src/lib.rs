//! The API server: the only crate that knows HTTP serving.
//!
//! [`Api`] is one `tower::Service`. The network reaches it through [`server`], over TLS; components of this process hold
//! the very same service with an identity of their own ([`Api::as_user`]), so they skip HTTP and TLS and nothing else:
//! authentication, authorization and admission apply to all.

mod admission;
mod aggregation;
mod api;
mod audit;
pub mod authn;
pub mod authz;
pub mod body;
mod bootstrap;
mod call;
mod components;
mod conversion;
mod decode;
mod definitions;
mod discovery;
mod dispatch;
mod documents;
pub mod encryption;
mod fairness;
pub mod file;
mod health;
mod identity_lease;
mod kept;
mod metrics;
pub mod negotiate;
mod openapi;
mod proxy;
mod query;
mod remote;
mod resources;
mod respond;
mod reviews;
pub mod route;
pub mod server;
mod service;
mod stages;
#[cfg(test)]
mod testing;
pub mod tunnels;
mod usage;
mod version;
mod watch;
mod wire;

pub use admission::{Tolerations, forbidden_label};
pub use api::Api;
pub use audit::{AuditOptions, LogOptions, WebhookOptions};
pub use authn::{Authenticator, Identity, Issuers, TokenKeys};
pub use authz::Authorizer;
pub use body::Body;
pub use encryption::Encryption;
pub use proxy::KubeletClient;
pub use service::{Core, Handle, Options, Service, ServiceAccounts};
pub use version::{Build, VERSION};

/// Why the API server could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry could not be opened.
    #[error("registry: {0}")]
    Registry(#[from] registry::OpenError),
    /// The default policy could not be written.
    #[error("default policy: {0}")]
    Policy(apimachinery::Status),
    /// The configuration of authentication cannot be used.
    #[error("authentication: {0}")]
    Authentication(#[from] authn::Error),
    /// The configuration of authorization cannot be used.
    #[error("authorization: {0}")]
    Authorization(#[from] authz::Error),
    /// The configuration of admission cannot be used.
    #[error("admission: {0}")]
    Admission(#[from] admission::Error),
    /// The audit policy or what is told cannot be used.
    #[error("audit: {0}")]
    Audit(#[from] audit::Error),
    /// A certificate or a key.
    #[error(transparent)]
    Tls(#[from] base::tls::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; does another server run on this machine?")]
    Listen {
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}
