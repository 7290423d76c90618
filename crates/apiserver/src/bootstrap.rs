//! What every cluster has before anybody asks: its namespaces, the system's priority classes, flow schemas and priority levels, the
//! range of service addresses, the `kubernetes` Service, and since when uses of tokens are written down.

mod flow_control;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Status, fields, meta};
use base::readiness::Gate;
use futures::future::join_all;
use futures::stream::{self, SelectAll};
use futures::{StreamExt, join};
use ipnet::IpNet;
use pods::legacy_tokens::{SINCE, TRACKING, day, day_of};
use registry::{Context, ListOptions, Registry, Served};
use serde_json::{Value, json};

use crate::authn::{MASTERS, user};

const NETWORKING: &str = "networking.k8s.io";
/// Time before objects that could not be written are tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(5);

/// The system's own write, which nobody's rights limit.
pub(crate) fn context() -> Context {
    let user = user("system:apiserver", vec![MASTERS.into()]);
    Context { user: user.into(), manager: "kube-apiserver".into(), ..Context::default() }
}

/// Creates what is missing, all of it that is taken. `advertised` is where pods reach this server. The error is one of what was refused.
pub(crate) async fn run(registry: &Registry, service_cidrs: &[IpNet], advertised: SocketAddr) -> Result<(), Status> {
    // At once what needs nothing of the other: the store writes what comes together with one disk synchronisation.
    let ranges = publish_ranges(registry, service_cidrs);
    let (namespaces, classes, flows, ranges) =
        join!(namespaces(registry), priority_classes(registry), flow_control::run(registry), ranges);
    let publish = async {
        match service_cidrs.first() {
            Some(first) => publish(registry, first, advertised).await,
            None => Err(Status::internal("services have no range of addresses")),
        }
    };
    let (published, tracked) = join!(publish, track_tokens(registry));
    namespaces.and(classes).and(flows).and(ranges).and(published).and(tracked)
}

/// Waits for all, also for those after one that is refused: what is refused for want of room may leave room for what is smaller.
async fn all(writes: impl IntoIterator<Item = impl Future<Output = Result<(), Status>>>) -> Result<(), Status> {
    join_all(writes).await.into_iter().collect()
}

/// Whether what the server itself writes at its start was taken. What is refused keeps no server from starting, be it for want of room or by
/// somebody's policy or webhook: nobody could make room, or remove those, without a server.
pub(crate) fn taken(result: Result<(), Status>, what: &str) -> bool {
    if let Err(error) = &result {
        tracing::warn!(%error, "{what} cannot be written, trying again while the server runs");
    }
    result.is_ok()
}

async fn namespaces(registry: &Registry) -> Result<(), Status> {
    let names = ["default", "kube-system", "kube-public", "kube-node-lease"];
    let made = names.map(|name| ensure(registry, "", "namespaces", "", json!({"metadata": {"name": name}})));
    all(made).await
}

async fn priority_classes(registry: &Registry) -> Result<(), Status> {
    let classes = [
        ("system-node-critical", 2_000_001_000, "Used for system critical pods that must not be moved from their current node."),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ];
    let made = classes.map(|(name, value, description)| {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        ensure(registry, "scheduling.k8s.io", "priorityclasses", "", class)
    });
    all(made).await
}

/// Says since when uses of tokens that Secrets hold are written down (`authn::legacy_token`): the controller that takes unused ones
/// away believes no time before that (upstream: `legacytokentracking`).
async fn track_tokens(registry: &Registry) -> Result<(), Status> {
    let maps = &resource(registry, "", "configmaps")?;
    let today = day_of(jiff::Timestamp::now()).to_string();
    let Ok(found) = registry.get(maps, "kube-system", TRACKING, None).await else {
        let object = json!({"metadata": {"name": TRACKING}, "data": {SINCE: today}});
        return create(registry, maps, "kube-system", object).await;
    };
    let mut found = found.value();
    if found["data"][SINCE].as_str().and_then(day).is_some() {
        return Ok(());
    }
    found["data"][SINCE] = today.into();
    registry.update(&context(), maps, "", "kube-system", TRACKING, found).await.map(drop)
}

