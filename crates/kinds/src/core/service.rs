//! Service.

mod addresses;
#[cfg(test)]
mod tests;
mod types;
mod validate;
mod warnings;

use apimachinery::field::Errors;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::{KindDef, NameRule};
use crate::sub::{Connect, Sub};
use crate::typed::Kind;
use crate::util::{child_object, each, or_none, remove, set_default, set_zero, text};

/// Seconds for which a client keeps its endpoint.
const DEFAULT_AFFINITY: u32 = 10_800;

impl Kind for Service {
    const DEF: KindDef = KindDef::new("", "v1", "Service", "services", "service")
        .short(&["svc"])
        .in_all()
        .name(NameRule::Label)
        .create_on_update()
        .returns_deleted()
        .subresources(&[Sub::connect("proxy", Some(("", "v1", "ServiceProxyOptions")), Connect::Proxy), Sub::STATUS]);
    const SELECTABLE: &'static [&'static str] = &["spec.clusterIP", "spec.type"];

    fn field(object: &Value, name: &'static str) -> String {
        text(object, if name == "spec.type" { "/spec/type" } else { "/spec/clusterIP" }).to_owned()
    }

    fn apply_defaults(object: &mut Value) {
        let spec = child_object(object, "spec");
        set_zero(spec, "type", "ClusterIP");
        set_zero(spec, "sessionAffinity", "None");
        match text(spec, "/sessionAffinity") {
            "ClientIP" => {
                let client = child_object(child_object(spec, "sessionAffinityConfig"), "clientIP");
                set_default(client, "timeoutSeconds", DEFAULT_AFFINITY);
            }
            "None" => remove(spec, "sessionAffinityConfig"),
            _ => {}
        }
        for port in each(spec, "ports") {
            set_zero(port, "protocol", "TCP");
            let target = port["port"].clone();
            if !target.is_null() {
                set_zero(port, "targetPort", target);
            }
        }
        let kind = text(spec, "/type").to_owned();
        if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
            set_default(spec, "internalTrafficPolicy", "Cluster");
        }
        let external_ips = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|addresses| !addresses.is_empty());
        if validate::is_external(&kind, external_ips) {
            set_zero(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            set_default(spec, "allocateLoadBalancerNodePorts", true);
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
        if let Some(spec) = object.get_mut("spec") {
            addresses::complete_new(spec);
        }
    }

    /// Types, addresses and ports that the server chose stay, unless the client says otherwise.
    fn prepare_update(object: &mut Value, old: &Value) {
        if let (Some(spec), Some(old)) = (object.get_mut("spec"), old.get("spec")) {
            addresses::complete_changed(spec, old);
        }
        types::drop_dependent(object, old);
    }

    /// A load balancer's address takes connections itself, unless said otherwise.
    fn prepare_status(object: &mut Value, _old: &Value) {
        if let Some(balancer) = object.pointer_mut("/status/loadBalancer") {
            for point in each(balancer, "ingress").filter(|point| !text(point, "/ip").is_empty()) {
                set_default(point, "ipMode", "VIP");
            }
        }
    }

    fn validate(&self, errors: &mut Errors) {
        validate::validate(self, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        validate::validate_update(self, old, errors);
    }

    fn validate_sub(&self, _sub: &str, _old: &Self, errors: &mut Errors) {
        validate::validate_status(self, errors);
    }

    fn warnings(&self) -> Vec<String> {
        warnings::of(self)
    }

    fn warnings_on_update(&self, _old: &Self) -> Vec<String> {
        warnings::of(self)
    }

    fn warnings_on_sub(&self, _sub: &str) -> Vec<String> {
        warnings::of_status(self)
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Type", "Type of the service.", |service, _| {
                    service.spec.as_ref().and_then(|spec| spec.type_.clone()).into()
                }),
                Column::new("Cluster-IP", "Address of the service inside the cluster.", |service, _| {
                    or_none(service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default())
                }),
                Column::new("External-IP", "Addresses of the service outside the cluster.", |service, _| external_ip(service)),
                Column::new("Port(s)", "Ports of the service.", |service, _| or_none(ports(service))),
                Column::wide("Selector", "Labels of the pods behind the service.", |service, _| {
                    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
                    or_none(selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
                }),
            ]
        }
    }
}

fn external_ip(service: &Service) -> Value {
    let Some(spec) = &service.spec else { return Value::Null };
    let mut addresses = spec.external_ips.clone().unwrap_or_default();
    match spec.type_.as_deref() {
        Some("ExternalName") => return spec.external_name.clone().into(),
        Some("LoadBalancer") => {
            let ingress =
                service.status.as_ref().and_then(|status| status.load_balancer.as_ref()).and_then(|lb| lb.ingress.clone());
            addresses.extend(ingress.unwrap_or_default().into_iter().filter_map(|point| point.ip.or(point.hostname)));
            if addresses.is_empty() {
                return "<pending>".into();
            }
        }
        _ => {}
    }
    or_none(addresses.join(","))
}

fn ports(service: &Service) -> String {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let show = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        match port.node_port.filter(|port| *port > 0) {
            Some(node) => format!("{}:{node}/{protocol}", port.port),
            None => format!("{}/{protocol}", port.port),
        }
    };
    ports.map(show).collect::<Vec<_>>().join(",")
}
