//! Registers the nodes, and says that they are ready when somebody says otherwise.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use client::Api;
use client::kube::api::{Patch, PatchParams, PostParams};
use client::{Informer, Informers, Key};
use controllers::{Action, Controller, Cx, Error, HOLLOW, Source};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use parking_lot::Mutex;
use serde_json::json;

use crate::{Fleet, name};

/// Zones that nodes are spread over.
const ZONES: usize = 3;
/// What a node has: as large as common machines, with the kubelet's default number of pods.
const RESOURCES: [(&str, &str); 4] = [("cpu", "32"), ("memory", "256Gi"), ("ephemeral-storage", "1Ti"), ("pods", "110")];

pub(crate) struct HollowNodes {
    fleet: Arc<Fleet>,
    nodes: Informer<Node>,
    /// Numbers of those that were registered: one that is deleted then stays away, as one whose kubelet runs does.
    registered: Mutex<HashSet<usize>>,
}

impl HollowNodes {
    pub(crate) fn new(fleet: Arc<Fleet>, informers: &Informers) -> Self {
        Self { fleet, nodes: informers.of(), registered: Mutex::default() }
    }
}

impl Controller for HollowNodes {
    const NAME: &'static str = "hollow-nodes";
    const ACCOUNT: &'static str = "";
    const CONCURRENCY: usize = 16;

    fn sources(&self) -> Vec<Source> {
        let (fleet, count) = (self.fleet.clone(), self.fleet.nodes.len());
        let changed = Source::mapped(&self.nodes, move |change, queue| {
            if fleet.number(&change.key.name).is_some() {
                queue.add(change.key.clone());
            }
        });
        vec![changed, Source::once((0..count).map(|number| Key::cluster(name(number))).collect())]
    }

    async fn reconcile(&self, _: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(number) = self.fleet.number(&key.name) else { return Ok(Action::Done) };
        let Some(client) = self.fleet.client(number) else { return Ok(Action::Done) };
        let api: Api<Node> = Api::all(client);
        let new = self.registered.lock().insert(number);
        match self.nodes.by_key(key) {
            None if new => {
                let created = api.create(&PostParams::default(), &node(number, self.fleet.version, Timestamp::now())).await;
                if let Err(error) = created {
                    self.registered.lock().remove(&number);
                    return Err(error.into());
                }
            }
            Some(node) if !is_ready(&node) => {
                let status = json!({"status": {"conditions": conditions(Timestamp::now())}});
                api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(status)).await?;
            }
            _ => {}
        }
        Ok(Action::Done)
    }
}

fn is_ready(node: &Node) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn conditions(now: Timestamp) -> Vec<NodeCondition> {
    let states = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ];
    let condition = |(kind, status, reason): (&str, &str, &str)| NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some("the node is hollow".to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    states.into_iter().map(condition).collect()
}

/// The address of a node: of the network that no host may have (RFC 2544).
pub(crate) fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits().wrapping_add(number as u32))
}

fn node(number: usize, version: &str, now: Timestamp) -> Node {
    let name = name(number);
    let labels = [
        ("kubernetes.io/hostname", name.clone()),
        ("kubernetes.io/os", "linux".to_owned()),
        ("kubernetes.io/arch", "amd64".to_owned()),
        ("topology.kubernetes.io/region", "hollow".to_owned()),
        ("topology.kubernetes.io/zone", format!("hollow-{}", number % ZONES)),
        (HOLLOW, "true".to_owned()),
    ];
    let amounts: BTreeMap<_, _> =
        RESOURCES.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect();
    let of_type = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    let info = NodeSystemInfo {
        architecture: "amd64".to_owned(),
        operating_system: "linux".to_owned(),
        os_image: "hollow".to_owned(),
        container_runtime_version: "hollow://0".to_owned(),
        kubelet_version: version.to_owned(),
        kube_proxy_version: version.to_owned(),
        ..Default::default()
    };
    let status = NodeStatus {
        capacity: Some(amounts.clone()),
        allocatable: Some(amounts),
        addresses: Some(vec![of_type("InternalIP", address(number).to_string()), of_type("Hostname", name.clone())]),
        conditions: Some(conditions(now)),
        node_info: Some(info),
        declared_features: Some(pods::features::FEATURES.iter().map(|feature| feature.name.to_owned()).collect()),
        ..Default::default()
    };
    let labels = labels.map(|(key, value)| (key.to_owned(), value)).into();
    Node {
        metadata: ObjectMeta { name: Some(name), labels: Some(labels), ..Default::default() },
        spec: None,
        status: Some(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_and_has_an_address_of_its_own() {
        let one = node(300, "v1", Timestamp::UNIX_EPOCH);
        assert!(is_ready(&one));
        assert_eq!(one.metadata.name.as_deref(), Some("hollow-300"));
        assert_eq!(address(300).to_string(), "198.18.1.45");
        assert_ne!(address(1), address(2));
        assert!(!is_ready(&Node { status: None, ..one }));
    }
}
