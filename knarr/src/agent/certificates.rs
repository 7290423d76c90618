//! The certificates of a node that is not the server's: asked for, kept in files, and asked for again in time.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use base::directory::Followed;
use base::tasks::Tasks;
use base::tls::{self, Identity, Request, Resolver};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::remote::{Remote, Server};
use client::{Client, Informers, kube};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rustls::ClientConfig;
use serde_json::json;

use super::authority::Trusted;
use super::join::{self, AGENT};
use crate::bootstrap::nodes::{AUTHORITY, CLUSTER, INFO, NODE_AUTHORITY, published};
use crate::certificate::asked;
use crate::cli;
use crate::node;
use crate::node::expiry::{self, Certificate};
use crate::paths::Paths;
use crate::token::JoinToken;

/// How long a request may wait for its certificate before another is made.
const PATIENCE: Duration = Duration::from_secs(600);
/// Time between two looks at how old a certificate is: clocks may be set.
const LOOK: Duration = Duration::from_secs(3600);
/// How long a node that starts waits for a certificate of the cluster's new authority.
const AT_START: Duration = Duration::from_secs(20);
/// Time between two looks at the clock of a machine on which no certificate is valid yet.
const EARLY: Duration = Duration::from_secs(5);
/// Delay before the node says again who has issued its certificate.
const TELL: Duration = Duration::from_secs(5);
/// Delay before a failed request is repeated, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// Which certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// By which the node is known to the API.
    Client,
    /// Of the kubelet's endpoint.
    Serving,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Client => "kubelet-client",
            Self::Serving => "kubelet",
        }
    }

    fn measured(self) -> Certificate {
        match self {
            Self::Client => Certificate::Client,
            Self::Serving => Certificate::Serving,
        }
    }

    fn signer(self) -> (&'static str, &'static str) {
        match self {
            Self::Client => ("kubernetes.io/kube-apiserver-client-kubelet", "client auth"),
            Self::Serving => ("kubernetes.io/kubelet-serving", "server auth"),
        }
    }
}

/// Why a request got no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Somebody has decided so: trying again would not help.
    #[error("the certificate was denied: {0}")]
    Denied(String),
    /// The signer could not.
    #[error("the certificate could not be issued: {0}")]
    Failed(String),
    #[error("nobody has decided on the request for a certificate")]
    Undecided,
    #[error("{}", client::why(.0))]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// A machine that joins, or has joined.
pub(super) struct Member {
    server: Server,
    /// The server as the command line names it.
    url: String,
    identity: node::Identity,
    token: Option<JoinToken>,
    pki: PathBuf,
    bundle: String,
}

impl Member {
    /// Learns who the server is.
    pub(super) async fn new(options: &cli::Agent, paths: &Paths, identity: node::Identity) -> Result<Self> {
        let server: Server = options.server.parse().context("--server")?;
        let token = options.token_file.as_deref().map(JoinToken::read).transpose()?;
        let pki = paths.pki();
        let bundle = join::authority(&server, token.as_ref(), &Trusted::new(&pki)).await?;
        Ok(Self { server, url: options.server.clone(), identity, token, pki, bundle })
    }

    /// The node that the machine is, now that it is known what it is a node of.
    pub(super) fn set_identity(&mut self, identity: node::Identity) {
        self.identity = identity;
    }

    /// The certificates of those whom this machine trusts, PEM.
    pub(super) fn authority(&self) -> &str {
        &self.bundle
    }

    /// Asks whom to trust. Keeps it and says so if that is not whom the node trusts already.
    pub(super) async fn trusts_others(&self, client: &Client) -> Result<bool, tls::Error> {
        let Some(bundle) = self.told(client).await else { return Ok(false) };
        Trusted::new(&self.pki).replace(self.authority(), &bundle)?;
        Ok(true)
    }

