//! Rules for services.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServicePort, ServiceSpec};
use serde_json::json;

use super::addresses;
use crate::core::pod::PROTOCOLS;
use crate::rules::{self, list, text};

const BALANCERS_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// Longest affinity of a client, in seconds.
const MAX_AFFINITY: i32 = 86_400;

/// A service, new or changed, in upstream's order.
pub(super) fn validate(service: &Service, errors: &mut Errors) {
    let none = ServiceSpec::default();
    let (spec, path) = (service.spec.as_ref().unwrap_or(&none), Path::new("spec"));
    validate_hints(service, errors);
    if list(&spec.ports).is_empty() && !addresses::is_headless(spec) && text(&spec.type_) != "ExternalName" {
        errors.push(Error::required(&path.child("ports"), ""));
    }
    validate_kind(spec, &path, errors);
    validate_ports(spec, &path.child("ports"), errors);
    rules::labels(&path.child("selector"), spec.selector.as_ref(), errors);
    validate_affinity(spec, &path, errors);
    addresses::validate(spec, &path, errors);
    for (index, address) in list(&spec.external_ips).iter().enumerate() {
        let (path, before) = (path.child("externalIPs").index(index), errors.len());
        rules::ip(&path, address, errors);
        if errors.len() == before {
            rules::non_special_ip(&path, address, errors);
        }
    }
    rules::one_of(&path.child("type"), text(&spec.type_), TYPES, errors);
    validate_unique_ports(spec, &path.child("ports"), errors);
    validate_source_ranges(service, spec, errors);
    validate_balancer(spec, &path, errors);
    validate_policies(spec, &path, errors);
}

/// The old and the new annotation say the same.
fn validate_hints(service: &Service, errors: &mut Errors) {
    let Some(annotations) = &service.metadata.annotations else { return };
    if let (Some(old), Some(new)) = (annotations.get(TOPOLOGY_HINTS), annotations.get(TOPOLOGY_MODE))
        && old != new
    {
        let detail = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        errors.push(Error::invalid(&Path::new("metadata.annotations").key(TOPOLOGY_MODE), new.as_str(), detail));
    }
}

fn validate_kind(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    match text(&spec.type_) {
        kind @ ("LoadBalancer" | "NodePort") if addresses::is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(Error::invalid(&path.child("clusterIPs").index(0), "None", detail));
        }
        "ExternalName" => {
            let set = [
                ("clusterIPs", !list(&spec.cluster_ips).is_empty()),
                ("ipFamilies", !list(&spec.ip_families).is_empty()),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ];
            for (field, _) in set.into_iter().filter(|(_, set)| *set) {
                errors.push(Error::forbidden(&path.child(field), "may not be set for ExternalName services"));
            }
            let name = text(&spec.external_name);
            match name.strip_suffix('.').unwrap_or(name) {
                "" => errors.push(Error::required(&path.child("externalName"), "")),
                name => rules::dns_subdomain(&path.child("externalName"), name, errors),
            }
        }
        _ => {}
    }
}

fn validate_ports(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let ports = list(&spec.ports);
    let mut names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let (path, name) = (path.index(index), text(&port.name));
        if name.is_empty() && ports.len() > 1 {
            errors.push(Error::required(&path.child("name"), ""));
        } else if !name.is_empty() {
            rules::dns_label(&path.child("name"), name, errors);
            if !names.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
        }
        rules::port_number(&path.child("port"), port.port, errors);
        rules::one_of(&path.child("protocol"), text(&port.protocol), PROTOCOLS, errors);
        if let Some(target) = &port.target_port {
            rules::port(&path.child("targetPort"), target, errors);
        }
        if let Some(protocol) = &port.app_protocol {
            rules::qualified_name(&path.child("appProtocol"), protocol, errors);
        }
    }
}

fn node_port(port: &ServicePort) -> Option<i32> {
    port.node_port.filter(|number| *number != 0)
}

