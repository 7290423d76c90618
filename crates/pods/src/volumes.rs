//! What a claim asks of a volume, and what a volume asks of a node (Kubernetes documentation, "Persistent Volumes"). The controller
//! that binds and the scheduler go by the same rules.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use apimachinery::labels::Selector;
use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::nodes::{Labels, NodeTerms};

/// On a claim: its binding is complete, it has this volume for good.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or a volume: the controller made the bond and may break it.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it, and so who removes what is in it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: who is asked to make its volume, under the present name and under the former one.
pub const PROVISIONERS: [&str; 2] = ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
/// On a claim: the node that the scheduler has chosen for its first consumer.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The former place of a class's name.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// The provisioner of classes whose volumes people make.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The name of a claim's class; None when it leaves the choice open, empty when it wants none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(&claim.metadata, CLASS).or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref())
}

/// The name of a volume's class, empty when it has none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let own = annotation(&volume.metadata, CLASS).or_else(|| volume.spec.as_ref()?.storage_class_name.as_deref());
    own.unwrap_or_default()
}

/// The volume that a claim names, empty when it has none yet.
pub fn volume_of(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// Whether a claim has its volume for good.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_of(claim).is_empty() && annotation(&claim.metadata, BIND_COMPLETED).is_some()
}

/// Whether a kubelet takes a claim: it has its volume, and its status says so.
pub fn is_usable(claim: &PersistentVolumeClaim) -> bool {
    is_bound(claim) && claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

/// Whether a volume is meant for a claim: by its name, and by its uid where the volume knows it.
pub fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let uid = reference.uid.as_deref().unwrap_or_default();
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && (uid.is_empty() || claim.metadata.uid.as_deref() == Some(uid))
}

/// Whether a volume may be used on a node with these labels.
pub fn is_reachable(volume: &PersistentVolume, node: &str, labels: &Labels) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    affinity.is_none_or(|required| NodeTerms::new(required).matches(node, labels))
}

fn storage(amounts: Option<&BTreeMap<String, Amount>>) -> i64 {
    let amount = amounts.and_then(|amounts| amounts.get("storage"));
    amount.and_then(|amount| Quantity::parse(&amount.0).ok()).map_or(0, Quantity::as_i64)
}

/// How much a volume holds, bytes.
pub fn capacity(volume: &PersistentVolume) -> i64 {
    storage(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()))
}

/// How much a claim asks for, bytes.
pub fn requested(claim: &PersistentVolumeClaim) -> i64 {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    storage(resources.and_then(|resources| resources.requests.as_ref()))
}

/// How much a claim has by its status, bytes.
pub fn held(claim: &PersistentVolumeClaim) -> i64 {
    storage(claim.status.as_ref().and_then(|status| status.capacity.as_ref()))
}

/// Whether a claim and a volume mean the same by a volume: a file system or a block device.
pub fn same_mode(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let or_default = |mode: Option<String>| mode.unwrap_or_else(|| "Filesystem".to_owned());
    let claimed = claim.spec.as_ref().and_then(|spec| spec.volume_mode.clone());
    or_default(claimed) == or_default(volume.spec.as_ref().and_then(|spec| spec.volume_mode.clone()))
}

/// What a claim asks for, compiled once for all volumes.
pub struct Wish<'a> {
    claim: &'a PersistentVolumeClaim,
    selector: Option<Selector>,
    requested: i64,
    /// Whether a free volume may only be taken with a node in mind.
    waits: bool,
}

impl<'a> Wish<'a> {
    /// Of a claim; `waits` says that its class binds when the first consumer has a node.
    pub fn new(claim: &'a PersistentVolumeClaim, waits: bool) -> Self {
        let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        // A selector that is not valid selects nothing.
        let selector =
            selector.map(|selector| Selector::from_label_selector(Some(selector)).unwrap_or_else(|_| Selector::nothing()));
        Self { claim, selector, requested: requested(claim), waits }
    }

    /// The volume to bind: the one that is meant for the claim, or the smallest free one that will do. With a `node`, one that may
    /// be used there.
    pub fn best<V: Borrow<PersistentVolume>>(
        &self,
        volumes: impl IntoIterator<Item = V>,
        node: Option<(&str, &Labels)>,
    ) -> Option<V> {
        let reachable = |volume: &PersistentVolume| node.is_none_or(|(name, labels)| is_reachable(volume, name, labels));
        let mut best: Option<V> = None;
        for candidate in volumes {
            let volume = candidate.borrow();
            if !self.might_do(volume) {
                continue;
            }
            if is_for(volume, self.claim) {
                return reachable(volume).then_some(candidate);
            }
            let smaller = best.as_ref().is_none_or(|best| capacity(volume) < capacity(best.borrow()));
            if smaller && !(self.waits && node.is_none()) && self.accepts_free(volume) && reachable(volume) {
                best = Some(candidate);
            }
        }
        best
    }