    /// Whom the server says to trust, if it says something new.
    async fn told(&self, client: &Client) -> Option<String> {
        let get = |path: &str| http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError);
        let map = get(&format!("/api/v1/namespaces/kube-system/configmaps/{CLUSTER}")).ok()?;
        match client.request::<serde_json::Value>(map).await {
            Ok(map) => {
                let told = tls::certificates(map["data"][AUTHORITY].as_str()?).ok()?;
                (Some(&told) != tls::certificates(self.authority()).ok().as_ref()).then(|| told.concat())
            }
            // The certificate of this node is good no longer: an authority may have gone. From what anybody could have written, nobody is
            // trusted who was not trusted before.
            Err(kube::Error::Api(status)) if status.code == 401 => {
                let remote = Remote::new(self.server.clone(), tls::client(self.authority(), None).ok()?, AGENT);
                let info: serde_json::Value = Client::new(remote, "default").request(get(INFO).ok()?).await.ok()?;
                tls::reduced(self.authority(), &published(&info).ok()?)
            }
            Err(_) => None,
        }
    }

    /// Certificate and key.
    pub(super) fn files(&self, kind: Kind) -> (PathBuf, PathBuf) {
        (self.pki.join(format!("{}.crt", kind.name())), self.pki.join(format!("{}.key", kind.name())))
    }

    /// The transport of who has joined.
    pub(super) fn remote(&self) -> Result<Remote> {
        let (server, tls) = self.connection()?;
        Ok(Remote::new(server, tls, AGENT))
    }

    /// Where the server is, and how who has joined connects to it.
    pub(super) fn connection(&self) -> Result<(Server, ClientConfig)> {
        let (certificate, key) = self.files(Kind::Client);
        let resolver = Resolver::files(&certificate, &key)?;
        expiry::follow(Certificate::Client, &resolver);
        Ok((self.server.clone(), tls::client(&self.bundle, Some(resolver))?))
    }

    /// By which key this machine joins, as the annotation of its Node says.
    pub(super) fn fingerprint(&self) -> Result<String> {
        Ok(tls::fingerprint_of_key(&self.key(Kind::Client)?)?)
    }

    /// The key, which stays the same for as long as the machine is this node.
    fn key(&self, kind: Kind) -> Result<String, tls::Error> {
        let (_, path) = self.files(kind);
        if let Some(key) = tls::read_private(&path)? {
            return Ok(key);
        }
        let key = tls::generate_key()?;
        tls::write_private(&path, key.as_bytes())?;
        Ok(key)
    }

    fn request(&self, kind: Kind) -> Request {
        let (user, groups) = (format!("system:node:{}", self.identity.name), vec!["system:nodes".to_owned()]);
        match kind {
            Kind::Client => Request::Client { user, groups },
            Kind::Serving => Request::Both { user, groups, sans: self.identity.names().collect() },
        }
    }

    /// What there is of a certificate, if it is what would be asked for now.
    fn present(&self, kind: Kind) -> Option<Identity> {
        let (certificate, key) = self.files(kind);
        let present = Identity::load(&certificate, &key).ok()?;
        present.filter(|identity| identity.fits(&self.request(kind)) && identity.is_issued_by(&self.bundle))
    }

    /// The same, if nobody has asked for another one, and if it is the signer who has issued it.
    fn current(&self, kind: Kind) -> Option<Identity> {
        let signer = tls::certificates(&self.bundle).ok()?.into_iter().next()?;
        let present = self.present(kind)?;
        (present.is_issued_by(&signer) && !asked::is_asked_for(&self.pki, &present)).then_some(present)
    }

    /// Asks for a client certificate of the present authority, if that is not who has issued the one that there is. Does without it where the
    /// server does not answer in time: it is asked for again.
    pub(super) async fn follow_signer(&self, client: &Client, tasks: &Tasks) {
        if self.current(Kind::Client).is_some() {
            return;
        }
        match tokio::time::timeout(AT_START, self.obtain(Kind::Client, client, tasks)).await {
            Ok(Ok(())) => tracing::info!("the node has a certificate of the cluster's new authority"),
            Ok(Err(error)) => tracing::warn!(%error, "no certificate of the cluster's new authority yet"),
            Err(_) => tracing::warn!("no certificate of the cluster's new authority yet: the server does not answer"),
        }
    }

    /// The digest of the authority that has issued the client certificate.
    pub(super) fn issuer(&self) -> Option<String> {
        let present = self.present(Kind::Client)?;
        let all = tls::certificates(&self.bundle).ok()?;
        tls::digest_of_bundle(all.iter().find(|one| present.is_issued_by(one))?).ok()
    }

    /// Says in the Node who has issued the client certificate, unless it has been `told`. Whether there is no more to say.
    async fn tell_issuer(&self, client: &Client, told: &mut Option<String>) -> bool {
        let issuer = self.issuer();
        if issuer.is_none() || *told == issuer {
            return true;
        }
        let body = json!({"metadata": {"annotations": {NODE_AUTHORITY: &issuer}}});
        let patch = http::Request::patch(format!("/api/v1/nodes/{}", self.identity.name))
            .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
            .body(body.to_string().into_bytes());
        let Ok(patch) = patch else { return true };
        match client.request::<serde_json::Value>(patch).await {
            Ok(_) => *told = issuer,
            Err(error) => {
                tracing::debug!(error = client::why(&error), "the node cannot say yet who has issued its certificate");
                return false;
            }
        }
        true
    }

    /// Gets the first client certificate; a machine that has a valid one has joined already.
    pub(super) async fn join(&self, tasks: &Tasks) -> Result<()> {
        let now = SystemTime::now;
        // A machine without a clock of its own starts in the past, until somebody tells it the time.
        while self.token.is_none() && self.present(Kind::Client).is_some_and(|identity| identity.is_early(now())) {
            tracing::warn!("the certificate of this node is not valid yet: is the clock of this machine set?");
            tokio::time::sleep(EARLY).await;
        }
        if self.present(Kind::Client).is_some_and(|identity| identity.is_valid(now())) {
            return Ok(());
        }
        let client = self.newcomer()?;
        let mut delay = RETRY.0;
        loop {
            match self.obtain(Kind::Client, &client, tasks).await {
                Ok(()) => return Ok(()),
                Err(Refusal::Denied(why)) => bail!("this machine cannot join as node {}: {why}", self.identity.name),
                Err(Refusal::Api(kube::Error::Api(status))) if status.code == 401 => bail!(
                    "the server does not know the token {}: it has expired or was deleted (knarr token create makes another)",
                    self.token.as_ref().map(|token| token.id.as_str()).unwrap_or_default()
                ),
                Err(error) => tracing::warn!(server = self.url, %error, "cannot join yet, trying again"),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY.1);
        }
    }

    /// Why the certificate that there is does not do.
    fn why_joining(&self) -> String {
        let (certificate, key) = self.files(Kind::Client);
        let name = &self.identity.name;
        match Identity::load(&certificate, &key) {
            Ok(Some(present)) if !present.is_valid(SystemTime::now()) => "the certificate of this node has expired".to_owned(),
            Ok(Some(present)) if !present.fits(&self.request(Kind::Client)) => {
                format!("this machine has joined under another name than {name} (--node-name): it would be another node")
            }
            Ok(Some(present)) if !present.is_issued_by(&self.bundle) => {
                "the authority that has issued the certificate of this node is the cluster's no longer".to_owned()
            }
            _ => format!("this machine has not joined as node {name} yet"),
        }
    }

    /// A client with the rights of the token.
    fn newcomer(&self) -> Result<Client> {
        let token = self
            .token
            .as_ref()
            .with_context(|| format!("{}: say with --token-file which token it joins with", self.why_joining()))?;
        let remote = Remote::new(self.server.clone(), tls::client(&self.bundle, None)?, AGENT);
        Ok(Client::new(remote.with_token(&token.bearer()), "default"))
    }

    /// Keeps a certificate current, for ever. `member` is a client with the node's own rights.
    pub(super) async fn keep(self: std::sync::Arc<Self>, kind: Kind, member: Client, tasks: Tasks) -> Result<(), Infallible> {
        let (mut delay, mut told, mut followed) = (RETRY.0, None, Followed::new(&self.pki));
        loop {
            let now = SystemTime::now();
            let is_told = kind != Kind::Client || self.tell_issuer(&member, &mut told).await;
            let left = self.current(kind).filter(|identity| !identity.is_due(now)).and_then(|identity| identity.due_in(now));
            if let Some(left) = left {
                let left = if is_told { left.min(LOOK) } else { left.min(TELL) };
                tokio::select! {
                    // Somebody may have made the Node anew.
                    () = tokio::time::sleep(left) => told = None,
                    () = followed.changed() => {}
                }
                continue;
            }
            // Who was away for longer than the certificate is valid comes in by the token again.
            let expired = self.present(Kind::Client).is_none_or(|identity| !identity.is_valid(SystemTime::now()));
            let client = match asks_as(kind, expired) {
                As::Newcomer => self.newcomer().unwrap_or_else(|_| member.clone()),
                As::Member => member.clone(),
                As::Nobody => {
                    tokio::select! {
                        () = tokio::time::sleep(RETRY.1) => {}
                        () = followed.changed() => {}
                    }
                    continue;
                }
            };
            match self.obtain(kind, &client, &tasks).await {
                Ok(()) => {
                    tracing::info!(certificate = kind.name(), "the node has a new certificate");
                    delay = RETRY.0;
                    // To a clock that is far behind the server's, the new one is not valid yet either.
                    tokio::time::sleep(RETRY.1).await;
                }
                Err(error) => {
                    expiry::failed(kind.measured());
                    tracing::warn!(%error, certificate = kind.name(), "the certificate cannot be renewed yet, trying again");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(RETRY.1);
                }
            }
        }
    }

    /// Asks for a certificate and keeps it.
    async fn obtain(&self, kind: Kind, client: &Client, tasks: &Tasks) -> Result<(), Refusal> {
        let key = self.key(kind)?;
        let (signer, purpose) = kind.signer();
        let request = STANDARD.encode(tls::request(&key, &self.request(kind))?);
        let body = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"generateName": "csr-"},
            "spec": {"signerName": signer, "request": request, "usages": ["digital signature", purpose]},
        });
        let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        let post = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
        let post = post.body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
        let created: serde_json::Value = client.request(post).await?;
        let name = created["metadata"]["name"].as_str().unwrap_or_default();
        let watching = tasks.child();
        // Who has asked may give it up.
        let _ends = watching.token().drop_guard();
        let answer = tokio::time::timeout(PATIENCE, decision(client, name, &watching)).await;
        watching.drain(Duration::from_secs(1)).await;
        let certificate = answer.map_err(|_| Refusal::Undecided)??;
        let (path, key_path) = self.files(kind);
        Ok(Identity { certificate, key }.store(&path, &key_path)?)
    }
}

