//! DefaultTolerationSeconds: pods stay five minutes on a node that is lost, unless they say otherwise.

use apimachinery::Status;
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::{Value, json};

use super::{is, list_mut};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) struct DefaultTolerationSeconds;

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
            add(pod);
        }
        Ok(())
    }
}

fn add(pod: &mut Value) {
    let Some(tolerations) = pod.get_mut("spec").and_then(|spec| list_mut(spec, "tolerations")) else { return };
    for taint in TAINTS {
        let tolerates = |toleration: &Value| {
            let text = |key: &str| toleration[key].as_str().unwrap_or_default();
            (text("key") == taint || text("key").is_empty()) && matches!(text("effect"), "" | "NoExecute")
        };
        if !tolerations.iter().any(tolerates) {
            tolerations.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
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
            add(&mut pod);
            assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(expected), "{pod}");
        };
        check(Value::Null, 2);
        check(json!([{"operator": "Exists"}]), 1);
        check(json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]), 2);
        check(json!([{"key": TAINTS[0], "operator": "Exists", "effect": "NoSchedule"}]), 3);
    }
}
