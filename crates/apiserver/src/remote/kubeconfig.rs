//! Servers that a kubeconfig names: webhooks of authentication and authorization, and of the audit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::json_syntax;
use base::tls::Resolver;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use registry::Registry;
use serde_json::Value;

use super::target::ca_data;
use crate::file::{self, FileError};

use super::{Endpoint, Error, Limits, Remotes, Target};

/// Pauses before a review is sent again, as upstream's (`DefaultRetryBackoff`: five attempts, each pause one and a half of the one before).
const PAUSES: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_millis(750), Duration::from_millis(1125), Duration::from_millis(1688)];

/// What a kubeconfig does not have, or has in vain.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Unusable {
    #[error("{0} {1:?} does not exist")]
    Missing(&'static str, String),
    #[error("{0} of a user is not supported here: use client-certificate, token or tokenFile")]
    User(&'static str),
    #[error("{0} of a cluster is not supported here")]
    Cluster(&'static str),
}

/// How the API server proves who it is, besides a client certificate.
enum Credential {
    None,
    Header(HeaderValue),
    /// A file with a token, which somebody else renews.
    File(PathBuf),
}

/// A server that is sent JSON.
pub(crate) struct Named {
    endpoint: Arc<Endpoint>,
    path: String,
    credential: Credential,
}

impl Named {
    /// Of the current context of a kubeconfig.
    pub(crate) fn read(path: &Path, remotes: &Remotes) -> Result<Self, FileError> {
        let text = file::read(path)?;
        let wrong = |why: Box<dyn std::error::Error + Send + Sync>| FileError::new(path, why);
        let (config, _) = apimachinery::yaml::parse(&text).map_err(|error| wrong(error.into()))?;
        let (cluster, user) = current(&config).map_err(|why| wrong(why.into()))?;
        let relative = |file: &str| path.parent().unwrap_or(Path::new("")).join(file);
        let authority = match (cluster["certificate-authority"].as_str(), cluster["certificate-authority-data"].as_str()) {
            (_, Some(data)) => Some(ca_data(data).map_err(|error| wrong(error.into()))?),
            (Some(file), None) => Some(file::read(&relative(file))?),
            (None, None) => None,
        };
        let server = cluster["server"].as_str().ok_or_else(|| wrong("the cluster has no server".into()))?;
        let (mut target, uri) = Target::of_url(server, authority).map_err(|error| wrong(error.into()))?;
        target.unverified = cluster["insecure-skip-tls-verify"] == true;
        let identity = match (user["client-certificate"].as_str(), user["client-key"].as_str()) {
            (Some(certificate), Some(key)) => {
                let resolver = Resolver::files(&relative(certificate), &relative(key));
                Some(resolver.map_err(|error| wrong(error.into()))?)
            }
            _ => None,
        };
        let credential = match (user["token"].as_str(), user["tokenFile"].as_str()) {
            (Some(token), _) => Credential::Header(bearer(token).ok_or_else(|| wrong("the token is no header".into()))?),
            (None, Some(file)) => Credential::File(relative(file)),
            (None, None) => Credential::None,
        };
        let endpoint = match identity {
            Some(identity) => remotes.endpoint_with_identity(&target, identity),
            None => remotes.endpoint(&target),
        };
        Ok(Self { endpoint, path: uri, credential })
    }

    /// Sends an object and reads the answer, whatever its status.
    pub(crate) async fn post(&self, registry: &Registry, body: Bytes, limits: Limits) -> Result<Response<Bytes>, Error> {
        let mut request = Request::post(self.path.as_str()).header(CONTENT_TYPE, "application/json");
        match &self.credential {
            Credential::None => {}
            Credential::Header(value) => request = request.header(AUTHORIZATION, value),
            Credential::File(path) => {
                let token = tokio::fs::read_to_string(path).await.map_err(|error| Error::Target(error.to_string()))?;
                request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
            }
        }
        let request = request.body(Full::from(body)).map_err(|error| Error::Http(error.to_string()))?;
        self.endpoint.call(registry, request, limits).await
    }

    /// Sends an object and reads the one that is answered. A server that cannot answer just now is asked again, within the time.
    pub(crate) async fn review(&self, registry: &Registry, review: &Value, limits: Limits) -> Result<Value, Error> {
        let (body, mut pauses) = (Bytes::from(review.to_string()), PAUSES.into_iter());
        let answered = async {
            loop {
                let answer = self.post(registry, body.clone(), limits).await?;
                let pause = is_transient(answer.status()).then(|| pauses.next()).flatten();
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Ok(answer),
                }
            }
        };
        let answer: Response<Bytes> = tokio::time::timeout(limits.time, answered).await.map_err(|_| Error::Timeout)??;
        if !answer.status().is_success() {
            return Err(Error::Http(format!("the server answered {}", answer.status())));
        }
        let answer = serde_json::from_slice(answer.body()).map_err(|error| Error::Http(json_syntax::told(answer.body(), &error)));
        check_version(review, answer?)
    }
}

/// An answer is of the kind and version of what was asked, as upstream's typed client reads it: "the remote service must return a response
/// using the same TokenReview API version that it received". One that says nothing of them is taken for that.
fn check_version(asked: &Value, answer: Value) -> Result<Value, Error> {
    let differs = |key: &&str| answer[*key] != asked[*key] && !matches!(answer[*key].as_str(), None | Some(""));
    match ["apiVersion", "kind"].into_iter().find(differs) {
        None => Ok(answer),
        Some(key) => Err(Error::Http(format!("the {key} of the answer is {}, not {}", answer[key], asked[key]))),
    }
}

/// Whether a server with this answer may have another one soon (upstream's `DefaultShouldRetry`).
fn is_transient(status: StatusCode) -> bool {
    [StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::GATEWAY_TIMEOUT].contains(&status)
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The cluster and the user of the current context.
fn current(config: &Value) -> Result<(&Value, &Value), Unusable> {
    static NOTHING: Value = Value::Null;
    let named = |list: &str, of: &str, name: &str| {
        let all = config[list].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().find(|entry| entry["name"] == name).map(|entry| &entry[of])
    };
    let name = config["current-context"].as_str().unwrap_or_default();
    let context = named("contexts", "context", name).ok_or_else(|| Unusable::Missing("context", name.to_owned()))?;
    let name = context["cluster"].as_str().unwrap_or_default();
    let cluster = named("clusters", "cluster", name).ok_or_else(|| Unusable::Missing("cluster", name.to_owned()))?;
    let user = match context["user"].as_str().unwrap_or_default() {
        "" => &NOTHING,
        name => named("users", "user", name).ok_or_else(|| Unusable::Missing("user", name.to_owned()))?,
    };
    let unsupported = ["exec", "auth-provider", "username", "client-certificate-data", "client-key-data"];
    if let Some(field) = unsupported.into_iter().find(|field| !user[*field].is_null()) {
        return Err(Unusable::User(field));
    }
    if let Some(field) = ["proxy-url", "tls-server-name"].into_iter().find(|field| !cluster[*field].is_null()) {
        return Err(Unusable::Cluster(field));
    }
    Ok((cluster, user))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(user: Value, cluster: Value, expected: Result<(), Unusable>) {
        let config = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": cluster}], "users": [{"name": "u", "user": user}]});
        assert_eq!(current(&config).map(|_| ()), expected, "{config}");
    }

    #[test]
    fn answers_are_of_the_version_that_was_asked_for() {
        let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"});
        let check = |answer: Value, expected: Option<&str>| {
            let why = check_version(&asked, answer).err().map(|error| error.to_string());
            assert_eq!(why.as_deref(), expected);
        };
        check(asked.clone(), None);
        check(json!({"status": {}}), None);
        check(json!({"apiVersion": "", "kind": ""}), None);
        let other = r#"the apiVersion of the answer is "authentication.k8s.io/v9", not "authentication.k8s.io/v1""#;
        check(json!({"apiVersion": "authentication.k8s.io/v9", "kind": "TokenReview"}), Some(other));
        let other = r#"the kind of the answer is "SubjectAccessReview", not "TokenReview""#;
        check(json!({"kind": "SubjectAccessReview"}), Some(other));
    }

    #[test]
    fn the_current_context() {
        check(json!({"token": "t"}), json!({"server": "https://a"}), Ok(()));
        check(json!({"exec": {}}), json!({}), Err(Unusable::User("exec")));
        check(json!({}), json!({"proxy-url": "http://p"}), Err(Unusable::Cluster("proxy-url")));
        let none = json!({"current-context": "c"});
        assert_eq!(current(&none).map(|_| ()), Err(Unusable::Missing("context", "c".into())));
        let alone = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k"}}],
            "clusters": [{"name": "k", "cluster": {"server": "https://a"}}]});
        assert!(current(&alone).is_ok_and(|(cluster, user)| cluster["server"] == "https://a" && user.is_null()));
    }
}
