//! The cluster as the scheduler knows it: nodes with the pods on them, changed in place by what the informers tell and by
//! what the scheduler assumes. One task owns it, so it is never copied.

pub(crate) mod node;

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::labels::Selector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use crate::budgets::Budgets;
use crate::devices::Devices;
use crate::groups::Groups;
use crate::nominations::Nominations;
use crate::pod::PodInfo;
use crate::profile::{Profile, Profiles};
use crate::selectors::Labels;
use crate::tallies::{Tallies, Tally};
use crate::terms::{Namespaces, Terms};
use crate::topologies::{HOST, Topologies, Topology};
use crate::volumes::Volumes;
pub(crate) use node::NodeInfo;

/// The labels of nodes by which pods without constraints of their own are counted; those of hosts are counted by node.
const DEFAULT_KEYS: [&str; 1] = ["topology.kubernetes.io/zone"];

/// Comparisons of one pod's terms with other pods and nodes in one attempt, about: of those that are required, and of those that are preferred.
const REQUIRED_EFFORT: usize = 1 << 22;
const PREFERRED_EFFORT: usize = 1 << 20;
/// So many are looked at however large the cluster is.
const REQUIRED_LEAST: usize = 64;
const PREFERRED_LEAST: usize = 16;

/// Nodes, and where each pod is.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    nodes: Vec<NodeInfo>,
    /// How many of them exist.
    present: usize,
    by_name: HashMap<String, usize>,
    /// Numbers that nodes had which are gone.
    free: Vec<usize>,
    topologies: Topologies,
    /// Node name by the pod's uid.
    placed: HashMap<String, String>,
    namespaces: Namespaces,
    /// How many nodes have an image.
    pub(crate) image_nodes: HashMap<String, usize>,
    pub(crate) groups: Groups,
    pub(crate) nominations: Nominations,
    pub(crate) volumes: Volumes,
    pub(crate) devices: Devices,
    tallies: Tallies,
    pub(crate) terms: Terms,
    pub(crate) budgets: Budgets,
    pub(crate) profiles: Profiles,
}

impl Cluster {
    /// A cluster of which nothing is known yet, for pods of these profiles.
    pub(crate) fn new(profiles: Profiles) -> Self {
        Self { profiles, ..Self::default() }
    }

