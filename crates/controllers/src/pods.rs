//! What controllers ask about pods.

pub(crate) mod facts;

pub(crate) use ::pods::state::*;
use client::{Change, Entry, Index, Informer, Step, Values};
use k8s_openapi::api::core::v1::{Pod, Volume};
use memchr::memmem;
use serde::Deserialize;

use crate::meta;
pub(crate) use facts::{PodFacts, REFUSED_LONGEST, is_refused};

/// Pods by the name of their node; those that are bound to none under "".
pub(crate) fn by_node(pods: &Informer<Pod>) -> Index<Pod> {
    pods.index_lean("node", |pod, values| values.add(node(pod)), lean_node)
}

/// What says the node of a pod.
#[derive(Deserialize)]
struct Bound {
    spec: Option<BoundSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BoundSpec {
    node_name: Option<String>,
}

/// The same of a pod's JSON.
fn lean_node(pod: &[u8], values: &mut Values) -> bool {
    let Some(node) = node_of_text(pod) else { return false };
    values.add(node);
    true
}

/// The node that the JSON of a pod names, empty when it names none; None when it cannot be read.
pub(crate) fn node_of_text(pod: &[u8]) -> Option<String> {
    if !mentions(pod, r#""nodeName""#) {
        return Some(String::new());
    }
    let bound: Bound = serde_json::from_slice(pod).ok()?;
    Some(bound.spec.and_then(|spec| spec.node_name).unwrap_or_default())
}

/// Whether a text has another one in it.
fn mentions(text: &[u8], what: &str) -> bool {
    memmem::find(text, what.as_bytes()).is_some()
}

/// Pods by the claims that they name, as `namespace/claim`; see [`claims`].
pub(crate) fn by_claim(pods: &Informer<Pod>) -> Index<Pod> {
    pods.index_lean("claim", claim_values, lean_claims)
}

fn claim_values(pod: &Pod, values: &mut Values) {
    claims(pod).for_each(|claim| values.add(format!("{}/{claim}", meta::namespace(pod))));
}

/// The index has none of the pods without claims.
fn lean_claims(pod: &[u8], _: &mut Values) -> bool {
    !may_name_claims(pod)
}

/// Whether the JSON of a pod may name claims of volumes: most pods have none, which their text tells.
fn may_name_claims(pod: &[u8]) -> bool {
    mentions(pod, r#""persistentVolumeClaim""#) || mentions(pod, r#""ephemeral""#)
}

/// Whether the JSON of a pod may name claims of devices.
pub(crate) fn may_name_device_claims(pod: &[u8]) -> bool {
    mentions(pod, r#""resourceClaims""#) || mentions(pod, r#""extendedResourceClaimStatus""#)
}

/// Whether a pod, which is not decoded for it, may have claims of volumes.
pub(crate) fn may_have_claims(pod: &Entry<Pod>) -> bool {
    may_name_claims(pod.json())
}

/// Whether a pod, which is not decoded for it, may have finished.
pub(crate) fn may_be_finished(pod: &Entry<Pod>) -> bool {
    pod.mentions(r#""Succeeded""#) || pod.mentions(r#""Failed""#)
}

/// The change of a pod that may have claims of devices, before or after.
pub(crate) fn with_device_claims(step: &Step<Pod>) -> Option<Change<Pod>> {
    step.entries().any(|pod| may_name_device_claims(pod.json())).then(|| step.change())
}

/// The node of a pod, which is not decoded for it; empty when it has none.
pub(crate) fn node_of(pod: &Entry<Pod>) -> String {
    node_of_text(pod.json()).unwrap_or_default()
}

/// The names of the claims behind a pod's volumes.
pub(crate) fn claims(pod: &Pod) -> impl Iterator<Item = String> {
    volumes(pod).filter_map(|volume| claim_of(pod, volume))
}

/// A pod's volumes.
pub(crate) fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// The claim behind a volume; one that is made for the pod is named after both.
pub(crate) fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", meta::name(pod), volume.name)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    /// What the text of a pod tells is what the pod tells.
    #[test]
    fn indexes_are_the_same_of_text_and_object() {
        let check = |mut spec: Value, has_claims: bool| {
            spec["containers"] = json!([]);
            let text =
                json!({"metadata": {"name": "p", "namespace": "n", "labels": {"nodeName": "x"}}, "spec": spec}).to_string();
            let pod: Pod = serde_json::from_str(&text).unwrap();
            let entry = Entry::<Pod>::of_json(text.clone()).unwrap();
            assert_eq!((node_of(&entry), may_have_claims(&entry)), (node(&pod).to_owned(), has_claims));
            let (mut lean, mut whole) = (Values::default(), Values::default());
            assert!(lean_node(text.as_bytes(), &mut lean));
            whole.add(node(&pod));
            assert_eq!(lean, whole, "{text}");
            let (mut lean, mut whole) = (Values::default(), Values::default());
            claim_values(&pod, &mut whole);
            assert!(!may_name_device_claims(text.as_bytes()), "{text}");
            assert_eq!(lean_claims(text.as_bytes(), &mut lean), !has_claims, "{text}");
            assert!(has_claims || lean == whole, "{text}");
        };
        check(json!({}), false);
        check(json!({"nodeName": "a\\b"}), false);
        check(json!({"nodeName": "n1", "volumes": [{"name": "v", "emptyDir": {}}]}), false);
        check(json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}), true);
        check(json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}), true);
        // Claims for extended resources stand in the status alone.
        assert!(may_name_device_claims(br#"{"status":{"extendedResourceClaimStatus":{}}}"#));
        let mut nothing = Values::default();
        assert!(!lean_node(br#"{"nodeName":"#, &mut nothing));
    }
}
