//! Attachment of volumes to nodes: a VolumeAttachment for each volume of a driver that asks for it and each node with a pod that has the volume.
//! The driver's own attacher does the rest (Kubernetes CSI documentation, "external-attacher").

mod metrics;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::Api;
use client::kube;
use client::kube::api::{DeleteParams, PostParams};
use client::{Entry, Index, Informer, Informers, Key};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;

use ::pods::{csi, volumes};

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::node_lifecycle::is_shut_down;
use crate::{meta, pods};
use plan::{Change, Held, Observed, Wanted};

/// Keys are names of nodes.
pub(crate) struct Attachments {
    pods: Informer<Pod>,
    pods_by_node: Index<Pod>,
    pods_by_claim: Index<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    drivers: Informer<CSIDriver>,
    nodes: Informer<Node>,
    attachments: Informer<VolumeAttachment>,
    attachments_by_node: Index<VolumeAttachment>,
    attachments_by_volume: Index<VolumeAttachment>,
    /// What pods have been told of an attachment, by its name.
    told: Mutex<BTreeMap<String, String>>,
    /// Since when nobody has wanted an attachment, by its name and on the clock that goes on evenly. As upstream, the count begins anew with the process.
    unwanted: Mutex<BTreeMap<String, Duration>>,
}

impl Attachments {
    pub(crate) fn new(informers: &Informers) -> Self {
        let (pods, attachments) = (informers.of::<Pod>(), informers.of::<VolumeAttachment>());
        Self {
            pods_by_node: crate::pods::by_node(&pods),
            pods_by_claim: crate::pods::by_claim(&pods),
            pods,
            claims: informers.of(),
            volumes: informers.of(),
            drivers: informers.of(),
            nodes: informers.of(),
            attachments_by_node: attachments.index("node", |one, values| values.add(one.spec.node_name.as_str())),
            attachments_by_volume: attachments.index("volume", |one, values| values.add(plan::volume_of(one))),
            attachments,
            told: Mutex::default(),
            unwanted: Mutex::default(),
        }
    }

    /// The volumes that pods of a node need there, with the pods. What ends on a node that is off needs nothing any more (KEP-2268).
    fn wanted(&self, node: &str) -> Vec<Wanted> {
        let off = self.nodes.get(None, node).is_some_and(|node| is_shut_down(&node));
        let needs = |pod: &Arc<Pod>| !(pods::is_finished(pod) || off && meta::ends(pod.as_ref()));
        let mut all: BTreeMap<String, Wanted> = BTreeMap::new();
        for pod in self.pods_by_node.get(node).into_iter().filter(needs) {
            for name in pods::claims(&pod) {
                let Some(volume) = self.volume(&pod, &name) else { continue };
                let Some((driver, handle)) = csi::of_volume(&volume) else { continue };
                if !csi::needs_attachment(self.drivers.get(None, driver).as_deref()) {
                    continue;
                }
                let attachment = csi::attachment_name(driver, handle, node);
                let wanted = all.entry(attachment.clone()).or_insert_with(|| Wanted {
                    attachment,
                    driver: driver.to_owned(),
                    volume: meta::name(volume.as_ref()).to_owned(),
                    exclusive: plan::is_exclusive(&volume),
                    pods: Vec::new(),
                });
                wanted.pods.push(pod.clone());
            }
        }
        all.into_values().collect()
    }

    /// The volume that a pod's claim has for good.
    fn volume(&self, pod: &Pod, claim: &str) -> Option<Arc<PersistentVolume>> {
        let claim = self.claims.get(Some(meta::namespace(pod)), claim).filter(|claim| volumes::is_bound(claim))?;
        let volume = self.volumes.get(None, volumes::volume_of(&claim))?;
        volumes::is_for(&volume, &claim).then_some(volume)
    }

    /// What other nodes have of the volumes that one node at a time may have. Others may be anywhere, with very many pods.
    fn held(&self, wanted: &[Wanted], node: &str) -> BTreeMap<String, Held> {
        let held = |one: &Wanted| {
            let nodes = self.elsewhere(&one.volume, node);
            (!nodes.is_empty()).then(|| (one.volume.clone(), Held { users: self.users(&one.volume, &nodes), nodes }))
        };
        wanted.iter().filter(|one| one.exclusive).filter_map(held).collect()
    }

