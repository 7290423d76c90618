//! TaintNodesByCondition: a new node takes no pods before it has said that it is ready.

use apimachinery::Status;
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::json;

use super::{is, list_mut};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        is(a, "", "nodes") && a.subresource.is_empty() && a.operation == Operation::Create
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        let Some(node) = a.object_mut().and_then(serde_json::Value::as_object_mut) else { return Ok(()) };
        let spec = node.entry("spec").or_insert_with(|| json!({}));
        if let Some(taints) = list_mut(spec, "taints")
            && !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule")
        {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}
