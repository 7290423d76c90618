//! What is right and yet not what its author meant.

use k8s_openapi::api::core::v1::Service;

use super::addresses::is_headless;
use crate::rules::{list, text};

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
    if text(&spec.type_) == "ClusterIP" && is_headless(spec) {
        let ignored = [
            ("spec.loadBalancerIP", !text(&spec.load_balancer_ip).is_empty()),
            ("spec.externalIPs", external_ips),
            ("spec.SessionAffinity", text(&spec.session_affinity) != "None"),
        ];
        let ignored = ignored.into_iter().filter(|(_, set)| *set);
        warnings.extend(ignored.map(|(field, _)| format!("{field} is ignored for headless services")));
    }
    // KEP-5707: who may write Services may take any address by it.
    if external_ips {
        warnings.push("spec.externalIPs is deprecated".to_owned());
    }
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
