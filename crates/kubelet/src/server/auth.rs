//! Who a client of the kubelet is and what it may do, asked of the API as upstream's webhook modes do.
//!
//! The API server itself is known by its certificate and may do everything: what it passes on it has authorized. Others prove who they are by
//! a certificate of the cluster's authority or by a token (TokenReview), and need rights on sub-resources of the node (SubjectAccessReview).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base::tls::Peer;
use client::Api;
use http::request::Parts;
use http::{StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client as Kube;
use kube::api::PostParams;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::access::Access;
use super::cache::Cache;
use super::held::Client;
use super::sharing;

/// How long answers are good, as upstream's defaults.
const TOKEN: Duration = Duration::from_secs(120);
const ALLOWED: Duration = Duration::from_secs(300);
const DENIED: Duration = Duration::from_secs(30);
/// Time for the API to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest token that is looked at, bytes.
const LONGEST: usize = 16 << 10;

/// A client that has proved who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct User {
    name: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl From<UserInfo> for User {
    fn from(info: UserInfo) -> Self {
        Self {
            name: info.username.unwrap_or_default(),
            uid: info.uid,
            groups: info.groups.unwrap_or_default(),
            extra: info.extra.unwrap_or_default(),
        }
    }
}

/// Decides about requests, with memory.
pub(super) struct Auth {
    client: Kube,
    node: String,
    /// Names that may do everything.
    callers: Vec<String>,
    /// By the token's digest: whose it is, none for nobody's.
    tokens: Mutex<Cache<[u8; 32], Option<User>>>,
    decisions: Mutex<Cache<(User, Access), bool>>,
}

/// The answer to a request that is not served.
pub(super) type Refused = (StatusCode, String);

impl Auth {
    /// With a client of the kubelet's own identity.
    pub(super) fn new(client: Kube, node: String, callers: Vec<String>) -> Self {
        Self { client, node, callers, tokens: Mutex::default(), decisions: Mutex::default() }
    }

    /// Whose request it is, if it is served, or the answer that says why not.
    pub(super) async fn check(&self, peer: &Peer, request: &Parts) -> Result<Client, Refused> {
        if sharing::is_for_nodes(request.uri.path()) {
            let node = sharing::node(peer).map(|name| Client::Other(name.to_owned()));
            return node.ok_or_else(|| (StatusCode::FORBIDDEN, "Forbidden: for nodes only".to_owned()));
        }
        let user = match peer {
            Peer::User { name, .. } if self.callers.contains(name) => return Ok(Client::Server),
            Peer::User { name, groups, .. } => {
                let groups = groups.iter().cloned().chain(["system:authenticated".to_owned()]).collect();
                User { name: name.clone(), groups, ..User::default() }
            }
            // Such certificates are for the API server.
            Peer::Pod { .. } => return Err(unauthorized("Unauthorized: the certificate of a pod")),
            Peer::Anonymous => self.user_of(request).await.ok_or_else(|| unauthorized("Unauthorized"))?,
            Peer::Invalid(why) => {
                let user = self.user_of(request).await;
                user.ok_or_else(|| unauthorized(&format!("Unauthorized: {why}")))?
            }
        };
        let access = Access::of(&request.method, request.uri.path())
            .ok_or_else(|| (StatusCode::METHOD_NOT_ALLOWED, "only GET and POST are served".to_owned()))?;
        let words = format!(
            "(user={}, verb={}, resource=nodes, subresource(s)=[{}])",
            user.name,
            access.verb,
            access.subresources.join(" ")
        );
        let name = user.name.clone();
        match self.may(user, access).await {
            Ok(true) => Ok(Client::Other(name)),
            Ok(false) => Err((StatusCode::FORBIDDEN, format!("Forbidden {words}"))),
            Err(error) => {
                tracing::warn!(%error, "cannot ask the API whether a request to the kubelet is allowed");
                Err((StatusCode::INTERNAL_SERVER_ERROR, format!("Authorization error {words}")))
            }
        }
    }

    /// Whose bearer token the request carries.
    async fn user_of(&self, request: &Parts) -> Option<User> {
        let header = request.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = header.trim().split_once(' ')?;
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > LONGEST {
            return None;
        }
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.tokens.lock().get(&key, Instant::now()) {
            return known;
        }
        match self.review(token).await {
            Ok(user) => {
                self.tokens.lock().put(key, user.clone(), Instant::now(), TOKEN);
                user
            }
            Err(error) => {
                tracing::warn!(%error, "cannot ask the API whose token a request to the kubelet carries");
                None
            }
        }
    }

    async fn review(&self, token: &str) -> Result<Option<User>, Error> {
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let status = create(&self.client, &review).await?.status.unwrap_or_default();
        Ok(status.user.filter(|_| status.authenticated == Some(true)).map(User::from))
    }

    async fn may(&self, user: User, access: Access) -> Result<bool, Error> {
        let key = (user, access);
        if let Some(known) = self.decisions.lock().get(&key, Instant::now()) {
            return Ok(known);
        }
        let mut allowed = false;
        for subresource in key.1.subresources {
            allowed = self.ask(&key.0, key.1.verb, subresource).await?;
            if allowed {
                break;
            }
        }
        let time = if allowed { ALLOWED } else { DENIED };
        self.decisions.lock().put(key, allowed, Instant::now(), time);
        Ok(allowed)
    }

    async fn ask(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, Error> {
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(subresource.to_owned()),
            name: Some(self.node.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        Ok(create(&self.client, &review).await?.status.is_some_and(|status| status.allowed))
    }
}

/// Why the API gave no answer.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no answer within {} seconds", PATIENCE.as_secs())]
    Timeout,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

async fn create<K>(client: &Kube, review: &K) -> Result<K, Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>,
    K: codec::Decode + codec::Encode,
{
    let (api, params) = (Api::<K>::all(client.clone()), PostParams::default());
    Ok(tokio::time::timeout(PATIENCE, api.create(&params, review)).await.map_err(|_| Error::Timeout)??)
}

fn unauthorized(why: &str) -> Refused {
    (StatusCode::UNAUTHORIZED, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::Arc;

    use base::tls::Credential;
    use http_body_util::{BodyExt, Full};
    use kube::client::Body;
    use serde_json::{Value, json};

    /// An API that knows one token, and lets its user get metrics of `n1` and create proxies; with what it was asked.
    fn api() -> (Kube, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let log = log.clone();
            async move {
                let bytes = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: Value = serde_json::from_slice(&bytes).unwrap();
                let (spec, about) = (review["spec"].clone(), review["spec"]["resourceAttributes"].clone());
                review["status"] = if review["kind"] == "TokenReview" {
                    log.lock().push(format!("token {}", spec["token"].as_str().unwrap()));
                    let user = json!({"username": "system:serviceaccount:n:mon", "groups": ["system:serviceaccounts"]});
                    json!({"authenticated": spec["token"] == "good", "user": user})
                } else {
                    let words = ["verb", "resource", "subresource", "name"].map(|key| about[key].as_str().unwrap().to_owned());
                    log.lock().push(format!("{} {}", spec["user"].as_str().unwrap(), words.join(" ")));
                    let allowed = ["get nodes metrics n1", "get nodes proxy n1"].contains(&words.join(" ").as_str());
                    json!({"allowed": allowed && spec["groups"][0] == "system:serviceaccounts"})
                };
                Ok::<_, Infallible>(http::Response::new(Full::new(bytes::Bytes::from(review.to_string()))))
            }
        });
        (Kube::new(service, "default"), asked)
    }

    fn request(line: &str, authorization: Option<&str>) -> Parts {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn peer(name: &str) -> Peer {
        Peer::User { name: name.to_owned(), groups: vec![], uid: String::new(), credential: Credential::default() }
    }

    #[tokio::test]
    async fn tokens_are_reviewed_and_rights_are_asked_for() {
        let (client, asked) = api();
        let auth = Auth::new(client, "n1".to_owned(), vec!["api-server".to_owned()]);
        let check = async |peer: &Peer, line: &str, token: Option<&str>, expected: Result<Client, (u16, &str)>| {
            let result = auth.check(peer, &request(line, token)).await;
            let expected = expected.map_err(|(status, text)| (StatusCode::from_u16(status).unwrap(), text.to_owned()));
            assert_eq!(result, expected, "{peer:?} {line} {token:?}");
        };
        let good = Some("Bearer good");
        let monitor = || Ok(Client::Other("system:serviceaccount:n:mon".to_owned()));
        check(&peer("api-server"), "GET /exec/n/p/c", None, Ok(Client::Server)).await;
        assert_eq!(asked.lock().len(), 0);
        check(&Peer::Anonymous, "GET /metrics", good, monitor()).await;
        check(&Peer::Invalid("expired".to_owned()), "GET /metrics/cadvisor", Some("bearer  good "), monitor()).await;
        assert_eq!(*asked.lock(), ["token good", "system:serviceaccount:n:mon get nodes metrics n1"], "asked once");
        check(&Peer::Anonymous, "GET /containerLogs/n/p/c", good, monitor()).await;
        check(&Peer::Anonymous, "GET /pods", good, monitor()).await;
        assert_eq!(
            asked.lock().last().unwrap(),
            "system:serviceaccount:n:mon get nodes proxy n1",
            "nodes/pods was asked for first"
        );
        let text = "(user=system:serviceaccount:n:mon, verb=create, resource=nodes, subresource(s)=[proxy])";
        check(&Peer::Anonymous, "GET /exec/n/p/c", good, Err((403, &format!("Forbidden {text}")))).await;
        let text = "Forbidden (user=somebody, verb=get, resource=nodes, subresource(s)=[metrics])";
        check(&peer("somebody"), "GET /metrics", good, Err((403, text))).await;
        check(&peer("somebody"), "TRACE /metrics", None, Err((405, "only GET and POST are served"))).await;
        for token in [None, Some("Bearer bad"), Some("Basic good"), Some("Bearer "), Some("good")] {
            check(&Peer::Anonymous, "GET /metrics", token, Err((401, "Unauthorized"))).await;
        }
        check(&Peer::Anonymous, "GET /metrics", Some(&format!("Bearer {}", "x".repeat(LONGEST + 1))), Err((401, "Unauthorized")))
            .await;
        check(&Peer::Invalid("expired".to_owned()), "GET /metrics", None, Err((401, "Unauthorized: expired"))).await;
        let before = asked.lock().len();
        check(&Peer::Anonymous, "GET /metrics", Some("Bearer bad"), Err((401, "Unauthorized"))).await;
        assert_eq!(asked.lock().len(), before, "a wrong token is known for wrong");
    }

    #[tokio::test]
    async fn an_api_that_does_not_answer_admits_nobody() {
        let service = tower::service_fn(|_: http::Request<Body>| async {
            Ok::<_, Infallible>(http::Response::builder().status(500).body(Full::new(bytes::Bytes::new())).unwrap())
        });
        let auth = Auth::new(Kube::new(service, "default"), "n1".to_owned(), vec![]);
        let (status, _) = auth.check(&Peer::Anonymous, &request("GET /metrics", Some("Bearer good"))).await.unwrap_err();
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let (status, text) = auth.check(&peer("admin"), &request("GET /metrics", None)).await.unwrap_err();
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(text.starts_with("Authorization error (user=admin, verb=get"), "{text}");
    }
}
