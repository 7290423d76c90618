//! Sends a pod's status to the API server: one patch at a time, always the newest, only what changed.

use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::conditions::OWN;
use super::patch::patch;
use crate::backoff::signed;
use crate::spec::Model;

type Answer = Result<Pod, kube::Error>;

/// Reports the status of one pod.
pub struct Reporter {
    api: Api<Pod>,
    name: String,
    /// What the API server has, as far as we know.
    known: PodStatus,
    version: u64,
    /// What it should have; the newest that was wanted.
    wanted: Option<PodStatus>,
    sending: Option<(PodStatus, BoxFuture<'static, Answer>)>,
    failures: u32,
    retry: Option<Timestamp>,
    frozen: bool,
}

fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl Reporter {
    /// For this pod. A pod whose final phase is known already is not reported on any more.
    pub fn new(client: kube::Client, model: &Model) -> Self {
        let known = model.pod.status.clone().unwrap_or_default();
        let frozen = super::found::ended(&known);
        Self {
            api: Api::namespaced(client, model.namespace()),
            name: model.name().to_owned(),
            known,
            version: version(&model.pod),
            wanted: None,
            sending: None,
            failures: 0,
            retry: None,
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
    pub fn updated(&mut self, model: &Model) {
        let newer = version(&model.pod);
        if newer <= self.version {
            return;
        }
        let status = model.pod.status.clone().unwrap_or_default();
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

    /// Wants `status` reported; begins to send it unless something is under way. Returns when to try again.
    pub fn want(&mut self, model: &Model, status: PodStatus, now: Timestamp) -> Option<Timestamp> {
        self.wanted = Some(status.clone());
        if self.sending.is_some() {
            return None;
        }
        let patch = patch(model.uid(), &self.known, &status)?;
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
        match answer {
            Ok(pod) => {
                self.version = self.version.max(version(&pod));
                self.known = status;
                (self.failures, self.retry) = (0, None);
            }
            Err(kube::Error::Api(error)) if error.code == 404 => {
                // The pod is gone; the informer will tell.
                tracing::debug!(pod = self.name, %error, "status not reported");
                self.frozen = true;
            }
            Err(error) => {
                tracing::warn!(pod = self.name, error = client::why(&error), "status not reported, trying again");
                let delay = Duration::from_millis(200).saturating_mul(1 << self.failures.min(8));
                self.failures += 1;
                let now = Timestamp::now();
                self.retry = Some(now.saturating_add(signed(delay.min(Duration::from_secs(30)))).unwrap_or(now));
            }
        }
    }
}
