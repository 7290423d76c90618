//! Tokens that a webhook knows (`--authentication-token-webhook-config-file`): it is sent a TokenReview.

use std::path::PathBuf;
use std::time::Duration;

use registry::{Registry, User};
use serde_json::{Value, json};

use super::oidc;
use crate::file::FileError;
use crate::kept::{Digest, Kept, digest};
use crate::remote::{Limits, Named, Remotes};

/// What one question may take (upstream's client has 30 seconds), and its answer.
const LIMITS: Limits = Limits { time: Duration::from_secs(30), bytes: 1 << 20 };
/// Answers that are remembered.
const REMEMBERED: usize = 8192;

/// Which webhook, and for how long its answers are good.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kubeconfig that names it.
    pub file: PathBuf,
    /// Version of the reviews that it is sent: `v1` or `v1beta1`.
    pub version: String,
    /// How long an answer is good.
    pub ttl: Duration,
}

pub(super) struct Webhook {
    named: Named,
    options: Options,
    /// By the token.
    answers: Kept<Digest, Result<User, oidc::Error>>,
}

impl Webhook {
    pub(super) fn new(options: &Options, remotes: &Remotes) -> Result<Self, FileError> {
        let named = Named::read(&options.file, remotes)?;
        Ok(Self { named, options: options.clone(), answers: Kept::new(REMEMBERED) })
    }

    /// The user of a token.
    pub(super) async fn review(&self, registry: &Registry, token: &str, audiences: &[String]) -> Result<User, oidc::Error> {
        let key = digest(token.as_bytes());
        if let Some(known) = self.answers.get(&key) {
            return known;
        }
        let review = json!({"apiVersion": format!("authentication.k8s.io/{}", self.options.version), "kind": "TokenReview",
            "spec": {"token": token, "audiences": audiences}});
        let answer = self.named.review(registry, &review, LIMITS).await;
        // A server that does not answer is asked again at once.
        let answer = answer.map_err(|error| oidc::Error::Claims(format!("webhook: {error}")))?;
        let user = user(&answer["status"], audiences);
        let bytes = answer["status"].to_string().len();
        self.answers.keep(key, user.clone(), bytes, self.options.ttl);
        user
    }
}

/// What a review says.
fn user(status: &Value, audiences: &[String]) -> Result<User, oidc::Error> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    if status["authenticated"] != true {
        return Err(oidc::Error::Claims(format!("webhook: {}", status["error"].as_str().unwrap_or("the token is not known"))));
    }
    let found = texts(&status["audiences"]);
    // A webhook that names no audience is one that knows of none: its tokens are for this API server.
    if !found.is_empty() && !found.iter().any(|audience| audiences.contains(audience)) {
        return Err(oidc::Error::Audience { expected: audiences.to_vec(), found });
    }
    let user = &status["user"];
    let name = user["username"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(oidc::Error::Claims("webhook: the user has no name".to_owned()));
    }
    let extra = user["extra"].as_object().into_iter().flatten();
    let mut named = super::user(name, texts(&user["groups"]));
    named.uid = user["uid"].as_str().unwrap_or_default().to_owned();
    named.extra = extra.map(|(key, values)| (key.clone(), texts(values))).collect();
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_review_says() {
        let own = ["api".to_owned()];
        let check = |status: Value, expected: Result<(&str, &[&str]), &str>| {
            let found = user(&status, &own).map(|user| (user.name, user.groups)).map_err(|error| error.to_string());
            let expected =
                expected.map(|(name, groups)| (name.to_owned(), groups.iter().map(|group| (*group).to_owned()).collect()));
            assert_eq!(found, expected.map_err(str::to_owned), "{status}");
        };
        let jane = json!({"username": "jane", "groups": ["dev"]});
        check(json!({"authenticated": true, "user": jane}), Ok(("jane", &["dev", "system:authenticated"])));
        check(json!({"authenticated": true, "user": jane, "audiences": ["api"]}), Ok(("jane", &["dev", "system:authenticated"])));
        check(
            json!({"authenticated": true, "user": jane, "audiences": ["other"]}),
            Err("expected audience in [\"api\"] got [\"other\"]"),
        );
        check(json!({"authenticated": true, "user": {}}), Err("webhook: the user has no name"));
        check(json!({"authenticated": false, "error": "too old", "user": jane}), Err("webhook: too old"));
        check(json!({"user": jane}), Err("webhook: the token is not known"));
    }
}