    /// Nodes, other than this one, that have the volume attached.
    fn elsewhere(&self, volume: &str, node: &str) -> BTreeSet<String> {
        let all = self.attachments_by_volume.get(volume);
        all.iter().map(|one| one.spec.node_name.clone()).filter(|other| other != node).collect()
    }

    /// The names of the pods that use a volume on any of these nodes.
    fn users(&self, volume: &str, nodes: &BTreeSet<String>) -> Vec<String> {
        let claim = self.volumes.get(None, volume).and_then(|volume| claim_of(&volume));
        let pods = claim.map(|claim| self.pods_by_claim.get(&claim.to_string())).unwrap_or_default();
        let using = pods.iter().filter(|pod| nodes.contains(pods::node(pod)) && !pods::is_finished(pod));
        let mut names: Vec<String> = using.map(|pod| meta::name(pod.as_ref()).to_owned()).collect();
        names.sort();
        names
    }

    /// The name that a Node's status has for the volume of an attachment.
    fn unique_name(&self, attachment: &VolumeAttachment) -> Option<String> {
        let volume = self.volumes.get(None, plan::volume_of(attachment))?;
        csi::of_volume(&volume).map(|(driver, handle)| csi::unique_name(driver, handle))
    }

    /// For how long nobody has wanted what is attached to a node.
    fn unwanted(&self, wanted: &[Wanted], existing: &[Arc<VolumeAttachment>], now: Duration) -> BTreeMap<String, Duration> {
        let mut all = self.unwanted.lock();
        all.retain(|name, _| self.attachments.get(None, name).is_some());
        let mut waited = BTreeMap::new();
        for one in existing {
            let name = meta::name(one.as_ref()).to_owned();
            if plan::is_unwanted(wanted, one) {
                let since = *all.entry(name.clone()).or_insert(now);
                waited.insert(name, now.saturating_sub(since));
            } else {
                all.remove(&name);
            }
        }
        waited
    }

    /// Tells the pods of a volume once what has become of its attachment.
    fn tell(&self, cx: &Cx, wanted: &Wanted, notice: Option<plan::Notice>) {
        let mut told = self.told.lock();
        let Some(notice) = notice else { return };
        if told.insert(wanted.attachment.clone(), notice.message.clone()).as_ref() == Some(&notice.message) {
            return;
        }
        for pod in &wanted.pods {
            cx.events.about(pod.as_ref(), notice.kind, notice.reason, notice.message.clone());
        }
    }
}

impl Controller for Attachments {
    const NAME: &'static str = "persistentvolume-attach-detach";
    const ACCOUNT: &'static str = "attachdetach-controller";

    fn sources(&self) -> Vec<Source> {
        let has_claims = |pod: &Arc<Pod>| pods::claims(pod).next().is_some();
        let of_pods = Source::stepped(&self.pods, move |step, queue| {
            let all = step.entries().filter(|pod| pods::may_have_claims(pod)).filter_map(Entry::get);
            for pod in all.filter(|pod| has_claims(pod) && !pods::node(pod).is_empty()) {
                queue.add(Key::cluster(pods::node(&pod)));
            }
        });
        let by_claim = self.pods_by_claim.clone();
        let of_claims = Source::mapped(&self.claims, move |change, queue| users(&by_claim, &change.key, queue));
        let by_claim = self.pods_by_claim.clone();
        let of_volumes = Source::mapped(&self.volumes, move |change, queue| {
            for volume in [&change.old, &change.new].into_iter().flatten() {
                claim_of(volume).iter().for_each(|claim| users(&by_claim, claim, queue));
            }
        });
        let (by_claim, volumes) = (self.pods_by_claim.clone(), self.volumes.clone());
        let of_attachments = Source::mapped(&self.attachments, move |change, queue| {
            for one in [&change.old, &change.new].into_iter().flatten() {
                queue.add(Key::cluster(one.spec.node_name.as_str()));
                // Who waits for it to go from another node.
                let claim = volumes.get(None, plan::volume_of(one)).and_then(|volume| claim_of(&volume));
                claim.iter().for_each(|claim| users(&by_claim, claim, queue));
            }
        });
        let of_nodes = Source::mapped(&self.nodes, |change, queue| {
            if change.old.as_deref().map(plan::facts) != change.new.as_deref().map(plan::facts) {
                queue.add(change.key.clone());
            }
        });
        let nodes = self.nodes.clone();
        let of_drivers = Source::mapped(&self.drivers, move |_, queue| {
            nodes.list().iter().for_each(|node| queue.add(Key::of(node.as_ref())));
        });
        vec![of_pods, of_claims, of_volumes, of_attachments, of_nodes, of_drivers]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let api: Api<VolumeAttachment> = Api::all(cx.client.clone());
        let (wanted, node) = (self.wanted(&key.name), self.nodes.get(None, &key.name));
        let existing = self.attachments_by_node.get(&key.name);
        let held = self.held(&wanted, &key.name);
        let names =
            existing.iter().filter_map(|one| Some((meta::name(one.as_ref()).to_owned(), self.unique_name(one)?))).collect();
        let unwanted = self.unwanted(&wanted, &existing, cx.clock.passed());
        let observed = Observed { node: node.as_deref(), wanted: &wanted, existing: &existing, held, names, unwanted };
        for change in plan::changes(&observed) {
            match change {
                Change::Attach(one) => attach(&api, one, &key.name).await?,
                Change::Detach(name, manner) => {
                    detach(&api, &name).await?;
                    metrics::detached(manner);
                }
            }
        }
        for one in &wanted {
            self.tell(cx, one, plan::notice(&observed, one));
        }
        self.told
            .lock()
            .retain(|name, _| wanted.iter().any(|one| one.attachment == *name) || self.attachments.get(None, name).is_some());
        Ok(Action::after(plan::again(&observed)))
    }
}

