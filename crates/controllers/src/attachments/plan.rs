//! Which volumes are attached to a node and which are taken from it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::events::Type;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use crate::meta;
use crate::node_lifecycle::{is_out_of_service, is_ready};

/// How long a node that is not ready may take to unmount what nobody wants there any more: upstream's ReconcilerMaxWaitForUnmountDuration.
const UNMOUNT: Duration = Duration::from_secs(6 * 60);

/// A volume that pods of a node need there.
pub(super) struct Wanted {
    pub(super) attachment: String,
    pub(super) driver: String,
    pub(super) volume: String,
    /// One node at a time may have it.
    pub(super) exclusive: bool,
    pub(super) pods: Vec<Arc<Pod>>,
}

/// What the caches say of a node.
pub(super) struct Observed<'a> {
    /// None when it is gone.
    pub(super) node: Option<&'a Node>,
    pub(super) wanted: &'a [Wanted],
    pub(super) existing: &'a [Arc<VolumeAttachment>],
    /// What other nodes have of the wanted volumes that one node at a time may have, by the volumes' names.
    pub(super) held: BTreeMap<String, Held>,
    /// What the node's status calls the volumes of attachments, by the attachments' names.
    pub(super) names: BTreeMap<String, String>,
    /// For how long nobody has wanted what is attached, by the attachments' names.
    pub(super) unwanted: BTreeMap<String, Duration>,
}

/// Who else has a volume.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Held {
    /// Nodes, at least one.
    pub(super) nodes: BTreeSet<String>,
    /// Pods that use it there; of the namespace of the volume's claim, as all of its pods.
    pub(super) users: Vec<String>,
}

/// What to do.
#[derive(PartialEq)]
pub(super) enum Change<'a> {
    Attach(&'a Wanted),
    Detach(String, Manner),
}

/// How a volume is taken from a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Manner {
    /// The node does not use it.
    Unused,
    /// The node may use it, but is known to be off (KEP-2268).
    OutOfService,
    /// The node may use it, but is not ready, and has had its time.
    Timeout,
}

/// What becomes of an attachment.
#[derive(Clone, Copy)]
enum Fate {
    Stays,
    StaysFor(Duration),
    Goes(Manner),
}

/// An event.
pub(super) struct Notice {
    pub(super) kind: Type,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        self.attachment == other.attachment
    }
}

/// The name of the volume that an attachment is about, empty when it has none of its own.
pub(super) fn volume_of(attachment: &VolumeAttachment) -> &str {
    attachment.spec.source.persistent_volume_name.as_deref().unwrap_or_default()
}

/// Whether one node at a time may have a volume.
pub(super) fn is_exclusive(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    !modes.iter().any(|mode| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany"))
}

/// What of a node decides about attachments.
pub(super) fn facts(node: &Node) -> (Vec<String>, bool, bool) {
    let used = node.status.as_ref().and_then(|status| status.volumes_in_use.clone()).unwrap_or_default();
    (used, is_out_of_service(node), is_ready(node))
}

/// What is to be done for a node.
pub(super) fn changes<'a>(observed: &Observed<'a>) -> Vec<Change<'a>> {
    let there = |name: &str| observed.existing.iter().any(|one| meta::name(one.as_ref()) == name);
    let attach = observed.wanted.iter().filter(|one| !there(&one.attachment) && may_attach(observed, one)).map(Change::Attach);
    let detach = observed.existing.iter().filter_map(|one| match fate(observed, one) {
        Fate::Goes(manner) => Some(Change::Detach(meta::name(one.as_ref()).to_owned(), manner)),
        Fate::Stays | Fate::StaysFor(_) => None,
    });
    attach.chain(detach).collect()
}

/// In how long a node has had its time to unmount something.
pub(super) fn again(observed: &Observed<'_>) -> Option<Duration> {
    let left = |one: &Arc<VolumeAttachment>| match fate(observed, one) {
        Fate::StaysFor(left) => Some(left),
        Fate::Stays | Fate::Goes(_) => None,
    };
    observed.existing.iter().filter_map(left).min()
}

/// Whether an attachment is ours and nobody wants it. What others have attached is theirs.
pub(super) fn is_unwanted(wanted: &[Wanted], attachment: &VolumeAttachment) -> bool {
    let name = meta::name(attachment);
    let is_ours = name.starts_with("csi-") && !volume_of(attachment).is_empty();
    is_ours && attachment.metadata.deletion_timestamp.is_none() && !wanted.iter().any(|one| one.attachment == name)
}

fn may_attach(observed: &Observed<'_>, wanted: &Wanted) -> bool {
    observed.node.is_some() && holders(observed, wanted).is_none()
}

/// Who keeps the node from having a volume.
fn holders<'a>(observed: &'a Observed<'_>, wanted: &Wanted) -> Option<&'a Held> {
    observed.held.get(&wanted.volume).filter(|_| wanted.exclusive)
}

