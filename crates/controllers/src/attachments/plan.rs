//! Which volumes are attached to a node and which are taken from it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::events::Type;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use crate::meta;

/// On a node that is known to be off: what it used is free (KEP-2268).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

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
    /// Other nodes that volumes are attached to, by the volumes' names.
    pub(super) elsewhere: BTreeMap<String, BTreeSet<String>>,
    /// What the node's status calls the volumes of attachments, by the attachments' names.
    pub(super) names: BTreeMap<String, String>,
}

/// What to do.
#[derive(PartialEq)]
pub(super) enum Change<'a> {
    Attach(&'a Wanted),
    Detach(String),
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
pub(super) fn facts(node: &Node) -> (Vec<String>, bool) {
    let used = node.status.as_ref().and_then(|status| status.volumes_in_use.clone()).unwrap_or_default();
    (used, is_out_of_service(node))
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// What is to be done for a node.
pub(super) fn changes<'a>(observed: &Observed<'a>) -> Vec<Change<'a>> {
    let there = |name: &str| observed.existing.iter().any(|one| meta::name(one.as_ref()) == name);
    let attach = observed.wanted.iter().filter(|one| !there(&one.attachment) && may_attach(observed, one)).map(Change::Attach);
    let detach = observed.existing.iter().filter(|one| may_detach(observed, one));
    attach.chain(detach.map(|one| Change::Detach(meta::name(one.as_ref()).to_owned()))).collect()
}

fn may_attach(observed: &Observed<'_>, wanted: &Wanted) -> bool {
    observed.node.is_some() && !(wanted.exclusive && holders(observed, wanted).next().is_some())
}

fn holders<'a>(observed: &'a Observed<'_>, wanted: &Wanted) -> impl Iterator<Item = &'a String> {
    observed.elsewhere.get(&wanted.volume).into_iter().flatten()
}

/// Nobody needs it, and the node does not use it any more. What others have attached is theirs.
fn may_detach(observed: &Observed<'_>, attachment: &VolumeAttachment) -> bool {
    let name = meta::name(attachment);
    let is_wanted = observed.wanted.iter().any(|one| one.attachment == name);
    let is_ours = name.starts_with("csi-") && !volume_of(attachment).is_empty();
    if is_wanted || !is_ours || attachment.metadata.deletion_timestamp.is_some() {
        return false;
    }
    match observed.node {
        None => true,
        Some(node) => {
            let (used, off) = facts(node);
            off || observed.names.get(name).is_none_or(|unique| !used.contains(unique))
        }
    }
}

/// What the pods of a volume are told.
pub(super) fn notice(observed: &Observed<'_>, wanted: &Wanted) -> Option<Notice> {
    let volume = &wanted.volume;
    let Some(found) = observed.existing.iter().find(|one| meta::name(one.as_ref()) == wanted.attachment) else {
        let holder = holders(observed, wanted).next().filter(|_| wanted.exclusive)?;
        let message = format!(
            "Multi-Attach error for volume {volume:?} Volume is already exclusively attached to one node and can't be attached to another: it is attached to {holder}"
        );
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

    /// `existing` are names of volumes; `held` is a volume that another node has.
    #[track_caller]
    fn check(node: Option<Value>, needed: &[Wanted], existing: &[&str], held: Option<&str>, attach: &[&str], detach: &[&str]) {
        let node: Option<Node> = node.map(object);
        let existing: Vec<_> = existing.iter().map(|name| attachment(&format!("csi-{name}"), name, json!(null))).collect();
        let elsewhere = held.map(|name| (name.to_owned(), BTreeSet::from(["m".to_owned()]))).into_iter().collect();
        let names =
            existing.iter().map(|one| (meta::name(one.as_ref()).to_owned(), format!("used-{}", volume_of(one)))).collect();
        let observed = Observed { node: node.as_ref(), wanted: needed, existing: &existing, elsewhere, names };
        let (mut attached, mut detached) = (Vec::new(), Vec::new());
        for change in changes(&observed) {
            match change {
                Change::Attach(one) => attached.push(one.volume.clone()),
                Change::Detach(name) => detached.push(name.trim_start_matches("csi-").to_owned()),
            }
        }
        assert_eq!(
            (attached, detached),
            (attach.iter().map(|s| s.to_string()).collect(), detach.iter().map(|s| s.to_string()).collect())
        );
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
        let off =
            json!({"status": {"volumesInUse": ["used-a"]}, "spec": {"taints": [{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]}});
        check(Some(off), &[], &["a"], None, &[], &["a"]);
        check(None, &[wanted("b", true)], &["a"], None, &[], &["a"]);
    }

    #[test]
    fn others_attachments_are_theirs() {
        let mine = attachment("by-hand", "a", json!(null));
        let existing = [mine];
        let observed =
            Observed { node: None, wanted: &[], existing: &existing, elsewhere: BTreeMap::new(), names: BTreeMap::new() };
        assert!(changes(&observed).is_empty());
    }

    #[test]
    fn what_pods_are_told() {
        let check = |status: Value, expected: Option<(&str, &str)>| {
            let needed = [wanted("a", true)];
            let existing = [attachment("csi-a", "a", status)];
            let observed =
                Observed { node: None, wanted: &needed, existing: &existing, elsewhere: BTreeMap::new(), names: BTreeMap::new() };
            let notice = notice(&observed, &needed[0]);
            assert_eq!(notice.as_ref().map(|notice| (notice.reason, notice.message.as_str())), expected);
        };
        check(json!(null), None);
        check(json!({"attached": false}), None);
        check(json!({"attached": true}), Some(("SuccessfulAttachVolume", "AttachVolume.Attach succeeded for volume \"a\" ")));
        let failed = "AttachVolume.Attach failed for volume \"a\" : no such disk";
        check(json!({"attached": false, "attachError": {"message": "no such disk"}}), Some(("FailedAttachVolume", failed)));
    }
}
