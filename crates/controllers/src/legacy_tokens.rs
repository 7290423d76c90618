//! Tokens without an end that were made for a ServiceAccount without being asked for, as clusters before v1.24 did, and that nobody has
//! used for a year: they are declared invalid, which can be taken back, and go after another year (docs page "Managing Service Accounts",
//! "Legacy ServiceAccount token cleaner").
//!
//! The API server writes down when tokens are used, and in a ConfigMap since when it does. Everything is looked at once a day: the
//! days are what decides.

use std::collections::{BTreeSet, HashMap};

use client::kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use client::{Api, Informer, Informers, Key};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use pods::legacy_tokens::{INVALID_SINCE, LAST_USED, SINCE, TRACKING, day, day_of};
use pods::references::References;
use serde_json::json;

use crate::account_tokens::{self, is_of};
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::eviction::forgive;
use crate::meta;

/// How long a token has to be unused (upstream: `--legacy-service-account-token-clean-up-period`).
const PERIOD: SignedDuration = SignedDuration::from_hours(365 * 24);
const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

pub(crate) struct LegacyTokens {
    /// Only those of the type: the other secrets of the cluster do not belong in this process's memory.
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    pods: Informer<Pod>,
}

/// What becomes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    Invalid,
    Goes,
}

/// Whether uses have been written down for the whole period: from the day after that on which it began.
fn is_known_for_long(since: Date, now: Timestamp) -> bool {
    let began = since.tomorrow().and_then(|next| next.to_zoned(TimeZone::UTC));
    began.is_ok_and(|began| now.duration_since(began.timestamp()) >= PERIOD)
}

/// What becomes of the token of a Secret of which the account says that it was made for it, if no pod has it.
fn verdict(secret: &Secret, now: Timestamp) -> Verdict {
    let long_ago = now - PERIOD;
    let bound = day_of(long_ago);
    let label = |key: &str| secret.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let is_old = secret.metadata.creation_timestamp.as_ref().is_some_and(|created| created.0 < long_ago);
    // Of a day that is none nobody knows when it was.
    let is_unused = label(LAST_USED).is_none_or(|used| day(used).is_some_and(|used| used < bound));
    if !is_old || !is_unused || meta::ends(secret) {
        return Verdict::Stays;
    }
    match label(INVALID_SINCE).and_then(day) {
        None => Verdict::Invalid,
        Some(since) if since < bound => Verdict::Goes,
        Some(_) => Verdict::Stays,
    }
}

impl LegacyTokens {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { secrets: account_tokens::holders(informers), accounts: informers.of(), pods: informers.of() }
    }

    /// Whether the account of the Secret lists it. A Secret that somebody made for an account is listed by none.
    fn is_generated(&self, secret: &Secret) -> bool {
        let namespace = meta::namespace(secret);
        let account = self.accounts.get(Some(namespace), account_tokens::account_name(secret));
        account.filter(|account| is_of(secret, account)).is_some_and(|account| {
            account.secrets.iter().flatten().any(|listed| listed.name.as_deref() == Some(meta::name(secret)))
        })
    }

    /// The Secrets of which something becomes.
    fn unused(&self, now: Timestamp) -> Vec<(std::sync::Arc<Secret>, Verdict)> {
        let mut named: HashMap<String, BTreeSet<String>> = HashMap::new();
        let mut found = Vec::new();
        for secret in self.secrets.select(account_tokens::is_holder) {
            let verdict = verdict(&secret, now);
            if verdict == Verdict::Stays || !self.is_generated(&secret) {
                continue;
            }
            let namespace = meta::namespace(secret.as_ref());
            let of_pods = named.entry(namespace.to_owned()).or_insert_with(|| {
                self.pods.in_namespace(namespace).iter().flat_map(|pod| References::of(pod).secrets).collect()
            });
            if !of_pods.contains(meta::name(secret.as_ref())) {
                found.push((secret, verdict));
            }
        }
        found
    }
}

