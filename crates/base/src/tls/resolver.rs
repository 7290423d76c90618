//! A certificate that stays current without restart and without timers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::RwLock;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Authority, Error, Identity, Request};

/// How often handshakes look for a newer certificate.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Hands the current certificate to each handshake.
pub struct Resolver {
    source: Source,
    state: RwLock<State>,
}

enum Source {
    /// Two files that somebody else replaces, and may be yet to write.
    Files { certificate: PathBuf, key: PathBuf },
    /// Issued here, kept as `NAME.crt` and `NAME.key`.
    Issued { authority: Arc<Authority>, dir: PathBuf, name: String, request: Request },
    /// Issued here, kept nowhere.
    Memory { authority: Arc<Authority>, request: Request },
}

/// None is there before the first certificate is.
type Certified = Option<(Arc<CertifiedKey>, Identity)>;

struct State {
    certified: Certified,
    changed: Option<SystemTime>,
    looked: Instant,
}

impl Resolver {
    /// Serves what the two files hold, and reads them again when they change.
    pub fn files(certificate: &Path, key: &Path) -> Result<Arc<Self>, Error> {
        Self::new(Source::Files { certificate: certificate.into(), key: key.into() })
    }

    /// Like [`Resolver::files`], of files that may be yet to come: until then handshakes have no certificate.
    pub fn pending(certificate: &Path, key: &Path) -> Result<Arc<Self>, Error> {
        match Self::files(certificate, key) {
            Err(Error::Missing(_)) => {
                let state = State { certified: None, changed: None, looked: Instant::now() };
                let source = Source::Files { certificate: certificate.into(), key: key.into() };
                Ok(Arc::new(Self { source, state: RwLock::new(state) }))
            }
            other => other,
        }
    }

    /// Serves `NAME.crt` and `NAME.key` under `dir`, which `authority` issues and renews.
    pub fn issued(authority: Arc<Authority>, dir: &Path, name: &str, request: Request) -> Result<Arc<Self>, Error> {
        Self::new(Source::Issued { authority, dir: dir.into(), name: name.into(), request })
    }

    /// Serves a certificate that `authority` issues and renews, in memory only.
    pub fn memory(authority: Arc<Authority>, request: Request) -> Result<Arc<Self>, Error> {
        Self::new(Source::Memory { authority, request })
    }

    fn new(source: Source) -> Result<Arc<Self>, Error> {
        let state = RwLock::new(source.load()?);
        Ok(Arc::new(Self { source, state }))
    }

    /// The current certificate; the last good one when a newer cannot be had, which is logged. None before there is one.
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        let certified = |state: &State| state.certified.as_ref().map(|(certified, _)| certified.clone());
        let state = self.state.read();
        if state.certified.is_some() && state.looked.elapsed() < LOOK_EVERY {
            return certified(&state);
        }
        let stale = self.source.is_stale(&state);
        drop(state);
        let mut state = self.state.write();
        state.looked = Instant::now();
        if stale {
            match self.source.load() {
                Ok(fresh) => *state = fresh,
                Err(Error::Missing(_)) => {}
                Err(error) => tracing::error!(%error, "cannot renew the certificate, going on with the old one"),
            }
        }
        certified(&state)
    }
}

impl Resolver {
    /// When the current certificate expires; none while there is none.
    pub fn expires(&self) -> Option<SystemTime> {
        self.current()?;
        let state = self.state.read();
        state.certified.as_ref().and_then(|(_, identity)| identity.validity().ok()).map(|(_, expires)| expires)
    }
}

impl Source {
    fn load(&self) -> Result<State, Error> {
        let changed = self.changed();
        let identity = match self {
            Self::Files { certificate, key } => {
                Identity::load(certificate, key)?.ok_or_else(|| Error::Missing(certificate.clone()))?
            }
            Self::Issued { authority, dir, name, request } => authority.load_or_issue(dir, name, request)?,
            Self::Memory { authority, request } => authority.issue(request)?,
        };
        Ok(State { certified: Some((identity.certified()?, identity)), changed, looked: Instant::now() })
    }

    fn is_stale(&self, state: &State) -> bool {
        let due = || state.certified.as_ref().is_none_or(|(_, identity)| identity.is_due(SystemTime::now()));
        match self {
            Self::Files { .. } => state.certified.is_none() || self.changed() != state.changed,
            Self::Issued { .. } => self.changed() != state.changed || due(),
            Self::Memory { .. } => due(),
        }
    }

    fn changed(&self) -> Option<SystemTime> {
        let path = match self {
            Self::Files { certificate, .. } => certificate.clone(),
            Self::Issued { dir, name, .. } => dir.join(format!("{name}.crt")),
            Self::Memory { .. } => return None,
        };
        std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn replaced_files_are_served() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("a.crt"), dir.path().join("a.key"));
        let authority = Authority::in_memory("ca").unwrap();
        let request = Request::Server { name: "a".into(), sans: vec!["a".into()] };
        authority.issue(&request).unwrap().store(&certificate, &key).unwrap();
        let resolver = Resolver::files(&certificate, &key).unwrap();
        let first = resolver.current().unwrap();
        authority.issue(&request).unwrap().store(&certificate, &key).unwrap();
        assert!(Arc::ptr_eq(&first, &resolver.current().unwrap()), "looked a moment ago");
        let mut state = resolver.state.write();
        state.looked = Instant::now().checked_sub(LOOK_EVERY).unwrap();
        state.changed = None;
        drop(state);
        assert_ne!(first.cert, resolver.current().unwrap().cert);
    }
    #[test]
    fn what_is_yet_to_come_is_served_when_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("a.crt"), dir.path().join("a.key"));
        assert!(Resolver::files(&certificate, &key).is_err());
        let resolver = Resolver::pending(&certificate, &key).unwrap();
        assert!(resolver.current().is_none());
        let request = Request::Server { name: "a".into(), sans: vec!["a".into()] };
        Authority::in_memory("ca").unwrap().issue(&request).unwrap().store(&certificate, &key).unwrap();
        assert!(resolver.current().is_some(), "looked for at each handshake");
    }
}
