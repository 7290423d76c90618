//! The Service of the cluster DNS, which clients look up and whose address the node serves itself.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use client::Client;
use client::kube::api::{Patch, PatchParams};
use client::kube::{self, Api};
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

/// Writes the Service as it must be; repeating it changes nothing.
pub(crate) async fn cluster_dns(client: Client, address: IpAddr) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {
            "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
        "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
        ]},
    });
    let services: Api<Service> = Api::namespaced(client, "kube-system");
    let params = PatchParams::apply("knarr").force();
    match services.patch("kube-dns", &params, &Patch::Apply(&service)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 422 => bail!(
            "the cluster DNS cannot have the address {address}: {}. A data directory keeps the --service-cidr and the \
             --cluster-dns that it was made with",
            status.message
        ),
        Err(error) => Err(error).context("service kube-system/kube-dns"),
    }
}
