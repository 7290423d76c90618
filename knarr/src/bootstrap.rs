//! What a cluster has from its first start beside what the API server keeps: the Service of the cluster DNS, which clients look up and
//! whose address the node serves itself, and the default classes of volumes and of Ingresses.

pub(crate) mod nodes;
pub(crate) mod refusals;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ::ingress::gateway::streams::Port;
use ::ingress::service::{GATEWAY_PORT, WEB as INGRESS};
use anyhow::{Context, Result, bail};
use client::Api;
use client::Client;
use client::kube;
use client::kube::Resource;
use client::kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use codec::{Decode, Encode};
use futures::future::try_join_all;
use futures::{TryFutureExt, try_join};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IngressClass;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

const SYSTEM: &str = "kube-system";

/// Why the Service of the cluster DNS is not as it must be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DnsError {
    /// It cannot have these addresses: it has others, or they are outside of the ranges.
    #[error(
        "the cluster DNS cannot have the address {wanted}: {why}. A data directory keeps the --service-cidr and the --cluster-dns that it \
         was made with"
    )]
    Address {
        /// The addresses.
        wanted: String,
        /// What the API says.
        why: String,
    },
    /// It cannot be read.
    #[error("service kube-system/kube-dns")]
    Unread(#[source] kube::Error),
    /// The API does not take it, be it for want of room or by somebody's policy or webhook, which may be one that no pod answers yet. That keeps no
    /// server from starting, since it could not be removed without one, and is to be tried again.
    #[error("service kube-system/kube-dns: {0}")]
    Refused(String),
}

/// Writes the Service with these addresses of the ranges of services; repeating it changes nothing.
///
/// # Errors
/// See [`DnsError`].
pub(crate) async fn cluster_dns(client: Client, addresses: &[IpAddr], ranges: &[IpNet]) -> Result<(), DnsError> {
    let families: Vec<&str> = addresses.iter().map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
    let policy = if addresses.len() > 1 { "PreferDualStack" } else { "SingleStack" };
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
        "spec": {"type": "ClusterIP", "clusterIP": addresses.first(), "clusterIPs": addresses,
            "ipFamilies": families, "ipFamilyPolicy": policy, "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
        ]},
    });
    let services: Api<Service> = Api::namespaced(client, "kube-system");
    let params = PatchParams::apply("knarr").force();
    let Err(error) = services.patch("kube-dns", &params, &Patch::Apply(&service)).await else { return Ok(()) };
    let wanted: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let there = services.get_opt("kube-dns").await.map_err(DnsError::Unread)?;
    let is_address = match (there.and_then(|there| there.spec?.cluster_ips), &error) {
        (Some(has), _) => has != wanted,
        // One that is inside is somebody else's, or its range is to go: both pass when somebody mends them, for which there has to be a server.
        (None, kube::Error::Api(status)) => {
            let is_inside = |address: &IpAddr| ranges.iter().any(|range| range.contains(address));
            names_address(status) && !addresses.iter().all(is_inside)
        }
        (None, _) => false,
    };
    Err(match is_address {
        true => DnsError::Address { wanted: wanted.join(","), why: client::why(&error) },
        false => DnsError::Refused(client::why(&error)),
    })
}

/// Whether the address itself is refused, as one outside of the ranges is.
fn names_address(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.field.starts_with("spec.clusterIP"))
}

/// Nodes keep the ranges of pod addresses that they were given. One of them tells for all which `--cluster-cidr` that was.
pub(crate) async fn pod_ranges(client: Client, cluster: &[IpNet]) -> Result<()> {
    let nodes: Api<Node> = Api::all(client);
    let first = nodes.list(&ListParams::default().limit(1)).await.context("nodes")?.items.into_iter().next();
    let Some(Node { metadata, spec: Some(spec), .. }) = first else { return Ok(()) };
    let ranges = spec.pod_cidrs.unwrap_or_default();
    let is_outside = |range: &&String| range.parse().is_ok_and(|range: IpNet| !cluster.iter().any(|all| all.contains(&range)));
    match ranges.iter().find(is_outside) {
        Some(range) => bail!(
            "node {} has the pod addresses {range}, which are not in the --cluster-cidr {}. A data directory keeps the --cluster-cidr \
             that it was made with",
            metadata.name.unwrap_or_default(),
            cluster.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",")
        ),
        None => Ok(()),
    }
}