/// What nobody wants goes when its node does not use it, or cannot say so any more.
fn fate(observed: &Observed<'_>, attachment: &VolumeAttachment) -> Fate {
    let name = meta::name(attachment);
    if !is_unwanted(observed.wanted, attachment) {
        return Fate::Stays;
    }
    let Some(node) = observed.node else { return Fate::Goes(Manner::Unused) };
    let (used, off, ready) = facts(node);
    if observed.names.get(name).is_none_or(|unique| !used.contains(unique)) {
        return Fate::Goes(Manner::Unused);
    }
    let waited = observed.unwanted.get(name).copied().unwrap_or_default();
    match UNMOUNT.checked_sub(waited).filter(|left| !left.is_zero()) {
        _ if off => Fate::Goes(Manner::OutOfService),
        _ if ready => Fate::Stays,
        Some(left) => Fate::StaysFor(left),
        None => Fate::Goes(Manner::Timeout),
    }
}

/// What the pods of a volume are told.
pub(super) fn notice(observed: &Observed<'_>, wanted: &Wanted) -> Option<Notice> {
    let volume = &wanted.volume;
    let Some(found) = observed.existing.iter().find(|one| meta::name(one.as_ref()) == wanted.attachment) else {
        let Held { nodes, users } = holders(observed, wanted)?;
        let why = match users.as_slice() {
            [] => format!(
                "Volume is already exclusively attached to one node and can't be attached to another: it is attached to {}",
                nodes.first()?
            ),
            names => format!("Volume is already used by pod(s) {}", names.join(", ")),
        };
        let message = format!("Multi-Attach error for volume {volume:?} {why}");
        return Some(Notice { kind: Type::Warning, reason: "FailedAttachVolume", message });
    };
    let status = found.status.as_ref()?;
    if status.attached {
        let message = format!("AttachVolume.Attach succeeded for volume {volume:?} ");
        return Some(Notice { kind: Type::Normal, reason: "SuccessfulAttachVolume", message });
    }
    let why = status.attach_error.as_ref()?.message.clone().unwrap_or_default();
    let message = format!("AttachVolume.Attach failed for volume {volume:?} : {why}");
    Some(Notice { kind: Type::Warning, reason: "FailedAttachVolume", message })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::object;

    fn attachment(name: &str, volume: &str, status: Value) -> Arc<VolumeAttachment> {
        Arc::new(object(json!({"metadata": {"name": name}, "status": status,
            "spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": volume}}})))
    }

    fn wanted(name: &str, exclusive: bool) -> Wanted {
        let (attachment, volume) = (format!("csi-{name}"), name.to_owned());
        Wanted { attachment, driver: "d".to_owned(), volume, exclusive, pods: Vec::new() }
    }

    fn held_by_m(users: &[&str]) -> Held {
        Held { nodes: BTreeSet::from(["m".to_owned()]), users: users.iter().map(|name| (*name).to_owned()).collect() }
    }

    /// `existing` are names of volumes; `held` is a volume that another node has.
    #[track_caller]
    fn check(node: Option<Value>, needed: &[Wanted], existing: &[&str], held: Option<&str>, attach: &[&str], detach: &[&str]) {
        let (attached, detached, _) = planned(node, needed, existing, held, 0);
        let detached: Vec<_> = detached.into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            (attached, detached),
            (attach.iter().map(|s| s.to_string()).collect(), detach.iter().map(|s| s.to_string()).collect())
        );
    }

    type Planned = (Vec<String>, Vec<(String, Manner)>, Option<u64>);

    /// What is attached, what is detached and in how many seconds there is another look, when nobody has wanted what exists for so long.
    fn planned(node: Option<Value>, needed: &[Wanted], existing: &[&str], held: Option<&str>, seconds: u64) -> Planned {
        let node: Option<Node> = node.map(object);
        let existing: Vec<_> = existing.iter().map(|name| attachment(&format!("csi-{name}"), name, json!(null))).collect();
        let held = held.map(|name| (name.to_owned(), held_by_m(&[]))).into_iter().collect();
        let names =
            existing.iter().map(|one| (meta::name(one.as_ref()).to_owned(), format!("used-{}", volume_of(one)))).collect();
        let unwanted = existing.iter().map(|one| (meta::name(one.as_ref()).to_owned(), Duration::from_secs(seconds))).collect();
        let observed = Observed { node: node.as_ref(), wanted: needed, existing: &existing, held, names, unwanted };
        let (mut attached, mut detached) = (Vec::new(), Vec::new());
        for change in changes(&observed) {
            match change {
                Change::Attach(one) => attached.push(one.volume.clone()),
                Change::Detach(name, manner) => detached.push((name.trim_start_matches("csi-").to_owned(), manner)),
            }
        }
        (attached, detached, again(&observed).map(|left| left.as_secs()))
    }

    /// A node that is not ready has six minutes for what nobody wants; one that is ready has for ever, one that is off nothing.
    #[test]
    fn what_a_dead_node_has_is_taken_from_it() {
        let node = |ready: Value, taint: Value| {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            json!({"spec": {"taints": taint}, "status": {"conditions": conditions, "volumesInUse": ["used-a"]}})
        };
        let off = || json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]);
        let check = |node: Value, needed: &[Wanted], seconds: u64, detach: Option<Manner>, left: Option<u64>| {
            let detached = detach.map(|manner| ("a".to_owned(), manner)).into_iter().collect();
            assert_eq!(planned(Some(node), needed, &["a"], None, seconds), (vec![], detached, left), "after {seconds} s");
        };
        for ready in ["Unknown", "False"] {
            check(node(json!(ready), json!([])), &[], 0, None, Some(360));
            check(node(json!(ready), json!([])), &[], 359, None, Some(1));
            check(node(json!(ready), json!([])), &[], 360, Some(Manner::Timeout), None);
            check(node(json!(ready), json!([])), &[wanted("a", true)], 360, None, None);
            check(node(json!(ready), off()), &[], 0, Some(Manner::OutOfService), None);
        }
        check(node(json!("True"), json!([])), &[], 100_000, None, None);
        check(node(json!("True"), off()), &[], 0, Some(Manner::OutOfService), None);
    }

    #[test]
    fn what_is_attached_and_detached() {
        let node = |used: Value| Some(json!({"status": {"volumesInUse": used}}));
        let plain = || node(json!([]));
        check(plain(), &[wanted("a", true)], &[], None, &["a"], &[]);
        check(plain(), &[wanted("a", true)], &["a"], None, &[], &[]);
        check(plain(), &[wanted("a", true)], &[], Some("a"), &[], &[]);
        check(plain(), &[wanted("a", false)], &[], Some("a"), &["a"], &[]);
        check(plain(), &[], &["a"], None, &[], &["a"]);
        check(node(json!(["used-a"])), &[], &["a"], None, &[], &[]);
        let off = json!({"status": {"volumesInUse": ["used-a"]}, "spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}});
        check(Some(off), &[], &["a"], None, &[], &["a"]);
        check(None, &[wanted("b", true)], &["a"], None, &[], &["a"]);
    }

    #[test]
    fn others_attachments_are_theirs() {
        let mine = attachment("by-hand", "a", json!(null));
        let existing = [mine];
        let observed = Observed {
            node: None,
            wanted: &[],
            existing: &existing,
            held: BTreeMap::new(),
            names: BTreeMap::new(),
            unwanted: BTreeMap::new(),
        };
        assert!(changes(&observed).is_empty());
    }

    #[test]
    fn what_pods_are_told() {
        let check = |status: Value, expected: Option<(&str, &str)>| {
            let needed = [wanted("a", true)];
            let existing = [attachment("csi-a", "a", status)];
            let observed = Observed {
                node: None,
                wanted: &needed,
                existing: &existing,
                held: BTreeMap::new(),
                names: BTreeMap::new(),
                unwanted: BTreeMap::new(),
            };
            let notice = notice(&observed, &needed[0]);
            assert_eq!(notice.as_ref().map(|notice| (notice.reason, notice.message.as_str())), expected);
        };
        check(json!(null), None);
        check(json!({"attached": false}), None);
        check(json!({"attached": true}), Some(("SuccessfulAttachVolume", "AttachVolume.Attach succeeded for volume \"a\" ")));
        let failed = "AttachVolume.Attach failed for volume \"a\" : no such disk";
        check(json!({"attached": false, "attachError": {"message": "no such disk"}}), Some(("FailedAttachVolume", failed)));
    }

    /// Upstream's reportMultiAttachError: the pods that have the volume are named, where there are some.
    #[test]
    fn who_has_the_volume() {
        let check = |users: &[&str], expected: &str| {
            let needed = [wanted("a", true)];
            let observed = Observed {
                node: None,
                wanted: &needed,
                existing: &[],
                held: [("a".to_owned(), held_by_m(users))].into(),
                names: BTreeMap::new(),
                unwanted: BTreeMap::new(),
            };
            let notice = notice(&observed, &needed[0]).unwrap();
            assert_eq!(
                (notice.reason, notice.message),
                ("FailedAttachVolume", format!("Multi-Attach error for volume \"a\" {expected}"))
            );
        };
        check(&["p", "q"], "Volume is already used by pod(s) p, q");
        let nobody = "Volume is already exclusively attached to one node and can't be attached to another: it is attached to m";
        check(&[], nobody);
    }
}
