//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: programs of the cluster's own that change and refuse requests
//! (API page "Dynamic Admission Control").
//!
//! Configurations are compiled once for each change ([`super::current`]). Mutating webhooks are called one after another in the order
//! of their configurations' names, and again when something behind them changes the object; validating webhooks are called at the
//! same time. What a webhook may not do (patch where it may only look, answer another question) is a failure of the call, and what
//! comes of a failure its policy says.

mod call;
mod hook;
mod review;

use std::sync::Arc;
use std::time::Instant;

use apimachinery::Status;
use async_trait::async_trait;
use registry::{Admission, Layer, Registry, Request};

use super::criteria::Match;
use super::current::{Current, Item, is_exempt};
use crate::authz::Authorizer;
use crate::metrics::admission as metrics;
use crate::remote::Remotes;
use call::{Failure, Verdict};
use hook::Hook;

/// What both plugins are made of.
struct Webhooks {
    current: Current<Vec<Hook>>,
    authorizer: Arc<Authorizer>,
    is_mutating: bool,
}

impl Webhooks {
    fn new(plural: &'static str, is_mutating: bool, authorizer: Arc<Authorizer>, remotes: Arc<Remotes>) -> Self {
        let current = Current::new(plural, move |name, object| Hook::all(name, object, &remotes));
        Self { current, authorizer, is_mutating }
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        !is_exempt(a) && !self.current.get(a.registry).is_empty()
    }

    fn sees_all(&self, registry: &Registry) -> bool {
        !self.current.get(registry).is_empty()
    }

    fn configurations(&self, registry: &Registry) -> Arc<[Item<Vec<Hook>>]> {
        self.current.get(registry)
    }

    /// Calls one webhook. None when its call failed and that does not matter.
    async fn call(&self, hook: &Hook, a: &Request<'_>, version: &Match, place: &Place) -> Result<Option<Verdict>, Status> {
        let watch = metrics::Call::begin(&hook.name, a.operation.as_str(), self.is_mutating);
        let started = Instant::now();
        let called = call::call(hook, a, version.served(a), self.is_mutating).await;
        let layer = if self.is_mutating { Layer::MutatingWebhooks } else { Layer::ValidatingWebhooks };
        a.context().annotations.took(layer, started.elapsed());
        match called {
            Ok(verdict) => {
                watch.admitted();
                Ok(Some(verdict))
            }
            Err(Failure::Refused(status)) => {
                watch.refused("no_error", status.code);
                Err(status)
            }
            Err(Failure::Internal(status)) => {
                watch.refused("apiserver_internal_error", 0);
                Err(status)
            }
            Err(Failure::Call(why)) if hook.fails_open => {
                tracing::warn!(webhook = hook.name, why, "failed calling webhook, failing open");
                watch.failed_open();
                let kind = if self.is_mutating { "mutation" } else { "validating" };
                let key = format!("failed-open.{kind}.webhook.admission.k8s.io/round_{}_index_{}", place.round, place.index);
                a.context().annotations.add(key, hook.name.as_str());
                Ok(None)
            }
            Err(Failure::Call(why)) => {
                tracing::warn!(webhook = hook.name, why, "failed calling webhook, failing closed");
                watch.refused("calling_webhook_error", 503);
                Err(Status::internal(format!("failed calling webhook \"{}\": {why}", hook.name)))
            }
        }
    }
}

/// Where a webhook stands among those that are called, for the audit.
struct Place {
    round: u8,
    index: usize,
}

/// Webhooks that may change the object.
pub(super) struct MutatingAdmissionWebhook(Webhooks);

impl MutatingAdmissionWebhook {
    const NAME: &str = "MutatingAdmissionWebhook";

    pub(super) fn new(authorizer: Arc<Authorizer>, remotes: Arc<Remotes>) -> Self {
        Self(Webhooks::new("mutatingwebhookconfigurations", true, authorizer, remotes))
    }
}

#[async_trait]
impl Admission for MutatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        self.0.handles(a)
    }

    fn sees_all(&self, registry: &Registry) -> bool {
        self.0.sees_all(registry)
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        let again = a.is_reinvoked();
        if again {
            let object = a.object().cloned();
            a.invoked(Self::NAME).begin_again(object.as_ref());
        }
        let configurations = self.0.configurations(a.registry);
        let hooks = configurations.iter().flat_map(|configuration| configuration.value.iter());
        let mut called = false;
        for (index, hook) in hooks.enumerate() {
            let Some(version) = hook.matches(a, &self.0.authorizer).await? else { continue };
            if again && !a.invoked(Self::NAME).is_due(&hook.key) {
                continue;
            }
            called = true;
            let place = Place { round: u8::from(again), index };
            let verdict = self.0.call(hook, a, &version, &place).await?;
            let (object, patch) = verdict.map(|verdict| (verdict.object, verdict.patch)).unwrap_or_default();
            if let Some(patch) = patch {
                let key = format!("patch.webhook.admission.k8s.io/round_{}_index_{index}", place.round);
                let told = serde_json::json!({"configuration": hook.configuration, "webhook": hook.name, "patch": patch, "patchType": "JSONPatch"});
                a.context().annotations.add_detail(key, || told.to_string());
            }
            let patched = match object {
                Some(object) => match &version {
                    Match::Asked => a.replace(a.resource, object).await,
                    Match::Other(served) => a.replace(served, object).await,
                }
                .map_err(|status| Status::internal(status.message))?,
                _ => false,
            };
            let key = format!("mutation.webhook.admission.k8s.io/round_{}_index_{index}", place.round);
            let told = serde_json::json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": patched});
            a.context().annotations.add(key, told.to_string());
            if patched {
                a.invoked(Self::NAME).changed();
                a.reinvoke();
            }
            if hook.is_reinvocable {
                a.invoked(Self::NAME).called(&hook.key);
            }
        }
        if called && !again {
            let object = a.object().cloned();
            a.invoked(Self::NAME).leave(object.as_ref());
        }
        Ok(())
    }
}

/// Webhooks that may refuse the object.
pub(super) struct ValidatingAdmissionWebhook(Webhooks);

impl ValidatingAdmissionWebhook {
    pub(super) fn new(authorizer: Arc<Authorizer>, remotes: Arc<Remotes>) -> Self {
        Self(Webhooks::new("validatingwebhookconfigurations", false, authorizer, remotes))
    }
}

#[async_trait]
impl Admission for ValidatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        self.0.handles(a)
    }

    fn sees_all(&self, registry: &Registry) -> bool {
        self.0.sees_all(registry)
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let configurations = self.0.configurations(a.registry);
        let mut relevant = Vec::new();
        for hook in configurations.iter().flat_map(|configuration| configuration.value.iter()) {
            if let Some(version) = hook.matches(a, &self.0.authorizer).await? {
                relevant.push((hook, version));
            }
        }
        let calls = relevant
            .iter()
            .enumerate()
            .map(async |(index, (hook, version))| self.0.call(hook, a, version, &Place { round: 0, index }).await);
        // All are asked, and the first in order that refuses is told.
        let answers = futures::future::join_all(calls).await;
        answers.into_iter().find_map(Result::err).map_or(Ok(()), Err)
    }
}
