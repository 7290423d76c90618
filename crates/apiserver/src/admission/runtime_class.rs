//! RuntimeClass: the class's overhead and scheduling rules become the pod's (KEP-585, KEP-688).

use apimachinery::Status;
use async_trait::async_trait;
use registry::{Admission, Request};
use serde_json::Value;

use super::toleration_restriction::merged;
use super::{creates_pod, find, forbidden, list_mut, text};

pub(super) struct RuntimeClass;

#[async_trait]
impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        creates_pod(a)
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        let Some(pod) = a.object() else { return Ok(()) };
        let name = text(pod, "/spec/runtimeClassName").to_owned();
        let given = pod.pointer("/spec/overhead").filter(|overhead| overhead.as_object().is_some_and(|o| !o.is_empty()));
        if name.is_empty() {
            return match given {
                Some(_) => {
                    Err(forbidden(a, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
                }
                None => Ok(()),
            };
        }
        let class = find(a, "node.k8s.io", "runtimeclasses", "", &name).await;
        let class = class.ok_or_else(|| forbidden(a, format!("pod rejected: RuntimeClass \"{name}\" not found")))?;
        let overhead = class.pointer("/overhead/podFixed").cloned();
        if given.is_some() && given != overhead.as_ref() {
            return Err(forbidden(a, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
        }
        let result = match a.object_mut().and_then(|pod| pod.get_mut("spec")) {
            Some(spec) => merge(spec, &class, overhead),
            None => Ok(()),
        };
        result.map_err(|why| forbidden(a, why))
    }
}

fn merge(spec: &mut Value, class: &Value, overhead: Option<Value>) -> Result<(), String> {
    if let Some(overhead) = overhead {
        spec["overhead"] = overhead;
    }
    for (key, value) in class.pointer("/scheduling/nodeSelector").and_then(Value::as_object).into_iter().flatten() {
        match spec.pointer("/nodeSelector").and_then(|selector| selector.get(key)) {
            Some(own) if own != value => {
                return Err(format!(
                    "pod rejected: conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
                ));
            }
            _ => spec["nodeSelector"][key] = value.clone(),
        }
    }
    let wanted = class.pointer("/scheduling/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    if let (false, Some(tolerations)) = (wanted.is_empty(), list_mut(spec, "tolerations")) {
        // Two that differ in their seconds must not both stay: the pod would be evicted after the fewer.
        tolerations.extend(wanted);
        *tolerations = merged(tolerations);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merging() {
        let class = json!({"scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "t"}]}});
        let mut spec = json!({"nodeSelector": {"c": "d"}});
        assert_eq!(merge(&mut spec, &class, Some(json!({"cpu": "1"}))), Ok(()));
        assert_eq!(spec, json!({"nodeSelector": {"a": "b", "c": "d"}, "tolerations": [{"key": "t"}], "overhead": {"cpu": "1"}}));
        assert!(merge(&mut json!({"nodeSelector": {"a": "x"}}), &class, None).is_err());
        // As upstream's MergeTolerations: what another one covers goes.
        let lost = json!({"key": "lost", "operator": "Exists", "effect": "NoExecute"});
        let mut for_seconds = lost.clone();
        for_seconds["tolerationSeconds"] = 5.into();
        let mut spec = json!({"tolerations": [for_seconds]});
        assert_eq!(merge(&mut spec, &json!({"scheduling": {"tolerations": [lost.clone()]}}), None), Ok(()));
        assert_eq!(spec["tolerations"], json!([lost]));
    }
}
