//! Pods that a command is about: by name, by labels, or as those of a workload or service.

use std::cmp::Reverse;

use serde_json::Value;

use crate::discovery::{Resource, escaped};
use crate::error::{Error, Result};
use crate::lists::list;
use crate::output::tell;
use crate::selection;
use crate::session::{JSON, Session};

/// Says which container is meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The label selector by which an object selects pods, as text.
///
/// # Errors
/// It selects none.
pub(crate) fn selector(object: &Value) -> Option<String> {
    let spec = &object["spec"]["selector"];
    let labels =
        if object["kind"] == "Service" || object["kind"] == "ReplicationController" { spec } else { &spec["matchLabels"] };
    let mut parts: Vec<String> = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for requirement in spec["matchExpressions"].as_array().into_iter().flatten() {
        let key = requirement["key"].as_str().unwrap_or_default();
        let values: Vec<_> = requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match requirement["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

/// An object that was named, and the pods that it is or has, the one first that is likest to answer.
pub(crate) struct Target<'r> {
    pub(crate) resource: &'r Resource,
    pub(crate) object: Value,
    pub(crate) pods: Vec<Value>,
}

/// Finds what `NAME` or `TYPE/NAME` means.
///
/// # Errors
/// It is not there, or is nothing that has pods.
pub(crate) async fn target<'s>(session: &'s Session, argument: &str) -> Result<Target<'s>> {
    let resources = session.resources().await?;
    let (resource, name) = selection::one(resources, argument, "pods")?;
    let object = session.get(&resource.object(session.namespace_of(resource), &name)).await?;
    if is_pods(resource) {
        return Ok(Target { resource, object: object.clone(), pods: vec![object] });
    }
    let selector = selector(&object).ok_or_else(|| Error::usage(format!("{} has no pods", resource.named(&name))))?;
    let pods = selected(session, &selector).await?;
    if pods.is_empty() {
        return Err(Error::usage(format!("no pods of {} are there", resource.named(&name))));
    }
    Ok(Target { resource, object, pods })
}

/// Pods with these labels in the namespace.
pub(crate) async fn selected(session: &Session, selector: &str) -> Result<Vec<Value>> {
    let pods = session.resources().await?.named("pods")?;
    let query = format!("labelSelector={}", escaped(selector));
    let mut found = list(session, &pods.collection(session.namespace_of(pods)), &query, JSON).await?;
    let mut pods = match found["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    pods.sort_by_key(rank);
    Ok(pods)
}

pub(crate) fn is_pods(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.kind == "Pod"
}

/// Where a pod stands among those that may be meant: ready ones first, then running ones, then the younger.
fn rank(pod: &Value) -> (bool, bool, bool, Reverse<String>) {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let ends = pod["metadata"].get("deletionTimestamp").is_some();
    let created = pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    (ends, !ready, pod["status"]["phase"] != "Running", Reverse(created))
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Names of the containers of a pod: those of its start, its own, and those that were added.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &str> {
    let fields = ["initContainers", "containers", "ephemeralContainers"];
    let all = fields.into_iter().flat_map(|field| pod["spec"][field].as_array().into_iter().flatten());
    all.filter_map(|container| container["name"].as_str())
}

/// The container of a pod that is meant, and whether somebody chose it.
///
/// # Errors
/// The pod has none of that name.
pub(crate) fn container<'p>(pod: &'p Value, named: Option<&'p str>) -> Result<(&'p str, bool)> {
    if let Some(named) = named {
        if !containers(pod).any(|name| name == named) {
            return Err(Error::usage(format!("container {named} is not valid for pod {}", name(pod))));
        }
        return Ok((named, true));
    }
    let noted = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    if let Some(noted) = noted.filter(|noted| containers(pod).any(|name| name == *noted)) {
        return Ok((noted, true));
    }
    let own = pod["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let first = own.first().and_then(|container| container["name"].as_str()).unwrap_or_default();
    Ok((first, containers(pod).count() < 2))
}

/// Tells which of several containers is taken, where nobody said it.
pub(crate) fn tell_default(pod: &Value, container: &str) {
    let all: Vec<_> = containers(pod).collect();
    tell(&format!("Defaulted container {container:?} out of: {}", all.join(", ")));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors() {
        let check = |object: Value, expected: Option<&str>| assert_eq!(selector(&object).as_deref(), expected);
        check(json!({"kind": "Service", "spec": {"selector": {"a": "b"}}}), Some("a=b"));
        let expressions = json!([{"key": "x", "operator": "In", "values": ["1", "2"]}, {"key": "y", "operator": "DoesNotExist"}]);
        check(
            json!({"kind": "Deployment", "spec": {"selector": {"matchLabels": {"a": "b"}, "matchExpressions": expressions}}}),
            Some("a=b,x in (1,2),!y"),
        );
        check(json!({"kind": "Service", "spec": {}}), None);
    }

    #[test]
    fn pods_that_are_likest_to_answer() {
        let pod = |name: &str, phase: &str, ready: &str, created: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": created},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}})
        };
        let mut pods = [
            pod("pending", "Pending", "False", "4"),
            pod("old", "Running", "True", "1"),
            pod("starts", "Running", "False", "3"),
            pod("new", "Running", "True", "2"),
        ];
        pods.sort_by_key(rank);
        assert_eq!(pods.iter().map(name).collect::<Vec<_>>(), ["new", "old", "starts", "pending"]);
    }

    #[test]
    fn containers_of_pods() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container(&pod, None).unwrap(), ("a", false));
        assert_eq!(container(&pod, Some("i")).unwrap(), ("i", true));
        assert!(container(&pod, Some("x")).is_err());
        let mut noted = pod.clone();
        noted["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        assert_eq!(container(&noted, None).unwrap(), ("b", true));
    }
}
