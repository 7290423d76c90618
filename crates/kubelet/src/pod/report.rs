//! Sends a pod's status to the API server: one patch at a time, always the newest, only what changed.

use std::sync::Arc;
use std::time::Duration;

use client::Api;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::api::{Patch, PatchParams};

use super::conditions::OWN;
use super::patch::patch;
use crate::backoff::signed;
use crate::clock::Clock;
use crate::spec::Model;

/// What shows a pod in the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// It is the API's own.
    Itself,
    /// It is a static pod, and this is its mirror pod, when there is one.
    Mirror(Option<Arc<Pod>>),
}

type Answer = Result<Pod, kube::Error>;

/// The object that shows the pod.
fn object(model: &Model, shown: Shown) -> Option<Arc<Pod>> {
    match shown {
        Shown::Itself => Some(model.pod.clone()),
        Shown::Mirror(mirror) => mirror,
    }
}

/// Reports the status of one pod.
pub struct Reporter {
    api: Api<Pod>,
    name: String,
    /// What the API server has, as far as we know.
    known: PodStatus,
    version: u64,
    /// UID of the object that shows the pod; none while a static pod has no mirror.
    uid: Option<String>,
    is_static: bool,
    /// What it should have; the newest that was wanted.
    wanted: Option<PodStatus>,
    sending: Option<(PodStatus, BoxFuture<'static, Answer>)>,
    /// The newest object that came while a patch was under way.
    crossed: Option<(u64, PodStatus)>,
    /// What [`split`] takes out of the last status that was refused: left out for as long as it stays the same. Empty when nothing was.
    refused: Vec<ContainerStatus>,
    failures: u32,
    /// By `clock`.
    retry: Option<Timestamp>,
    clock: Clock,
    frozen: bool,
}

fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl Reporter {
    /// For this pod. A pod whose final phase is known already is not reported on any more.
    pub fn new(client: kube::Client, clock: Clock, model: &Model, shown: Shown) -> Self {
        let is_static = shown != Shown::Itself;
        let object = object(model, shown);
        let known = object.as_ref().and_then(|object| object.status.clone()).unwrap_or_default();
        let frozen = super::found::ended(&known) && !is_static;
        Self {
            api: Api::namespaced(client, model.namespace()),
            name: model.name().to_owned(),
            known,
            version: object.as_ref().map_or(0, |object| version(object)),
            uid: object.and_then(|object| object.metadata.uid.clone()),
            is_static,
            wanted: None,
            sending: None,
            crossed: None,
            refused: Vec::new(),
            failures: 0,
            retry: None,
            clock,
            frozen,
        }
    }

    /// Whether nothing is to be reported any more.
    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// The status that the next one starts from.
    pub fn base(&self) -> &PodStatus {
        self.sending.as_ref().map_or(&self.known, |(status, _)| status)
    }

    /// Takes in a newer object: conditions of others in any case, and what somebody changed of ours.
    pub fn updated(&mut self, model: &Model, shown: Shown) {
        let object = object(model, shown);
        let uid = object.as_ref().and_then(|object| object.metadata.uid.clone());
        if uid != self.uid {
            // Another mirror knows nothing yet, and what was on its way to the one before is void.
            (self.uid, self.version, self.sending, self.crossed) = (uid, 0, None, None);
            (self.failures, self.retry, self.known) = (0, None, PodStatus::default());
            self.refused.clear();
        }
        let Some(object) = object else { return };
        let newer = version(&object);
        if newer <= self.version {
            return;
        }
        let status = object.status.clone().unwrap_or_default();
        if self.sending.is_none() {
            self.known = status;
            self.version = newer;
            return;
        }
        let foreign = |status: &PodStatus| -> Vec<_> {
            status.conditions.iter().flatten().filter(|condition| !OWN.contains(&condition.type_.as_str())).cloned().collect()
        };
        let theirs = foreign(&status);
        let sending = self.sending.as_mut().map(|(status, _)| status);
        for known in std::iter::once(&mut self.known).chain(sending) {
            let conditions = known.conditions.get_or_insert_default();
            conditions.retain(|condition| OWN.contains(&condition.type_.as_str()));
            conditions.splice(0..0, theirs.iter().cloned());
        }
        if self.crossed.as_ref().is_none_or(|(version, _)| *version < newer) {
            self.crossed = Some((newer, status));
        }
    }

    /// Containers that have begun to wait for a new reason: name, reason, message.
    pub fn new_waits(&self, wanted: &PodStatus) -> Vec<(String, String, String)> {
        let last = self.wanted.as_ref().unwrap_or(&self.known);
        let waits = |status: &PodStatus| -> Vec<(String, String, String)> {
            let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
            let all = lists.into_iter().flatten().flatten();
            let waiting = all.filter_map(|c| Some((c.name.clone(), c.state.as_ref()?.waiting.as_ref()?)));
            waiting.map(|(name, w)| (name, w.reason.clone().unwrap_or_default(), w.message.clone().unwrap_or_default())).collect()
        };
        let before = waits(last);
        let mut new = waits(wanted);
        new.retain(|(name, reason, _)| !before.iter().any(|(n, r, _)| n == name && r == reason));
        new
    }

    /// Wants `status` reported; begins to send it unless something is under way. Returns when to try again, by the clock.
    pub fn want(&mut self, status: PodStatus, now: Timestamp) -> Option<Timestamp> {
        let status = self.without_refused(status);
        self.wanted = Some(status.clone());
        if self.sending.is_some() {
            return None;
        }
        let patch = patch(self.uid.as_deref()?, &self.known, &status)?;
        if let Some(retry) = self.retry.filter(|retry| *retry > now) {
            return Some(retry);
        }
        let (api, name) = (self.api.clone(), self.name.clone());
        let send = async move { api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await };
        self.sending = Some((status, Box::pin(send)));
        None
    }

    /// Whether the API server has what was wanted last.
    pub fn accepted(&self) -> bool {
        self.sending.is_none() && self.wanted.as_ref() == Some(&self.known)
    }

    /// Ends when the patch under way has been answered; never while there is none. Safe to drop and call again.
    pub async fn sent(&mut self) {
        let Some((_, answer)) = &mut self.sending else { return std::future::pending().await };
        let answer = answer.await;
        let Some((status, _)) = self.sending.take() else { return };
        let crossed = self.crossed.take();
        match answer {
            Ok(pod) => {
                self.version = self.version.max(version(&pod));
                self.known = answered(status, pod.status.as_ref());
                (self.failures, self.retry) = (0, None);
            }
            Err(error) => self.failed(status, &error),
        }
        // What was written after the answer does not come again.
        if let Some((newer, status)) = crossed.filter(|(newer, _)| *newer > self.version) {
            (self.version, self.known) = (newer, status);
        }
    }

    fn without_refused(&self, status: PodStatus) -> PodStatus {
        if self.refused.is_empty() {
            return status;
        }
        let (bare, extras) = split(status.clone());
        if extras == self.refused { bare } else { status }
    }

    /// The API server has not taken `status`.
    fn failed(&mut self, status: PodStatus, error: &kube::Error) {
        let code = if let kube::Error::Api(error) = error { error.code } else { 0 };
        if code == 404 {
            // The pod is gone; the informer will tell.
            tracing::debug!(pod = self.name, %error, "status not reported");
            self.frozen = !self.is_static;
            return;
        }
        if code == 422 {
            // When nothing more can be left out, something else is refused: the next one is whole again.
            self.refused = split(status).1;
            if !self.refused.is_empty() {
                // Whatever it is that the API does not take: that a container has ended must be told.
                tracing::warn!(pod = self.name, error = client::why(error), "status refused, trying again with what matters");
                self.retry = None;
                return;
            }
        }
        tracing::warn!(pod = self.name, error = client::why(error), "status not reported, trying again");
        let delay = Duration::from_millis(200).saturating_mul(1 << self.failures.min(8));
        self.failures += 1;
        let now = self.clock.now();
        self.retry = Some(now.saturating_add(signed(delay.min(Duration::from_secs(30)))).unwrap_or(now));
    }
}

/// Takes out of a status what nobody waits for and what may come from images, volumes and devices: phase, conditions, addresses and states of
/// containers stay. The second part has the containers of which something was taken out, with their names and with that alone.
fn split(mut status: PodStatus) -> (PodStatus, Vec<ContainerStatus>) {
    let lists = [&mut status.init_container_statuses, &mut status.container_statuses, &mut status.ephemeral_container_statuses];
    let extras = lists.into_iter().flatten().flatten().filter_map(|container| {
        let none = ContainerStatus { name: container.name.clone(), ..Default::default() };
        let taken = ContainerStatus {
            allocated_resources: container.allocated_resources.take(),
            allocated_resources_status: container.allocated_resources_status.take(),
            resources: container.resources.take(),
            stop_signal: container.stop_signal.take(),
            user: container.user.take(),
            volume_mounts: container.volume_mounts.take(),
            ..none.clone()
        };
        (taken != none).then_some(taken)
    });
    let extras = extras.collect();
    (status, extras)
}

/// What the API server has after it has taken `sent`. A patch says only what was thought to change: where somebody else has written meanwhile
/// that the pod is not ready, or what phase it has, that stands until it is contradicted.
fn answered(mut sent: PodStatus, answer: Option<&PodStatus>) -> PodStatus {
    let Some(answer) = answer else { return sent };
    let stands = answer.conditions.iter().flatten();
    for condition in sent.conditions.iter_mut().flatten() {
        if let Some(other) = stands.clone().find(|other| other.type_ == condition.type_ && other.status != condition.status) {
            *condition = other.clone();
        }
    }
    sent.phase.clone_from(&answer.phase);
    sent
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_others_wrote_meanwhile_is_known() {
        let status = |ready: &str, phase: &str, ip: &str| -> PodStatus {
            let conditions =
                [("Ready", ready), ("Initialized", "True")].map(|(kind, status)| json!({"type": kind, "status": status}));
            serde_json::from_value(json!({"phase": phase, "podIP": ip, "conditions": conditions})).unwrap()
        };
        let check = |answer: PodStatus, expected: PodStatus| {
            assert_eq!(answered(status("True", "Running", "10.0.0.1"), Some(&answer)), expected);
        };
        let sent = || status("True", "Running", "10.0.0.1");
        check(sent(), sent());
        // The node controller was between: the next patch says again that the pod is ready.
        check(status("False", "Running", "10.0.0.1"), status("False", "Running", "10.0.0.1"));
        check(status("True", "Failed", "10.0.0.1"), status("True", "Failed", "10.0.0.1"));
        let repair = patch("u", &answered(sent(), Some(&status("False", "Running", "10.0.0.1"))), &sent()).unwrap();
        assert_eq!(repair.pointer("/status/conditions/0/status").and_then(Value::as_str), Some("True"), "{repair}");
        assert!(patch("u", &answered(sent(), Some(&sent())), &sent()).is_none());
    }

    type Patches = Arc<parking_lot::Mutex<Vec<Value>>>;

    /// A pod's reporter to an API server that refuses what a patch says of the pod's containers where it has one of these words, with the patches
    /// that were sent.
    fn reporter(refused: &'static [&'static str]) -> (Reporter, Patches) {
        let sent = Patches::default();
        let patches = sent.clone();
        let api = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let patches = patches.clone();
            async move {
                let patch: Value = serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
                let containers = patch["status"]["containerStatuses"].to_string();
                let mut patches = patches.lock();
                let (code, answer) = if refused.iter().any(|word| containers.contains(word)) {
                    (422, json!({"kind": "Status", "status": "Failure", "reason": "Invalid", "code": 422, "message": "refused"}))
                } else {
                    let version = (patches.len() + 2).to_string();
                    (200, json!({"metadata": {"resourceVersion": version}, "status": patch["status"]}))
                };
                patches.push(patch);
                let body = kube::client::Body::from(answer.to_string().into_bytes());
                Ok::<_, std::convert::Infallible>(http::Response::builder().status(code).body(body).unwrap())
            }
        });
        let model = object("u", "1");
        (Reporter::new(kube::Client::new(api, "default"), Clock::start(), &model, Shown::Itself), sent)
    }

    fn object(uid: &str, version: &str) -> Model {
        let mut model = super::super::testing::model(json!({"containers": [{"name": "c", "image": "i"}]}));
        let mut pod = (*model.pod).clone();
        (pod.metadata.uid, pod.metadata.resource_version) = (Some(uid.to_owned()), Some(version.to_owned()));
        model.pod = Arc::new(pod);
        model
    }

    fn status(phase: &str, state: Value, user: i64) -> PodStatus {
        let status = json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "i", "imageID": "i", "ready": false,
            "restartCount": 0, "state": state, "user": {"linux": {"uid": user, "gid": 0}}}]});
        serde_json::from_value(status).unwrap()
    }

    const REFUSED: i64 = 3_000_000_000;

    /// Sends until all is accepted; each patch at once.
    async fn report(reporter: &mut Reporter, status: &PodStatus) {
        loop {
            assert_eq!(reporter.want(status.clone(), reporter.clock.now()), None, "at once");
            if reporter.accepted() {
                return;
            }
            reporter.sent().await;
        }
    }

    /// What was sent since the last look: the patches' phases with the containers' users.
    fn seen(sent: &Patches) -> Vec<(Value, Value)> {
        let patches = std::mem::take(&mut *sent.lock());
        let user = |patch: &Value| patch["status"]["containerStatuses"][0]["user"]["linux"]["uid"].clone();
        patches.iter().map(|patch| (patch["status"]["phase"].clone(), user(patch))).collect()
    }

    /// A pod that ends is told of, also when the API refuses something that its status says besides; and what it does not refuse is told again.
    #[tokio::test]
    async fn what_is_refused_holds_up_nothing() {
        let (mut reporter, sent) = reporter(&["3000000000"]);
        let ended = || json!({"terminated": {"exitCode": 0}});
        report(&mut reporter, &status("Running", json!({"running": {}}), REFUSED)).await;
        assert_eq!(seen(&sent), [(json!("Running"), json!(REFUSED)), (json!("Running"), Value::Null)]);
        // What was refused once is not tried again.
        report(&mut reporter, &status("Succeeded", ended(), REFUSED)).await;
        assert_eq!(seen(&sent), [(json!("Succeeded"), Value::Null)]);
        // Something else is, whatever became of the one before.
        report(&mut reporter, &status("Failed", ended(), 1000)).await;
        assert_eq!(seen(&sent), [(json!("Failed"), json!(1000))]);
        report(&mut reporter, &status("Succeeded", ended(), REFUSED)).await;
        assert_eq!(seen(&sent), [(json!("Succeeded"), Value::Null)]);
        // Another object knows nothing of it.
        let model = object("v", "9");
        reporter.updated(&model, Shown::Itself);
        report(&mut reporter, &status("Succeeded", ended(), REFUSED)).await;
        assert_eq!(seen(&sent), [(json!("Succeeded"), json!(REFUSED)), (json!("Succeeded"), Value::Null)]);
    }

    /// What is refused for another reason is tried again after the usual time, and then as a whole.
    #[tokio::test]
    async fn a_refusal_of_something_else_waits() {
        let (mut reporter, sent) = reporter(&["BadReason"]);
        let (start, bad) = (reporter.clock.now(), |user| status("Pending", json!({"waiting": {"reason": "BadReason"}}), user));
        for _ in 0..2 {
            for _ in 0..2 {
                assert_eq!(reporter.want(bad(1000), reporter.clock.now()), None, "at once");
                reporter.sent().await;
            }
            assert_eq!(seen(&sent), [(json!("Pending"), json!(1000)), (json!("Pending"), Value::Null)]);
            let later = reporter.want(bad(1000), start);
            assert!(later > Some(start) && !reporter.accepted() && sent.lock().is_empty());
            // That time is over.
            assert_eq!(reporter.retry.take(), later);
        }
        report(&mut reporter, &status("Running", json!({"running": {}}), 1000)).await;
        assert_eq!(seen(&sent), [(json!("Running"), json!(1000))]);
    }
}
