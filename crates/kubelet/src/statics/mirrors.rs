//! The mirror pods in the API: one for each static pod, made again when it is deleted, and gone when the static pod has ended.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use client::Api;
use client::{Informer, Key};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::{MIRROR, Pods, Uids, has_task, manifest, mirrored, shows};
use crate::context::Context;

/// Delay before what has failed is tried again, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What is to be done with the mirror pod of a key.
#[derive(Debug, PartialEq)]
enum Step {
    Create(Arc<Pod>),
    /// By its UID.
    Delete(Key, String),
    /// A pod of the API has the name.
    Taken(Key),
}

/// What brings the mirror pods in `found` to the static pods, of which those in `running` have a task. One that ends keeps its mirror, as
/// upstream, and the next one of its name has none before.
fn plan(statics: &Pods, running: &Uids, found: &[Arc<Pod>]) -> Vec<Step> {
    let mut steps = Vec::new();
    let ends = |key: &Key, pod: Option<&Arc<Pod>>| {
        running.get(key).is_some_and(|uid| pod.is_none_or(|pod| pod.metadata.uid.as_ref() != Some(uid)))
    };
    let mut missing = statics.clone();
    missing.retain(|key, pod| !ends(key, Some(&*pod)));
    for pod in found {
        let key = super::key(pod);
        let own = statics.get(&key);
        if mirrored(pod).is_none() {
            steps.extend(missing.remove(&key).map(|_| Step::Taken(key)));
        } else if ends(&key, own) && has_task(running, &key, pod) {
            continue;
        } else if pod.metadata.deletion_timestamp.is_some() || own.is_none_or(|own| !shows(pod, own)) {
            missing.remove(&key);
            steps.push(Step::Delete(key, pod.metadata.uid.clone().unwrap_or_default()));
        } else {
            missing.remove(&key);
        }
    }
    steps.extend(missing.into_values().map(Step::Create));
    steps
}

/// The mirror of a static pod.
fn mirror(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let metadata = &mut mirror.metadata;
    let uid = metadata.uid.take().unwrap_or_default();
    metadata.creation_timestamp = None;
    metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), uid);
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    // The API server gives mirror pods that priority by itself, and refuses figures of others.
    if let Some(spec) = mirror.spec.as_mut().filter(|spec| spec.priority == Some(manifest::PRIORITY)) {
        spec.priority = None;
    }
    mirror
}

/// Keeps the mirror pods up to date.
pub async fn run(cx: Arc<Context>, nodes: Informer<Node>) -> Result<(), Infallible> {
    let (pods, mut statics, mut running) = (cx.pods_of_node(), cx.statics.subscribe(), cx.statics.running.subscribe());
    tokio::join!(pods.synced(), nodes.synced());
    let (mut changes, mut node_changes) = (pods.changes(), nodes.changes());
    let mut delay = RETRY.0;
    loop {
        // Mirrors belong to it: none is made before it is there, and all go with it.
        let owner = nodes.get(None, &cx.options.node_name).and_then(|node| node.metadata.uid.clone());
        let (wanted, tasks) = (statics.borrow_and_update().clone(), running.borrow_and_update().clone());
        let mut failed = false;
        for step in wanted.iter().flat_map(|wanted| plan(wanted, &tasks, &pods.list())) {
            let done = carry_out(&cx, &nodes, step).await;
            failed |= done.is_err();
            if let Err(error) = done {
                tracing::warn!(error = client::why(&error), "a static pod is not shown as it is yet");
            }
        }
        delay = if failed { (delay * 2).min(RETRY.1) } else { RETRY.0 };
        loop {
            tokio::select! {
                _ = statics.changed() => break,
                _ = running.changed() => break,
                () = tokio::time::sleep(delay), if failed => break,
                change = node_changes.next() => {
                    let node = change.new.as_ref().filter(|_| change.key.name == cx.options.node_name);
                    if node.is_some_and(|node| node.metadata.uid != owner) {
                        break;
                    }
                }
                change = changes.next() => {
                    let concerns = |pod: &Arc<Pod>| mirrored(pod).is_some();
                    let is_static = wanted.as_ref().is_some_and(|wanted| wanted.contains_key(&change.key));
                    if is_static && change.new.is_none() || change.new.as_ref().is_some_and(concerns) {
                        break;
                    }
                }
            }
        }
    }
}