    /// What also a volume must satisfy that is meant for the claim.
    fn might_do(&self, volume: &PersistentVolume) -> bool {
        let attributes = |class: Option<String>| class.unwrap_or_default();
        let claimed = self.claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
        let of_volume = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
        volume.metadata.deletion_timestamp.is_none()
            && capacity(volume) >= self.requested
            && same_mode(self.claim, volume)
            && attributes(claimed) == attributes(of_volume)
    }

    fn accepts_free(&self, volume: &PersistentVolume) -> bool {
        let Some(spec) = &volume.spec else { return false };
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let modes = self.claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
        let offered = spec.access_modes.as_deref().unwrap_or_default();
        spec.claim_ref.is_none()
            && phase == Some("Available")
            && self.selector.as_ref().is_none_or(|selector| selector.matches(&volume.metadata.labels))
            && class_of_volume(volume) == class_of_claim(self.claim).unwrap_or_default()
            && modes.iter().all(|mode| offered.contains(mode))
    }
}

/// The classes of attributes that a claim wants, has and is getting (KEP-3751); one may come several times.
pub fn attributes_classes(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let next = status.and_then(|status| status.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref());
    [wanted, current, next].into_iter().flatten().filter(|class| !class.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn merge(into: &mut Value, from: &Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                from.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
            }
            (into, from) => *into = from.clone(),
        }
    }

    fn volume(name: &str, more: Value) -> PersistentVolume {
        let mut whole = json!({"metadata": {"name": name, "labels": {"disk": name}}, "status": {"phase": "Available"},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "fast"}});
        merge(&mut whole, &more);
        serde_json::from_value(whole).unwrap()
    }

    #[track_caller]
    fn check(claim: Value, volumes: &[PersistentVolume], node: Option<&str>, waits: bool, expected: Option<&str>) {
        let mut whole = json!({"metadata": {"namespace": "a", "name": "data", "uid": "u"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        merge(&mut whole, &json!({"spec": claim}));
        let claim: PersistentVolumeClaim = serde_json::from_value(whole).unwrap();
        let labels = node.map(|node| BTreeMap::from([("kubernetes.io/hostname".to_owned(), node.to_owned())]));
        let found = Wish::new(&claim, waits).best(volumes, node.map(|node| (node, &labels)));
        assert_eq!(found.map(|volume| volume.metadata.name.clone().unwrap()).as_deref(), expected);
    }

    #[test]
    fn the_smallest_that_will_do() {
        let sized = |name: &str, size: &str| volume(name, json!({"spec": {"capacity": {"storage": size}}}));
        let all = [sized("big", "5Gi"), sized("small", "500Mi"), sized("right", "1200Mi")];
        check(json!({}), &all, None, false, Some("right"));
        check(json!({"resources": {"requests": {"storage": "2Gi"}}}), &all, None, false, Some("big"));
        check(json!({"resources": {"requests": {"storage": "6Gi"}}}), &all, None, false, None);
        check(json!({}), &all, None, true, None);
        check(json!({}), &all, Some("n"), true, Some("right"));
        check(json!({"storageClassName": "slow"}), &all, None, false, None);
        check(json!({"accessModes": ["ReadWriteMany"]}), &all, None, false, None);
        check(json!({"selector": {"matchLabels": {"disk": "big"}}}), &all, None, false, Some("big"));
        check(json!({"volumeMode": "Block"}), &all, None, false, None);
        check(json!({"volumeAttributesClassName": "gold"}), &all, None, false, None);
    }

    #[test]
    fn only_what_is_free_or_meant_for_the_claim() {
        let claimed = |name: &str, claim: &str, uid: &str| {
            volume(
                name,
                json!({"spec": {"claimRef": {"namespace": "a", "name": claim, "uid": uid}, "storageClassName": "other"}}),
            )
        };
        let free = || volume("free", json!({}));
        check(json!({}), &[free(), claimed("mine", "data", "u")], None, false, Some("mine"));
        check(json!({}), &[claimed("mine", "data", "")], None, true, Some("mine"));
        check(json!({}), &[claimed("former", "data", "v"), free()], None, false, Some("free"));
        check(json!({}), &[claimed("theirs", "other", ""), free()], None, false, Some("free"));
        check(json!({}), &[volume("used", json!({"status": {"phase": "Released"}}))], None, false, None);
        check(
            json!({}),
            &[volume("going", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))],
            None,
            false,
            None,
        );
    }

    #[test]
    fn where_it_may_be_used() {
        let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]}]);
        let local = || volume("local", json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}}));
        check(json!({}), &[local()], Some("n"), true, Some("local"));
        check(json!({}), &[local()], Some("m"), true, None);
    }
}
