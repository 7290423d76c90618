//! What the scheduler keeps of its extenders: who is being asked, and which bindings the API is yet to show.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Informer, Informers};
use k8s_openapi::api::core::v1::{Node, Pod};
use tokio::time::Instant;

use super::call::Extender;
use super::consult::Asked;
use super::settings::{self, Settings};
use crate::pod::PodInfo;
use crate::queue::{Lane, Trial};

/// Bindings that are under way by an extender. While as many are, no pod of it is decided about.
const BINDINGS: usize = 256;
/// How long after an extender has said that it has bound a pod the API may take to show it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pod that an extender says to have bound.
#[derive(Debug)]
pub(crate) struct Unseen {
    pub(crate) pod: Arc<PodInfo>,
    pub(crate) node: String,
    pub(crate) trial: Trial,
    until: Instant,
}

/// All extenders.
#[derive(Default)]
pub(crate) struct Extenders {
    all: Vec<Arc<Extender>>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    /// Those that are asked about a pod.
    asked: Lane,
    bindings: usize,
    /// By the pod's uid.
    unseen: HashMap<String, Unseen>,
}

impl Extenders {
    pub(crate) fn new(all: Vec<Arc<Extender>>, informers: &Informers) -> Self {
        if all.is_empty() {
            return Self::default();
        }
        Self { all, nodes: informers.of(), pods: informers.of(), ..Self::default() }
    }

    /// The extenders that a pod concerns.
    pub(crate) fn lane(&self, pod: &Pod) -> Lane {
        settings::lane(self.all.iter().map(|extender| &extender.settings), pod)
    }

    fn of(&self, lane: Lane) -> impl Iterator<Item = &Arc<Extender>> {
        self.all.iter().enumerate().filter(move |(index, _)| lane & 1 << index != 0).map(|(_, extender)| extender)
    }

    /// Whether one of them is asked about `what`.
    pub(crate) fn any(&self, lane: Lane, what: impl Fn(&Settings) -> bool) -> bool {
        lane != 0 && self.of(lane).any(|extender| what(&extender.settings))
    }

    /// Those whose pods have to wait.
    pub(crate) fn busy(&self) -> Lane {
        if self.bindings < BINDINGS {
            return self.asked;
        }
        let binders = self.all.iter().enumerate().filter(|(_, extender)| !extender.settings.bind_verb.is_empty());
        binders.fold(self.asked, |busy, (index, _)| busy | 1 << index)
    }

    /// Begins to ask them about a pod: nobody else asks them until [`Extenders::done`].
    pub(crate) fn ask(&mut self, lane: Lane) -> Asked {
        self.asked |= lane;
        Asked { extenders: self.of(lane).cloned().collect(), nodes: self.nodes.clone(), pods: self.pods.clone() }
    }

    pub(crate) fn done(&mut self, lane: Lane) {
        self.asked &= !lane;
    }

    /// Who binds the pod, if an extender does. [`Extenders::bound`] must follow.
    pub(crate) fn binder(&mut self, lane: Lane) -> Option<Arc<Extender>> {
        let binder = self.of(lane).find(|extender| !extender.settings.bind_verb.is_empty()).cloned();
        self.bindings += usize::from(binder.is_some());
        binder
    }

    /// A binding by an extender has ended.
    pub(crate) fn bound(&mut self) {
        self.bindings = self.bindings.saturating_sub(1);
    }

    /// An extender says that it has bound the pod, and the API does not show it yet.
    pub(crate) fn said(&mut self, pod: Arc<PodInfo>, node: String, trial: Trial) {
        let until = Instant::now() + PATIENCE;
        self.unseen.insert(pod.uid().to_owned(), Unseen { pod, node, trial, until });
    }

    /// The API shows where the pod is, or that it is gone.
    pub(crate) fn shown(&mut self, uid: &str) -> Option<Unseen> {
        if self.unseen.is_empty() { None } else { self.unseen.remove(uid) }
    }

    /// The pods of which the API should have shown by now that they are bound.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<Unseen> {
        let late: Vec<String> = self.unseen.iter().filter(|(_, one)| one.until <= now).map(|(uid, _)| uid.clone()).collect();
        late.iter().filter_map(|uid| self.unseen.remove(uid)).collect()
    }

    /// When the next one of them is.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.unseen.values().map(|one| one.until).min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn extenders() -> Extenders {
        let settings = [
            json!({"urlPrefix": "http://a", "filterVerb": "f", "managedResources": [{"name": "a.b/c"}]}),
            json!({"urlPrefix": "http://b", "bindVerb": "b"}),
        ];
        let all = settings.map(|one| Arc::new(Extender::new(serde_json::from_value(one).unwrap()).unwrap()));
        Extenders { all: all.into(), ..Extenders::default() }
    }

    #[test]
    fn who_is_asked_and_who_has_too_many_bindings_is_busy() {
        let mut extenders = extenders();
        assert_eq!(extenders.lane(&crate::testing::pod("p", json!({}))), 0b10);
        assert!(!extenders.any(0b10, Settings::looks_at_nodes) && extenders.any(0b11, Settings::looks_at_nodes));
        assert_eq!(extenders.ask(0b01).extenders.len(), 1);
        assert_eq!(extenders.busy(), 0b01);
        assert!((0..BINDINGS).all(|_| extenders.binder(0b10).is_some()));
        assert!(extenders.binder(0b01).is_none());
        assert_eq!(extenders.busy(), 0b11);
        extenders.bound();
        extenders.done(0b01);
        assert_eq!(extenders.busy(), 0);
    }

    #[tokio::test]
    async fn what_is_said_has_to_be_shown() {
        let (mut extenders, now) = (extenders(), Instant::now());
        let trial = Trial { started: now, entered: now, attempts: 1, number: 1, lane: 2 };
        for name in ["shown", "never"] {
            extenders.said(Arc::new(PodInfo::new(Arc::new(crate::testing::pod(name, json!({}))))), "n".to_owned(), trial);
        }
        assert!(extenders.shown("shown").is_some() && extenders.shown("shown").is_none() && extenders.shown("other").is_none());
        assert!(extenders.overdue(now).is_empty());
        let due = extenders.due().unwrap();
        assert!(due >= now + PATIENCE);
        let overdue: Vec<String> = extenders.overdue(due).iter().map(|one| one.pod.uid().to_owned()).collect();
        assert_eq!((overdue, extenders.due()), (vec!["never".to_owned()], None));
    }
}
