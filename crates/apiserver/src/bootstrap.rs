//! What every cluster has before anybody asks: its namespaces, the system's priority classes, flow schemas and priority levels, the
//! range of service addresses and the `kubernetes` Service.

mod flow_control;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Status, fields, meta};
use base::readiness::Gate;
use futures::StreamExt;
use futures::stream::{self, SelectAll};
use registry::{Context, ListOptions, Registry, Served};
use serde_json::{Value, json};

use crate::authn::{MASTERS, user};

const NETWORKING: &str = "networking.k8s.io";
/// Time before objects that could not be written are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The system's own write, which nobody's rights limit.
pub(crate) fn context() -> Context {
    let user = user("system:apiserver", vec![MASTERS.into()]);
    Context { user: user.into(), manager: "kube-apiserver".into(), ..Context::default() }
}

/// Creates what is missing. `advertised` is where pods reach this server.
pub(crate) async fn run(registry: &Registry, service_cidr: (IpAddr, u8), advertised: SocketAddr) -> Result<(), Status> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure(registry, "", "namespaces", "", json!({"metadata": {"name": name}})).await?;
    }
    let classes = [
        ("system-node-critical", 2_000_001_000, "Used for system critical pods that must not be moved from their current node."),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ];
    for (name, value, description) in classes {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        ensure(registry, "scheduling.k8s.io", "priorityclasses", "", class).await?;
    }
    flow_control::run(registry).await?;
    publish_range(registry, service_cidr).await?;
    publish(registry, service_cidr, advertised).await
}

/// Puts these objects back when somebody deletes or changes them (`kubectl delete all --all` takes the `kubernetes` Service, too),
/// until the registry ends.
pub(crate) async fn keep(
    registry: Arc<Registry>,
    service_cidr: (IpAddr, u8),
    advertised: SocketAddr,
    gate: Gate,
) -> Result<(), Status> {
    let own = fields::Selector::parse("metadata.name=kubernetes").ok();
    let kept = [
        ("", "namespaces", None, None),
        (flow_control::GROUP, "flowschemas", None, None),
        (flow_control::GROUP, "prioritylevelconfigurations", None, None),
        ("", "services", Some("default"), own.clone()),
        ("", "endpoints", Some("default"), own.clone()),
        ("discovery.k8s.io", "endpointslices", Some("default"), own.clone()),
        (NETWORKING, "servicecidrs", None, own),
    ];
    loop {
        let mut changes = SelectAll::new();
        for (group, plural, namespace, fields) in kept.clone() {
            let resource = &resource(&registry, group, plural)?;
            let options = ListOptions { fields, send_initial_events: Some(false), ..ListOptions::default() };
            let watch = registry.watch(resource, namespace, &options).await?.into_stream();
            // One that ends has fallen behind: then all start again.
            changes.push(watch.map(Some).chain(stream::once(async { None })).boxed());
        }
        loop {
            if let Err(error) = run(&registry, service_cidr, advertised).await {
                gate.not_ready(error.message.clone());
                tracing::warn!(%error, "the cluster's own namespaces and the kubernetes Service cannot be kept, trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            gate.ready();
            match changes.next().await {
                Some(Some(event)) if event.status.is_none() => {}
                _ => break,
            }
        }
    }
}

fn resource(registry: &Registry, group: &str, plural: &str) -> Result<Arc<Served>, Status> {
    registry.resource(group, "v1", plural).ok_or_else(|| Status::internal(format!("{plural} are not served")))
}

/// The range from which services get their addresses, ready to be used (KEP-1880: the default ServiceCIDR is named `kubernetes`).
async fn publish_range(registry: &Registry, (base, bits): (IpAddr, u8)) -> Result<(), Status> {
    let range = format!("{}/{bits}", network(base, bits));
    let object = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [range]}});
    ensure(registry, NETWORKING, "servicecidrs", "", object).await?;
    let resource = &resource(registry, NETWORKING, "servicecidrs")?;
    let mut found = registry.get(resource, "", "kubernetes", None).await?.value();
    let mut conditions = found.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    if conditions.iter().any(|condition| condition["type"] == "Ready") {
        return Ok(());
    }
    conditions.push(json!({"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready",
        "lastTransitionTime": apimachinery::time::now()}));
    found["status"] = json!({"conditions": conditions});
    registry.update(&context(), resource, "status", "", "kubernetes", found).await.map(drop)
}

/// The address without the bits that are not of its network.
fn network(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            IpAddr::V4((u32::from(address) & u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0)).into())
        }
        IpAddr::V6(address) => {
            IpAddr::V6((u128::from(address) & u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0)).into())
        }
    }
}

/// The Service by which pods find the API, and where it leads.
async fn publish(registry: &Registry, service_cidr: (IpAddr, u8), advertised: SocketAddr) -> Result<(), Status> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({"metadata": {"name": "kubernetes", "labels": labels}, "spec": {
        "type": "ClusterIP", "clusterIP": first_address(service_cidr.0).to_string(), "sessionAffinity": "None",
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": advertised.port()}],
    }});
    ensure(registry, "", "services", "default", service).await?;
    let address = advertised.ip().to_string();
    let port = json!({"name": "https", "port": advertised.port(), "protocol": "TCP"});
    let skip = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let endpoints = json!({"metadata": {"name": "kubernetes", "labels": skip}, "subsets": [{"addresses": [{"ip": address}], "ports": [port]}]});
    replace(registry, "", "endpoints", endpoints, "subsets").await?;
    let family = if advertised.is_ipv6() { "IPv6" } else { "IPv4" };
    let slice = json!({"metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family, "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": [port]});
    replace(registry, "discovery.k8s.io", "endpointslices", slice, "endpoints").await
}

fn first_address(network: IpAddr) -> IpAddr {
    match network {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) + 1).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) + 1).into()),
    }
}

async fn ensure(registry: &Registry, group: &str, plural: &str, namespace: &str, object: Value) -> Result<(), Status> {
    let resource = &resource(registry, group, plural)?;
    if registry.get(resource, namespace, meta::name(&object), None).await.is_ok() {
        return Ok(());
    }
    create(registry, resource, namespace, object).await
}

async fn create(registry: &Registry, resource: &Served, namespace: &str, mut object: Value) -> Result<(), Status> {
    resource.decode(&context(), "", &mut object, Vec::new())?;
    registry.create(&context(), resource, namespace, None, object).await.map(drop)
}

/// As [`ensure`], and brings `key` up to date: the server may have moved.
async fn replace(registry: &Registry, group: &str, plural: &str, wanted: Value, key: &str) -> Result<(), Status> {
    ensure(registry, group, plural, "default", wanted.clone()).await?;
    let resource = &resource(registry, group, plural)?;
    let mut found = registry.get(resource, "default", "kubernetes", None).await?.value();
    if found.get(key) == wanted.get(key) && found.get("ports") == wanted.get("ports") {
        return Ok(());
    }
    for key in [key, "ports"] {
        if let Some(value) = wanted.get(key) {
            found[key] = value.clone();
        }
    }
    registry.update(&context(), resource, "", "default", "kubernetes", found).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn networks() {
        let check = |address: &str, bits: u8, expected: &str| {
            assert_eq!(network(address.parse().unwrap(), bits).to_string(), expected, "{address}/{bits}");
        };
        check("10.43.1.2", 16, "10.43.0.0");
        check("10.43.1.2", 32, "10.43.1.2");
        check("10.43.1.2", 0, "0.0.0.0");
        check("fd00::1:2", 112, "fd00::1:0");
    }
}
