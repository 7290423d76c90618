//! How TLS is spoken where connections come: with the certificate of the host, and, where they are asked for, those of clients.

use std::sync::Arc;

use arc_swap::ArcSwap;
use base::tls::Resolver;
use rustls::ServerConfig;
use rustls::crypto::ring;

use crate::certificates::Chooser;
use crate::gateway::Entrance;
use crate::guard::clients::Anyone;
use crate::table::Table;

/// What is shown everywhere.
pub(crate) struct Handshakes {
    pub(crate) table: Arc<ArcSwap<Table>>,
    /// For hosts without a certificate of their own.
    pub(crate) fallback: Arc<Resolver>,
}

/// How TLS is spoken at one place. Sessions of one are not resumed at another: who has shown a certificate there has not shown it here.
pub(crate) struct Spoken {
    pub(crate) plain: Arc<ServerConfig>,
    /// Asks clients for certificates.
    pub(crate) asking: Arc<ServerConfig>,
    /// For anything but HTTP: says nothing of protocols.
    pub(crate) bare: Arc<ServerConfig>,
}

impl Handshakes {
    /// How it is spoken here.
    ///
    /// # Errors
    /// The TLS library refuses it, or has no randomness for tickets.
    pub(crate) fn at(&self, entrance: Entrance) -> Result<Spoken, rustls::Error> {
        let chooser = Arc::new(Chooser { table: self.table.clone(), entrance, fallback: self.fallback.clone() });
        let plain = server(chooser.clone(), None)?;
        let mut bare = ServerConfig::clone(&plain);
        bare.alpn_protocols.clear();
        let bare = Arc::new(bare);
        Ok(Spoken { plain, asking: server(chooser, Some(Arc::new(Anyone)))?, bare })
    }
}

fn server(chooser: Arc<Chooser>, clients: Option<Arc<Anyone>>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(base::tls::provider()).with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let mut tls = builder.with_cert_resolver(chooser);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tls.ticketer = ring::Ticketer::new()?;
    Ok(Arc::new(tls))
}
