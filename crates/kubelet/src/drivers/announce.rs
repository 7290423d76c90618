//! The node's CSINode object: which drivers it has, how they call it, how many volumes each can take, and the labels that say where it is.

use std::collections::BTreeMap;

use client::Api;
use csi::messages::NodeGetInfoResponse;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::context::Context;

/// On the Node: how drivers call it, as JSON.
const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";
/// How often a write is tried again that somebody else came before.
const ATTEMPTS: usize = 5;

/// Why a driver could not be announced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refuses.
    #[error("{}", client::why(.0))]
    Api(#[from] kube::Error),
    /// The driver's place contradicts what is known of the node.
    #[error("detected topology value collision: driver reported {key:?}:{new:?} but existing label is {key:?}:{old:?}")]
    Place {
        /// The label.
        key: String,
        /// What the node has.
        old: String,
        /// What the driver says.
        new: String,
    },
    /// Others wrote at the same time, each time.
    #[error("the CSINode object changes all the time")]
    Conflict,
}

/// A node without drivers.
fn empty(node: &Node) -> CSINode {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta { name: node.metadata.name.clone(), owner_references: Some(vec![owner]), ..ObjectMeta::default() };
    CSINode { metadata, ..CSINode::default() }
}

/// The entry of a driver.
fn entry(name: &str, info: &NodeGetInfoResponse) -> CSINodeDriver {
    let topology = info.accessible_topology.as_ref();
    let mut keys: Vec<String> = topology.iter().flat_map(|topology| topology.segments.keys().cloned()).collect();
    keys.sort_unstable();
    let count = i32::try_from(info.max_volumes_per_node).unwrap_or(i32::MAX);
    CSINodeDriver {
        name: name.to_owned(),
        node_id: info.node_id.clone(),
        topology_keys: Some(keys).filter(|keys| !keys.is_empty()),
        allocatable: (count > 0).then_some(VolumeNodeResources { count: Some(count) }),
    }
}

/// The object with a driver, or without it.
fn with(mut object: CSINode, name: &str, entry: Option<CSINodeDriver>) -> CSINode {
    object.spec.drivers.retain(|driver| driver.name != name);
    object.spec.drivers.extend(entry);
    object
}

/// The labels that a node gets from a driver.
fn labels(node: &Node, info: &NodeGetInfoResponse) -> Result<BTreeMap<String, String>, Error> {
    let known = node.metadata.labels.clone().unwrap_or_default();
    let mut missing = BTreeMap::new();
    for (key, new) in info.accessible_topology.iter().flat_map(|topology| &topology.segments) {
        match known.get(key) {
            None => drop(missing.insert(key.clone(), new.clone())),
            Some(old) if old == new => {}
            Some(old) => return Err(Error::Place { key: key.clone(), old: old.clone(), new: new.clone() }),
        }
    }
    Ok(missing)
}

/// The annotation with a driver's name for the node, or without it; none when it is so already.
fn node_ids(node: &Node, name: &str, id: Option<&str>) -> Option<String> {
    let text = node.metadata.annotations.as_ref().and_then(|all| all.get(NODE_IDS)).map(String::as_str).unwrap_or("{}");
    let mut ids: BTreeMap<String, String> = serde_json::from_str(text).unwrap_or_default();
    let before = ids.clone();
    match id {
        Some(id) => drop(ids.insert(name.to_owned(), id.to_owned())),
        None => drop(ids.remove(name)),
    }
    if ids == before { None } else { serde_json::to_string(&ids).ok() }
}

/// Makes sure that the node has its object: without it nobody knows that it has no drivers.
pub async fn exists(cx: &Context) -> Result<(), Error> {
    let (api, node) = (Api::<CSINode>::all(cx.options.client.clone()), node(cx).await?);
    if api.get_opt(&cx.options.node_name).await?.is_none() {
        api.create(&PostParams::default(), &empty(&node)).await?;
    }
    Ok(())
}

async fn node(cx: &Context) -> Result<Node, Error> {
    Ok(Api::<Node>::all(cx.options.client.clone()).get(&cx.options.node_name).await?)
}

/// Tells that a driver is there. First the labels: who sees the driver looks for them.
pub async fn announce(cx: &Context, name: &str, info: &NodeGetInfoResponse) -> Result<(), Error> {
    let node = node(cx).await?;
    let (labels, ids) = (labels(&node, info)?, node_ids(&node, name, Some(&info.node_id)));
    if !labels.is_empty() || ids.is_some() {
        let annotations: BTreeMap<_, _> = ids.into_iter().map(|ids| (NODE_IDS, ids)).collect();
        patch(cx, json!({"labels": labels, "annotations": annotations})).await?;
    }
    put(cx, &node, name, Some(entry(name, info))).await
}

