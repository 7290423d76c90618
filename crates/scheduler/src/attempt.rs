//! What is found out once for an attempt to give a pod a node, however often its filters are prepared: making room looks at each node with many
//! sets of pods, and which devices there are depends on none of them.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::resource::v1::ResourceClaim;
use pods::slices::Place;

use crate::cluster::{Cluster, NodeInfo};
use crate::devices::{ClaimsOf, Devices, Found, Refusal, Reservation};
use crate::pod::PodInfo;
use crate::volumes::{self, Volumes};

/// Devices that are kept of all nodes where the pod could have them.
const KEPT: usize = 10_000;

/// One attempt. What it keeps is true until devices or claims change.
pub(crate) struct Attempt {
    claims: OnceCell<Result<ClaimsOf, Refusal>>,
    volumes: OnceCell<Result<volumes::ClaimsOf, volumes::Refusal>>,
    /// The devices of a node, or why they will not do.
    on: RefCell<HashMap<String, Result<OnNode, String>>>,
    /// How many devices more are kept.
    room: Cell<usize>,
}

/// What the pod's claims can have on a node.
struct OnNode {
    /// None where there was no room for it.
    found: Option<Found>,
    /// How much the claims prefer it.
    preference: i64,
}

impl Default for Attempt {
    fn default() -> Self {
        Self { claims: OnceCell::default(), volumes: OnceCell::default(), on: RefCell::default(), room: Cell::new(KEPT) }
    }
}

impl Attempt {
    /// The pod's claims for devices, with the work that may be done for them in this attempt.
    pub(crate) fn claims(&self, pod: &PodInfo, devices: &Devices) -> Result<&ClaimsOf, &Refusal> {
        self.claims.get_or_init(|| devices.claims_of(pod)).as_ref()
    }

    /// The pod's claims for volumes: several plugins ask for them.
    pub(crate) fn volumes(&self, pod: &PodInfo, volumes: &Volumes) -> Result<&volumes::ClaimsOf, &volumes::Refusal> {
        self.volumes.get_or_init(|| volumes.claims_of(pod)).as_ref()
    }

    /// Why the pod's claims cannot have their devices on a node.
    pub(crate) fn lacks_devices(&self, pod: &PodInfo, devices: &Devices, node: &NodeInfo) -> Option<String> {
        if let Some(known) = self.on.borrow().get(&node.name) {
            return known.as_ref().err().cloned();
        }
        let claims = self.claims(pod, devices).map_err(ToString::to_string);
        let found = claims.and_then(|claims| {
            let found = devices.search(pod, claims, place(node), &node.allocatable)?;
            Ok(OnNode { preference: claims.preference(&found), found: self.with_room(found) })
        });
        let reason = found.as_ref().err().cloned();
        self.on.borrow_mut().insert(node.name.clone(), found);
        reason
    }

    /// A claim of the pod whose devices cannot be used on one of the nodes that have been looked at, and which nobody else uses.
    pub(crate) fn idle_claim(&self, pod: &PodInfo, cluster: &Cluster) -> Option<Arc<ResourceClaim>> {
        let claims = self.claims.get()?.as_ref().ok()?;
        let on = self.on.borrow();
        let nodes: Vec<Place<'_>> = on.keys().filter_map(|name| cluster.node(name)).map(place).collect();
        claims.idle(pod.uid(), &nodes)
    }

    /// How much the pod's claims prefer what they can have on a node that has been looked at.
    pub(crate) fn preference(&self, node: &NodeInfo) -> i64 {
        self.on.borrow().get(&node.name).and_then(|on| on.as_ref().ok()).map_or(0, |on| on.preference)
    }

    fn with_room(&self, found: Found) -> Option<Found> {
        let left = self.room.get().checked_sub(found.devices())?;
        self.room.set(left);
        Some(found)
    }

    /// What is written of the pod's claims on the node that was chosen for it: what was found there.
    ///
    /// # Errors
    ///
    /// Why they cannot have their devices there.
    pub(crate) fn reservations(&self, pod: &PodInfo, devices: &Devices, node: &NodeInfo) -> Result<Vec<Reservation>, String> {
        let claims = self.claims(pod, devices).map_err(ToString::to_string)?;
        let of = |found: &Found| devices.reservations(pod, claims, place(node), &node.allocatable, found);
        match self.on.borrow().get(&node.name) {
            Some(Ok(OnNode { found: Some(found), .. })) => of(found),
            Some(Err(reason)) => Err(reason.clone()),
            // What was found there before is found again with no more work than one node may take.
            Some(Ok(OnNode { found: None, .. })) | None => {
                claims.renew();
                of(&devices.search(pod, claims, place(node), &node.allocatable)?)
            }
        }
    }
}

fn place(node: &NodeInfo) -> Place<'_> {
    Place { name: &node.name, labels: &node.labels }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base::tasks::Tasks;
    use client::Informers;
    use client::fake::Fake;
    use k8s_openapi::api::resource::v1::{DeviceClass, ResourceSlice};
    use serde_json::json;

    use super::*;
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

    /// A pod that is placed gets what was found when the node was looked at: a device that somebody takes afterwards is not searched around.
    /// Where no room was left for what was found, it is found again.
    #[tokio::test]
    async fn what_was_found_is_reserved() {
        let (fake, tasks) = (Fake::default(), Tasks::root());
        fake.put::<DeviceClass>(&serde_json::from_value(json!({"metadata": {"name": "any"}, "spec": {}})).unwrap());
        let requests = json!([{"name": "r", "exactly": {"deviceClassName": "any"}}]);
        let meta = json!({"namespace": "a", "name": "c", "uid": "c"});
        let claim = json!({"metadata": meta, "spec": {"devices": {"requests": requests}}});
        fake.put::<ResourceClaim>(&serde_json::from_value(claim).unwrap());
        let informers = Informers::new(fake.client(), tasks.0.clone());
        let mut cluster = Cluster::default();
        cluster.devices = Devices::new(&informers);
        informers.of::<DeviceClass>().synced().await;
        informers.of::<ResourceClaim>().synced().await;
        let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 1});
        let spec = json!({"driver": "d", "nodeName": "n", "pool": pool, "devices": [{"name": "dev0"}, {"name": "dev1"}]});
        let slice: ResourceSlice = serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap();
        cluster.devices.pools.changed("s", None, Some(Arc::new(slice)));
        cluster.set_node(&node("n", json!({})));
        let claims = json!([{"name": "device", "resourceClaimName": "c"}]);
        let pod = PodInfo::new(Arc::new(pod("p", json!({"resourceClaims": claims}))));

        let attempts = [Attempt::default(), Attempt { room: Cell::new(0), ..Attempt::default() }];
        for attempt in &attempts {
            assert_eq!(attempt.lacks_devices(&pod, &cluster.devices, cluster.node("n").unwrap()), None);
        }
        let reserved = |cluster: &Cluster, attempt: &Attempt| {
            attempt.reservations(&pod, &cluster.devices, cluster.node("n").unwrap()).unwrap().remove(0).allocation.unwrap()
        };
        let first = reserved(&cluster, &Attempt::default());
        cluster.devices.ledger.choose("other", &first);
        let device = |attempt: &Attempt| reserved(&cluster, attempt).devices.unwrap().results.unwrap().remove(0).device;
        assert_eq!(attempts.each_ref().map(device), ["dev0", "dev1"]);
        assert_eq!(device(&Attempt::default()), "dev1");
    }
}
