//! Creating and deleting the pods of an owner: with events and expectations.

use std::sync::Arc;

use client::Key;
use client::events::Type;
use client::kube::api::PostParams;
use client::kube::{self, Api};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;

use crate::adopt::Owned;
use crate::controller::{Cx, Error};
use crate::expectations::Expectations;
use crate::{meta, write};

/// Reason and message of a failure, as events and conditions show it.
pub(crate) type Failure = (&'static str, String);

/// The most pods that one look makes or deletes.
pub(crate) const BURST: usize = 500;

/// Writes pods for `owner`, whose key is `key`.
pub(crate) struct PodControl<'a, O> {
    pub(crate) cx: &'a Cx,
    pub(crate) key: &'a Key,
    pub(crate) owner: &'a O,
    pub(crate) expectations: &'a Expectations,
}

/// What came of several writes.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The pods that were written: created, or deleted and gone.
    pub(crate) done: Vec<Arc<Pod>>,
    /// Why one of the others was not.
    pub(crate) failure: Option<(Failure, kube::Error)>,
}

impl Outcome {
    /// The failure as an error.
    pub(crate) fn result(self) -> Result<(), Error> {
        match self.failure {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }
}

impl<O: Owned> PodControl<'_, O> {
    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.cx.client.clone(), self.key.ns())
    }

    /// Creates `number` pods in growing batches. `pod` makes the pod of each number.
    pub(crate) async fn create(&self, number: usize, pod: impl Fn(usize) -> Pod) -> Outcome {
        let (api, mut outcome) = (self.api(), Outcome::default());
        let create = |index: usize| {
            let (api, pod) = (&api, pod(index));
            async move { api.create(&PostParams::default(), &pod).await }
        };
        for result in write::in_batches(0..number, create).await {
            match result {
                Ok(pod) => {
                    self.expectations.created(self.key, &pod);
                    let message = format!("Created pod: {}", meta::name(&pod));
                    self.cx.events.about(self.owner, Type::Normal, "SuccessfulCreate", message);
                    outcome.done.push(Arc::new(pod));
                }
                // The namespace is going: there is nothing to keep up.
                Err(error) if write::namespace_ends(&error) => {}
                Err(error) => outcome.failure = Some(self.failed("FailedCreate", "creating", error)),
            }
        }
        outcome
    }

    /// Deletes pods, these and no others of the same names. Those that are gone already count as deleted.
    pub(crate) async fn delete(&self, pods: impl IntoIterator<Item = Arc<Pod>>) -> Outcome {
        let (api, mut outcome) = (self.api(), Outcome::default());
        let delete = |pod: Arc<Pod>| {
            let api = &api;
            async move { (write::delete(api, pod.as_ref()).await, pod) }
        };
        for (result, pod) in join_all(pods.into_iter().map(delete)).await {
            match result {
                Ok(false) => outcome.done.push(pod),
                Ok(true) => {
                    self.expectations.deleted(self.key, Key::of(pod.as_ref()), meta::uid(pod.as_ref()));
                    let message = format!("Deleted pod: {}", meta::name(pod.as_ref()));
                    self.cx.events.about(self.owner, Type::Normal, "SuccessfulDelete", message);
                    outcome.done.push(pod);
                }
                Err(error) => outcome.failure = Some(self.failed("FailedDelete", "deleting", error)),
            }
        }
        outcome
    }

    fn failed(&self, reason: &'static str, verb: &str, error: kube::Error) -> (Failure, kube::Error) {
        let message = client::why(&error);
        self.cx.events.about(self.owner, Type::Warning, reason, format!("Error {verb}: {message}"));
        ((reason, message), error)
    }
}
