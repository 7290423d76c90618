//! LimitPodHardAntiAffinityTopology, where it is enabled: no pod keeps others off more than its node, such as off a whole zone.

use apimachinery::Status;
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::Value;

use super::{forbidden, is, text};

const HOSTNAME: &str = "kubernetes.io/hostname";

pub(super) struct LimitPodHardAntiAffinityTopology;

#[async_trait]
impl Admission for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        is(a, "", "pods") && a.subresource.is_empty() && matches!(a.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        match a.object().and_then(wider) {
            Some(key) => Err(forbidden(
                a,
                format!(
                    "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOSTNAME} is allowed"
                ),
            )),
            None => Ok(()),
        }
    }
}

/// The topology key of the first required term that is about more than a node.
fn wider(pod: &Value) -> Option<&str> {
    let terms = pod.pointer("/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution")?;
    terms.as_array()?.iter().map(|term| text(term, "/topologyKey")).find(|key| *key != HOSTNAME)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Docs "Admission Control in Kubernetes", LimitPodHardAntiAffinityTopology.
    #[test]
    fn only_nodes_are_kept_from_others() {
        let check = |affinity: Value, expected: Option<&str>| {
            assert_eq!(wider(&json!({"spec": {"affinity": affinity}})), expected, "{affinity}");
        };
        let required = |keys: &[&str]| {
            let terms: Vec<Value> = keys.iter().map(|key| json!({"topologyKey": key})).collect();
            json!({"requiredDuringSchedulingIgnoredDuringExecution": terms})
        };
        check(Value::Null, None);
        check(json!({"podAntiAffinity": {}}), None);
        check(json!({"podAntiAffinity": required(&[HOSTNAME])}), None);
        check(json!({"podAntiAffinity": required(&[HOSTNAME, "zone"])}), Some("zone"));
        check(json!({"podAffinity": required(&["zone"])}), None);
        let preferred = json!([{"weight": 1, "podAffinityTerm": {"topologyKey": "zone"}}]);
        check(json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}), None);
    }
}
