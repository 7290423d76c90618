//! Removes bootstrap tokens whose time is over (docs page "Authenticating with Bootstrap Tokens", "token-cleaner").

use std::time::Duration;

use client::{Api, Informer, Informers, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::write;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";

pub(crate) struct TokenCleaner {
    /// Only those of the type: the other secrets of the cluster do not belong in this process's memory.
    tokens: Informer<Secret>,
}

impl TokenCleaner {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { tokens: informers.of_selected(&format!("type={TYPE}")) }
    }
}

/// When a token ends; none where it does not. One of which that cannot be read is over: nobody takes it either.
fn expiration(secret: &Secret) -> Option<Timestamp> {
    let text = secret.data.as_ref()?.get("expiration").filter(|text| !text.0.is_empty())?;
    let text = std::str::from_utf8(&text.0).ok();
    Some(text.and_then(|text| text.parse().ok()).unwrap_or(Timestamp::MIN))
}

impl Controller for TokenCleaner {
    const NAME: &'static str = "token-cleaner";
    const ACCOUNT: &'static str = "token-cleaner";

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&self.tokens)]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let ours = |secret: &Secret| secret.type_.as_deref() == Some(TYPE) && key.ns() == NAMESPACE;
        let Some(token) = self.tokens.by_key(key).filter(|secret| ours(secret)) else { return Ok(Action::Done) };
        let Some(end) = expiration(&token) else { return Ok(Action::Done) };
        match Duration::try_from(end.duration_since(cx.clock.now())) {
            Ok(left) if !left.is_zero() => Ok(Action::After(left)),
            _ => {
                write::delete(&Api::<Secret>::namespaced(cx.client.clone(), NAMESPACE), token.as_ref()).await?;
                Ok(Action::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Clock;
    use crate::testing::{World, object};
    use serde_json::json;

    #[tokio::test]
    async fn a_token_goes_when_its_time_is_over() {
        let mut world = World::new();
        world.clock = Clock::held("2026-01-01T00:00:00Z".parse().unwrap());
        let put = |name: &str, kind: &str, namespace: &str, expiration: &str| {
            let data: serde_json::Value = match expiration {
                "" => json!({}),
                text => serde_json::to_value(
                    [("expiration", k8s_openapi::ByteString(text.as_bytes().to_vec()))]
                        .into_iter()
                        .collect::<std::collections::BTreeMap<_, _>>(),
                )
                .unwrap(),
            };
            let metadata = json!({"namespace": namespace, "name": name});
            world.fake.put::<Secret>(&object(json!({"metadata": metadata, "type": kind, "data": data})));
        };
        put("old", TYPE, NAMESPACE, "2025-12-31T23:59:59Z");
        put("unreadable", TYPE, NAMESPACE, "tomorrow");
        put("new", TYPE, NAMESPACE, "2026-01-02T00:00:00Z");
        put("for-ever", TYPE, NAMESPACE, "");
        put("elsewhere", TYPE, "default", "2025-12-31T23:59:59Z");
        put("opaque", "Opaque", NAMESPACE, "2025-12-31T23:59:59Z");
        world.start(&["token-cleaner"]);
        world.fake.until::<Secret>(|all| all.len() == 4).await;
        let left: Vec<_> = world.fake.all::<Secret>().into_iter().filter_map(|secret| secret.metadata.name).collect();
        assert!(!left.contains(&"old".to_owned()) && !left.contains(&"unreadable".to_owned()), "{left:?}");
    }
}
