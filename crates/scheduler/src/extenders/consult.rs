//! What extenders are asked for one pod. They filter one after the other, each of what the one before has left, then score all at once, as upstream's.

use std::collections::HashMap;
use std::sync::Arc;

use client::{Informer, Key};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::call::{CallError, Extender};
use super::opinion::Opinion;
use super::protocol::{self, AnswerError, Nodes, Refused, Victims};
use crate::cycle::Candidates;
use crate::filtering::FitError;
use crate::pod::PodInfo;
use crate::preemption::Preemption;
use crate::queue::Trial;

/// The extenders that a pod concerns, and the objects that those get who know none.
pub(crate) struct Asked {
    pub(crate) extenders: Vec<Arc<Extender>>,
    pub(crate) nodes: Informer<Node>,
    pub(crate) pods: Informer<Pod>,
}

/// The answers for a pod.
pub(crate) enum Consulted {
    Nodes {
        pod: Arc<PodInfo>,
        trial: Trial,
        error: FitError,
        result: Result<Opinion, CallError>,
    },
    /// Of the nodes where it could make room.
    Victims {
        pod: Arc<PodInfo>,
        trial: Trial,
        error: FitError,
        candidates: Vec<Preemption>,
        result: Result<Vec<Victims>, CallError>,
    },
}

impl Consulted {
    /// The pod that it is about.
    pub(crate) fn pod(&self) -> &PodInfo {
        match self {
            Self::Nodes { pod, .. } | Self::Victims { pod, .. } => pod,
        }
    }
}

/// An extender's score counts as one from 0 to 10 (`MaxExtenderPriority`), those of plugins go up to 100.
const SCALE: i64 = 10;

impl Asked {
    /// Which of the nodes will do for the pod, and how well. The one that it was promised is asked about first, and taken if it will do.
    pub(crate) async fn about_nodes(&self, pod: &[u8], candidates: Candidates) -> Result<Opinion, CallError> {
        if let Some(promised) = candidates.promised {
            let opinion = self.filter(pod, vec![promised]).await?;
            if !opinion.nodes.is_empty() {
                return Ok(opinion);
            }
        }
        let mut opinion = self.filter(pod, candidates.nodes).await?;
        if opinion.nodes.len() > 1 {
            opinion.scores = self.prioritize(pod, &opinion.nodes).await;
        }
        Ok(opinion)
    }

    async fn filter(&self, pod: &[u8], nodes: Vec<String>) -> Result<Opinion, CallError> {
        let mut opinion = Opinion { nodes, ..Opinion::default() };
        for extender in self.extenders.iter().filter(|extender| !extender.settings.filter_verb.is_empty()) {
            if opinion.nodes.is_empty() {
                break;
            }
            match self.filter_by(extender, pod, &opinion.nodes).await {
                Ok((nodes, refused)) => {
                    opinion.nodes = nodes;
                    opinion.refused.extend(refused);
                }
                Err(error) => pass_over(extender, error)?,
            }
        }
        Ok(opinion)
    }

    async fn filter_by(
        &self,
        extender: &Extender,
        pod: &[u8],
        nodes: &[String],
    ) -> Result<(Vec<String>, Vec<Refused>), CallError> {
        let answer = extender.post(&extender.settings.filter_verb, self.arguments(extender, pod, nodes)).await?;
        protocol::filtered(&answer, nodes, extender.url()).map_err(|why| extender.wrong(why))
    }

    fn arguments(&self, extender: &Extender, pod: &[u8], nodes: &[String]) -> Vec<u8> {
        if extender.settings.node_cache_capable {
            return protocol::arguments(pod, &Nodes::Names(nodes));
        }
        let entries: Vec<_> = nodes.iter().filter_map(|name| self.nodes.entry(&Key::cluster(name))).collect();
        protocol::arguments(pod, &Nodes::Objects(entries.iter().map(|entry| entry.json()).collect()))
    }

    /// Who does not answer gives no scores: the others decide.
    async fn prioritize(&self, pod: &[u8], nodes: &[String]) -> HashMap<String, i64> {
        let scoring = self.extenders.iter().filter(|extender| !extender.settings.prioritize_verb.is_empty());
        let asked = scoring.map(|extender| async move {
            let answer = extender.post(&extender.settings.prioritize_verb, self.arguments(extender, pod, nodes)).await;
            let scores = answer.and_then(|answer| protocol::priorities(&answer).map_err(|why| extender.wrong(why)));
            scores.map(|scores| (extender.settings.weight, scores)).inspect_err(|error| {
                tracing::warn!(extender = extender.url(), %error, "the extender gives no scores, scheduling without them");
            })
        });
        let mut totals = HashMap::new();
        for (weight, scores) in join_all(asked).await.into_iter().flatten() {
            for (node, score) in scores {
                let total = totals.entry(node).or_insert(0_i64);
                *total = total.saturating_add(score.saturating_mul(weight).saturating_mul(SCALE));
            }
        }
        totals
    }

    /// On which of the nodes the pod may make room, and whose; each extender is asked of what the one before has left.
    pub(crate) async fn about_victims(&self, pod: &[u8], candidates: &[Preemption]) -> Result<Vec<Victims>, CallError> {
        let mut left: Vec<Victims> = candidates.iter().map(Preemption::named).collect();
        for extender in self.extenders.iter().filter(|extender| !extender.settings.preempt_verb.is_empty()) {
            match self.preempt_by(extender, pod, candidates, &left).await {
                Ok(victims) => left = victims,
                Err(error) => pass_over(extender, error)?,
            }
            if left.is_empty() {
                break;
            }
        }
        Ok(left)
    }

    async fn preempt_by(
        &self,
        extender: &Extender,
        pod: &[u8],
        candidates: &[Preemption],
        left: &[Victims],
    ) -> Result<Vec<Victims>, CallError> {
        let objects = (!extender.settings.node_cache_capable).then(|| self.objects(candidates, left));
        let body = protocol::preemption_arguments(pod, left, objects.as_ref());
        let answer = extender.post(&extender.settings.preempt_verb, body).await?;
        let victims = protocol::victims(&answer, left, extender.settings.ignorable).map_err(|why| extender.wrong(why))?;
        let wrong = victims.iter().find_map(|one| candidates.iter().find(|other| other.node == one.node)?.stranger(one));
        match wrong {
            Some(uid) => Err(extender.wrong(AnswerError::Victim { uid: uid.0, node: uid.1 })),
            None => Ok(victims),
        }
    }

    fn objects(&self, candidates: &[Preemption], left: &[Victims]) -> HashMap<String, Vec<u8>> {
        let named = |uid: &str| left.iter().any(|victims| victims.uids.iter().any(|one| one == uid));
        let pods = candidates.iter().flat_map(|candidate| &candidate.lower).filter(|pod| named(pod.uid()));
        let object = |pod: &Arc<PodInfo>| Some((pod.uid().to_owned(), self.pods.entry(&pod.key())?.json().to_vec()));
        pods.filter_map(object).collect()
    }
}

/// An extender that may fail is passed over when it does.
fn pass_over(extender: &Extender, error: CallError) -> Result<(), CallError> {
    if !extender.settings.ignorable {
        return Err(error);
    }
    tracing::warn!(extender = extender.url(), %error, "passing over an extender that may fail");
    Ok(())
}
