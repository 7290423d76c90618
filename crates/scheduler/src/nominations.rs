//! Nodes that pods were promised: room is being made there by preemption.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pod::PodInfo;

/// A promise that holds no more.
#[derive(Debug)]
pub(crate) struct GivenUp {
    pub(crate) pod: Arc<PodInfo>,
    pub(crate) node: String,
}

/// Pods that wait for their node's room. Nobody of lower priority may take it meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Nominations {
    by_node: HashMap<String, Vec<Arc<PodInfo>>>,
    nodes: HashMap<String, String>,
}

impl Nominations {
    /// Promises `node` to `pod`, instead of what it was promised before, which is given back if it was another node.
    #[must_use = "others were kept from the room, and are told that it is free"]
    pub(crate) fn set(&mut self, pod: Arc<PodInfo>, node: &str) -> Option<GivenUp> {
        let before = self.withdraw(pod.uid());
        self.nodes.insert(pod.uid().to_owned(), node.to_owned());
        self.by_node.entry(node.to_owned()).or_default().push(pod);
        before.filter(|before| before.node != node)
    }

    /// Takes the promise back: the pod has a node, is gone, or must look elsewhere.
    #[must_use = "others were kept from the room, and are told that it is free"]
    pub(crate) fn withdraw(&mut self, uid: &str) -> Option<GivenUp> {
        let node = self.nodes.remove(uid)?;
        let pods = self.by_node.get_mut(&node)?;
        let pod = pods.remove(pods.iter().position(|pod| pod.uid() == uid)?);
        if pods.is_empty() {
            self.by_node.remove(&node);
        }
        Some(GivenUp { pod, node })
    }

    /// The node that the pod was promised.
    pub(crate) fn node_of(&self, uid: &str) -> Option<&str> {
        self.nodes.get(uid).map(String::as_str)
    }

    /// The pods that were promised `node`.
    pub(crate) fn on(&self, node: &str) -> &[Arc<PodInfo>] {
        if self.by_node.is_empty() {
            return &[];
        }
        self.by_node.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// The other pods that `pod` must leave room for on `node`.
    pub(crate) fn ahead_of<'a>(&'a self, pod: &'a PodInfo, node: &str) -> impl Iterator<Item = Arc<PodInfo>> + 'a {
        let ahead = |other: &&Arc<PodInfo>| other.priority >= pod.priority && other.uid() != pod.uid();
        self.on(node).iter().filter(ahead).cloned()
    }
}
