//! Creating and deleting the pods of an owner: with events and expectations.

use codec::Encode;
use std::sync::Arc;

use client::Api;
use client::events::Type;
use client::kube;
use client::{Key, brief};
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
pub(crate) struct Outcome<D> {
    /// What was written: how many pods were created, or the pods that were deleted and are gone.
    pub(crate) done: D,
    /// Why one of the others was not.
    pub(crate) failure: Option<(Failure, kube::Error)>,
}

impl<D> Outcome<D> {
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

    /// Creates `number` equal pods in growing batches.
    pub(crate) async fn create_equal(&self, number: usize, pod: &Pod) -> Outcome<usize> {
        match pod.to_json().map_err(kube::Error::SerdeError) {
            Ok(json) => self.create_from(number, |_| Ok(json.clone())).await,
            Err(error) => Outcome { done: 0, failure: Some(self.failed("FailedCreate", "creating", error)) },
        }
    }

    /// Creates `number` pods in growing batches. `pod` makes the pod of each number.
    pub(crate) async fn create(&self, number: usize, pod: impl Fn(usize) -> Pod) -> Outcome<usize> {
        self.create_from(number, |index| pod(index).to_json().map_err(kube::Error::SerdeError)).await
    }

    async fn create_from(&self, number: usize, json: impl Fn(usize) -> kube::Result<Vec<u8>>) -> Outcome<usize> {
        let (api, mut outcome) = (self.api(), Outcome { done: 0, failure: None });
        let create = |index: usize| {
            let (api, json) = (&api, json(index));
            async move { brief::create(api, json?).await }
        };
        for result in write::in_batches(0..number, create).await {
            match result {
                Ok(pod) => {
                    self.expectations.written_at(self.key, pod.version());
                    let message = format!("Created pod: {}", pod.name);
                    self.cx.events.about(self.owner, Type::Normal, "SuccessfulCreate", message);
                    outcome.done += 1;
                }
                // The namespace is going: there is nothing to keep up.
                Err(error) if write::namespace_ends(&error) => {}
                Err(error) => outcome.failure = Some(self.failed("FailedCreate", "creating", error)),
            }
        }
        outcome
    }

    /// Deletes pods, these and no others of the same names. Those that are gone already count as deleted.
    pub(crate) async fn delete(&self, pods: impl IntoIterator<Item = Arc<Pod>>) -> Outcome<Vec<Arc<Pod>>> {
        let (api, mut outcome) = (self.api(), Outcome { done: Vec::new(), failure: None });
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