/// Tells how many volumes the node can have by now. All else of a driver stays as it was announced.
pub async fn recount(cx: &Context, name: &str, info: &NodeGetInfoResponse) -> Result<(), Error> {
    let _one = cx.drivers.registering.lock().await;
    let api = Api::<CSINode>::all(cx.options.client.clone());
    let Some(mut object) = api.get_opt(&cx.options.node_name).await? else { return Ok(()) };
    let counted = entry(name, info).allocatable;
    let Some(driver) = object.spec.drivers.iter_mut().find(|driver| driver.name == name) else { return Ok(()) };
    if driver.allocatable == counted {
        return Ok(());
    }
    driver.allocatable = counted;
    api.replace(&cx.options.node_name, &PostParams::default(), &object).await?;
    Ok(())
}

/// Tells that a driver is gone. Where the node is stays true.
pub async fn withdraw(cx: &Context, name: &str) -> Result<(), Error> {
    let node = node(cx).await?;
    put(cx, &node, name, None).await?;
    match node_ids(&node, name, None) {
        Some(ids) => patch(cx, json!({"annotations": {NODE_IDS: ids}})).await,
        None => Ok(()),
    }
}

async fn patch(cx: &Context, metadata: serde_json::Value) -> Result<(), Error> {
    let nodes = Api::<Node>::all(cx.options.client.clone());
    nodes.patch(&cx.options.node_name, &PatchParams::default(), &Patch::Merge(json!({"metadata": metadata}))).await?;
    Ok(())
}

async fn put(cx: &Context, node: &Node, name: &str, entry: Option<CSINodeDriver>) -> Result<(), Error> {
    let api = Api::<CSINode>::all(cx.options.client.clone());
    for _ in 0..ATTEMPTS {
        let present = api.get_opt(&cx.options.node_name).await?;
        let written = match present {
            None => api.create(&PostParams::default(), &with(empty(node), name, entry.clone())).await,
            Some(present) => {
                let next = with(present.clone(), name, entry.clone());
                if next == present {
                    return Ok(());
                }
                api.replace(&cx.options.node_name, &PostParams::default(), &next).await
            }
        };
        match written {
            Err(kube::Error::Api(error)) if error.code == 409 => {}
            other => return other.map(drop).map_err(Error::from),
        }
    }
    Err(Error::Conflict)
}

#[cfg(test)]
mod tests {
    use super::*;
    use csi::messages::Topology;

    fn info(max: i64, place: &[(&str, &str)]) -> NodeGetInfoResponse {
        let segments = place.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let accessible_topology = (!place.is_empty()).then_some(Topology { segments });
        NodeGetInfoResponse { node_id: "n1".to_owned(), max_volumes_per_node: max, accessible_topology }
    }

    fn node(metadata: serde_json::Value) -> Node {
        let mut node: Node = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        node.metadata.name = Some("n".to_owned());
        node
    }

    #[test]
    fn drivers_come_and_go() {
        let one = with(empty(&node(json!({"uid": "u"}))), "d", Some(entry("d", &info(7, &[("zone", "a"), ("disk", "x")]))));
        let drivers = serde_json::to_value(&one.spec.drivers).unwrap();
        let keys = ["disk", "zone"];
        assert_eq!(drivers, json!([{"name": "d", "nodeID": "n1", "topologyKeys": keys, "allocatable": {"count": 7}}]));
        assert_eq!(one.metadata.owner_references.as_ref().unwrap()[0].uid, "u");
        let changed = with(one.clone(), "d", Some(entry("d", &info(0, &[]))));
        assert_eq!(serde_json::to_value(&changed.spec.drivers).unwrap(), json!([{"name": "d", "nodeID": "n1"}]));
        assert!(with(one, "d", None).spec.drivers.is_empty());
    }

    #[test]
    fn places() {
        let labelled = node(json!({"labels": {"zone": "a"}}));
        let labels = |place: &[(&str, &str)]| labels(&labelled, &info(0, place)).map_err(|error| error.to_string());
        assert_eq!(labels(&[("zone", "a")]), Ok(BTreeMap::new()));
        assert_eq!(labels(&[("disk", "x")]), Ok(BTreeMap::from([("disk".to_owned(), "x".to_owned())])));
        let collision = "detected topology value collision: driver reported \"zone\":\"b\" but existing label is \"zone\":\"a\"";
        assert_eq!(labels(&[("zone", "b")]), Err(collision.to_owned()));
    }

    #[test]
    fn names_of_the_node() {
        let named = node(json!({"annotations": {NODE_IDS: "{\"a\":\"1\"}"}}));
        assert_eq!(node_ids(&named, "a", Some("1")), None);
        assert_eq!(node_ids(&named, "b", Some("2")).as_deref(), Some("{\"a\":\"1\",\"b\":\"2\"}"));
        assert_eq!(node_ids(&named, "a", None).as_deref(), Some("{}"));
        assert_eq!(node_ids(&node(json!({})), "a", None), None);
    }
}