/// The default class of volumes, whose provisioner is Knarr's, and the provisioner's rights. What there is already stays as it is:
/// another class may be the default by now.
pub(crate) async fn local_storage(client: Client) -> Result<()> {
    const ACCOUNT: &str = "local-path-provisioner";
    let class = json!({
        "metadata": {"name": "local-path", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": controllers::LOCAL_PROVISIONER,
        "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true,
    });
    let binding = |name: &str, role: &str| {
        json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": ACCOUNT}],
        })
    };
    // Directories are made and removed by the kubelets of their nodes; these verbs run nothing there.
    let role = json!({"metadata": {"name": "knarr:local-path-directories"},
        "rules": [{"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["update", "delete"]}]});
    // What grows says so in its volume and in its claim.
    let growth = json!({"metadata": {"name": "knarr:local-path-expansion"}, "rules": [
        {"apiGroups": [""], "resources": ["persistentvolumes", "persistentvolumeclaims/status"], "verbs": ["patch"]}]});
    let bindings = [
        binding("knarr:local-path-provisioner", "system:persistent-volume-provisioner"),
        binding("knarr:local-path-directories", "knarr:local-path-directories"),
        binding("knarr:local-path-expansion", "knarr:local-path-expansion"),
    ];
    let class = made::<StorageClass>(&client, class).map_err(|error| error.context("storage class local-path"));
    let roles = try_join_all([role, growth].map(|role| made::<ClusterRole>(&client, role)));
    let bindings = try_join_all(bindings.map(|binding| made::<ClusterRoleBinding>(&client, binding)));
    let rights = async { try_join!(roles, bindings).context("rights of local-path") };
    try_join!(class, rights).map(drop)
}

/// Creates an object of the cluster, unless it is there.
async fn made<K>(client: &Client, object: Value) -> Result<()>
where
    K: Decode + Encode + Resource<DynamicType = ()>,
{
    let created = Api::<K>::all(client.clone()).create(&PostParams::default(), &codec::from_value(object)?).await;
    Ok(present(created)?)
}

/// The class of Ingresses that Knarr serves, the default one unless there is another, and the rights of ingress. A class that is there
/// stays as it is.
pub(crate) async fn ingress(client: Client) -> Result<()> {
    const NAME: &str = "knarr:ingress";
    let rule =
        |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    const FOLLOW: &[&str] = &["get", "list", "watch"];
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": NAME}, "rules": [
            rule("networking.k8s.io", &["ingresses", "ingressclasses"], FOLLOW),
            rule("networking.k8s.io", &["ingresses/status"], &["patch"]),
            rule("", &["services", "nodes"], FOLLOW),
            rule("discovery.k8s.io", &["endpointslices"], FOLLOW),
            // Only single Secrets are watched, those that an Ingress names; those with issued certificates and accounts are written.
            rule("", &["secrets"], &["get", "watch", "create", "patch"]),
            rule("", &["events"], &["create", "patch"]),
            // Only single ConfigMaps are watched, too: those with authorities that the Gateway API refers to.
            rule("", &["configmaps"], &["get", "watch"]),
            // The Gateway API, when it is installed.
            rule("", &["namespaces"], FOLLOW),
            rule("apiextensions.k8s.io", &["customresourcedefinitions"], FOLLOW),
            rule("gateway.networking.k8s.io", &["gatewayclasses", "gateways", "listenersets", "httproutes", "grpcroutes", "tlsroutes", "tcproutes", "udproutes", "referencegrants", "backendtlspolicies"], FOLLOW),
            rule("gateway.networking.k8s.io", &["gatewayclasses"], &["create"]),
            rule("gateway.networking.k8s.io", &["gatewayclasses/status", "gateways/status", "listenersets/status", "httproutes/status", "grpcroutes/status", "tlsroutes/status", "tcproutes/status", "udproutes/status", "backendtlspolicies/status"], &["patch"]),
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": crate::identity::INGRESS_ACCOUNT}],
    });
    let params = PatchParams::apply("knarr").force();
    let roles: Api<ClusterRole> = Api::all(client.clone());
    roles.patch(NAME, &params, &Patch::Apply(&role)).await.context("rights of ingress")?;
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    bindings.patch(NAME, &params, &Patch::Apply(&binding)).await.context("rights of ingress")?;
    let classes: Api<IngressClass> = Api::all(client.clone());
    let default = !classes.list(&ListParams::default()).await?.iter().any(::ingress::classes::is_default);
    let class = json!({
        "metadata": {"name": ::ingress::classes::CLASS, "annotations": {(::ingress::classes::DEFAULT): default.to_string()}},
        "spec": {"controller": ::ingress::classes::CONTROLLER},
    });
    made::<IngressClass>(&client, class).await.context("ingress class knarr")
}

/// Where ingress listens: a node, and the addresses there, at most one of each family.
pub(crate) struct Place<'a> {
    pub(crate) node: &'a str,
    pub(crate) addresses: &'a [IpAddr],
}

