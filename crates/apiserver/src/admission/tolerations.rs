//! DefaultTolerationSeconds: pods stay for some time on a node that is lost, unless they say otherwise.

use apimachinery::Status;
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::{Value, json};

use super::{is, list_mut};

/// Seconds for which pods that do not say how long stay on nodes that are lost.
#[derive(Clone, Copy, Debug)]
pub struct Tolerations {
    /// On one that is not ready.
    pub not_ready: i64,
    /// On one that nobody hears of.
    pub unreachable: i64,
}

impl Default for Tolerations {
    /// Upstream's five minutes.
    fn default() -> Self {
        Self { not_ready: 300, unreachable: 300 }
    }
}

impl Tolerations {
    fn by_taint(self) -> [(&'static str, i64); 2] {
        [("node.kubernetes.io/not-ready", self.not_ready), ("node.kubernetes.io/unreachable", self.unreachable)]
    }
}

pub(super) struct DefaultTolerationSeconds(pub(super) Tolerations);

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        is(a, "", "pods") && a.subresource.is_empty() && matches!(a.operation, Operation::Create | Operation::Update)
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        if let Some(pod) = a.object_mut() {
            add(pod, self.0);
        }
        Ok(())
    }
}

fn add(pod: &mut Value, defaults: Tolerations) {
    let Some(tolerations) = pod.get_mut("spec").and_then(|spec| list_mut(spec, "tolerations")) else { return };
    for (taint, seconds) in defaults.by_taint() {
        let tolerates = |toleration: &Value| {
            let text = |key: &str| toleration[key].as_str().unwrap_or_default();
            (text("key") == taint || text("key").is_empty()) && matches!(text("effect"), "" | "NoExecute")
        };
        if !tolerations.iter().any(tolerates) {
            tolerations.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults() {
        let check = |tolerations: Value, expected: usize| {
            let mut pod = json!({"spec": {"tolerations": tolerations}});
            add(&mut pod, Tolerations::default());
            assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(expected), "{pod}");
        };
        check(Value::Null, 2);
        check(json!([{"operator": "Exists"}]), 1);
        let lost = "node.kubernetes.io/not-ready";
        check(json!([{"key": lost, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]), 2);
        check(json!([{"key": lost, "operator": "Exists", "effect": "NoSchedule"}]), 3);
    }

    /// kube-apiserver(1): --default-not-ready-toleration-seconds, --default-unreachable-toleration-seconds.
    #[test]
    fn each_taint_has_its_own_seconds() {
        let mut pod = json!({"spec": {}});
        add(&mut pod, Tolerations { not_ready: 10, unreachable: 20 });
        let of = |at: usize| {
            (pod["spec"]["tolerations"][at]["key"].clone(), pod["spec"]["tolerations"][at]["tolerationSeconds"].clone())
        };
        assert_eq!(of(0), (json!("node.kubernetes.io/not-ready"), json!(10)));
        assert_eq!(of(1), (json!("node.kubernetes.io/unreachable"), json!(20)));
    }
}