/// The nodes of the pods that have a claim.
fn users(by_claim: &Index<Pod>, claim: &Key, queue: &crate::queue::Queue) {
    let pods = by_claim.get(&claim.to_string());
    pods.iter().map(|pod| pods::node(pod)).filter(|node| !node.is_empty()).for_each(|node| queue.add(Key::cluster(node)));
}

fn claim_of(volume: &PersistentVolume) -> Option<Key> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Key::namespaced(reference.namespace.as_deref()?, reference.name.as_deref()?))
}

async fn attach(api: &Api<VolumeAttachment>, wanted: &Wanted, node: &str) -> Result<(), Error> {
    let attachment = VolumeAttachment {
        metadata: ObjectMeta { name: Some(wanted.attachment.clone()), ..ObjectMeta::default() },
        spec: VolumeAttachmentSpec {
            attacher: wanted.driver.clone(),
            node_name: node.to_owned(),
            source: VolumeAttachmentSource { persistent_volume_name: Some(wanted.volume.clone()), ..Default::default() },
        },
        status: None,
    };
    match api.create(&PostParams::default(), &attachment).await {
        // The cache does not show it yet, or the one before is on its way out: its end leads to the next look.
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop).map_err(Error::from),
    }
}

async fn detach(api: &Api<VolumeAttachment>, name: &str) -> Result<(), Error> {
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop).map_err(Error::from),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{World, object};

    fn world() -> World {
        let world = World::new();
        let volume = |name: &str| {
            let mode = if name == "shared" { "ReadWriteMany" } else { "ReadWriteOnce" };
            json!({"metadata": {"name": name}, "spec": {"accessModes": [mode], "capacity": {"storage": "1Gi"},
                "claimRef": {"namespace": "a", "name": name}, "csi": {"driver": "d", "volumeHandle": name}}})
        };
        let claim = |name: &str| {
            json!({"metadata": {"namespace": "a", "name": name, "annotations": {volumes::BIND_COMPLETED: "yes"}},
                "spec": {"volumeName": name}, "status": {"phase": "Bound"}})
        };
        for name in ["one", "two", "shared"] {
            world.fake.put::<PersistentVolume>(&object(volume(name)));
            world.fake.put::<PersistentVolumeClaim>(&object(claim(name)));
        }
        for name in ["m", "n"] {
            world.fake.put::<Node>(&object(json!({"metadata": {"name": name}})));
        }
        world
    }

    fn pod(name: &str, node: &str, claim: &str) -> Pod {
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
        object(json!({"metadata": {"namespace": "a", "name": name, "uid": name},
            "spec": {"containers": [], "nodeName": node, "volumes": volumes}, "status": {"phase": "Running"}}))
    }

    fn names(attachments: &[VolumeAttachment]) -> BTreeSet<String> {
        attachments.iter().map(|one| format!("{} {} {}", one.spec.attacher, plan::volume_of(one), one.spec.node_name)).collect()
    }

    /// What a volume is attached to follows its pods, one node after the other, and not before a node has let go of it.
    #[tokio::test]
    async fn attachments_follow_pods() {
        let world = world();
        world.fake.put::<Pod>(&pod("first", "n", "one"));
        world.start(&["persistentvolume-attach-detach"]);
        let until = async |expected: &[&str]| {
            let expected: BTreeSet<String> = expected.iter().map(|text| (*text).to_owned()).collect();
            world.fake.until::<VolumeAttachment>(|all| names(all) == expected).await;
        };
        until(&["d one n"]).await;
        let using = |used: Value| object::<Node>(json!({"metadata": {"name": "n"}, "status": {"volumesInUse": used}}));
        world.fake.put::<Node>(&using(json!([csi::unique_name("d", "one")])));
        // A volume of one writer waits for the other node; another volume does not.
        world.fake.put::<Pod>(&pod("second", "m", "one"));
        world.fake.put::<Pod>(&pod("third", "m", "two"));
        until(&["d one n", "d two m"]).await;
        let pods = Api::<Pod>::namespaced(world.fake.client(), "a");
        pods.delete("first", &DeleteParams::default()).await.unwrap();
        world.fake.put::<Node>(&using(json!([])));
        until(&["d one m", "d two m"]).await;
    }

    /// Nobody asks who else has a volume that any number of nodes may have.
    #[tokio::test]
    async fn only_of_exclusive_volumes_it_is_worked_out_who_has_them() {
        let world = world();
        for (index, (node, claim)) in
            [("n", "one"), ("n", "shared"), ("m", "one"), ("m", "shared"), ("m", "two")].into_iter().enumerate()
        {
            world.fake.put::<Pod>(&pod(&format!("{claim}-{index}"), node, claim));
        }
        for claim in ["one", "shared"] {
            let spec = json!({"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": claim}});
            world.fake.put::<VolumeAttachment>(&object(json!({"metadata": {"name": claim}, "spec": spec})));
        }
        let controller = Attachments::new(&world.options().informers);
        controller.pods.synced().await;
        controller.claims.synced().await;
        controller.volumes.synced().await;
        controller.drivers.synced().await;
        controller.nodes.synced().await;
        controller.attachments.synced().await;
        let wanted = controller.wanted("m");
        assert_eq!(wanted.len(), 3);
        let expected = Held { nodes: BTreeSet::from(["n".to_owned()]), users: vec!["one-0".to_owned()] };
        assert_eq!(controller.held(&wanted, "m"), BTreeMap::from([("one".to_owned(), expected)]));
    }

    /// What a dead node had is taken from it after six minutes, though it lists it as used for ever; a node that has come back keeps it.
    #[tokio::test]
    async fn a_dead_node_loses_what_nobody_wants_there() {
        let mut world = world();
        let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        world.clock = crate::Clock::held(start);
        let node = |also: &[&str]| -> Node {
            let used: Vec<_> = also.iter().map(|name| csi::unique_name("d", name)).collect();
            object(json!({"metadata": {"name": "n"}, "status": {"volumesInUse": used,
                "conditions": [{"type": "Ready", "status": "Unknown"}]}}))
        };
        world.fake.put(&node(&["one"]));
        world.fake.put(&pod("first", "n", "one"));
        world.start(&["persistentvolume-attach-detach"]);
        let until = async |expected: [&str; 2]| {
            let expected = BTreeSet::from(expected.map(str::to_owned));
            world.fake.until::<VolumeAttachment>(|all| names(all) == expected).await;
        };
        world.fake.until::<VolumeAttachment>(|all| all.len() == 1).await;
        world.fake.put(&pod("second", "m", "one"));
        let pods = Api::<Pod>::namespaced(world.fake.client(), "a");
        pods.delete("first", &DeleteParams::default()).await.unwrap();
        // What is attached for a later pod tells that the end of the first has been seen.
        world.fake.put(&pod("third", "n", "two"));
        until(["d one n", "d two n"]).await;
        world.clock.set(start + Duration::from_secs(360));
        world.fake.put(&node(&["one", "two"]));
        until(["d one m", "d two n"]).await;
    }
}
