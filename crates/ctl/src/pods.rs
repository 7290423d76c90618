//! Pods that a command is about: by name, by labels, or as those of a workload or service.

use apimachinery::labels::Selector;
use serde_json::Value;

use crate::discovery::{Resource, escaped};
use crate::error::{Error, Result};
use crate::lists::list;
use crate::output::tell;
use crate::selection;
use crate::session::{JSON, Session};

/// Says which container is meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The label selector by which an object selects pods, as text; none where it selects none, or has no selector.
///
/// # Errors
/// What stands there is no selector.
pub(crate) fn selector(object: &Value) -> Result<Option<String>> {
    let spec = &object["spec"]["selector"];
    let selector = if object["kind"] == "Service" || object["kind"] == "ReplicationController" {
        let labels = spec.as_object().into_iter().flatten();
        Selector::from_set(labels.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default())))
    } else {
        Selector::from_value(spec).map_err(|error| Error::usage(format!("the selector of {}: {error}", name(object))))?
    };
    // An empty one is no choice: without a selector, a service has no pods.
    Ok((!selector.is_nothing() && !selector.is_everything()).then(|| selector.to_string()))
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
    let selector = selector(&object)?.ok_or_else(|| Error::usage(format!("{} has no pods", resource.named(&name))))?;
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

/// Where a pod stands among those that may be meant: as with kubectl (`podutils.ActivePods`, the last one first), one that runs, then the one that has
/// been ready for the longest time, then the oldest. Only pods that are ending, which kubectl takes like others, come last.
fn rank(pod: &Value) -> (bool, bool, bool, Option<String>, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let ends = pod["metadata"].get("deletionTimestamp").is_some();
    let since = ready.map(|ready| text(&ready["lastTransitionTime"]));
    (ends, pod["status"]["phase"] != "Running", since.is_none(), since, text(&pod["metadata"]["creationTimestamp"]))
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
        let check =
            |object: Value, expected: Option<&str>| assert_eq!(selector(&object).unwrap().as_deref(), expected, "{object}");
        check(json!({"kind": "Service", "spec": {"selector": {"a": "b"}}}), Some("a=b"));
        let expressions = json!([{"key": "x", "operator": "In", "values": ["1", "2"]}, {"key": "y", "operator": "DoesNotExist"}]);
        check(
            json!({"kind": "Deployment", "spec": {"selector": {"matchLabels": {"a": "b"}, "matchExpressions": expressions}}}),
            Some("a=b,x in (1,2),!y"),
        );
        let controller = json!({"kind": "ReplicationController", "spec": {"selector": {"b": "c", "a": ""}}});
        check(controller, Some("a=,b=c"));
        let expressions = json!([{"key": "z", "operator": "NotIn", "values": ["1"]}, {"key": "a", "operator": "Exists"}]);
        check(json!({"kind": "Job", "spec": {"selector": {"matchExpressions": expressions}}}), Some("a,z notin (1)"));
        check(json!({"kind": "Service", "spec": {}}), None);
        check(json!({"kind": "Service", "spec": {"selector": {}}}), None);
        check(json!({"kind": "ConfigMap"}), None);
        check(json!({"kind": "ReplicaSet", "spec": {"selector": {}}}), None);
        // No other choice is made of what is not understood.
        for expression in
            [json!({"key": "a", "operator": "Near"}), json!({"key": "a", "operator": "In"}), json!({"operator": "Exists"})]
        {
            let object =
                json!({"kind": "Ship", "metadata": {"name": "s"}, "spec": {"selector": {"matchExpressions": [expression]}}});
            assert!(selector(&object).is_err(), "{expression}");
        }
    }

    #[test]
    fn pods_that_are_likest_to_answer() {
        let pod = |name: &str, phase: &str, (ready, since): (&str, &str), created: &str| {
            json!({"metadata": {"name": name, "creationTimestamp": created},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]}})
        };
        let mut pods = [
            pod("pending", "Pending", ("False", "0"), "0"),
            pod("young", "Running", ("True", "3"), "2"),
            pod("again", "Running", ("True", "4"), "1"),
            pod("starts", "Running", ("False", "0"), "0"),
            pod("old", "Running", ("True", "3"), "1"),
            pod("ends", "Running", ("True", "1"), "1"),
        ];
        pods[5]["metadata"]["deletionTimestamp"] = json!("9");
        pods.sort_by_key(rank);
        assert_eq!(pods.iter().map(name).collect::<Vec<_>>(), ["old", "young", "again", "starts", "pending", "ends"]);
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
