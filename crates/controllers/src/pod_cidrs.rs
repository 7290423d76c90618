//! Hands every node its part of the pod network: `spec.podCIDRs`.

use std::collections::{HashMap, HashSet};

use client::Api;
use client::events::Type;
use client::kube::api::{Patch, PatchParams};
use client::{Informer, Informers, Key};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use serde_json::json;

use crate::controller::{Action, Controller, Cx, Error, Source};

/// The label of nodes whose pods are in no network.
pub const HOLLOW: &str = "knarr.io/hollow";

/// A network that nodes get parts of.
#[derive(Clone, Copy, Debug)]
pub struct ClusterCidr {
    /// The whole.
    pub network: IpNet,
    /// Prefix length of a part; a network that is smaller is one part.
    pub node_prefix: u8,
}

impl From<IpNet> for ClusterCidr {
    /// With parts of upstream's default size.
    fn from(network: IpNet) -> Self {
        Self { network, node_prefix: if network.addr().is_ipv4() { 24 } else { 64 } }
    }
}

pub(crate) struct PodCidrs {
    nodes: Informer<Node>,
    cluster: Vec<ClusterCidr>,
    /// Given away by this process: the cache may not show it yet.
    given: Mutex<HashMap<String, Vec<IpNet>>>,
}

impl PodCidrs {
    pub(crate) fn new(informers: &Informers, cluster: Vec<ClusterCidr>) -> Self {
        Self { nodes: informers.of(), cluster, given: Mutex::default() }
    }
}

fn cidrs(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten();
    all.chain(spec.and_then(|spec| spec.pod_cidr.as_ref())).filter_map(|text| text.parse().ok()).collect()
}

/// The first part of `cluster` that overlaps nothing in `used`.
fn free_part(cluster: ClusterCidr, used: &HashSet<IpNet>) -> Option<IpNet> {
    let ClusterCidr { network, node_prefix } = cluster;
    let prefix = node_prefix.max(network.prefix_len());
    // Almost all of what is used has the same size: an equal part is found by hashing, another by comparing.
    let odd: Vec<&IpNet> = used.iter().filter(|one| one.prefix_len() != prefix).collect();
    let overlaps = |part: &IpNet| odd.iter().any(|one| one.contains(part) || part.contains(*one));
    network.subnets(prefix).ok()?.find(|part| !used.contains(part) && !overlaps(part))
}

impl Controller for PodCidrs {
    const NAME: &'static str = "node-ipam";
    const ACCOUNT: &'static str = "node-controller";
    const CONCURRENCY: usize = 1;

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&self.nodes)]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(node) = self.nodes.by_key(key) else {
            self.given.lock().remove(&key.name);
            return Ok(Action::Done);
        };
        let hollow = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(HOLLOW));
        if self.cluster.is_empty() || hollow {
            return Ok(Action::Done);
        }
        if !cidrs(&node).is_empty() {
            self.given.lock().remove(&key.name);
            return Ok(Action::Done);
        }
        let parts = self.choose(&key.name).inspect_err(|_| tell(cx, &node, "CIDRNotAvailable"))?;
        let texts: Vec<String> = parts.iter().map(IpNet::to_string).collect();
        let patch = json!({"spec": {"podCIDR": texts[0], "podCIDRs": texts}});
        let api: Api<Node> = Api::all(cx.client.clone());
        match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(Error::from) {
            Ok(_) => Ok(Action::Done),
            // The node has gone meanwhile.
            Err(error) if error.code() == Some(404) => Err(error),
            Err(error) => {
                tell(cx, &node, "CIDRAssignmentFailed");
                Err(error)
            }
        }
    }
}

/// Tells what keeps a node from having pods on the network (upstream: `RecordNodeStatusChange`).
fn tell(cx: &Cx, node: &Node, status: &str) {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    cx.events.about(node, Type::Normal, status, format!("Node {name} status is now: {status}"));
}

