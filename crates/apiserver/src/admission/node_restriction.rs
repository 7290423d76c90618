//! NodeRestriction: a kubelet writes its own Node, its own pods and its own lease, and nothing that would let it act for
//! others.

use apimachinery::{Status, meta};
use async_trait::async_trait;
use registry::{Admission, Attributes, Operation};
use serde_json::Value;

use super::{find, forbidden, text};
use crate::authz::node_identity;

const MIRROR: &str = "kubernetes.io/config.mirror";
const RESTRICTED: &str = "node-restriction.kubernetes.io";

pub(super) struct NodeRestriction;

#[async_trait]
impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(node) = node_identity(a.user) else { return Ok(()) };
        let result = match (a.resource.def.group, a.resource.def.plural, a.subresource) {
            ("", "pods", "") => pod(a, node),
            ("", "pods", "status") => bound(a.old, node)
                .then_some(())
                .ok_or_else(|| format!("node \"{node}\" can only update pod status for pods with spec.nodeName set to itself")),
            ("", "pods", "eviction") => evicted(a, node).await,
            ("", "nodes", _) => own_node(a, node),
            ("", "serviceaccounts", "token") => token(a, node).await,
            ("coordination.k8s.io", "leases", _) => {
                let own = a.namespace == "kube-node-lease" && name(a) == node;
                own.then_some(())
                    .ok_or_else(|| format!("can only access node lease with the same name as the requesting node: \"{node}\""))
            }
            _ => Ok(()),
        };
        result.map_err(|why| forbidden(a, why))
    }
}

fn name<'a>(a: &'a Attributes<'_>) -> &'a str {
    if a.name.is_empty() { a.object.as_ref().map(meta::name).unwrap_or_default() } else { a.name }
}

fn bound(pod: Option<&Value>, node: &str) -> bool {
    pod.is_some_and(|pod| text(pod, "/spec/nodeName") == node)
}

fn pod(a: &Attributes<'_>, node: &str) -> Result<(), String> {
    match (a.operation, &a.object) {
        (Operation::Create, Some(pod)) => {
            if meta::annotation(pod, MIRROR).is_none() {
                return Err(format!("pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"));
            }
            if text(pod, "/spec/nodeName") != node {
                return Err(format!("node \"{node}\" can only create pods with spec.nodeName set to itself"));
            }
            let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
            let reads = |volume: &Value| {
                ["secret", "configMap", "persistentVolumeClaim", "projected"].iter().any(|kind| volume.get(*kind).is_some())
            };
            if !text(pod, "/spec/serviceAccountName").is_empty() || volumes.into_iter().any(reads) {
                return Err(format!("node \"{node}\" can not create pods that reference API objects"));
            }
            Ok(())
        }
        (Operation::Delete, _) if !bound(a.old, node) => {
            Err(format!("node \"{node}\" can only delete pods with spec.nodeName set to itself"))
        }
        (Operation::Update, _) => {
            Err(format!("unexpected operation \"UPDATE\", node \"{node}\" can only create and delete mirror pods"))
        }
        _ => Ok(()),
    }
}

async fn evicted(a: &Attributes<'_>, node: &str) -> Result<(), String> {
    let pod = find(a, "", "pods", a.namespace, name(a)).await;
    if bound(pod.as_ref(), node) {
        Ok(())
    } else {
        Err(format!("node {node} can only evict pods with spec.nodeName set to itself"))
    }
}

async fn token(a: &Attributes<'_>, node: &str) -> Result<(), String> {
    let reference = a.object.as_ref().and_then(|request| request.pointer("/spec/boundObjectRef")).filter(|r| r["kind"] == "Pod");
    let reference = reference.ok_or_else(|| format!("node requested token not bound to a pod, node \"{node}\""))?;
    let pod = find(a, "", "pods", a.namespace, reference["name"].as_str().unwrap_or_default()).await;
    if bound(pod.as_ref(), node) {
        Ok(())
    } else {
        Err("node requested token bound to a pod scheduled on a different node".into())
    }
}

fn own_node(a: &Attributes<'_>, node: &str) -> Result<(), String> {
    if name(a) != node {
        return Err(format!("node \"{node}\" is not allowed to modify node \"{}\"", name(a)));
    }
    let Some(new) = a.object.as_ref() else { return Ok(()) };
    let old = a.old.unwrap_or(&Value::Null);
    if a.operation == Operation::Update && old.pointer("/spec/taints") != new.pointer("/spec/taints") {
        return Err(format!("node \"{node}\" is not allowed to modify taints"));
    }
    if new.pointer("/spec/configSource") != old.pointer("/spec/configSource") {
        return Err(format!("node \"{node}\" is not allowed to set spec.configSource"));
    }
    let changed: Vec<&str> = changed_labels(old, new).filter(|label| forbidden_label(label)).collect();
    if changed.is_empty() { Ok(()) } else { Err(format!("is not allowed to modify labels: {}", changed.join(", "))) }
}

fn changed_labels<'a>(old: &'a Value, new: &'a Value) -> impl Iterator<Item = &'a str> {
    let keys = |object: &'a Value| meta::labels(object).into_iter().flatten().map(|(key, _)| key.as_str());
    keys(new)
        .chain(keys(old).filter(move |key| meta::label(new, key).is_none()))
        .filter(move |key| meta::label(old, key) != meta::label(new, key))
}

/// Labels that say something about a node which pods rely on.
fn forbidden_label(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |suffix: &str| domain == suffix || domain.strip_suffix(suffix).is_some_and(|head| head.ends_with('.'));
    if within(RESTRICTED) {
        return true;
    }
    let allowed = [
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    (within("kubernetes.io") || within("k8s.io"))
        && !within("kubelet.kubernetes.io")
        && !within("node.kubernetes.io")
        && !allowed.contains(&label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels() {
        let check = |label: &str, expected: bool| assert_eq!(forbidden_label(label), expected, "{label}");
        check("node-restriction.kubernetes.io/fips", true);
        check("example.node-restriction.kubernetes.io/x", true);
        check("node-role.kubernetes.io/control-plane", true);
        check("kubernetes.io/hostname", false);
        check("node.kubernetes.io/anything", false);
        check("example.com/x", false);
        check("mykubernetes.io/x", false);
        let (old, new) =
            (json!({"metadata": {"labels": {"a": "1", "b": "1"}}}), json!({"metadata": {"labels": {"a": "2", "c": "1"}}}));
        assert_eq!(changed_labels(&old, &new).collect::<Vec<_>>(), ["a", "c", "b"]);
    }
}
