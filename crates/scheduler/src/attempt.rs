//! What is found out once for an attempt to give a pod a node, however often its filters are prepared: making room looks at each node with many
//! sets of pods, and which devices there are depends on none of them.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

use crate::cluster::NodeInfo;
use crate::devices::{ClaimsOf, Devices, Refusal};
use crate::pod::PodInfo;
use crate::volumes::Place;

/// One attempt. What it keeps is true until devices or claims change.
#[derive(Default)]
pub(crate) struct Attempt {
    claims: OnceCell<Result<ClaimsOf, Refusal>>,
    /// Why the devices of a node will not do, if they do not.
    on: RefCell<HashMap<String, Option<String>>>,
}

impl Attempt {
    /// The pod's claims for devices, with the work that may be done for them in this attempt.
    pub(crate) fn claims(&self, pod: &PodInfo, devices: &Devices) -> Result<&ClaimsOf, &Refusal> {
        self.claims.get_or_init(|| devices.claims_of(pod)).as_ref()
    }

    /// Why the pod's claims cannot have their devices on a node.
    pub(crate) fn lacks_devices(&self, pod: &PodInfo, devices: &Devices, node: &NodeInfo) -> Option<String> {
        if let Some(known) = self.on.borrow().get(&node.name) {
            return known.clone();
        }
        let place = Place { name: &node.name, labels: &node.labels };
        let reason = match self.claims(pod, devices) {
            Ok(claims) => devices.reservations(pod, claims, place, &node.allocatable).err(),
            Err(refusal) => Some(refusal.to_string()),
        };
        self.on.borrow_mut().insert(node.name.clone(), reason.clone());
        reason
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::cluster::Cluster;
    use crate::testing::{node, pod};

    /// The search on a node is made once in an attempt, whoever is thought away from the node meanwhile.
    #[test]
    fn devices_are_looked_for_once() {
        let mut cluster = Cluster::default();
        let class = json!({"metadata": {"name": "cards"}, "spec": {"extendedResourceName": "example.com/card"}});
        cluster.devices.extended.changed(None, Some(&serde_json::from_value(class).unwrap()));
        let set = |cluster: &mut Cluster, cards: &str| {
            let allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110", "example.com/card": cards});
            cluster.set_node(&node("n", json!({"status": {"allocatable": allocatable}})));
        };
        let resources = json!({"requests": {"example.com/card": "1"}, "limits": {"example.com/card": "1"}});
        let pod = PodInfo::new(Arc::new(pod("p", json!({"containers": [{"name": "c", "resources": resources}]}))));
        let lacks = |cluster: &Cluster, attempt: &Attempt| {
            attempt.lacks_devices(&pod, &cluster.devices, cluster.node("n").unwrap()).is_some()
        };
        let attempt = Attempt::default();
        set(&mut cluster, "0");
        // The class is known by its name only.
        assert!(lacks(&cluster, &attempt));
        set(&mut cluster, "1");
        assert!(lacks(&cluster, &attempt));
        assert!(!lacks(&cluster, &Attempt::default()));
    }
}
