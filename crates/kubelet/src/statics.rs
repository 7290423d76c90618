//! Static pods: pods that a directory of the node describes and not the API, which shows them by mirror pods.
//!
//! | module | what |
//! |---|---|
//! | [`manifest`] | a file as a pod, pure |
//! | [`directory`] | the files of the directory, read again when they change |
//! | [`mirrors`] | the mirror pods in the API |

pub mod directory;
pub mod manifest;
pub mod mirrors;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::Key;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;

use crate::pod::found::ended;

/// In a mirror pod: the UID of the static pod that it shows.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// How long a node waits for its server after its start, until it begins with what it knows: with its static pods, and with the pod
/// ranges that it had.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a UID is that of a static pod, which the node has made: those of the API have hyphens (RFC 9562).
pub fn is_static(uid: &str) -> bool {
    !uid.is_empty() && !uid.contains('-')
}

/// Static pods by namespace and name.
pub type Pods = BTreeMap<Key, Arc<Pod>>;

/// The UIDs of static pods that have a task, by namespace and name: one that is gone, or is another by now, has it until it has ended.
pub type Uids = HashMap<Key, String>;

/// The static pods of this node.
#[derive(Default)]
pub struct Statics {
    /// None before the directory has been read.
    wanted: watch::Sender<Option<Arc<Pods>>>,
    running: watch::Sender<Arc<Uids>>,
}

fn key(pod: &Pod) -> Key {
    Key::namespaced(pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default())
}

/// The static pod's UID that a mirror pod names.
pub fn mirrored(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(MIRROR).map(String::as_str)
}

/// Whether a mirror pod shows this static pod, as it is now.
pub fn shows(mirror: &Pod, pod: &Pod) -> bool {
    mirrored(mirror).is_some() && mirrored(mirror) == pod.metadata.uid.as_deref()
}

/// Whether the static pod that a mirror pod shows has a task, also one that ends.
fn has_task(running: &Uids, key: &Key, mirror: &Pod) -> bool {
    let uid = mirrored(mirror);
    uid.is_some() && running.get(key).map(String::as_str) == uid
}

/// Whether a static pod goes on from the status that its mirror has. A final status with a reason is the node's own word (a pod that was
/// rejected, or that had to go); as upstream, which reads no status of static pods, the next kubelet asks again whether the pod may run.
pub fn goes_on(status: &PodStatus) -> bool {
    !ended(status) || status.reason.as_deref().unwrap_or_default().is_empty()
}

impl Statics {
    /// Changes of the pods, from now on.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Pods>>> {
        self.wanted.subscribe()
    }

    /// Says which static pods have a task.
    pub fn set_running(&self, uids: &Uids) {
        self.running.send_if_modified(|known| {
            let is_news = **known != *uids;
            if is_news {
                *known = Arc::new(uids.clone());
            }
            is_news
        });
    }

    fn set(&self, pods: Pods) {
        self.wanted.send_if_modified(|known| {
            let is_news = known.as_deref() != Some(&pods);
            if is_news {
                *known = Some(Arc::new(pods));
            }
            is_news
        });
    }

    /// A pod of the API as it runs here: what shows a static pod has the UID of that. An annotation alone gives nobody another pod.
    pub fn as_run(&self, pod: Arc<Pod>) -> Arc<Pod> {
        if mirrored(&pod).is_none() {
            return pod;
        }
        let key = key(&pod);
        let is_shown = |pods: &Arc<Pods>| pods.get(&key).is_some_and(|shown| shows(&pod, shown));
        let is_known = self.wanted.borrow().as_ref().is_some_and(is_shown) || has_task(&self.running.borrow(), &key, &pod);
        if !is_known {
            return pod;
        }
        let uid = mirrored(&pod).map(str::to_owned);
        let mut pod = Arc::unwrap_or_clone(pod);
        pod.metadata.uid = uid;
        Arc::new(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, uid: &str, mirrors: Option<&str>) -> Arc<Pod> {
        let annotations = mirrors.map(|uid| json!({MIRROR: uid}));
        let metadata = json!({"namespace": "default", "name": name, "uid": uid, "annotations": annotations});
        Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
    }

    #[test]
    fn only_mirrors_of_static_pods_are_these() {
        let statics = Statics::default();
        let own = pod("a", "s", None);
        statics.set(Pods::from([(key(&own), own)]));
        let check = |name: &str, mirrors: Option<&str>, expected: &str| {
            assert_eq!(statics.as_run(pod(name, "api", mirrors)).metadata.uid.as_deref(), Some(expected));
        };
        check("a", Some("s"), "s");
        check("a", None, "api");
        check("a", Some("old"), "api");
        check("b", Some("s"), "api");
        // It ends: its file has another pod by now, or is gone.
        statics
            .set_running(&Uids::from([(key(&pod("a", "", None)), "old".to_owned()), (key(&pod("b", "", None)), "b".to_owned())]));
        check("a", Some("old"), "old");
        check("a", Some("s"), "s");
        check("b", Some("b"), "b");
        check("b", Some("s"), "api");
    }
}
