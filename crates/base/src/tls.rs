//! The cluster's certificates: its authority, the identities that it issues, and the TLS configurations made of them.
//!
//! Nothing renews on a timer. A [`Resolver`] looks at its certificate when a handshake asks for it: it reads the
//! files again when they have changed and issues a new certificate when two thirds of the lifetime have passed.

mod anybody;
mod authority;
mod bundle;
mod config;
mod der;
mod handshake;
mod inspect;
mod peer;
mod pods;
mod protocols;
mod resolver;
mod rotation;
mod sec1;
mod signing;
mod trusting;
mod version1;

pub use anybody::{Unverified, client_of_anybody};
pub use authority::{Authority, Identity, Request, generate_key, read_private, write_private};
pub use bundle::{certificates, digest_of_signer, reduced, vouched};
pub use config::{client, roots, server, server_speaking, system_roots};
pub use der::certificate_pem;
pub use handshake::accept;
pub use inspect::{Certificate, inspect};
pub use peer::{Credential, Peer, Verifier};
pub use pods::{KeyType, PodCertificate, PodIdentity, PodKey, clean_chain, requested_key};
pub use protocols::{Protocols, Suite, Version};
pub use resolver::Resolver;
pub use rotation::Files;
pub use sec1::sec1;
pub use signatures::{provider, verify_handshake};
pub use signing::{NODE_KEY, SigningRequest, Usage, digest_of_bundle, fingerprint_of_key, request};
pub use trusting::{Own, Trusting};
pub use version1::verify_version_1;

/// Why a certificate could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the PKI directory could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no certificate yet.
    #[error("{}: no such file", .0.display())]
    Missing(std::path::PathBuf),
    /// A certificate could not be generated.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// A PEM or DER text is not what it should be.
    #[error("cannot read {0}")]
    Parse(String),
    /// rustls refuses the configuration.
    #[error("TLS configuration: {0}")]
    Config(#[from] rustls::Error),
    /// The client verifier could not be built.
    #[error("TLS client verification: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}