/// Does with the Secret what was found, as long as it is as it was seen: one that has been used since then stays as it is.
async fn settle(cx: &Cx, secret: &Secret, verdict: Verdict) -> Result<(), Error> {
    let (namespace, name) = (meta::namespace(secret), meta::name(secret));
    let api: Api<Secret> = Api::namespaced(cx.client.clone(), namespace);
    let (uid, resource_version) = (secret.metadata.uid.clone(), secret.metadata.resource_version.clone());
    let done = if verdict == Verdict::Goes {
        tracing::info!(namespace, secret = name, "a generated token of a service account has been invalid for a year and goes");
        let params = DeleteParams::default().preconditions(Preconditions { uid, resource_version });
        api.delete(name, &params).await
    } else {
        tracing::info!(
            namespace,
            secret = name,
            "a generated token of a service account has not been used for a year and is invalid"
        );
        let labels = json!({INVALID_SINCE: day_of(cx.clock.now()).to_string()});
        let patch = Patch::Merge(json!({"metadata": {"uid": uid, "resourceVersion": resource_version, "labels": labels}}));
        api.patch(name, &PatchParams::default(), &patch).await.map(drop)
    };
    forgive(done)?;
    Ok(())
}

impl Controller for LegacyTokens {
    const NAME: &'static str = "legacy-serviceaccount-token-cleaner";
    const ACCOUNT: &'static str = "legacy-service-account-token-cleaner";

    fn sources(&self) -> Vec<Source> {
        let all = Source::once(vec![Key::cluster("all")]);
        vec![all, Source::read(&self.secrets), Source::read(&self.accounts), Source::read(&self.pods)]
    }