/// No port of the service or of the nodes twice, and none of the nodes for a service inside the cluster.
fn validate_unique_ports(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let ports = || list(&spec.ports).iter().enumerate();
    if text(&spec.type_) == "ClusterIP" {
        for (index, _) in ports().filter(|(_, port)| node_port(port).is_some()) {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.push(Error::forbidden(&path.index(index).child("nodePort"), detail));
        }
    }
    let mut seen = HashSet::new();
    for (index, port) in ports() {
        if let Some(number) = node_port(port).filter(|number| !seen.insert((text(&port.protocol), *number))) {
            errors.push(Error::duplicate(&path.index(index).child("nodePort"), number));
        }
    }
    let mut seen = HashSet::new();
    for (index, port) in ports() {
        let protocol = text(&port.protocol);
        if !seen.insert((protocol, port.port)) {
            errors.push(Error::duplicate(&path.index(index), json!({"port": port.port, "protocol": protocol})));
        }
    }
}

fn validate_affinity(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let affinity = text(&spec.session_affinity);
    rules::one_of(&path.child("sessionAffinity"), affinity, &["ClientIP", "None"], errors);
    let (path, config) = (path.child("sessionAffinityConfig"), spec.session_affinity_config.as_ref());
    if affinity == "None" && config.is_some() {
        errors.push(Error::forbidden(&path, "must not be set when session affinity is None"));
    }
    if affinity != "ClientIP" {
        return;
    }
    let missing = "when session affinity type is ClientIP";
    let Some(config) = config else { return errors.push(Error::required(&path, missing)) };
    let path = path.child("clientIP");
    let Some(client) = &config.client_ip else { return errors.push(Error::required(&path, missing)) };
    let path = path.child("timeoutSeconds");
    match client.timeout_seconds {
        None => errors.push(Error::required(&path, missing)),
        Some(seconds) if !(1..=MAX_AFFINITY).contains(&seconds) => {
            let detail = format!("must be greater than 0 and less than {MAX_AFFINITY}");
            errors.push(Error::invalid(&path, seconds, detail));
        }
        Some(_) => {}
    }
}

/// Who may use a load balancer, as a field or as an annotation.
fn validate_source_ranges(service: &Service, spec: &ServiceSpec, errors: &mut Errors) {
    let balancer = text(&spec.type_) == "LoadBalancer";
    let ranges = list(&spec.load_balancer_source_ranges);
    if !ranges.is_empty() {
        let path = Path::new("spec.LoadBalancerSourceRanges");
        if !balancer {
            errors.push(Error::forbidden(&path, BALANCERS_ONLY));
        }
        for (index, range) in ranges.iter().enumerate() {
            rules::cidr(&path.index(index), range.trim(), errors);
        }
    } else if let Some(ranges) = service.metadata.annotations.as_ref().and_then(|annotations| annotations.get(SOURCE_RANGES)) {
        let path = Path::new("metadata.annotations").key(SOURCE_RANGES);
        if !balancer {
            errors.push(Error::forbidden(&path, BALANCERS_ONLY));
        }
        for range in ranges.trim().split(',').filter(|_| !ranges.trim().is_empty()) {
            rules::cidr(&path, range.trim(), errors);
        }
    }
}

fn validate_balancer(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let balancer = text(&spec.type_) == "LoadBalancer";
    if spec.allocate_load_balancer_node_ports.is_some() && !balancer {
        errors.push(Error::forbidden(&path.child("allocateLoadBalancerNodePorts"), BALANCERS_ONLY));
    }
    if spec.allocate_load_balancer_node_ports.is_none() && balancer {
        errors.push(Error::required(&Path::new("allocateLoadBalancerNodePorts"), ""));
    }
    match &spec.load_balancer_class {
        Some(class) if balancer => rules::qualified_name(&path.child("loadBalancerClass"), class, errors),
        Some(_) => errors.push(Error::forbidden(&path.child("loadBalancerClass"), BALANCERS_ONLY)),
        None => {}
    }
}