/// Has every node lead connections for HTTP and HTTPS to the node where ingress listens. Repeating it changes nothing.
pub(crate) async fn ingress_on_all_nodes(client: Client, place: &Place<'_>, [http, https]: [u16; 2]) -> Result<()> {
    let ports = [("http", Port::tcp(http)), ("https", Port::tcp(https))];
    lead(client, place, (INGRESS, None), &ports).await.context("service of ingress")
}

/// Has every node lead to these ports of Gateways, and to no others. Each has a Service for itself: one that cannot have its port, or that the
/// API refuses, takes no other one's away. Those that are `led` to already are left as they are; the others come to them.
pub(crate) async fn gateways_on_all_nodes(
    client: Client,
    place: &Place<'_>,
    ports: &BTreeSet<Port>,
    led: &mut BTreeSet<Port>,
) -> Result<()> {
    led.retain(|port| ports.contains(port));
    let services: Api<Service> = Api::namespaced(client.clone(), SYSTEM);
    let wanted: BTreeSet<String> = ports.iter().map(|port| label_of(*port)).collect();
    let there = services.list(&ListParams::default().labels(GATEWAY_PORT)).await.context("services of Gateways")?;
    for service in there {
        let label = service.metadata.labels.as_ref().and_then(|labels| labels.get(GATEWAY_PORT));
        if let Some(name) = service.metadata.name.as_ref().filter(|_| label.is_none_or(|label| !wanted.contains(label))) {
            leave(client.clone(), name).await?;
        }
    }
    let mut result = Ok(());
    for port in ports {
        if !led.contains(port) {
            let label = label_of(*port);
            let name = format!("{INGRESS}-{label}");
            match lead(client.clone(), place, (&name, Some(&label)), &[("gateway", *port)]).await {
                Ok(()) => drop(led.insert(*port)),
                Err(error) => result = result.and(Err(error).with_context(|| format!("service {name}"))),
            }
        }
    }
    result
}

/// The value of [`GATEWAY_PORT`] for a port.
fn label_of(port: Port) -> String {
    format!("{}-{}", port.transport.name().to_lowercase(), port.number)
}

/// A Service of this name, with the label of a Gateway's port, by which every node leads to the node where ingress listens.
async fn lead(
    client: Client,
    place: &Place<'_>,
    (service_name, label): (&str, Option<&str>),
    ports: &[(&str, Port)],
) -> Result<()> {
    let named = |(name, port): &(&str, Port)| json!({"name": name, "port": port.number, "protocol": port.transport.name()});
    let of_service: Vec<_> = ports.iter().map(named).collect();
    let mut labels = json!({"app.kubernetes.io/name": INGRESS});
    if let Some(label) = label {
        labels[GATEWAY_PORT] = label.into();
    }
    let families: Vec<&str> = place.addresses.iter().map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": service_name, "namespace": SYSTEM, "labels": labels},
        "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ipFamilyPolicy": "PreferDualStack", "ports": of_service},
    });
    if let [family] = families[..] {
        service["spec"]["ipFamilyPolicy"] = "SingleStack".into();
        service["spec"]["ipFamilies"] = json!([family]);
    }
    let params = PatchParams::apply("knarr").force();
    let services: Api<Service> = Api::namespaced(client.clone(), SYSTEM);
    let has = |service: &Service| {
        let of = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
        of.is_some_and(|of| of.len() == families.len() && of.iter().all(|family| families.contains(&family.as_str())))
    };
    if services.get_opt(service_name).await?.is_some_and(|there| !has(&there)) {
        // Ingress was elsewhere before. The first family of a Service never changes.
        leave(client.clone(), service_name).await?;
    }
    let slices: Api<EndpointSlice> = Api::namespaced(client, SYSTEM);
    for (address, family) in place.addresses.iter().zip(families) {
        let name = format!("{service_name}-{}", family.to_lowercase());
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": SYSTEM, "labels": {"kubernetes.io/service-name": service_name,
                "endpointslice.kubernetes.io/managed-by": "knarr"}},
            "addressType": family, "ports": of_service,
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}, "nodeName": place.node}],
        });
        slices.patch(&name, &params, &Patch::Apply(&slice)).await?;
    }
    // Last: nodes refuse connections to a Service without endpoints.
    services.patch(service_name, &params, &Patch::Apply(&service)).await?;
    Ok(())
}

