//! PodTopologyLabels: a pod gets the zone and the region of its node as labels, so that its containers can read them (KEP-4742).

use apimachinery::labels::Labels;
use apimachinery::{Status, meta};
use async_trait::async_trait;
use registry::{Admission, Operation, Request};

use super::{creates_pod, is, text};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub(super) struct PodTopologyLabels;

#[async_trait]
impl Admission for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        creates_pod(a) || is(a, "", "pods") && a.subresource == "binding" && a.operation == Operation::Create
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        let place = if a.subresource.is_empty() { "/spec/nodeName" } else { "/target/name" };
        let node = a.object().map(|object| text(object, place)).unwrap_or_default();
        if node.is_empty() {
            return Ok(());
        }
        let Some(nodes) = a.registry.resource("", "v1", "nodes") else { return Ok(()) };
        // As upstream: a node that is not there is somebody else's concern.
        let Ok(node) = a.registry.get(&nodes, "", node, None).await else { return Ok(()) };
        let found = LABELS.map(|label| Some((label, node.label(label)?)));
        if let (true, Some(object)) = (found.iter().any(Option::is_some), a.object_mut()) {
            for (label, value) in found.into_iter().flatten() {
                meta::set_label(object, label, value);
            }
        }
        Ok(())
    }
}
