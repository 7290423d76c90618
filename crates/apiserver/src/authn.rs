//! Who asks: client certificates, ServiceAccount tokens, bootstrap tokens, tokens of other issuers, components of this process, or nobody.

mod bootstrap_token;
pub mod impersonate;
pub mod keys;
mod legacy_token;
pub mod oidc;
pub mod token;
pub mod webhook;
pub(crate) mod websocket;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apimachinery::{Status, meta};
use arc_swap::ArcSwap;
use base::directory;
use base::tasks::Tasks;
use base::tls::{Credential, NODE_KEY, Peer, PodIdentity};
use http::header::AUTHORIZATION;
use http::request::Parts;
use jiff::Timestamp;
use registry::{Annotations, Registry, User};

pub use keys::{Issuers, TokenKeys};

use crate::file::{self, FileError};
use crate::metrics::{identity as metrics, reload};
use crate::remote::Remotes;

/// The group of everybody who has proved an identity.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do anything.
pub const MASTERS: &str = "system:masters";
/// Nodes' group.
pub(crate) const NODES: &str = "system:nodes";
/// The user without an identity.
pub const ANONYMOUS: &str = "system:anonymous";

/// The extra value that tells which credential a user has shown.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The node that a user is.
pub(crate) fn node_identity(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    user.groups.iter().any(|group| group == NODES).then_some(name)
}

fn credential(fingerprint: &str) -> String {
    format!("X509SHA256={fingerprint}")
}

/// What the transport knows of the caller. Set as a request extension, which nothing that comes over the network can do.
#[derive(Clone, Debug)]
pub enum Identity {
    /// A component of this process, or the owner of a verified client certificate.
    User(Arc<User>),
    /// The owner of a verified certificate of a pod (KEP-4317). Whether the pod still exists is asked for each request.
    Pod(Arc<PodCertificate>),
    /// The client presented a certificate that is not good; why.
    Invalid(Arc<str>),
}

/// Whose a pod's certificate is, and which one it is.
#[derive(Debug)]
pub struct PodCertificate {
    identity: PodIdentity,
    credential: String,
}