/// Takes those Services away where ingress does not run any more.
pub(crate) async fn no_ingress(client: Client) -> Result<()> {
    let nowhere = Place { node: "", addresses: &[] };
    gateways_on_all_nodes(client.clone(), &nowhere, &BTreeSet::new(), &mut BTreeSet::new()).await?;
    leave(client, INGRESS).await
}

async fn leave(client: Client, service: &str) -> Result<()> {
    let services: Api<Service> = Api::namespaced(client.clone(), SYSTEM);
    let slices: Api<EndpointSlice> = Api::namespaced(client, SYSTEM);
    let selected = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    slices.delete_collection(&DeleteParams::default(), &selected).await.context("endpoints of ingress")?;
    match services.delete(service, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop).context("service of ingress"),
    }
}

fn present<K>(created: kube::Result<K>) -> kube::Result<()> {
    match created {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use client::kube::client::Body;
    use http::{Method, Request, Response};

    use super::*;

    /// What becomes of the Service where there is `there`, and the API refuses to have it written with this status.
    async fn refused(there: Option<Value>, status: Value, range: &str) -> DnsError {
        let service = tower::service_fn(move |request: Request<Body>| {
            let missing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404});
            let answer = match (request.method() == Method::PATCH, &there) {
                (true, _) => status.clone(),
                (false, Some(there)) => there.clone(),
                (false, None) => missing,
            };
            let code = answer["code"].as_u64().map_or(200, |code| code as u16);
            let response = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
            std::future::ready(response)
        });
        let addresses = ["10.43.0.10".parse().unwrap()];
        cluster_dns(Client::new(service, "default"), &addresses, &[range.parse().unwrap()]).await.unwrap_err()
    }

    /// Whether there is such a Service or not, what is refused for now is tried again, and what can never be ends the start.
    #[tokio::test]
    async fn what_is_refused_is_tried_again_unless_it_is_the_address() {
        let status = |code: u16, field: &str| {
            let causes = json!([{"field": field, "reason": "FieldValueInvalid", "message": "no"}]);
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "", "code": code,
                "details": {"causes": causes}})
        };
        let service = |address: &str| json!({"kind": "Service", "apiVersion": "v1", "spec": {"clusterIPs": [address]}});
        let check = async |there: Option<Value>, status: Value, again: bool| {
            let error = refused(there.clone(), status, "10.43.0.0/16").await;
            assert_eq!(matches!(error, DnsError::Refused(_)), again, "{there:?}: {error:?}");
        };
        check(None, status(403, "metadata"), true).await;
        // Its range is to go, or somebody else has it.
        check(None, status(422, "spec.clusterIPs[0]"), true).await;
        let outside = refused(None, status(422, "spec.clusterIPs[0]"), "10.44.0.0/16").await;
        assert!(matches!(outside, DnsError::Address { .. }), "{outside:?}");
        check(Some(service("10.43.0.10")), status(403, "metadata"), true).await;
        check(Some(service("10.43.0.10")), status(507, "spec.clusterIPs[0]"), true).await;
        check(Some(service("10.43.0.11")), status(422, "spec.clusterIPs[0]"), false).await;
    }
}
