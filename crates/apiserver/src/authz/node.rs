//! The Node authorizer: a kubelet may read what its pods refer to and write what is its own (KEP-4601 included).

use pods::references::References;
use registry::{ListOptions, Registry};
use serde_json::Value;

use super::{Attributes, Opinion, Rule, Verdict};
use crate::authn::node_identity;

const LEASES: &str = "kube-node-lease";

fn allow() -> Opinion<'static> {
    Opinion::of(Verdict::Allow, "")
}

/// The others are asked; why, may be empty.
fn refused(why: impl Into<String>) -> Opinion<'static> {
    Opinion::of(Verdict::None, why)
}

fn unrelated(node: &str) -> Opinion<'static> {
    refused(format!("no relationship found between node '{node}' and this object"))
}

/// What every node may do, besides what depends on its pods.
fn general(a: &Attributes<'_>) -> bool {
    thread_local! {
        static RULES: Vec<Rule> = vec![
            Rule::of("create", "authentication.k8s.io", "tokenreviews"),
            Rule::of("create", "authorization.k8s.io", "subjectaccessreviews localsubjectaccessreviews"),
            Rule::of("get list watch", "core", "services"),
            Rule::of("create", "core", "nodes"),
            Rule::of("create update patch", "core events.k8s.io", "events"),
            Rule::of("create", "core", "pods"),
            Rule::of("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
            Rule::of("get list watch", "storage.k8s.io", "csidrivers"),
            Rule::of("get list watch", "node.k8s.io", "runtimeclasses"),
            Rule::of("get list watch", "certificates.k8s.io", "clustertrustbundles"),
            Rule::of("get", "core", "endpoints"),
        ];
    }
    RULES.with(|rules| rules.iter().any(|rule| rule.allows(a)))
}

/// Decides.
pub(super) async fn opinion(registry: &Registry, a: &Attributes<'_>) -> Opinion<'static> {
    let Some(node) = node_identity(a.user) else { return refused("") };
    if !a.is_resource {
        return refused("");
    }
    let read = matches!(a.verb, "get" | "list" | "watch");
    match (a.group, a.resource, a.subresource) {
        ("", "secrets" | "configmaps" | "persistentvolumeclaims" | "persistentvolumes", "") => {
            if !read || (a.resource.starts_with("persistent") && a.verb != "get") {
                return refused("can only read resources of this type");
            }
            related(registry, node, a).await
        }
        ("", "persistentvolumeclaims", "status") if matches!(a.verb, "get" | "update" | "patch") => {
            related(registry, node, a).await
        }
        ("resource.k8s.io", "resourceclaims", "") if a.verb == "get" => related(registry, node, a).await,
        ("resource.k8s.io", "resourceslices", "") => slices(registry, node, a).await,
        ("certificates.k8s.io", "podcertificaterequests", sub) => certificates(registry, node, a, sub).await,
        ("storage.k8s.io", "volumeattachments", "") if a.verb == "get" => attachment(registry, node, a).await,
        ("", "serviceaccounts", "token") if a.verb == "create" => related(registry, node, a).await,
        ("", "serviceaccounts", "") if a.verb == "get" => related(registry, node, a).await,
        ("", "nodes", "" | "status") => own_node(node, a),
        ("", "pods", sub) => pods(registry, node, a, sub).await,
        ("coordination.k8s.io", "leases", "") => {
            let write = matches!(a.verb, "get" | "create" | "update" | "patch" | "delete");
            if write && a.namespace == LEASES && (a.name == node || a.verb == "create" && a.name.is_empty()) {
                return allow();
            }
            refused("can only access node lease with the same name as the requesting node")
        }
        ("storage.k8s.io", "csinodes", "") if a.verb != "list" && a.verb != "watch" => {
            if a.name == node || a.verb == "create" && a.name.is_empty() {
                allow()
            } else {
                refused("can only access CSINode with the same name as the requesting node")
            }
        }
        _ if general(a) => allow(),
        _ => refused(""),
    }
}

fn own_node(node: &str, a: &Attributes<'_>) -> Opinion<'static> {
    let own = a.name == node;
    match a.verb {
        "create" if a.subresource.is_empty() && (own || a.name.is_empty()) => allow(),
        "get" | "list" | "watch" | "update" | "patch" if own => allow(),
        _ => refused("node may only access its own Node object"),
    }
}

/// A kubelet has to do with the slices of its node; whether one that it creates is of its node is asked by admission.
async fn slices(registry: &Registry, node: &str, a: &Attributes<'_>) -> Opinion<'static> {
    match a.verb {
        "create" => allow(),
        "list" | "watch" | "deletecollection" if a.selected("spec.nodeName") == node => allow(),
        "list" | "watch" | "deletecollection" => {
            refused("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        "get" | "update" | "patch" | "delete" => {
            let Some(resource) = registry.resource(a.group, "v1", a.resource) else { return refused("") };
            match registry.get(&resource, "", a.name, None).await {
                Ok(found) if resource.field(&found, "spec.nodeName") == node => allow(),
                _ => unrelated(node),
            }
        }
        _ => refused(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
        ),
    }
}

/// A kubelet asks for certificates of its pods and reads what became of that; whether a pod is its own is asked by admission.
async fn certificates(registry: &Registry, node: &str, a: &Attributes<'_>, sub: &str) -> Opinion<'static> {
    match (sub, a.verb) {
        ("", "create") => allow(),
        ("", "list" | "watch") if a.selected("spec.nodeName") == node => allow(),
        ("", "list" | "watch") => refused("can only list/watch podcertificaterequests with spec.nodeName field selector"),
        ("", "get") => {
            let Some(resource) = registry.resource(a.group, "v1beta1", a.resource) else { return refused("") };
            match registry.get(&resource, a.namespace, a.name, None).await {
                Ok(found) if resource.field(&found, "spec.nodeName") == node => allow(),
                _ => unrelated(node),
            }
        }
        _ => refused("can only create, get, list and watch podcertificaterequests"),
    }
}

async fn pods(registry: &Registry, node: &str, a: &Attributes<'_>, sub: &str) -> Opinion<'static> {
    match (sub, a.verb) {
        ("", "list" | "watch") if a.selected("spec.nodeName") == node => allow(),
        ("", "list" | "watch") => refused("can only list/watch pods with spec.nodeName field selector"),
        ("", "create") => allow(),
        ("", "get" | "delete") | ("status", "get" | "update" | "patch") | ("eviction", "create") => {
            if on_node(registry, node, a.namespace, a.name).await {
                allow()
            } else {
                refused("no relationship found between node and this object")
            }
        }
        _ => refused(""),
    }
}

async fn on_node(registry: &Registry, node: &str, namespace: &str, name: &str) -> bool {
    let Some(resource) = registry.resource("", "v1", "pods") else { return false };
    match registry.get(&resource, namespace, name, None).await {
        Ok(entry) => resource.field(&entry, "spec.nodeName") == node,
        // A pod that is gone gives nothing away, and its kubelet must be able to learn of it.
        Err(status) => status.code == 404,
    }
}

async fn related(registry: &Registry, node: &str, a: &Attributes<'_>) -> Opinion<'static> {
    if a.name.is_empty() {
        return refused("No Object name found");
    }
    if a.resource == "persistentvolumes" {
        return volume(registry, node, a).await;
    }
    if used(registry, node, a.namespace, a.resource, a.name).await
        || (a.resource == "secrets" && of_driver(registry, node, a.namespace, a.name).await)
    {
        return allow();
    }
    unrelated(node)
}

/// A volume is related to the node where a pod uses its claim.
async fn volume(registry: &Registry, node: &str, a: &Attributes<'_>) -> Opinion<'static> {
    let Some(resource) = registry.resource("", "v1", "persistentvolumes") else { return unrelated(node) };
    let Ok(volume) = registry.get(&resource, "", a.name, None).await else { return unrelated(node) };
    if is_claimed(registry, node, &volume.derived(volume_references)).await { allow() } else { unrelated(node) }
}

/// Whether a pod on the node uses the claim of a volume.
async fn is_claimed(registry: &Registry, node: &str, volume: &VolumeReferences) -> bool {
    let (namespace, claim) = &volume.claim;
    !claim.is_empty() && used(registry, node, namespace, "persistentvolumeclaims", claim).await
}

/// Whether the driver of a volume that a pod on the node uses needs a Secret there.
async fn of_driver(registry: &Registry, node: &str, namespace: &str, name: &str) -> bool {
    let Some(resource) = registry.resource("", "v1", "persistentvolumes") else { return false };
    let volumes = registry.list(&resource, None, &ListOptions::default()).await.map(|list| list.entries).unwrap_or_default();
    for volume in volumes.iter().map(|entry| entry.derived(volume_references)) {
        let names = volume.secrets.iter().any(|(of, secret)| of == namespace && secret == name);
        if names && is_claimed(registry, node, &volume).await {
            return true;
        }
    }
    false
}

/// What a volume refers to.
struct VolumeReferences {
    /// Namespace and name of its claim, empty where it has none.
    claim: (String, String),
    /// The Secrets that its driver needs on nodes.
    secrets: Vec<(String, String)>,
}

/// It is found out once for each volume: whoever asks for a Secret asks for all of them.
fn volume_references(volume: Value) -> VolumeReferences {
    let place = |reference: &Value| {
        let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
        (text("namespace"), text("name"))
    };
    let source = &volume["spec"]["csi"];
    let named = ["nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"].map(|key| place(&source[key]));
    let secrets = named.into_iter().filter(|(_, name)| !name.is_empty()).collect();
    VolumeReferences { claim: place(&volume["spec"]["claimRef"]), secrets }
}

/// A kubelet reads what came of attachments to its node.
async fn attachment(registry: &Registry, node: &str, a: &Attributes<'_>) -> Opinion<'static> {
    let Some(resource) = registry.resource("storage.k8s.io", "v1", "volumeattachments") else { return unrelated(node) };
    match registry.get(&resource, "", a.name, None).await {
        Ok(found) if found.value()["spec"]["nodeName"] == node => allow(),
        // Whoever waits for it must be able to learn that it is not there yet.
        Err(status) if status.code == 404 => allow(),
        _ => unrelated(node),
    }
}

/// Whether a pod on the node refers to an object.
async fn used(registry: &Registry, node: &str, namespace: &str, resource: &str, name: &str) -> bool {
    let Some(pods) = registry.resource("", "v1", "pods") else { return false };
    let options =
        ListOptions { fields: Some(apimachinery::fields::Selector::equals("spec.nodeName", node)), ..ListOptions::default() };
    let pods = registry.list(&pods, Some(namespace), &options).await.map(|list| list.entries).unwrap_or_default();
    // A kubelet reads everything that a pod refers to by itself.
    pods.iter().any(|entry| entry.derived(references).contains(resource, name))
}

/// What a pod gives its node the right to read, in its namespace.
fn references(pod: Value) -> References {
    // A kubelet makes mirror pods itself: they give it no rights.
    match apimachinery::meta::annotation(&pod, "kubernetes.io/config.mirror") {
        Some(_) => References::default(),
        None => References::of_value(pod),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_pods_refer_to() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "s1"}}, {"name": "b", "configMap": {"name": "c1"}},
                {"name": "e", "ephemeral": {}}, {"name": "f", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "g", "projected": {"sources": [{"secret": {"name": "s2"}}, {"configMap": {"name": "c2"}}]}},
            ],
            "containers": [{"envFrom": [{"secretRef": {"name": "s3"}}], "env": [{"valueFrom": {"configMapKeyRef": {"name": "c3"}}}]}],
        }});
        let check = |resource: &str, names: &[&str]| {
            for name in ["sa", "pull", "s1", "s2", "s3", "c1", "c2", "c3", "claim", "p-e", "none"] {
                assert_eq!(references(pod.clone()).contains(resource, name), names.contains(&name), "{resource} {name}");
            }
        };
        check("secrets", &["pull", "s1", "s2", "s3"]);
        check("configmaps", &["c1", "c2", "c3"]);
        check("serviceaccounts", &["sa"]);
        check("persistentvolumeclaims", &["claim", "p-e"]);
        let mirror =
            json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"serviceAccountName": "sa"}});
        assert!(!references(mirror).contains("serviceaccounts", "sa"));
    }

    #[test]
    fn secrets_of_drivers() {
        let volume = |key: &str| json!({"spec": {"csi": {key: {"namespace": "n", "name": "s"}}}});
        let check = |key: &str, namespace: &str, name: &str, expected: bool| {
            let found = volume_references(volume(key)).secrets.contains(&(namespace.to_owned(), name.to_owned()));
            assert_eq!(found, expected, "{key} {namespace}/{name}");
        };
        check("nodeStageSecretRef", "n", "s", true);
        check("nodePublishSecretRef", "n", "s", true);
        check("nodeExpandSecretRef", "n", "s", true);
        check("nodeStageSecretRef", "other", "s", false);
        check("nodeStageSecretRef", "n", "other", false);
        // The controller's part of a driver needs it, nodes do not.
        check("controllerPublishSecretRef", "n", "s", false);
    }
}
