//! What machines need to join: whom the authority is known by, what the cluster is, and the rights of who joins and of nodes.
//!
//! Upstream has the roles (`system:node-bootstrapper` and its kin) and leaves binding them to installers: the bindings here are the ones that
//! kubeadm makes, under our names.

use std::path::Path;

use anyhow::{Context, Result};
use base::readiness::Gate;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Client, kube};
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::node::Cluster;
use crate::token::{JoinToken, SERVERS};

/// The ConfigMap in `kube-system` that tells nodes what their cluster is.
pub(crate) const CLUSTER: &str = "knarr-cluster";

/// Its key under which nodes that have joined find whom to trust (PEM), the signer first.
pub(crate) const AUTHORITY: &str = "authority";

/// The ConfigMap of `cluster-info`, which anybody may read.
pub(crate) const INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// The annotation of a Node that says which authority has issued its client certificate: the digest, as tokens have it.
pub(crate) const NODE_AUTHORITY: &str = "knarr.io/authority";

const RBAC: &str = "rbac.authorization.k8s.io";
const BOOTSTRAPPERS: &str = "system:bootstrappers";
const NODES: &str = "system:nodes";
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";

/// Writes everything; repeating it changes nothing. `server` is where nodes reach the API. A token of the file that somebody has deleted
/// from the cluster stays deleted: the file gets another one. The gate opens when nodes are told what the
/// cluster is now, or somebody refuses that: the server serves all others.
pub(crate) async fn joining(
    client: &Client,
    (authority, server): (&str, &str),
    cluster: &Cluster,
    token: &Path,
    told: &Gate,
) -> Result<()> {
    let was_there = is_there(client, INFO).await;
    let told_to_nodes = apply(client, "kube-system", config(cluster, authority)?);
    let (to_nodes, to_all) = tokio::join!(told_to_nodes, apply(client, "kube-public", info(authority, server)));
    told.ready();
    to_nodes.and(to_all)?;
    let mut own = JoinToken::load_or_create(token, authority)?;
    if was_there? && !is_there(client, &format!("{SECRETS}/{}", own.secret_name())).await? {
        tracing::warn!(path = %token.display(), "the token of the file was deleted, the file has a new one");
        own = JoinToken::replace(token, authority)?;
    }
    let created = roles().into_iter().map(|(path, object)| create(client, path, object));
    let secret = create(client, SECRETS.into(), own.secret(None, SERVERS, &[]));
    tokio::try_join!(try_join_all(created), secret)?;
    Ok(())
}

/// The ConfigMap from which whoever knows the authority's digest learns the authority, as kubeadm publishes it.
fn info(authority: &str, server: &str) -> Value {
    let cluster = json!({"server": server, "certificate-authority-data": STANDARD.encode(authority)});
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]});
    json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": kubeconfig.to_string()}})
}

/// The authority in the ConfigMap of [`INFO`].
pub(crate) fn published(info: &Value) -> Result<String> {
    let kubeconfig: Value = serde_json::from_str(info["data"]["kubeconfig"].as_str().unwrap_or_default())?;
    let data = &kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"];
    Ok(String::from_utf8(STANDARD.decode(data.as_str().context("no authority")?)?)?)
}

fn config(cluster: &Cluster, authority: &str) -> Result<Value> {
    let data = json!({"cluster": serde_json::to_string(cluster)?, AUTHORITY: authority});
    Ok(json!({"metadata": {"name": CLUSTER}, "data": data}))
}

/// Path of the collection and object.
fn roles() -> Vec<(String, Value)> {
    let of_cluster = |plural: &str, object| (format!("/apis/{RBAC}/v1/{plural}"), object);
    let within = |namespace: &str, plural: &str, object| (format!("/apis/{RBAC}/v1/namespaces/{namespace}/{plural}"), object);
    let group = |name: &str| json!([{"apiGroup": RBAC, "kind": "Group", "name": name}]);
    let binding = |name: &str, role: &str, subjects: Value| json!({"metadata": {"name": name}, "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}, "subjects": subjects});
    let bound = |name: &str, role: &str, subjects| of_cluster("clusterrolebindings", binding(name, role, subjects));
    let own = "system:certificates.k8s.io:certificatesigningrequests";
    let mut all = vec![
        bound("knarr:node-bootstrapper", "system:node-bootstrapper", group(BOOTSTRAPPERS)),
        bound("knarr:node-join", &format!("{own}:nodeclient"), group(BOOTSTRAPPERS)),
        bound("knarr:node-renewal", &format!("{own}:selfnodeclient"), group(NODES)),
        // Service proxy and DNS of a node that is not the server's read as the node itself.
        bound("knarr:node-proxier", "system:node-proxier", group(NODES)),
        // Policies name peers by labels: who enforces them reads the pods of all nodes.
        bound("knarr:node-policies", "knarr:network-policies", group(NODES)),
    ];
    // By it the server reaches the node's kubelet and pods.
    let tunnel = json!({"nonResourceURLs": [apiserver::tunnels::PATH], "verbs": ["get"]});
    all.push(of_cluster("clusterroles", json!({"metadata": {"name": "knarr:tunnel"}, "rules": [tunnel]})));
    all.push(bound("knarr:tunnel", "knarr:tunnel", group(NODES)));
    let approve = json!({"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve"],
        "resourceNames": ["kubernetes.io/kubelet-serving"]});
    let name = "knarr:kubelet-serving-approver";
    all.push(of_cluster("clusterroles", json!({"metadata": {"name": name}, "rules": [approve]})));
    let account = json!([{"kind": "ServiceAccount", "namespace": "kube-system", "name": "certificate-controller"}]);
    all.push(bound(name, name, account));
    let readers = [
        ("kube-public", "knarr:cluster-info", "cluster-info", "User", "system:anonymous"),
        ("kube-system", "knarr:cluster", CLUSTER, "Group", NODES),
    ];
    for (namespace, name, map, kind, subject) in readers {
        let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [map], "verbs": ["get"]});
        all.push(within(namespace, "roles", json!({"metadata": {"name": name}, "rules": [rule]})));
        let subjects = json!([{"apiGroup": RBAC, "kind": kind, "name": subject}]);
        let role = json!({"apiGroup": RBAC, "kind": "Role", "name": name});
        let binding = json!({"metadata": {"name": name}, "roleRef": role, "subjects": subjects});
        all.push(within(namespace, "rolebindings", binding));
    }
    all
}

async fn is_there(client: &Client, path: &str) -> Result<bool> {
    match client.request::<Value>(http::Request::get(path).body(Vec::new())?).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        found => found.map(|_| true).with_context(|| path.to_owned()),
    }
}

/// Creates an object unless it is there: what an administrator has changed stays.
async fn create(client: &Client, path: String, object: Value) -> Result<()> {
    let request = http::Request::post(&path).header(http::header::CONTENT_TYPE, "application/json");
    let request = request.body(serde_json::to_vec(&object)?)?;
    match client.request::<Value>(request).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop).with_context(|| format!("{path} {}", object["metadata"]["name"])),
    }
}

/// Writes a ConfigMap as it must be.
async fn apply(client: &Client, namespace: &str, mut object: Value) -> Result<()> {
    object["apiVersion"] = "v1".into();
    object["kind"] = "ConfigMap".into();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}?fieldManager=knarr&force=true");
    let request = http::Request::patch(&path).header(http::header::CONTENT_TYPE, "application/apply-patch+yaml");
    let request = request.body(serde_json::to_vec(&object)?)?;
    client.request::<Value>(request).await.map(drop).with_context(|| path.clone())
}
