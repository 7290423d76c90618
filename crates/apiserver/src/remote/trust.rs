//! Whose certificates are trusted.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use base::tls::{Resolver, Trusting};

use super::{Error, Target};

/// The configuration of connections to a target. Reads the system's certificates when the target brings none.
pub(super) async fn config(target: &Target, identity: Option<Arc<Resolver>>) -> Result<Arc<ClientConfig>, Error> {
    let roots = |error: &dyn std::fmt::Display| Error::Roots(error.to_string());
    let mut config = if target.unverified {
        base::tls::client_of_anybody().map_err(|error| roots(&error))?
    } else {
        let (store, bundle) = match &target.ca_bundle {
            Some(bundle) => (base::tls::roots(bundle).map_err(|error| roots(&error))?, bundle.as_str()),
            None => (of_the_system().await?, ""),
        };
        Trusting::new(store, bundle).and_then(Trusting::client).map_err(|error| roots(&error))?
    };
    if let Some(identity) = identity {
        config.client_auth_cert_resolver = identity;
    }
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn of_the_system() -> Result<RootCertStore, Error> {
    let store = tokio::task::spawn_blocking(base::tls::system_roots).await.map_err(|error| Error::Roots(error.to_string()))?;
    // Without any, nobody is trusted, and that is said here rather than at the handshake.
    if store.is_empty() { Err(Error::Roots("there is no caBundle, and the system has none".to_owned())) } else { Ok(store) }
}