/// Puts these objects back when somebody deletes or changes them (`kubectl delete all --all` takes the `kubernetes` Service, too),
/// until the registry ends. The gates are open while they are there.
pub(crate) async fn keep(
    registry: Arc<Registry>,
    service_cidrs: Vec<IpNet>,
    advertised: SocketAddr,
    gates: Vec<Gate>,
) -> Result<(), Status> {
    let own = fields::Selector::parse("metadata.name=kubernetes").ok();
    let tracking = fields::Selector::parse(&format!("metadata.name={TRACKING}")).ok();
    let kept = [
        ("", "namespaces", None, None),
        ("scheduling.k8s.io", "priorityclasses", None, None),
        (flow_control::GROUP, "flowschemas", None, None),
        (flow_control::GROUP, "prioritylevelconfigurations", None, None),
        ("", "services", Some("default"), own.clone()),
        ("", "endpoints", Some("default"), own.clone()),
        ("discovery.k8s.io", "endpointslices", Some("default"), own.clone()),
        (NETWORKING, "servicecidrs", None, own),
        ("", "configmaps", Some("kube-system"), tracking),
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
            if let Err(error) = run(&registry, &service_cidrs, advertised).await {
                gates.iter().for_each(|gate| gate.not_ready(error.message.clone()));
                tracing::warn!(%error, "the cluster's own objects, such as namespaces and the kubernetes Service, cannot be kept, trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            gates.iter().for_each(Gate::ready);
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

/// The ranges from which services get their addresses, ready to be used (KEP-1880: the default ServiceCIDR is named `kubernetes`). One
/// that has a range of one family gets that of the other one when the cluster does.
async fn publish_ranges(registry: &Registry, service_cidrs: &[IpNet]) -> Result<(), Status> {
    let ranges: Vec<String> = service_cidrs.iter().map(|range| range.trunc().to_string()).collect();
    let object = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ranges}});
    ensure(registry, NETWORKING, "servicecidrs", "", object).await?;
    let resource = &resource(registry, NETWORKING, "servicecidrs")?;
    let mut found = registry.get(resource, "", "kubernetes", None).await?.value();
    let known = found["spec"]["cidrs"].as_array().cloned().unwrap_or_default();
    if let ([known], [first, _]) = (known.as_slice(), ranges.as_slice())
        && known == first
    {
        found["spec"]["cidrs"] = json!(ranges);
        found = registry.update(&context(), resource, "", "", "kubernetes", found).await?.entry.value();
    }
    let mut conditions = found.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    if conditions.iter().any(|condition| condition["type"] == "Ready") {
        return Ok(());
    }
    conditions.push(json!({"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready",
        "lastTransitionTime": apimachinery::time::now()}));
    found["status"] = json!({"conditions": conditions});
    registry.update(&context(), resource, "status", "", "kubernetes", found).await.map(drop)
}

/// The Service by which pods find the API, and where it leads.
async fn publish(registry: &Registry, services: &IpNet, advertised: SocketAddr) -> Result<(), Status> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    // Of IPv6, the first address of a network is among those of its hosts, and is nobody's all the same.
    let own = services.hosts().find(|address| *address != services.network()).unwrap_or(services.addr()).to_string();
    let service = json!({"metadata": {"name": "kubernetes", "labels": labels}, "spec": {
        "type": "ClusterIP", "clusterIP": own, "sessionAffinity": "None",
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": advertised.port()}],
    }});
    let address = advertised.ip().to_string();
    let port = json!({"name": "https", "port": advertised.port(), "protocol": "TCP"});
    let skip = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let endpoints = json!({"metadata": {"name": "kubernetes", "labels": skip}, "subsets": [{"addresses": [{"ip": address}], "ports": [port]}]});
    let family = if advertised.is_ipv6() { "IPv6" } else { "IPv4" };
    let slice = json!({"metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family, "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": [port]});
    let (service, endpoints, slice) = join!(
        ensure(registry, "", "services", "default", service),
        replace(registry, "", "endpoints", endpoints, "subsets"),
        replace(registry, "discovery.k8s.io", "endpointslices", slice, "endpoints"),
    );
    service.and(endpoints).and(slice)
}

async fn ensure(registry: &Registry, group: &str, plural: &str, namespace: &str, object: Value) -> Result<(), Status> {
    let resource = &resource(registry, group, plural)?;
    if registry.get(resource, namespace, meta::name(&object), None).await.is_ok() {
        return Ok(());
    }
    create(registry, resource, namespace, object).await
}

async fn create(registry: &Registry, resource: &Served, namespace: &str, mut object: Value) -> Result<(), Status> {
    resource.decode(&context(), "", &mut object)?;
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