impl PodCidrs {
    /// One part of each cluster network; the same again for a node that has been given some.
    fn choose(&self, node: &str) -> Result<Vec<IpNet>, Error> {
        let mut given = self.given.lock();
        if let Some(parts) = given.get(node) {
            return Ok(parts.clone());
        }
        let mut used: HashSet<IpNet> = self.nodes.list().iter().flat_map(|node| cidrs(node)).collect();
        used.extend(given.values().flatten().copied());
        let full = |cluster: &ClusterCidr| {
            let network = cluster.network;
            Error::Other(format!("the pod network {network} has no part left for node {node}"))
        };
        let parts: Result<Vec<IpNet>, Error> =
            self.cluster.iter().map(|cluster| free_part(*cluster, &used).ok_or_else(|| full(cluster))).collect();
        let parts = parts?;
        given.insert(node.to_owned(), parts.clone());
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use client::Client;
    use client::kube::client::Body;
    use k8s_openapi::api::core::v1::Event;
    use tower::Service;

    use super::*;
    use crate::Options;
    use crate::testing::{World, object};

    #[test]
    fn finds_the_first_free_part() {
        let part = |cluster: ClusterCidr, used: &[&str], expected: Option<&str>| {
            let used = used.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(free_part(cluster, &used), expected.map(|text| text.parse().unwrap()));
        };
        let network = |text: &str| text.parse::<IpNet>().unwrap();
        let check = |cluster: &str, used: &[&str], expected| part(network(cluster).into(), used, expected);
        check("10.42.0.0/16", &[], Some("10.42.0.0/24"));
        check("10.42.0.0/16", &["10.42.0.0/24", "10.42.2.0/24"], Some("10.42.1.0/24"));
        check("10.42.0.0/16", &["10.42.0.0/23", "10.42.2.7/32"], Some("10.42.3.0/24"));
        check("10.42.0.0/24", &["10.42.0.0/24"], None);
        check("10.42.0.0/26", &[], Some("10.42.0.0/26"));
        check("fd42::/48", &["fd42::/64"], Some("fd42:0:0:1::/64"));
        let large = ClusterCidr { network: network("10.42.0.0/16"), node_prefix: 22 };
        part(large, &["10.42.0.0/24"], Some("10.42.4.0/22"));
    }

    /// Upstream's `AllocateOrOccupyCIDR`: a node for which no range is left has an event that says so, and gets one when there is.
    #[tokio::test]
    async fn a_node_is_told_that_nothing_is_left() {
        let world = World::new();
        world.fake.put::<Node>(&object(json!({"metadata": {"name": "all"}, "spec": {"podCIDRs": ["10.42.0.0/16"]}})));
        world.fake.put::<Node>(&object(json!({"metadata": {"name": "n", "uid": "u"}, "spec": {}})));
        world.start(&["node-ipam"]);
        let is_it = |event: &Event| {
            event.involved_object.uid.as_deref() == Some("u")
                && event.reason.as_deref() == Some("CIDRNotAvailable")
                && event.message.as_deref() == Some("Node n status is now: CIDRNotAvailable")
        };
        world.fake.until::<Event>(|events| events.iter().any(is_it)).await;
        Api::<Node>::all(world.fake.client()).delete("all", &Default::default()).await.unwrap();
        world.fake.until::<Node>(|nodes| nodes.iter().any(|node| cidrs(node).len() > 1)).await;
    }

    /// Upstream's `updateCIDRsAllocation`: a write that fails is told of the node, and tried again; of a node that has gone nothing is told.
    #[tokio::test]
    async fn a_node_is_told_that_its_part_cannot_be_written() {
        let world = World::new();
        for name in ["gone", "n"] {
            world.fake.put::<Node>(&object(json!({"metadata": {"name": name, "uid": name}, "spec": {}})));
        }
        let (server, refuses) = (world.fake.clone(), Arc::new(AtomicBool::new(true)));
        let refusing = refuses.clone();
        let client = Client::new(
            tower::service_fn(move |request: http::Request<Body>| {
                let (mut server, refusing) = (server.clone(), refusing.clone());
                async move {
                    match request.uri().path() {
                        "/api/v1/nodes/gone" => drop(Api::<Node>::all(server.client()).delete("gone", &Default::default()).await),
                        "/api/v1/nodes/n" if refusing.load(Ordering::Relaxed) => return Err("out of order".into()),
                        _ => {}
                    }
                    Ok::<_, tower::BoxError>(server.call(request).await?)
                }
            }),
            "default",
        );
        let options = Options { clients: Arc::new(move |_| client.clone()), ..world.options() };
        world.start_with(&options, &["node-ipam"]);
        let about = |event: &Event, node: &str| {
            let is_about = event.involved_object.uid.as_deref() == Some(node);
            is_about && event.reason.as_deref() == Some("CIDRAssignmentFailed")
        };
        let text = "Node n status is now: CIDRAssignmentFailed";
        let is_it = |event: &Event| about(event, "n") && event.message.as_deref() == Some(text);
        world.fake.until::<Event>(|events| events.iter().any(is_it)).await;
        refuses.store(false, Ordering::Relaxed);
        world.fake.until::<Node>(|nodes| nodes.len() == 1 && !cidrs(&nodes[0]).is_empty()).await;
        assert!(!world.fake.all::<Event>().iter().any(|event| about(event, "gone")));
    }

    #[tokio::test]
    async fn every_node_gets_its_own() {
        let world = World::new();
        world.fake.put::<Node>(&object(json!({"metadata": {"name": "0", "labels": {HOLLOW: "true"}}, "spec": {}})));
        for name in ["a", "b", "c"] {
            world.fake.put::<Node>(&object(json!({"metadata": {"name": name}, "spec": {}})));
        }
        world.start(&["node-ipam"]);
        // One after the other, the last one last; the hollow one is in no network.
        let has = |node: &Node, name: &str| node.metadata.name.as_deref() == Some(name) && !cidrs(node).is_empty();
        world.fake.until::<Node>(|nodes| nodes.iter().any(|node| has(node, "c"))).await;
        let distinct = |nodes: &[Node]| nodes.iter().flat_map(cidrs).collect::<HashSet<_>>().len();
        world.fake.until::<Node>(|nodes| distinct(nodes) == 6 && !nodes.iter().any(|node| has(node, "0"))).await;
    }
}
