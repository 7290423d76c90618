//! Who asks: client certificates, ServiceAccount tokens, bootstrap tokens, components of this process, or nobody.

mod bootstrap_token;
pub mod impersonate;
pub mod keys;
pub mod token;
pub(crate) mod websocket;

use std::sync::Arc;

use apimachinery::Status;
use base::tls::Peer;
use http::header::AUTHORIZATION;
use http::request::Parts;
use jiff::Timestamp;
use registry::{Annotations, Registry, User};

pub use keys::TokenKeys;

use crate::metrics::identity as metrics;

/// The group of everybody who has proved an identity.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do anything.
pub const MASTERS: &str = "system:masters";
/// The user without an identity.
pub const ANONYMOUS: &str = "system:anonymous";

/// What the transport knows of the caller. Set as a request extension, which nothing that comes over the network can do.
#[derive(Clone, Debug)]
pub enum Identity {
    /// A component of this process, or the owner of a verified client certificate.
    User(Arc<User>),
    /// The client presented a certificate that is not good; why.
    Invalid(Arc<str>),
}

impl Identity {
    /// The identity of a TLS peer, none when it is anonymous.
    pub fn of_peer(peer: Peer) -> Option<Self> {
        match peer {
            Peer::Anonymous => None,
            Peer::Invalid(why) => Some(Self::Invalid(why.into())),
            Peer::User { name, groups, fingerprint } => {
                let mut user = user(name, groups);
                let credential = vec![format!("X509SHA256={fingerprint}")];
                user.extra.insert("authentication.kubernetes.io/credential-id".into(), credential);
                Some(Self::User(Arc::new(user)))
            }
        }
    }
}

/// A user with `system:authenticated` among its groups.
pub fn user(name: impl Into<String>, mut groups: Vec<String>) -> User {
    let name = name.into();
    let own = if name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|group| group == own) {
        groups.push(own.into());
    }
    User { name, groups, ..User::default() }
}

/// The user of a ServiceAccount.
pub fn service_account(namespace: &str, name: &str) -> User {
    let groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    user(format!("system:serviceaccount:{namespace}:{name}"), groups)
}

/// The authenticators, in upstream's order.
pub struct Authenticator {
    registry: Arc<Registry>,
    keys: Arc<TokenKeys>,
    anonymous: Arc<User>,
    allow_anonymous: bool,
}

impl Authenticator {
    /// Over the registry that knows which accounts still exist.
    pub fn new(registry: Arc<Registry>, keys: Arc<TokenKeys>, allow_anonymous: bool) -> Self {
        Self { registry, keys, anonymous: Arc::new(user(ANONYMOUS, Vec::new())), allow_anonymous }
    }

    /// The request's user; 401 for credentials that are not good. What there is to say of them is annotated.
    pub async fn authenticate(&self, parts: &Parts, annotations: &Annotations) -> Result<Arc<User>, Status> {
        let identity = parts.extensions.get::<Identity>();
        if let Some(Identity::User(user)) = identity {
            return Ok(user.clone());
        }
        let token = match parts.headers.get(AUTHORIZATION) {
            Some(header) => Some(header.to_str().ok().and_then(bearer).ok_or_else(refused)?),
            None => websocket::token(parts).map_err(|error| {
                tracing::debug!(%error, "bearer token of a WebSocket refused");
                refused()
            })?,
        };
        if let Some(token) = token {
            let reviewed = self.review(token, &[]).await.map_err(|error| {
                tracing::debug!(%error, "bearer token refused");
                refused()
            })?;
            if let Some(seconds) = reviewed.stale {
                let said = format!("subject: {}, seconds after warning threshold: {seconds}", reviewed.user.name);
                annotations.add("authentication.k8s.io/stale-token", said);
            }
            return Ok(Arc::new(reviewed.user));
        }
        match identity {
            Some(Identity::Invalid(why)) => {
                tracing::debug!(%why, "client certificate refused");
                Err(refused())
            }
            _ if self.allow_anonymous => Ok(self.anonymous.clone()),
            _ => Err(refused()),
        }
    }

    /// The user of a token, and those of `audiences` (empty: the API server's own) that it is for.
    pub async fn review(&self, token: &str, audiences: &[String]) -> Result<Reviewed, token::Error> {
        if let Some((id, secret)) = bootstrap_token::parse(token) {
            // It names no audience: it is for the API server.
            let audiences = common(audiences, self.keys.audiences(), self.keys.audiences())?;
            let user = bootstrap_token::live(&self.registry, id, secret).await?;
            return Ok(Reviewed { user, audiences, stale: None });
        }
        let claims = self.keys.verify(token)?;
        let audiences = common(audiences, &claims.audiences, self.keys.audiences())?;
        let user = token::live(&self.registry, &claims).await?;
        let stale = token::stale_for(&claims, Timestamp::now().as_second());
        metrics::token_used(stale.is_some());
        Ok(Reviewed { user, audiences, stale })
    }
}

/// What a good token says.
pub struct Reviewed {
    /// Whose it is.
    pub user: User,
    /// The wanted audiences that it is for.
    pub audiences: Vec<String>,
    /// Seconds since a newer one should have been used.
    pub stale: Option<i64>,
}

/// The wanted audiences (by default the API server's `own`) that a token is for; an error when there is none.
fn common(wanted: &[String], of_token: &[String], own: &[String]) -> Result<Vec<String>, token::Error> {
    let wanted = if wanted.is_empty() { own } else { wanted };
    let good: Vec<String> = wanted.iter().filter(|audience| of_token.contains(*audience)).cloned().collect();
    if good.is_empty() { Err(token::Error::Audience) } else { Ok(good) }
}

fn refused() -> Status {
    Status::unauthorized("Unauthorized")
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
