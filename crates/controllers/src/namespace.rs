//! The end of a namespace: everything in it is deleted, then its finalizer goes.

mod conditions;
mod content;
#[cfg(test)]
mod tests;

use std::time::Duration;

use client::Api;
use client::kube;
use client::kube::api::{DeleteParams, PostParams};
use client::{Informer, Informers, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::{discovery, meta};
use content::Outcome;

const FINALIZER: &str = "kubernetes";

pub(crate) struct Namespaces {
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
}

impl Namespaces {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { namespaces: informers.of(), pods: informers.of() }
    }
}

/// Whether new objects may be made in it.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    !meta::ends(namespace) && phase != Some("Terminating")
}

/// The key of the namespace that an object is in.
pub(crate) fn namespace_of(key: &Key) -> Key {
    Key::cluster(key.ns())
}

/// A creation that somebody else made, or whose namespace is going, is no failure.
pub(crate) fn tolerate<T>(result: kube::Result<T>) -> Result<(), Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_already_exists() || status.is_not_found() => Ok(()),
        Err(kube::Error::Api(status)) if status.is_forbidden() && status.message.contains("being terminated") => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default()
}

impl Controller for Namespaces {
    const NAME: &'static str = "namespace";
    const ACCOUNT: &'static str = "namespace-controller";
    const CONCURRENCY: usize = 10;
    /// What a namespace waits for comes without news of its own, such as an aggregated API that answers again.
    const RETRY_MAX: Duration = Duration::from_secs(60);

    fn sources(&self) -> Vec<Source> {
        let namespaces = self.namespaces.clone();
        let of_pod = Source::stepped(&self.pods, move |step, queue| {
            // The last pods are what a namespace usually waits for.
            let key = namespace_of(step.key());
            if step.new.is_none() && namespaces.by_key(&key).is_some_and(|namespace| meta::ends(namespace.as_ref())) {
                queue.add(key);
            }
        });
        vec![Source::own(&self.namespaces), of_pod]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(namespace) = self.namespaces.by_key(key).filter(|namespace| meta::ends(namespace.as_ref())) else {
            return Ok(Action::Done);
        };
        let api: Api<Namespace> = Api::all(cx.client.clone());
        let mut namespace = namespace.as_ref().clone();
        if is_phase_active(&namespace) {
            namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
            namespace = api.replace_status(&key.name, &PostParams::default(), &namespace).await?;
        }
        if finalizers(&namespace).is_empty() {
            return gone(api.delete(&key.name, &DeleteParams::default()).await.map(|_| ()));
        }
        if !finalizers(&namespace).iter().any(|one| one == FINALIZER) {
            return Ok(Action::Done);
        }
        let discovery = discovery::discover(&cx.client).await?;
        let outcome = content::delete_all(&cx.client, &key.name, discovery).await;
        let changed = conditions::update(&mut namespace, &outcome, Timestamp::now());
        if changed {
            match api.replace_status(&key.name, &PostParams::default(), &namespace).await {
                Ok(stored) => namespace = stored,
                Err(error) => return gone(Err(error)),
            }
        }
        conclude(&api, namespace, &outcome).await
    }
}

fn is_phase_active(namespace: &Namespace) -> bool {
    namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating")
}

/// Gone is what is wanted.
fn gone(result: kube::Result<()>) -> Result<Action, Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Action::Done),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Action::Done),
    }
}

/// What has failed in a round, if anything has.
fn unfinished(outcome: &Outcome) -> Option<String> {
    let unknown = (!outcome.undiscovered.is_empty()).then(|| format!("no answer from {}", outcome.undiscovered.join(", ")));
    let failed = outcome.failures.iter().cloned().chain(unknown).collect::<Vec<_>>();
    (!failed.is_empty()).then(|| failed.join("; "))
}

async fn conclude(api: &Api<Namespace>, mut namespace: Namespace, outcome: &Outcome) -> Result<Action, Error> {
    if let Some(why) = unfinished(outcome) {
        return Err(Error::Other(format!("namespace {} cannot go yet: {why}", meta::name(&namespace))));
    }
    if !outcome.remaining.is_empty() {
        // Deletions of what is not watched here come without news: half the grace period and a second, as upstream.
        return Ok(Action::After(Duration::from_secs(outcome.grace_seconds / 2 + 1)));
    }
    let name = meta::name(&namespace).to_owned();
    if let Some(spec) = &mut namespace.spec {
        spec.finalizers.get_or_insert_default().retain(|one| one != FINALIZER);
    }
    gone(api.replace_subresource("finalize", &name, &PostParams::default(), &namespace).await.map(|_| ()))
}