/// Whether the service has addresses that the world may reach.
pub(super) fn is_external(kind: &str, external_ips: bool) -> bool {
    matches!(kind, "LoadBalancer" | "NodePort") || (kind == "ClusterIP" && external_ips)
}

fn validate_policies(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let (kind, external) = (text(&spec.type_), text(&spec.external_traffic_policy));
    let at = path.child("externalTrafficPolicy");
    if is_external(kind, !list(&spec.external_ips).is_empty()) {
        rules::one_of(&at, external, &["Cluster", "Local"], errors);
    } else if !external.is_empty() {
        errors.push(Error::invalid(&at, external, "may only be set for externally-accessible services"));
    }
    // A port for health checks that is needed and not given is chosen just before the commit.
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0) {
        let at = path.child("healthCheckNodePort");
        if kind == "LoadBalancer" && external == "Local" {
            rules::port_number(&at, port, errors);
        } else {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(Error::invalid(&at, port, detail));
        }
    }
    let at = path.child("internalTrafficPolicy");
    if spec.internal_traffic_policy.is_none() && matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        errors.push(Error::required(&at, ""));
    }
    rules::supported(&at, spec.internal_traffic_policy.as_deref(), &["Cluster", "Local"], errors);
    let distributions = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    rules::supported(&path.child("trafficDistribution"), spec.traffic_distribution.as_deref(), &distributions, errors);
}

/// What may not change.
pub(super) fn validate_update(service: &Service, old: &Service, errors: &mut Errors) {
    let (Some(new), Some(old)) = (&service.spec, &old.spec) else { return };
    addresses::validate_update(new, old, errors);
    let balancers = text(&new.type_) == "LoadBalancer" && text(&old.type_) == "LoadBalancer";
    if balancers && new.load_balancer_class != old.load_balancer_class {
        let path = Path::new("spec.loadBalancerClass");
        errors.push(Error::invalid(&path, json!(new.load_balancer_class), "may not change once set"));
    }
    let local = |spec: &ServiceSpec| text(&spec.external_traffic_policy) == "Local";
    let ports = (new.health_check_node_port.unwrap_or(0), old.health_check_node_port.unwrap_or(0));
    if balancers && local(new) && local(old) && ports.0 != ports.1 {
        errors.push(Error::forbidden(&Path::new("spec.healthCheckNodePort"), "field is immutable"));
    }
}

/// What a load balancer reports.
pub(super) fn validate_status(service: &Service, errors: &mut Errors) {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let (ingress, path) = (balancer.map(|balancer| list(&balancer.ingress)).unwrap_or_default(), "status.loadBalancer.ingress");
    let kind = service.spec.as_ref().map(|spec| text(&spec.type_)).unwrap_or_default();
    if kind != "LoadBalancer" && !ingress.is_empty() {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        return errors.push(Error::forbidden(&Path::new(path), detail));
    }
    for (index, point) in ingress.iter().enumerate() {
        validate_ingress(point, &Path::new(path).index(index), errors);
    }
}

fn validate_ingress(point: &LoadBalancerIngress, path: &Path, errors: &mut Errors) {
    let (address, name) = (text(&point.ip), text(&point.hostname));
    if !address.is_empty() {
        rules::ip(&path.child("ip"), address, errors);
    }
    let at = path.child("ipMode");
    match (point.ip_mode.as_deref(), address.is_empty()) {
        (None, false) => errors.push(Error::required(&at, "must be specified when `ip` is set")),
        (Some(_), true) => errors.push(Error::forbidden(&at, "may not be specified when `ip` is not set")),
        (mode, _) => rules::supported(&at, mode, &["Proxy", "VIP"], errors),
    }
    if !name.is_empty() {
        rules::dns_subdomain(&path.child("hostname"), name, errors);
        if rules::family(name).is_some() {
            errors.push(Error::invalid(&path.child("hostname"), name, "must be a DNS name, not an IP address"));
        }
    }
}
