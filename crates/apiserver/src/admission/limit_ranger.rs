//! LimitRanger: what pods, containers and claims of a namespace ask for when they say nothing, and how much they may.

mod bounds;

use apimachinery::{Status, meta};
use async_trait::async_trait;
use registry::{Admission, ListOptions, Operation, Request};
use serde_json::{Map, Value};

use super::{creates_pod, forbidden, is};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(super) struct LimitRanger;

#[async_trait]
impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        let writes = matches!(a.operation, Operation::Create | Operation::Update);
        let resizes = is(a, "", "pods") && a.subresource == "resize" && a.operation == Operation::Update;
        creates_pod(a) || resizes || (writes && a.subresource.is_empty() && is(a, "", "persistentvolumeclaims"))
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        if !creates_pod(a) {
            return Ok(());
        }
        let ranges = ranges(a).await;
        if ranges.is_empty() {
            return Ok(());
        }
        if let Some(pod) = a.object_mut() {
            ranges.iter().for_each(|range| complete(pod, range));
        }
        Ok(())
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let Some(object) = a.object() else { return Ok(()) };
        for range in ranges(a).await {
            let broken = bounds::broken(object, &range, is(a, "", "pods"));
            if !broken.is_empty() {
                let all = broken.join(", ");
                return Err(forbidden(a, if broken.len() == 1 { all } else { format!("[{all}]") }));
            }
        }
        Ok(())
    }
}

/// The limit ranges of the namespace.
async fn ranges(a: &Request<'_>) -> Vec<Value> {
    let Some(resource) = a.registry.resource("", "v1", "limitranges") else { return Vec::new() };
    let list = a.registry.list(&resource, Some(a.namespace), &ListOptions::default()).await;
    list.map(|list| list.entries.iter().map(|entry| entry.value()).collect()).unwrap_or_default()
}

/// The limits of one type within a range.
fn limits<'a>(range: &'a Value, kind: &str) -> impl Iterator<Item = &'a Value> {
    let limits = range.pointer("/spec/limits").and_then(Value::as_array);
    limits.into_iter().flatten().filter(move |limit| limit["type"] == kind)
}

/// Gives the containers of a pod the requests and limits that they do not have, and notes which.
fn complete(pod: &mut Value, range: &Value) {
    let (mut requests, mut most) = (Map::new(), Map::new());
    for limit in limits(range, "Container") {
        requests.extend(limit["defaultRequest"].as_object().cloned().unwrap_or_default());
        most.extend(limit["default"].as_object().cloned().unwrap_or_default());
    }
    let mut notes = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (field, defaults, word) in [("requests", &requests, "request"), ("limits", &most, "limit")] {
                let set = fill(container, field, defaults);
                if !set.is_empty() {
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        meta::set_annotation(pod, ANNOTATION, format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

/// Sets the amounts that are missing; their names.
fn fill(container: &mut Value, field: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults {
        if container["resources"][field].get(name).is_none_or(Value::is_null) {
            container["resources"][field][name] = amount.clone();
            set.push(name.clone());
        }
    }
    set.sort();
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Conformance: [sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied. [Conformance]
    #[test]
    fn containers_get_what_they_do_not_say() {
        let range = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "500m", "memory": "500Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "200Mi"}}, {"type": "Pod", "max": {"cpu": "1"}}]}});
        let check = |resources: Value, expected: Value, note: &str| {
            let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}});
            complete(&mut pod, &range);
            assert_eq!(pod["spec"]["containers"][0]["resources"], expected);
            assert_eq!(meta::annotation(&pod, ANNOTATION).unwrap_or_default(), note);
        };
        let all = json!({"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"cpu": "500m", "memory": "500Mi"}});
        let note = "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c";
        check(json!({}), all.clone(), note);
        check(all.clone(), all, "");
        check(
            json!({"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "2Mi"}}),
            json!({"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "500m", "memory": "2Mi"}}),
            "LimitRanger plugin set: cpu limit for container c",
        );
    }
}
