//! The objects that every cluster has from its first moment: system namespaces, and the services of the API server and the
//! cluster DNS.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use client::Client;
use client::kube::Api;
use client::kube::api::{DynamicObject, Patch, PatchParams};
use client::kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// Addresses that the objects name.
pub(crate) struct Addresses {
    /// Service address of the API server: the first of the service network.
    pub(crate) kubernetes: IpAddr,
    /// Service address of the cluster DNS.
    pub(crate) dns: IpAddr,
    /// Where the API server is reached on this node.
    pub(crate) apiserver: SocketAddr,
}

/// Writes the objects as they must be; repeating it changes nothing.
pub(crate) async fn run(client: &Client, addresses: &Addresses) -> Result<()> {
    for object in objects(addresses) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (group, version) = match text("/apiVersion").split_once('/') {
            Some((group, version)) => (group.to_owned(), version.to_owned()),
            None => (String::new(), text("/apiVersion")),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind { group, version, kind: text("/kind") });
        let api: Api<DynamicObject> = match text("/metadata/namespace").as_str() {
            "" => Api::all_with(client.clone(), &resource),
            namespace => Api::namespaced_with(client.clone(), namespace, &resource),
        };
        let name = text("/metadata/name");
        let params = PatchParams::apply("knarr").force();
        api.patch(&name, &params, &Patch::Apply(&object)).await.with_context(|| format!("{} {name}", text("/kind")))?;
    }
    Ok(())
}

fn objects(addresses: &Addresses) -> Vec<Value> {
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let mut objects: Vec<_> = ["default", "kube-system", "kube-public", "kube-node-lease"].map(namespace).into();
    let (ip, port) = (addresses.apiserver.ip(), addresses.apiserver.port());
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": addresses.kubernetes, "clusterIPs": [addresses.kubernetes],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]},
    }));
    objects.push(json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": ip}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    }));
    let family = |ip: IpAddr| if ip.is_ipv6() { "IPv6" } else { "IPv4" };
    objects.push(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family(ip),
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }));
    let dns = json!([
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
    ]);
    let labels = json!({"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"});
    objects.push(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": addresses.dns, "clusterIPs": [addresses.dns], "ports": dns},
    }));
    objects
}