    /// Nodes that exist.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter().filter(|node| node.present)
    }

    pub(crate) fn len(&self) -> usize {
        self.present
    }

    /// All slots, also of nodes that are known by their pods only. For walking round from any start.
    pub(crate) fn slots(&self) -> &[NodeInfo] {
        &self.nodes
    }

    pub(crate) fn is_present(&self, slot: usize) -> bool {
        self.nodes[slot].present
    }

    /// The node of this name, if it exists.
    pub(crate) fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|slot| &self.nodes[*slot]).filter(|node| node.present)
    }

    /// The slot of the node of this name, if it exists.
    pub(crate) fn slot_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied().filter(|slot| self.nodes[*slot].present)
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// A namespace has these labels, or is gone. Whether that is news.
    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) -> bool {
        let before = match labels.clone() {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
        if before == labels {
            return false;
        }
        self.terms.namespaces_changed();
        true
    }

    /// How pods that ask for this scheduler are scheduled; none when they are not ours.
    pub(crate) fn profile(&self, pod: &PodInfo) -> Option<&Profile> {
        self.profiles.get(pod.scheduler())
    }

    /// What selects the pods that `pod` should spread from.
    pub(crate) fn group_of(&self, pod: &PodInfo) -> Option<Selector> {
        self.groups.of(pod)
    }

    /// How many terms that are required are looked at for one pod. One with more is refused: its attempts would hold up all others.
    pub(crate) fn most_required(&self) -> usize {
        self.most(REQUIRED_EFFORT).max(REQUIRED_LEAST)
    }

    /// How many terms and constraints that are preferred are looked at for one pod; the others count for nothing.
    pub(crate) fn most_preferred(&self) -> usize {
        self.most(PREFERRED_EFFORT).max(PREFERRED_LEAST)
    }

    fn most(&self, effort: usize) -> usize {
        effort / (self.placed.len() + self.nodes.len()).max(1)
    }

    /// Counts what filters will ask for. Not needed for right decisions, only for quick ones.
    pub(crate) fn prepare_filters(&mut self, pod: &PodInfo) {
        let most = self.most_required();
        let (nodes, topologies) = (&self.nodes, &mut self.topologies);
        if pod.hard_spread().count() <= most {
            for one in pod.hard_spread() {
                topologies.prepare(&one.key, nodes);
                self.tallies.prepare(pod.namespace(), &one.selector, &[&one.key], nodes, topologies);
            }
        }
        if pod.required_terms() <= most {
            self.terms.prepare_required(pod, nodes, &self.namespaces, topologies);
        }
    }

    /// The same of scores.
    pub(crate) fn prepare_scores(&mut self, pod: &PodInfo) {
        let (namespace, limit) = (pod.namespace(), self.most_preferred());
        let all = pod.affinity.preferred.len() + pod.anti_affinity.preferred.len();
        if all > limit {
            tracing::info!(pod = %pod.key(), looked_at = limit, of = all, "preferred terms beyond what is looked at for one pod");
        }
        let group = if pod.spread.is_empty() { self.group_of(pod) } else { None };
        let (nodes, topologies) = (&self.nodes, &mut self.topologies);
        topologies.prepare(HOST, nodes);
        if let Some(group) = group {
            DEFAULT_KEYS.iter().for_each(|key| topologies.prepare(key, nodes));
            self.tallies.prepare(namespace, &group, &DEFAULT_KEYS, nodes, topologies);
        }
        for one in pod.soft_spread(limit) {
            topologies.prepare(&one.key, nodes);
            self.tallies.prepare(namespace, &one.selector, &[&one.key], nodes, topologies);
        }
        self.terms.prepare_preferred(pod, limit, nodes, &self.namespaces, topologies);
    }

    /// What `selector` counts in a namespace, if that was prepared.
    pub(crate) fn tally(&self, namespace: &str, selector: &Selector) -> Option<&Tally> {
        self.tallies.get(namespace, selector)
    }

    /// Which nodes have the same value of a label.
    pub(crate) fn topology(&self, key: &str) -> Arc<Topology> {
        self.topologies.get(key).unwrap_or_else(|| Arc::new(Topology::of(key, &self.nodes)))
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        // All numbers up to that of nodes that are and were are taken, or free.
        let number = self.free.pop().unwrap_or(self.nodes.len());
        self.nodes.push(NodeInfo::new(name, number));
        self.by_name.insert(name.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn count_images(&mut self, slot: usize, add: bool) {
        for name in self.nodes[slot].images.keys() {
            let count = self.image_nodes.entry(name.clone()).or_default();
            *count = if add { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    pub(crate) fn set_node(&mut self, node: &Node) {
        let slot = self.slot(node.metadata.name.as_deref().unwrap_or_default());
        self.count_images(slot, false);
        let same = self.nodes[slot].present && self.nodes[slot].labels == node.metadata.labels;
        if !same {
            self.terms.node_moved(&self.nodes[slot], -1, &self.namespaces);
        }
        self.present += usize::from(!self.nodes[slot].present);
        self.nodes[slot].update(node);
        if !same {
            self.terms.node_moved(&self.nodes[slot], 1, &self.namespaces);
            self.nodes_changed();
        }
        self.count_images(slot, true);
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.by_name.get(name).copied() else { return };
        self.count_images(slot, false);
        self.image_nodes.retain(|_, count| *count > 0);
        self.nodes[slot].images.clear();
        self.terms.node_moved(&self.nodes[slot], -1, &self.namespaces);
        self.present -= usize::from(self.nodes[slot].present);
        self.nodes[slot].present = false;
        self.nodes_changed();
        self.drop_if_empty(slot);
    }

    /// Nodes came or went, or have other labels.
    fn nodes_changed(&mut self) {
        self.topologies.clear();
        self.tallies.nodes_changed();
        self.terms.nodes_changed();
    }

    /// Forgets a node that is gone and has no pods left.
    fn drop_if_empty(&mut self, slot: usize) {
        if self.nodes[slot].present || !self.nodes[slot].pods.is_empty() {
            return;
        }
        let node = self.nodes.swap_remove(slot);
        self.by_name.remove(&node.name);
        self.free.push(node.number);
        if let Some(moved) = self.nodes.get(slot) {
            self.by_name.insert(moved.name.clone(), slot);
        }
    }

    /// Puts a pod on a node: as the API says, or as the scheduler assumes until it does.
    pub(crate) fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(pod.uid());
        self.placed.insert(pod.uid().to_owned(), node.to_owned());
        let slot = self.slot(node);
        self.tallies.moved(&pod, &self.nodes[slot], 1);
        self.terms.moved(&pod, &self.nodes[slot], 1, &self.namespaces);
        self.nodes[slot].add(pod);
    }

    /// A pod's node has begun with it, of which nothing else has changed.
    pub(crate) fn began(&mut self, uid: &str, started: Option<Timestamp>) {
        let slot = self.placed.get(uid).and_then(|node| self.by_name.get(node).copied());
        if let Some(slot) = slot {
            self.nodes[slot].began(uid, started);
        }
    }

    /// The pod, if it was there.
    pub(crate) fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let slot = self.placed.remove(uid).and_then(|node| self.by_name.get(&node).copied())?;
        let removed = self.nodes[slot].remove(uid);
        if let Some(pod) = &removed {
            self.tallies.moved(pod, &self.nodes[slot], -1);
            self.terms.moved(pod, &self.nodes[slot], -1, &self.namespaces);
        }
        self.drop_if_empty(slot);
        removed
    }

    /// The pod of this uid, if it is on a node.
    pub(crate) fn placed(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        let slot = self.placed.get(uid).and_then(|node| self.by_name.get(node))?;
        self.nodes[*slot].pods.iter().find(|pod| pod.uid() == uid)
    }

    pub(crate) fn node_of(&self, uid: &str) -> Option<&str> {
        self.placed.get(uid).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terms::Values;
    use crate::testing::{labelled_pod, node, pod};
    use serde_json::json;

    #[test]
    fn counts_what_comes_and_goes() {
        let mut cluster = Cluster::default();
        cluster.set_node(&node("a", json!({})));
        let info = |name: &str| {
            Arc::new(PodInfo::new(Arc::new(pod(
                name,
                json!({"containers": [{"name": "c",
            "ports": [{"containerPort": 80, "hostPort": 80}], "resources": {"requests": {"cpu": "1"}}}]}),
            ))))
        };
        cluster.place(info("p"), "a");
        cluster.place(info("p"), "a");
        cluster.place(info("q"), "unknown");
        let shown = |cluster: &Cluster| cluster.node("a").map(|node| (node.requested.milli_cpu, node.ports.len()));
        assert_eq!((shown(&cluster), cluster.len()), (Some((1000, 1)), 1));
        assert!(cluster.remove_pod("p").is_some() && cluster.remove_pod("p").is_none());
        assert_eq!(shown(&cluster), Some((0, 0)));
        cluster.remove_node("a");
        assert!(cluster.remove_pod("q").is_some());
        assert_eq!((cluster.len(), cluster.slots().len()), (0, 0));
    }

    #[test]
    fn sums_beyond_the_largest_number_come_back() {
        let mut cluster = Cluster::default();
        cluster.set_node(&node("a", json!({})));
        let asks = |name: &str, amount: &str| {
            let requests = json!({"cpu": amount, "memory": amount, "ephemeral-storage": amount, "example.com/card": amount});
            let spec = json!({"containers": [{"name": "c", "resources": {"requests": requests}}]});
            Arc::new(PodInfo::new(Arc::new(pod(name, spec))))
        };
        [("p", "6E"), ("q", "6E"), ("r", "1")].iter().for_each(|(name, amount)| cluster.place(asks(name, amount), "a"));
        let shown = |cluster: &Cluster| {
            let requested = cluster.node("a").map(|node| node.requested.clone()).unwrap_or_default();
            [requested.milli_cpu, requested.memory, requested.ephemeral_storage, requested.other("example.com/card")]
        };
        assert_eq!(shown(&cluster), [i64::MAX; 4]);
        assert!(cluster.remove_pod("p").is_some() && cluster.remove_pod("q").is_some());
        assert_eq!(shown(&cluster), [1000, 1, 1, 1]);
    }

    /// Each node's share of a term's numbers is the same by its number and by its label, whatever has come and gone since.
    #[test]
    fn terms_are_listed_as_they_are_counted() {
        let term = |key: &str| json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": "a"}}});
        let preferred = json!([{"weight": 7, "podAffinityTerm": term("kubernetes.io/hostname")}]);
        let affinity = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("zone")]}});
        let info =
            |name: &str| Arc::new(PodInfo::new(Arc::new(labelled_pod(name, json!({"app": "a"}), json!({"affinity": affinity})))));
        let zoned = |name: &str, zone: &str| node(name, json!({"labels": {"zone": zone}}));
        let mut cluster = Cluster::default();
        [("a", "x"), ("b", "y"), ("c", "x")].iter().for_each(|(name, zone)| cluster.set_node(&zoned(name, zone)));
        let asking = info("asking");
        // By node: pods of the zone that repel, what pods of the host want (they have one term, and are matched by one), pods of the zone.
        let check = |cluster: &mut Cluster, prepared: bool, expected: &[(&str, i64, i64, i64)]| {
            if prepared {
                cluster.prepare_filters(&asking);
                cluster.prepare_scores(&asking);
            }
            let (terms, namespaces) = (&cluster.terms, &cluster.namespaces);
            let sum = |all: Vec<(&str, &Values)>, node| all.iter().map(|(key, values)| values.at(node, key)).sum::<i64>();
            let own = terms.matching(&asking.anti_affinity.required).expect("prepared once");
            let mut shown: Vec<(&str, i64, i64, i64)> = cluster
                .nodes()
                .map(|node| {
                    let (repelling, preferring) = (terms.repelling(&asking, namespaces), terms.preferring(&asking, namespaces));
                    let zone = own.by_value(0).map_or(0, |values| values.at(node, "zone"));
                    (node.name.as_str(), sum(repelling, node), sum(preferring, node), zone)
                })
                .collect();
            shown.sort_unstable();
            assert_eq!(shown, expected);
        };
        check(&mut cluster, true, &[("a", 0, 0, 0), ("b", 0, 0, 0), ("c", 0, 0, 0)]);
        cluster.place(info("p"), "a");
        check(&mut cluster, false, &[("a", 1, 7, 1), ("b", 0, 0, 0), ("c", 1, 0, 1)]);
        check(&mut cluster, true, &[("a", 1, 7, 1), ("b", 0, 0, 0), ("c", 1, 0, 1)]);
        cluster.place(info("q"), "c");
        cluster.place(info("r"), "b");
        check(&mut cluster, false, &[("a", 2, 7, 2), ("b", 1, 7, 1), ("c", 2, 7, 2)]);
        // A node with pods gets another zone, one goes, and another comes in its place.
        cluster.set_node(&zoned("c", "y"));
        check(&mut cluster, false, &[("a", 1, 7, 1), ("b", 2, 7, 2), ("c", 2, 7, 2)]);
        check(&mut cluster, true, &[("a", 1, 7, 1), ("b", 2, 7, 2), ("c", 2, 7, 2)]);
        cluster.remove_node("b");
        assert!(cluster.remove_pod("r").is_some() && cluster.remove_pod("p").is_some());
        cluster.set_node(&zoned("d", "x"));
        cluster.place(info("s"), "d");
        check(&mut cluster, false, &[("a", 1, 0, 1), ("c", 1, 7, 1), ("d", 1, 7, 1)]);
        check(&mut cluster, true, &[("a", 1, 0, 1), ("c", 1, 7, 1), ("d", 1, 7, 1)]);
    }
}