impl Identity {
    /// The name that connections are counted under, none of who has proved nothing.
    pub(crate) fn name(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::User(user) => Some(user.name.as_str().into()),
            Self::Pod(certificate) => {
                let PodIdentity { namespace, service_account, .. } = &certificate.identity;
                Some(account_name(namespace, service_account).into())
            }
            Self::Invalid(_) => None,
        }
    }

    /// The identity of a TLS peer, none when it is anonymous.
    pub fn of_peer(peer: Peer) -> Option<Self> {
        match peer {
            Peer::Anonymous => None,
            Peer::Invalid(why) => Some(Self::Invalid(why.into())),
            Peer::User { name, groups, uid, credential: Credential { fingerprint, key, .. } } => {
                let mut user = User { uid, ..user(name, groups) };
                if node_identity(&user).is_some() {
                    user.extra.insert(NODE_KEY.into(), vec![key]);
                }
                user.extra.insert(CREDENTIAL_ID.into(), vec![credential(&fingerprint)]);
                Some(Self::User(Arc::new(user)))
            }
            Peer::Pod { identity, credential: Credential { fingerprint, .. } } => {
                Some(Self::Pod(Arc::new(PodCertificate { identity: *identity, credential: credential(&fingerprint) })))
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
    user(account_name(namespace, name), groups)
}

/// The user of the account with this UID.
fn account_user(namespace: &str, account: &token::Reference) -> User {
    User { uid: account.uid.clone(), ..service_account(namespace, &account.name) }
}

fn account_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// Who may ask besides those who are of this cluster, and where that is said.
#[derive(Clone, Debug)]
pub struct Options {
    /// Requests without credentials are `system:anonymous`, unless the file says otherwise; refused otherwise.
    pub anonymous: bool,
    /// The file of an AuthenticationConfiguration. It is followed when it changes.
    pub file: Option<PathBuf>,
    /// An issuer without a file.
    pub oidc: Option<oidc::Flags>,
    /// Who is asked of tokens that nobody else knows.
    pub webhook: Option<webhook::Options>,
}

impl Options {
    /// Nobody else, and perhaps those without credentials.
    pub fn anonymous(anonymous: bool) -> Self {
        Self { anonymous, file: None, oidc: None, webhook: None }
    }
}

/// Why the configuration of authentication cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The flags are wrong.
    #[error("{0}")]
    Flags(oidc::Invalid),
}

/// What can be said anew while the server runs.
struct Configured {
    issuers: Vec<Arc<oidc::Issuer>>,
    anonymous: oidc::Anonymous,
}

/// The authenticators, in upstream's order.
pub struct Authenticator {
    registry: Arc<Registry>,
    keys: Arc<TokenKeys>,
    remotes: Arc<Remotes>,
    anonymous: Arc<User>,
    options: Options,
    configured: ArcSwap<Configured>,
    webhook: Option<webhook::Webhook>,
    uses: legacy_token::Uses,
    /// The file as it was at the start.
    text: String,
}

impl Authenticator {
    /// Over the registry that knows which accounts still exist.
    pub(crate) fn new(
        registry: Arc<Registry>,
        keys: Arc<TokenKeys>,
        remotes: Arc<Remotes>,
        options: Options,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let text = options.file.as_deref().map(file::read).transpose()?.unwrap_or_default();
        let configuration = match (&options.file, &options.oidc) {
            (Some(path), _) => parse(path, &text, &keys)?,
            (None, Some(flags)) => {
                let authority = flags.ca_file.as_deref().map(file::read).transpose()?.unwrap_or_default();
                flags.configuration(authority, keys.issuers()).map_err(Error::Flags)?
            }
            (None, None) => oidc::Configuration::default(),
        };
        let configured = ArcSwap::from_pointee(configured(configuration, &options, &remotes));
        let webhook = options.webhook.as_ref().map(|options| webhook::Webhook::new(options, &remotes)).transpose()?;
        let anonymous = Arc::new(user(ANONYMOUS, Vec::new()));
        let uses = legacy_token::Uses::start(&registry, tasks);
        Ok(Self { registry, keys, remotes, anonymous, options, configured, webhook, uses, text })
    }

    /// Takes in the file whenever it changes.
    pub(crate) async fn follow(&self) -> Result<(), std::convert::Infallible> {
        let Some(path) = &self.options.file else { return Ok(()) };
        let mut file = directory::File::new(path, self.text.clone());
        loop {
            let parsed = parse(path, &file.changed().await, &self.keys);
            reload::reloaded(reload::File::Authentication, parsed.is_ok());
            match parsed {
                Ok(configuration) => {
                    self.configured.store(Arc::new(configured(configuration, &self.options, &self.remotes)));
                    tracing::info!(path = %path.display(), "the authentication configuration has changed and is in force");
                }
                Err(error) => {
                    tracing::error!(%error, "the changed authentication configuration is not used; the one before stays in force");
                }
            }
        }
    }

    /// The request's user; 401 for credentials that are not good. What there is to say of them is annotated.
    pub async fn authenticate(&self, parts: &Parts, annotations: &Annotations) -> Result<Arc<User>, Status> {
        let identity = parts.extensions.get::<Identity>();
        if let Some(Identity::User(user)) = identity {
            self.check_name(user).await?;
            return Ok(user.clone());
        }
        if let Some(Identity::Pod(certificate)) = identity {
            let live = Box::pin(token::live_pod(&self.registry, &certificate.identity, &certificate.credential)).await;
            return live.map(Arc::new).map_err(|error| {
                tracing::debug!(%error, "certificate of a pod refused");
                refused()
            });
        }
        let token = match parts.headers.get(AUTHORIZATION) {
            Some(header) => bearer(header.as_bytes()).map(String::from_utf8_lossy),
            None => None,
        };
        let token = match token {
            Some(token) => Some(token),
            None => {
                let of_websocket = websocket::token(parts).map_err(|error| {
                    tracing::debug!(%error, "bearer token of a WebSocket refused");
                    refused()
                })?;
                of_websocket.map(Cow::Borrowed)
            }
        };
        if let Some(token) = token {
            let reviewed = Box::pin(self.review(&token, &[], annotations)).await.map_err(|error| {
                tracing::debug!(%error, "bearer token refused");
                refused()
            })?;
            return Ok(Arc::new(reviewed.user));
        }
        match identity {
            Some(Identity::Invalid(why)) => {
                tracing::debug!(%why, "client certificate refused");
                Err(refused())
            }
            _ if self.configured.load().anonymous.allows(parts.uri.path()) => Ok(self.anonymous.clone()),
            _ => Err(refused()),
        }
    }

    /// Refuses a node whose name is another machine's. A name that no Node had was certified for any machine with a join token; once a Node has
    /// it, it is of the machine with whose key the Node was made.
    async fn check_name(&self, user: &User) -> Result<(), Status> {
        let (Some(node), Some([key])) = (node_identity(user), user.extra.get(NODE_KEY).map(Vec::as_slice)) else { return Ok(()) };
        let Some(nodes) = self.registry.resource("", "v1", "nodes") else { return Ok(()) };
        let entry = match self.registry.get(&nodes, "", node, None).await {
            Ok(entry) => entry,
            Err(status) if status.code == 404 => return Ok(()),
            Err(_) => return Err(refused()),
        };
        let own = entry.derived(|node| meta::annotation(&node, NODE_KEY).map(str::to_owned));
        if own.as_ref().as_ref().is_none_or(|own| own == key) {
            return Ok(());
        }
        Err(Status::unauthorized(&format!(
            "Unauthorized: node {node} has joined with another key. If this machine is to take its place, delete it first (kubectl delete node {node})"
        )))
    }

    /// The user of a token, and those of `audiences` (empty: the API server's own) that it is for. What there is to say of it is annotated.
    pub async fn review(&self, token: &str, audiences: &[String], annotations: &Annotations) -> Result<Reviewed, token::Error> {
        if let Some((id, secret)) = bootstrap_token::parse(token) {
            // It names no audience: it is for the API server.
            let audiences = common(audiences, self.keys.audiences(), self.keys.audiences())?;
            let user = bootstrap_token::live(&self.registry, id, secret).await?;
            return Ok(Reviewed { user, audiences });
        }
        if let Some(found) = self.of_others(token).await {
            // It is for whom its issuer is asked for by this API server.
            let audiences = common(audiences, self.keys.audiences(), self.keys.audiences())?;
            return Ok(Reviewed { user: found?, audiences });
        }
        let claims = self.keys.verify(token)?;
        let audiences = common(audiences, &claims.audiences, self.keys.audiences())?;
        if let Some(secret) = claims.holder() {
            let user = legacy_token::live(&self.registry, (&claims, secret), token, &self.uses, annotations).await?;
            return Ok(Reviewed { user, audiences });
        }
        let user = token::live(&self.registry, &claims).await?;
        let stale = token::stale_for(&claims, Timestamp::now().as_second());
        metrics::token_used(stale.is_some());
        if let Some(seconds) = stale {
            let said = format!("subject: {}, seconds after warning threshold: {seconds}", user.name);
            annotations.add("authentication.k8s.io/stale-token", said);
        }
        Ok(Reviewed { user, audiences })
    }

    /// The user of a token that this cluster has not issued; None when there is nobody to ask.
    async fn of_others(&self, token: &str) -> Option<Result<User, oidc::Error>> {
        let configured = self.configured.load_full();
        if configured.issuers.is_empty() && self.webhook.is_none() {
            return None;
        }
        let url = oidc::untrusted_issuer(token);
        if url.as_deref().is_some_and(|url| self.keys.issuers().iter().any(|own| own == url) || url == legacy_token::ISSUER) {
            return None;
        }
        let issuer = configured.issuers.iter().find(|issuer| Some(issuer.url()) == url.as_deref());
        let verified = match issuer {
            Some(issuer) => Some(issuer.verify(&self.registry, token).await),
            None => None,
        };
        match (&self.webhook, verified) {
            (_, Some(Ok(user))) => Some(Ok(user)),
            (Some(webhook), _) => Some(webhook.review(&self.registry, token, self.keys.audiences()).await),
            (None, verified) => verified,
        }
    }
}

fn parse(path: &Path, text: &str, keys: &TokenKeys) -> Result<oidc::Configuration, Error> {
    Ok(oidc::Configuration::parse(text, keys.issuers()).map_err(|source| FileError::new(path, source))?)
}

fn configured(configuration: oidc::Configuration, options: &Options, remotes: &Arc<Remotes>) -> Configured {
    let anonymous = configuration.anonymous.unwrap_or_else(|| oidc::Anonymous::everywhere(options.anonymous));
    let issuers = configuration.issuers.into_iter().map(|issuer| Arc::new(oidc::Issuer::new(issuer, remotes.clone()))).collect();
    Configured { issuers, anonymous }
}

/// What a good token says.
pub struct Reviewed {
    /// Whose it is.
    pub user: User,
    /// The wanted audiences that it is for.
    pub audiences: Vec<String>,
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

/// The token of a header `Authorization`. What else such a header may say is no opinion about who asks, as upstream: a proxy may have left it there.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let mut words = header.trim_ascii().split(|byte| *byte == b' ');
    let (scheme, token) = (words.next()?, words.next()?);
    (scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upstream's TestAuthenticateRequestTokenInvalid and its neighbours: other schemes, and none, are no opinion.
    #[test]
    fn tokens_are_in_bearer_headers_alone() {
        let check =
            |header: &str, expected: Option<&str>| assert_eq!(bearer(header.as_bytes()), expected.map(str::as_bytes), "{header}");
        check("Bearer token", Some("token"));
        check("bearer token", Some("token"));
        check(" Bearer token more", Some("token"));
        for other in ["", "Bearer", "Bearer ", "Bearer  token", "Basic YTpi", "Bearer\ttoken", "token"] {
            check(other, None);
        }
    }

    #[test]
    fn nodes_are_of_their_group() {
        assert_eq!(node_identity(&user("system:node:a", vec![NODES.into()])), Some("a"));
        assert_eq!(node_identity(&user("system:node:a", vec![])), None);
    }
}
