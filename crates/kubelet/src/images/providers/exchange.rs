//! What a plugin is asked, and what it answers: `CredentialProviderRequest` and `CredentialProviderResponse`
//! (`credentialprovider.kubelet.k8s.io`). Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use apimachinery::time;
use runtime::api::Credentials;
use serde::{Deserialize, Serialize};

use super::Failure;
use super::cache::{Auths, Scope, registry};

/// A question for credentials.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    kind: &'static str,
    api_version: String,
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account_token: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_account_annotations: BTreeMap<String, String>,
}

impl Request {
    /// For an image of this name, without tag and digest and with its registry.
    pub(super) fn new(api_version: &str, image: &str) -> Self {
        Self {
            kind: "CredentialProviderRequest",
            api_version: api_version.to_owned(),
            image: image.to_owned(),
            service_account_token: None,
            service_account_annotations: BTreeMap::new(),
        }
    }

    /// With a token of the pod's service account, and what is shown of its annotations.
    pub(super) fn with(self, token: String, annotations: BTreeMap<String, String>) -> Self {
        Self { service_account_token: Some(token), service_account_annotations: annotations, ..self }
    }

    /// Whether one of the passwords is the token.
    pub(super) fn is_echoed_by(&self, auths: &Auths) -> bool {
        let token = self.service_account_token.as_ref();
        token.is_some_and(|token| auths.values().any(|word| word.password == *token))
    }
}

/// An answer.
pub(super) struct Response {
    /// Credentials, by what they are good for.
    pub(super) auths: Auths,
    /// For which questions it is an answer.
    pub(super) scope: Scope,
    /// How long it is good; none where the plugin does not say.
    pub(super) lifetime: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    kind: String,
    api_version: String,
    #[serde(default)]
    cache_key_type: String,
    #[serde(default)]
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, AuthConfig>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AuthConfig {
    username: String,
    password: String,
}

impl Response {
    /// Reads what a plugin has answered to `request`.
    ///
    /// # Errors
    /// It is no answer in the version of the request. What stands in it is not told: there may be credentials in it.
    pub(super) fn read(bytes: &[u8], request: &Request) -> Result<Self, Failure> {
        let body: Body = serde_json::from_slice(bytes).map_err(|_| Failure::Decode)?;
        if body.api_version != request.api_version {
            return Err(Failure::Version(request.api_version.clone()));
        }
        if body.kind != "CredentialProviderResponse" {
            return Err(Failure::Decode);
        }
        let scope = match body.cache_key_type.as_str() {
            "Image" => Scope::Image(request.image.clone()),
            "Registry" => Scope::Registry(registry(&request.image)),
            "Global" => Scope::Global,
            _ => return Err(Failure::CacheKeyType),
        };
        let lifetime = body.cache_duration.map(|text| time::parse_duration(&text).ok_or(Failure::Decode)).transpose()?;
        // What was good until some time ago is not kept.
        let lifetime = lifetime.map(|lifetime| Duration::try_from(lifetime).unwrap_or_default());
        let word = |auth: AuthConfig| Credentials { username: auth.username, password: auth.password };
        let auths = body.auth.unwrap_or_default().into_iter().map(|(key, auth)| (key, word(auth))).collect();
        Ok(Self { auths, scope, lifetime })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

    fn request() -> Request {
        Request::new(VERSION, "r.io:5000/a/b")
    }

    #[test]
    fn questions() {
        let plain = json!({"kind": "CredentialProviderRequest", "apiVersion": VERSION, "image": "r.io:5000/a/b"});
        assert_eq!(serde_json::to_value(request()).unwrap(), plain);
        let mut with = plain;
        with["serviceAccountToken"] = json!("t");
        with["serviceAccountAnnotations"] = json!({"k": "v"});
        let request = request().with("t".into(), BTreeMap::from([("k".to_owned(), "v".to_owned())]));
        assert_eq!(serde_json::to_value(&request).unwrap(), with);
        let auths = |password: &str| {
            Auths::from([("x".to_owned(), Credentials { username: String::new(), password: password.to_owned() })])
        };
        assert!(request.is_echoed_by(&auths("t")) && !request.is_echoed_by(&auths("u")));
    }

    fn answer(change: impl FnOnce(&mut Value)) -> Result<Response, Failure> {
        let mut value = json!({"kind": "CredentialProviderResponse", "apiVersion": VERSION, "cacheKeyType": "Registry",
            "cacheDuration": "1h30m0s", "auth": {"r.io:5000": {"username": "u", "password": "p"}}});
        change(&mut value);
        Response::read(value.to_string().as_bytes(), &request())
    }

    #[test]
    fn answers() {
        let found = answer(|_| {}).ok().unwrap();
        assert_eq!((found.scope, found.lifetime), (Scope::Registry("r.io:5000".into()), Some(Duration::from_secs(5400))));
        assert_eq!(found.auths["r.io:5000"].password, "p");
        let check = |field: &str, value: Value, expected: (Scope, Option<u64>, usize)| {
            let found = answer(|answer| answer[field] = value).ok().unwrap();
            assert_eq!((found.scope, found.lifetime.map(|lifetime| lifetime.as_secs()), found.auths.len()), expected, "{field}");
        };
        let registry = || Scope::Registry("r.io:5000".into());
        check("cacheKeyType", json!("Image"), (Scope::Image("r.io:5000/a/b".into()), Some(5400), 1));
        check("cacheKeyType", json!("Global"), (Scope::Global, Some(5400), 1));
        check("cacheDuration", json!(null), (registry(), None, 1));
        check("cacheDuration", json!("0s"), (registry(), Some(0), 1));
        check("cacheDuration", json!("-1h"), (registry(), Some(0), 1));
        check("auth", json!(null), (registry(), Some(5400), 0));
        check("auth", json!({}), (registry(), Some(5400), 0));
    }

    #[test]
    fn what_is_no_answer() {
        let check = |field: &str, value: Value, expected: &str| {
            let failure = answer(|answer| answer[field] = value).err().unwrap().to_string();
            assert!(failure.contains(expected), "{field}: {failure}");
            assert!(!failure.contains("secret"), "what was answered is not told: {failure}");
        };
        check("kind", json!("CredentialProviderRequest"), "no CredentialProviderResponse");
        check("apiVersion", json!("credentialprovider.kubelet.k8s.io/v1beta1"), VERSION);
        check("cacheKeyType", json!("Pod"), "cacheKeyType");
        check("cacheKeyType", json!(""), "cacheKeyType");
        check("cacheDuration", json!("soon"), "no CredentialProviderResponse");
        check("auth", json!({"x": {"username": "u", "passwort": "secret"}}), "no CredentialProviderResponse");
        check("auths", json!({"x": "secret"}), "no CredentialProviderResponse");
        for text in ["", "secret", "{\"kind\": \"CredentialProviderResponse\"", "null", "[]"] {
            let failure = Response::read(text.as_bytes(), &request()).err().unwrap();
            assert!(matches!(failure, Failure::Decode), "{text}");
        }
    }
}