    async fn reconcile(&self, cx: &Cx, _: &Key) -> Result<Action, Error> {
        let now = cx.clock.now();
        let api: Api<ConfigMap> = Api::namespaced(cx.client.clone(), "kube-system");
        let tracking = api.get_opt(TRACKING).await?;
        let since = tracking.as_ref().and_then(|map| day(map.data.as_ref()?.get(SINCE)?));
        if !since.is_some_and(|since| is_known_for_long(since, now)) {
            return Ok(Action::After(DAY));
        }
        // One that fails keeps no other from what becomes of it.
        let mut result = Ok(Action::After(DAY));
        for (secret, verdict) in self.unused(now) {
            if let Err(error) = settle(cx, &secret, verdict).await {
                result = Err(error);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Clock;
    use crate::testing::{World, object};

    const NOW: &str = "2026-06-15T12:00:00Z";

    fn secret(name: &str, created: &str, labels: &[(&str, &str)]) -> Secret {
        let labels: serde_json::Map<_, _> = labels.iter().map(|(key, day)| ((*key).to_owned(), (*day).into())).collect();
        let annotations = json!({"kubernetes.io/service-account.name": "robot", "kubernetes.io/service-account.uid": "u1"});
        object(json!({"type": "kubernetes.io/service-account-token", "metadata": {"namespace": "n", "name": name, "uid": name,
            "creationTimestamp": created, "labels": labels, "annotations": annotations}}))
    }

    /// Upstream: `legacy_serviceaccount_token_cleaner_test.go`.
    #[test]
    fn what_becomes_of_tokens() {
        let check = |created: &str, labels: &[(&str, &str)], expected: Verdict| {
            assert_eq!(verdict(&secret("s", created, labels), NOW.parse().unwrap()), expected, "{created} {labels:?}");
        };
        use Verdict::{Goes, Invalid, Stays};
        let old = "2020-01-01T00:00:00Z";
        check(old, &[], Invalid);
        check("2025-06-15T11:59:59Z", &[], Invalid);
        check("2025-06-15T12:00:00Z", &[], Stays);
        check(old, &[(LAST_USED, "2025-06-14")], Invalid);
        check(old, &[(LAST_USED, "2025-06-15")], Stays);
        check(old, &[(LAST_USED, "long ago")], Stays);
        check(old, &[(LAST_USED, "20250101")], Stays);
        check(old, &[(INVALID_SINCE, "2025-06-15")], Stays);
        check(old, &[(INVALID_SINCE, "2025-06-14")], Goes);
        check(old, &[(INVALID_SINCE, "never")], Invalid);
        check(old, &[(INVALID_SINCE, "2025-01-01"), (LAST_USED, "2026-06-01")], Stays);
        let long = |since: &str| is_known_for_long(day(since).unwrap(), NOW.parse().unwrap());
        assert!(long("2025-06-14") && !long("2025-06-15") && !long("2026-06-15"));
    }

    #[tokio::test]
    async fn only_what_was_generated_and_no_pod_has_is_taken() {
        let mut world = World::new();
        world.clock = Clock::held(NOW.parse().unwrap());
        let metadata = json!({"namespace": "kube-system", "name": TRACKING});
        world.fake.put::<ConfigMap>(&object(json!({"metadata": metadata, "data": {SINCE: "2024-01-01"}})));
        let listed = ["unused", "mounted", "gone", "before"].map(|name| json!({"name": name}));
        world.fake.put::<ServiceAccount>(&object(
            json!({"metadata": {"namespace": "n", "name": "robot", "uid": "u1"}, "secrets": listed}),
        ));
        let spec = json!({"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "mounted"}}]});
        world.fake.put::<Pod>(&object(json!({"metadata": {"namespace": "n", "name": "p"}, "spec": spec})));
        let old = "2020-01-01T00:00:00Z";
        for name in ["unused", "mounted", "by-hand"] {
            world.fake.put::<Secret>(&secret(name, old, &[]));
        }
        // Of an account before this one, which had the same name.
        let mut before = secret("before", old, &[]);
        let annotations = before.metadata.annotations.as_mut().unwrap();
        annotations.insert("kubernetes.io/service-account.uid".to_owned(), "u0".to_owned());
        world.fake.put::<Secret>(&before);
        world.fake.put::<Secret>(&secret("gone", old, &[(INVALID_SINCE, "2025-01-01")]));
        world.start(&["legacy-serviceaccount-token-cleaner"]);
        let invalid = |secret: &Secret| secret.metadata.labels.as_ref().and_then(|labels| labels.get(INVALID_SINCE)).cloned();
        world.fake.until::<Secret>(|all| all.len() == 4 && all.iter().any(|secret| invalid(secret).is_some())).await;
        for secret in world.fake.all::<Secret>() {
            let name = meta::name(&secret);
            assert_eq!(invalid(&secret).as_deref(), (name == "unused").then_some("2026-06-15"), "{name}");
        }
    }

    /// A world with a generated token that nobody uses, and the cleaner with what it needs.
    async fn cleaner() -> (World, LegacyTokens, Cx) {
        let mut world = World::new();
        world.clock = Clock::held(NOW.parse().unwrap());
        let account = json!({"metadata": {"namespace": "n", "name": "robot", "uid": "u1"}, "secrets": [{"name": "s"}]});
        world.fake.put::<ServiceAccount>(&object(account));
        world.fake.put::<Secret>(&secret("s", "2020-01-01T00:00:00Z", &[]));
        let cleaner = LegacyTokens::new(&world.options().informers);
        cleaner.secrets.synced().await;
        cleaner.accounts.synced().await;
        cleaner.pods.synced().await;
        let client = world.fake.client();
        let events = client::events::Recorder::new(client.clone(), "test", "", &world.tasks);
        let clock = world.clock.clone();
        (world, cleaner, Cx { client, events, clock })
    }

    fn is_invalid(world: &World) -> bool {
        let labels = world.fake.all::<Secret>().into_iter().find_map(|secret| secret.metadata.labels);
        labels.is_some_and(|labels| labels.contains_key(INVALID_SINCE))
    }

    /// Upstream: the cleaner does nothing until uses have been written down for the period.
    #[tokio::test]
    async fn nothing_becomes_of_tokens_whose_uses_nobody_has_written_down() {
        let (world, cleaner, cx) = cleaner().await;
        for (since, expected) in
            [(None, false), (Some("2026-01-01"), false), (Some("long ago"), false), (Some("2024-01-01"), true)]
        {
            if let Some(since) = since {
                let metadata = json!({"namespace": "kube-system", "name": TRACKING});
                world.fake.put::<ConfigMap>(&object(json!({"metadata": metadata, "data": {SINCE: since}})));
            }
            assert_eq!(cleaner.reconcile(&cx, &Key::cluster("all")).await.unwrap(), Action::After(DAY));
            assert_eq!(is_invalid(&world), expected, "{since:?}");
        }
    }

    /// The API server has written down a use, or anybody anything, after the look at the Secret.
    #[tokio::test]
    async fn what_has_changed_since_the_look_stays_as_it_is() {
        let (world, cleaner, cx) = cleaner().await;
        let unused = cleaner.unused(cx.clock.now());
        let [(seen, Verdict::Invalid)] = unused.as_slice() else { panic!("one is unused") };
        world.fake.put::<Secret>(&secret("s", "2020-01-01T00:00:00Z", &[(LAST_USED, "2026-06-15")]));
        for verdict in [Verdict::Invalid, Verdict::Goes] {
            settle(&cx, seen, verdict).await.unwrap();
            assert!(world.fake.all::<Secret>().len() == 1 && !is_invalid(&world), "{verdict:?}");
        }
    }
}
