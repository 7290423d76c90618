//! Service account tokens for projected volumes, bound to their pod and renewed at 80 % of their life.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ServiceAccount, ServiceAccountTokenProjection};
use k8s_openapi::api::storage::v1 as storage;
use kube::api::{ObjectMeta, PostParams};
use runtime::uptime;
use serde_json::json;

use super::used;
use crate::backoff::signed;
use crate::spec::Model;

/// A token is renewed after a day at the latest.
const LONGEST: Duration = Duration::from_hours(24);
/// Time until it is tried again to renew one, while the one before is good.
const RETRY: Duration = Duration::from_secs(60);

/// A token and when to renew it. The server's clock says when it ends: it does not end later because somebody sets the clock of this machine.
#[derive(Clone, Debug)]
pub struct Token {
    text: String,
    expires: Timestamp,
    /// At which [`uptime`] it expires, and is to be renewed.
    ends: Duration,
    renew: Duration,
}

impl Token {
    /// The token itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it need not be renewed yet.
    pub fn is_fresh(&self) -> bool {
        self.renew > uptime()
    }
}

/// The tokens of one pod, by volume and path.
#[derive(Debug, Default)]
pub struct Tokens(BTreeMap<(String, String), Token>);

/// Projections of service account tokens in the volumes that a pod's containers use, with their volume's name.
fn projections(model: &Model) -> impl Iterator<Item = (&str, &ServiceAccountTokenProjection)> {
    used::volumes(model).flat_map(|volume| {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        sources.filter_map(|source| source.service_account_token.as_ref().map(|token| (volume.name.as_str(), token)))
    })
}

impl Tokens {
    /// Requests the tokens that are missing or due. A token that cannot be renewed serves until it expires. Gives the volumes for which
    /// there is no token, and why.
    pub async fn refresh(&mut self, client: &kube::Client, model: &Model) -> BTreeMap<String, String> {
        let mut failures = BTreeMap::new();
        for (volume, projection) in projections(model) {
            let key = (volume.to_owned(), projection.path.clone());
            if self.0.get(&key).is_some_and(Token::is_fresh) {
                continue;
            }
            match request(client, model, Asked::of(projection.audience.as_deref(), projection.expiration_seconds)).await {
                Ok(token) => drop(self.0.insert(key, token)),
                Err(error) => match self.0.get_mut(&key) {
                    Some(token) if token.ends > uptime() => token.renew = uptime() + RETRY,
                    _ => drop(failures.insert(volume.to_owned(), format!("failed to fetch token: {error}"))),
                },
            }
        }
        failures
    }

    /// Texts by volume and path.
    pub fn texts(&self) -> BTreeMap<(String, String), String> {
        self.0.iter().map(|(key, token)| (key.clone(), token.text.clone())).collect()
    }

    /// When the first one is to be renewed.
    pub fn due(&self) -> Option<Timestamp> {
        let left = self.0.values().map(|token| token.renew).min()?.saturating_sub(uptime());
        Timestamp::now().saturating_add(signed(left)).ok()
    }
}

/// After how long a token is renewed that expires after `life`.
fn renewal(life: Duration) -> Duration {
    (life * 4 / 5).min(LONGEST)
}

/// The tokens that a driver asks for, by audience, as the text that it is given (KEP-1855).
pub async fn for_driver(client: &kube::Client, model: &Model, requests: &[storage::TokenRequest]) -> Result<String, String> {
    let mut all = BTreeMap::new();
    for wanted in requests {
        let asked = Asked::of(Some(&wanted.audience), wanted.expiration_seconds);
        let token = request(client, model, asked).await;
        let token = token.map_err(|error| format!("failed to fetch token: {error}"))?;
        let text = json!({"token": token.text, "expirationTimestamp": token.expires});
        all.insert(wanted.audience.clone(), text);
    }
    serde_json::to_string(&all).map_err(|error| error.to_string())
}

/// A token that an image credential provider is shown, of the service account with this UID and no other of its name (KEP-4412).
pub async fn for_plugin(client: &kube::Client, model: &Model, audience: &str, account_uid: &str) -> Result<Token, String> {
    let asked = Asked { account_uid: Some(account_uid), ..Asked::of(Some(audience), None) };
    request(client, model, asked).await.map_err(|error| format!("failed to fetch token: {error}"))
}

/// What a token is to be like.
struct Asked<'a> {
    audience: Option<&'a str>,
    expiration_seconds: Option<i64>,
    account_uid: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn of(audience: Option<&'a str>, expiration_seconds: Option<i64>) -> Self {
        Self { audience, expiration_seconds, account_uid: None }
    }
}

async fn request(client: &kube::Client, model: &Model, asked: Asked<'_>) -> Result<Token, String> {
    let (now, begun) = (Timestamp::now(), uptime());
    let Asked { audience, expiration_seconds, account_uid } = asked;
    let account = model.spec().service_account_name.clone().unwrap_or_else(|| "default".to_owned());
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(model.name().to_owned()),
        uid: Some(model.uid().to_owned()),
    };
    let spec = TokenRequestSpec {
        audiences: audience.filter(|audience| !audience.is_empty()).map(|audience| vec![audience.to_owned()]),
        bound_object_ref: Some(bound),
        expiration_seconds: expiration_seconds.or(Some(3600)),
    };
    let metadata = ObjectMeta { uid: account_uid.map(str::to_owned), ..ObjectMeta::default() };
    let request = TokenRequest { spec: Some(spec), metadata, ..TokenRequest::default() };
    let api = client::Api::<ServiceAccount>::namespaced(client.clone(), model.namespace());
    let answer = api
        .create_subresource::<_, TokenRequest>("token", &account, &PostParams::default(), &request)
        .await
        .map_err(|e| e.to_string())?;
    let status = answer.status.ok_or("the API server sent no token")?;
    let (Some(text), Some(expires)) = (status.token, status.expiration_timestamp) else {
        return Err("the API server sent a token without its end".to_owned());
    };
    // The server says how long it lasts, so that it does not matter how well the clocks agree.
    let said = answer.spec.and_then(|spec| u64::try_from(spec.expiration_seconds?).ok()).map(Duration::from_secs);
    let life = said.unwrap_or_else(|| Duration::try_from(expires.0.duration_since(now)).unwrap_or_default());
    Ok(Token { text, expires: expires.0, ends: begun + life, renew: begun + renewal(life) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_at_four_fifths() {
        let check = |life, wait| assert_eq!(renewal(Duration::from_secs(life)), Duration::from_secs(wait));
        check(3600, 2880);
        check(600, 480);
        check(365 * 86_400, 86_400);
    }
}