async fn carry_out(cx: &Context, nodes: &Informer<Node>, step: Step) -> Result<(), kube::Error> {
    let api = |namespace: Option<&str>| Api::<Pod>::namespaced(cx.options.client.clone(), namespace.unwrap_or_default());
    match step {
        Step::Create(pod) => {
            let Some(node) = nodes.get(None, &cx.options.node_name) else { return Ok(()) };
            let created = api(pod.metadata.namespace.as_deref()).create(&PostParams::default(), &mirror(&pod, &node)).await;
            match created {
                // It is there already; the informer will tell.
                Err(kube::Error::Api(error)) if error.code == 409 => Ok(()),
                other => other.map(drop),
            }
        }
        Step::Delete(key, uid) => {
            let preconditions = Some(Preconditions { uid: Some(uid), resource_version: None });
            let params = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
            match api(key.namespace.as_deref()).delete(&key.name, &params).await {
                Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => Ok(()),
                other => other.map(drop),
            }
        }
        Step::Taken(key) => {
            tracing::error!(pod = %key, "a static pod is not shown: the API has another pod of its name");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, uid: &str, more: &Value) -> Arc<Pod> {
        let mut metadata = json!({"namespace": "default", "name": name, "uid": uid});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Arc::new(
            serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": [], "priority": 2_000_001_000}})).unwrap(),
        )
    }

    fn mirror_of(uid: &str) -> Value {
        json!({"annotations": {MIRROR: uid}})
    }

    #[track_caller]
    fn check(found: &[Arc<Pod>], expected: &[&str]) {
        check_beside(&[], found, expected);
    }

    /// Static pod `a` with the UID `s` while static pods with these names and UIDs have a task.
    #[track_caller]
    fn check_beside(running: &[(&str, &str)], found: &[Arc<Pod>], expected: &[&str]) {
        let own = pod("a", "s", &json!({}));
        let running = running.iter().map(|(name, uid)| (Key::namespaced("default", *name), (*uid).to_owned())).collect();
        let steps = plan(&Pods::from([(super::super::key(&own), own)]), &running, found);
        let word = |step: &Step| match step {
            Step::Create(pod) => format!("create {}", pod.metadata.name.as_deref().unwrap()),
            Step::Delete(key, uid) => format!("delete {} {uid}", key.name),
            Step::Taken(key) => format!("taken {}", key.name),
        };
        assert_eq!(steps.iter().map(word).collect::<Vec<_>>(), expected);
    }

    /// Static pods: "the kubelet automatically tries to create a mirror Pod on the Kubernetes API server for each static Pod".
    #[test]
    fn there_is_one_mirror_for_each_static_pod() {
        check(&[], &["create a"]);
        check(&[pod("a", "m", &mirror_of("s"))], &[]);
        check(&[pod("a", "m", &mirror_of("old"))], &["delete a m"]);
        let mut ending = mirror_of("s");
        ending["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        check(&[pod("a", "m", &ending)], &["delete a m"]);
        check(&[pod("a", "m", &json!({}))], &["taken a"]);
        check(&[pod("a", "m", &mirror_of("s")), pod("b", "n", &mirror_of("gone")), pod("c", "o", &json!({}))], &["delete b n"]);
    }

    /// Upstream's node e2e tests "mirror pod termination should satisfy grace period when static pod is deleted" and "... is updated".
    #[test]
    fn a_mirror_stays_until_its_static_pod_has_ended() {
        check_beside(&[("a", "s")], &[pod("a", "m", &mirror_of("s"))], &[]);
        check_beside(&[("a", "s")], &[pod("a", "m", &mirror_of("old"))], &["delete a m"]);
        check_beside(&[("a", "s")], &[], &["create a"]);
        check_beside(&[("a", "old")], &[pod("a", "m", &mirror_of("old"))], &[]);
        check_beside(&[("a", "old")], &[pod("a", "m", &mirror_of("older"))], &["delete a m"]);
        // Somebody else has deleted it: the next one comes with its pod.
        check_beside(&[("a", "old")], &[], &[]);
        let gone = [pod("a", "m", &mirror_of("s")), pod("b", "n", &mirror_of("gone"))];
        check_beside(&[("a", "s"), ("b", "gone")], &gone, &[]);
        check_beside(&[("a", "s")], &gone, &["delete b n"]);
    }

    #[test]
    fn mirrors_belong_to_the_node() {
        let node = serde_json::from_value(json!({"metadata": {"name": "n", "uid": "nu"}})).unwrap();
        let mirror = serde_json::to_value(mirror(&pod("a", "s", &json!({})), &node)).unwrap();
        assert_eq!(mirror["metadata"]["annotations"][MIRROR], "s");
        assert_eq!((&mirror["metadata"]["uid"], &mirror["spec"]["priority"]), (&Value::Null, &Value::Null));
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "nu", "controller": true}]);
        assert_eq!(mirror["metadata"]["ownerReferences"], owner);
    }
}
