//! What is right and yet not what its author meant.

use apimachinery::field::Path;
use k8s_openapi::api::core::v1::Service;

use super::addresses::is_headless;
use crate::rules::{list, text, warn_of_cidr, warn_of_ip};

const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

/// Upstream: `pkg/api/service/warnings.go`.
pub(super) fn of(service: &Service) -> Vec<String> {
    let mut warnings = Vec::new();
    if service.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(TOPOLOGY_HINTS)) {
        let new = "service.kubernetes.io/topology-mode";
        warnings.push(format!("annotation {TOPOLOGY_HINTS} is deprecated, please use {new} instead"));
    }
    let Some(spec) = &service.spec else { return warnings };
    let external_name = text(&spec.type_) == "ExternalName";
    let external_ips = !list(&spec.external_ips).is_empty();
    let path = Path::new("spec");
    if !matches!(text(&spec.cluster_ip), "" | "None") {
        warn_of_each(list(&spec.cluster_ips), &path.child("clusterIPs"), warn_of_ip, &mut warnings);
    }
    if text(&spec.type_) == "ClusterIP" && is_headless(spec) {
        let ignored = [
            ("spec.loadBalancerIP", !text(&spec.load_balancer_ip).is_empty()),
            ("spec.externalIPs", external_ips),
            ("spec.SessionAffinity", text(&spec.session_affinity) != "None"),
        ];
        let ignored = ignored.into_iter().filter(|(_, set)| *set);
        warnings.extend(ignored.map(|(field, _)| format!("{field} is ignored for headless services")));
    }
    warn_of_each(list(&spec.external_ips), &path.child("externalIPs"), warn_of_ip, &mut warnings);
    // KEP-5707: who may write Services may take any address by it.
    if external_ips {
        warnings.push("spec.externalIPs is deprecated".to_owned());
    }
    warn_of_ip(&path.child("loadBalancerIP"), text(&spec.load_balancer_ip), &mut warnings);
    let ranges = list(&spec.load_balancer_source_ranges);
    warn_of_each(ranges, &path.child("loadBalancerSourceRanges"), warn_of_cidr, &mut warnings);
    if external_name && external_ips {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external_name && !text(&spec.external_name).is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.traffic_distribution.as_deref() == Some("PreferClose") {
        warnings.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
    warnings
}

/// The same of a status.
pub(super) fn of_status(service: &Service) -> Vec<String> {
    let mut warnings = Vec::new();
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let points = balancer.map(|balancer| list(&balancer.ingress)).unwrap_or_default();
    for (index, point) in points.iter().enumerate() {
        warn_of_ip(&Path::new("status.loadBalancer.ingress").index(index), text(&point.ip), &mut warnings);
    }
    warnings
}

fn warn_of_each(values: &[String], path: &Path, warn: fn(&Path, &str, &mut Vec<String>), warnings: &mut Vec<String>) {
    for (index, value) in values.iter().enumerate() {
        warn(&path.index(index), value, warnings);
    }
}
