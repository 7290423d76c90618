//! Certificates from Secrets, and the choice of one by the name that a client asks for.

use std::sync::Arc;

use arc_swap::ArcSwap;
use base::tls::{Identity, Resolver};
use k8s_openapi::api::core::v1::Secret;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::gateway::Entrance;
use crate::guard::words;
use crate::table::Table;

/// A Secret holds no certificate that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key is missing.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// A key is no text.
    #[error("its {0} is not PEM")]
    NotPem(&'static str),
    /// They do not fit.
    #[error("{}", words::unusable(.0))]
    Tls(#[from] base::tls::Error),
}

/// The certificate in a Secret of type `kubernetes.io/tls`.
///
/// # Errors
/// There is none, or it cannot be used.
pub fn certified(secret: &Secret) -> Result<Arc<CertifiedKey>, Error> {
    let certified = identity(secret)?.certified()?;
    match certified.keys_match() {
        // Some keys cannot say.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(error) => Err(Error::Tls(error.into())),
    }
}

/// The certificate and the key in a Secret, as they stand there.
///
/// # Errors
/// One of them is missing.
pub(crate) fn identity(secret: &Secret) -> Result<Identity, Error> {
    let text = |name: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(name)).ok_or(Error::Missing(name))?;
        String::from_utf8(bytes.0.clone()).map_err(|_| Error::NotPem(name))
    };
    Ok(Identity { certificate: text("tls.crt")?, key: text("tls.key")? })
}

/// Shows the certificate of the host that a handshake is for.
pub(crate) struct Chooser {
    pub(crate) table: Arc<ArcSwap<Table>>,
    /// Where connections come.
    pub(crate) entrance: Entrance,
    pub(crate) fallback: Arc<Resolver>,
}

impl std::fmt::Debug for Chooser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chooser")
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // A client without a name gets what is configured for any host.
        let name = hello.server_name().unwrap_or_default().to_ascii_lowercase();
        let can_verify = |certified: &CertifiedKey| certified.key.choose_scheme(hello.signature_schemes()).is_some();
        self.table.load().certificate(self.entrance, &name, &can_verify).or_else(|| self.fallback.current())
    }
}