/// As whom a certificate is asked for.
#[derive(Debug, PartialEq, Eq)]
enum As {
    /// Who has joined.
    Member,
    /// Who has the token.
    Newcomer,
    /// Nobody before the node has a client certificate again.
    Nobody,
}

/// Nobody decides on a serving certificate that somebody else asks for than the node itself.
fn asks_as(kind: Kind, client_expired: bool) -> As {
    match (kind, client_expired) {
        (_, false) => As::Member,
        (Kind::Client, true) => As::Newcomer,
        (Kind::Serving, true) => As::Nobody,
    }
}

/// What becomes of the request of this name.
async fn decision(client: &Client, name: &str, tasks: &Tasks) -> Result<String, Refusal> {
    let informer =
        Informers::new(client.clone(), tasks.clone()).of_selected::<CertificateSigningRequest>(&format!("metadata.name={name}"));
    let mut changes = informer.changes();
    loop {
        let Some(request) = changes.next().await.new else { continue };
        let Some(status) = &request.status else { continue };
        if let Some(certificate) = status.certificate.as_ref().and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
            && !certificate.is_empty()
        {
            return Ok(certificate);
        }
        for condition in status.conditions.iter().flatten() {
            let why = condition.message.clone().or_else(|| condition.reason.clone()).unwrap_or_default();
            match condition.type_.as_str() {
                "Denied" => return Err(Refusal::Denied(why)),
                "Failed" => return Err(Refusal::Failed(why)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_node_asks_for_its_serving_certificate() {
        let check = |kind: Kind, expired: bool, expected: As| assert_eq!(asks_as(kind, expired), expected, "{kind:?} {expired}");
        check(Kind::Client, false, As::Member);
        check(Kind::Client, true, As::Newcomer);
        check(Kind::Serving, false, As::Member);
        check(Kind::Serving, true, As::Nobody);
    }
}
