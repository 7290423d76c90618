//! Service.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::{KindDef, NameRule, Sub};
use crate::typed::Kind;
use crate::util::{child_object, each, or_none, set_default, text};

impl Kind for Service {
    const DEF: KindDef = KindDef::new("", "v1", "Service", "services", "service")
        .short(&["svc"])
        .in_all()
        .name(NameRule::Label1035)
        .create_on_update()
        .subresources(&[
            Sub {
                name: "proxy",
                kind: ("", "v1", "ServiceProxyOptions"),
                verbs: &["create", "delete", "get", "patch", "update"],
            },
            Sub { name: "status", kind: ("", "v1", "Service"), verbs: &["get", "patch", "update"] },
        ]);
    const SELECTABLE: &'static [&'static str] = &["spec.clusterIP", "spec.type"];

    fn field(object: &Value, name: &'static str) -> String {
        text(object, if name == "spec.type" { "/spec/type" } else { "/spec/clusterIP" }).to_owned()
    }

    fn apply_defaults(object: &mut Value) {
        let spec = child_object(object, "spec");
        set_default(spec, "type", "ClusterIP");
        set_default(spec, "sessionAffinity", "None");
        if text(spec, "/sessionAffinity") == "ClientIP" {
            set_default(child_object(child_object(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds", 10800);
        }
        for port in each(spec, "ports") {
            set_default(port, "protocol", "TCP");
            let target = port["port"].clone();
            if port.get("targetPort").is_none_or(|value| value == 0 || value == "") && !target.is_null() {
                port["targetPort"] = target;
            }
        }
        let kind = text(spec, "/type").to_owned();
        if kind != "ExternalName" {
            set_default(spec, "internalTrafficPolicy", "Cluster");
        }
        if kind == "NodePort" || kind == "LoadBalancer" {
            set_default(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            set_default(spec, "allocateLoadBalancerNodePorts", true);
        }
    }

    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        crate::service_types::drop_dependent(object, old);
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        let path = Path::new("spec");
        let kind = spec.type_.as_deref().unwrap_or_default();
        if !["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"].contains(&kind) {
            errors.push(Error::not_supported(
                &path.child("type"),
                kind,
                &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
            ));
        }
        if kind == "ExternalName" {
            let name = spec.external_name.as_deref().unwrap_or_default().trim_end_matches('.');
            errors.invalid_each(&path.child("externalName"), name, names::dns1123_subdomain(name));
            if !["", "None"].contains(&spec.cluster_ip.as_deref().unwrap_or_default()) {
                errors.push(Error::forbidden(&path.child("clusterIPs"), "may not be set when `type` is 'ExternalName'"));
            }
        }
        let headless = spec.cluster_ip.as_deref() == Some("None");
        if spec.ports.as_ref().is_none_or(Vec::is_empty) && kind != "ExternalName" && !headless {
            errors.push(Error::required(&path.child("ports"), ""));
        }
        if headless && (kind == "NodePort" || kind == "LoadBalancer") {
            errors.push(Error::invalid(
                &path.child("clusterIPs").index(0),
                "None",
                format!("may not be set to 'None' for {kind} services"),
            ));
        }
        validate_ports(spec, &path.child("ports"), errors);
        let affinity = spec.session_affinity.as_deref().unwrap_or_default();
        if !["None", "ClientIP"].contains(&affinity) {
            errors.push(Error::not_supported(&path.child("sessionAffinity"), affinity, &["ClientIP", "None"]));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let (Some(new), Some(old)) = (&self.spec, &old.spec) else { return };
        let ip = |spec: &ServiceSpec| spec.cluster_ip.clone().unwrap_or_default();
        let external = |spec: &ServiceSpec| spec.type_.as_deref() == Some("ExternalName");
        if !external(new) && !external(old) && !ip(old).is_empty() && ip(new) != ip(old) {
            let detail = "may not change once set";
            errors.push(Error::invalid(&Path::new("spec").child("clusterIPs").index(0), ip(new), detail));
        }
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

fn validate_ports(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.name.as_deref().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 {
            errors.push(Error::required(&path.child("name"), ""));
        }
        if !name.is_empty() {
            errors.invalid_each(&path.child("name"), name, names::dns1123_label(name));
            if ports[..index].iter().any(|other| other.name.as_deref() == Some(name)) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
        }
        for message in names::port_number(port.port.into()) {
            errors.push(Error::invalid(&path.child("port"), port.port, message));
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !["TCP", "UDP", "SCTP"].contains(&protocol) {
            errors.push(Error::not_supported(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]));
        }
        match &port.target_port {
            Some(IntOrString::Int(number)) => {
                for message in names::port_number((*number).into()) {
                    errors.push(Error::invalid(&path.child("targetPort"), *number, message));
                }
            }
            Some(IntOrString::String(name)) => errors.invalid_each(&path.child("targetPort"), name, names::port_name(name)),
            None => {}
        }
        let same = |other: &&k8s_openapi::api::core::v1::ServicePort| other.port == port.port && other.protocol == port.protocol;
        if ports[..index].iter().any(|other| same(&other)) {
            errors.push(Error::duplicate(&path, json!({"port": port.port, "protocol": protocol})));
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
