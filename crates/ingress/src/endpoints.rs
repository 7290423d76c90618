//! From a Service and its slices to the addresses behind one of its ports. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use crate::gateway::streams::Transport;
use crate::policy::Protocol;

/// A port of a Service, as a back end names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortRef {
    /// By its name.
    Name(String),
    /// By its number.
    Number(u16),
    /// One of UDP by its number; the others are of TCP.
    Udp(u16),
}

impl PortRef {
    /// How what goes there is carried.
    pub fn transport(&self) -> Transport {
        if matches!(self, Self::Udp(_)) { Transport::Udp } else { Transport::Tcp }
    }
}

/// What is behind a port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behind {
    /// There is no such Service, or it has no such port.
    Nothing,
    /// Addresses that serve, perhaps none, and what they speak as far as the Service says.
    Addresses(BTreeSet<SocketAddr>, Option<Protocol>),
    /// A name outside the cluster.
    Name(String, u16),
}

/// Looks behind a port.
pub fn behind<S: Deref<Target = EndpointSlice>>(service: Option<&Service>, slices: &[S], port: &PortRef) -> Behind {
    let Some(spec) = service.and_then(|service| service.spec.as_ref()) else { return Behind::Nothing };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let found = ports.iter().find(|one| is_of(one.protocol.as_deref(), port) && names(one, port));
    if spec.type_.as_deref() == Some("ExternalName") {
        // Such a Service needs no ports: the number is then the port there.
        let number = found.and_then(|one| u16::try_from(one.port).ok()).or(match port {
            PortRef::Number(number) | PortRef::Udp(number) => Some(*number),
            PortRef::Name(_) => None,
        });
        return match (spec.external_name.clone(), number) {
            (Some(name), Some(number)) => Behind::Name(name, number),
            _ => Behind::Nothing,
        };
    }
    let Some(found) = found else { return Behind::Nothing };
    let preferred = spec.ip_families.iter().flatten().next().map_or("IPv4", String::as_str);
    let name = found.name.as_deref().unwrap_or_default();
    let is_this = |one: &EndpointPort| is_of(one.protocol.as_deref(), port) && one.name.as_deref().unwrap_or_default() == name;
    let family = |family: &str| serving(slices, |slice| slice.address_type == family, is_this);
    let mut addresses = family(preferred);
    if addresses.is_empty() {
        addresses = family(if preferred == "IPv4" { "IPv6" } else { "IPv4" });
    }
    Behind::Addresses(addresses, protocol(found.app_protocol.as_deref()))
}

fn names(port: &ServicePort, wanted: &PortRef) -> bool {
    match wanted {
        PortRef::Name(name) => port.name.as_deref() == Some(name),
        PortRef::Number(number) | PortRef::Udp(number) => port.port == i32::from(*number),
    }
}

/// Whether a port of this protocol, TCP when none, is one that the back end can mean.
fn is_of(protocol: Option<&str>, wanted: &PortRef) -> bool {
    protocol.unwrap_or("TCP") == wanted.transport().name()
}

/// What a port speaks by its appProtocol (KEP-3726 and the IANA names).
fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name? {
        "kubernetes.io/h2c" | "grpc" => Some(Protocol::Grpc),
        "https" | "kubernetes.io/wss" => Some(Protocol::Https),
        "http" | "kubernetes.io/ws" => Some(Protocol::Http),
        _ => None,
    }
}

/// The addresses that serve: those that are ready; where there are none, those that still serve while they terminate.
fn serving<S: Deref<Target = EndpointSlice>>(
    slices: &[S],
    family: impl Fn(&EndpointSlice) -> bool,
    is_this: impl Fn(&EndpointPort) -> bool,
) -> BTreeSet<SocketAddr> {
    let (mut ready, mut terminating) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices.iter().filter(|slice| family(slice)) {
        let port = slice.ports.iter().flatten().find(|one| is_this(one));
        let Some(port) = port.and_then(|port| u16::try_from(port.port?).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            // Addresses of one endpoint are interchangeable: the first is used, as the API says.
            let address = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
            let Some(address) = address.map(|address| SocketAddr::new(address, port)) else { continue };
            match state(endpoint) {
                (true, _) => drop(ready.insert(address)),
                (false, true) => drop(terminating.insert(address)),
                (false, false) => {}
            }
        }
    }
    if ready.is_empty() { terminating } else { ready }
}

/// Whether an endpoint is ready, and whether it serves while it terminates.
fn state(endpoint: &Endpoint) -> (bool, bool) {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|all| all.ready).unwrap_or(true);
    let serving = conditions.and_then(|all| all.serving).unwrap_or(ready);
    (ready, serving && conditions.and_then(|all| all.terminating).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, endpoints: Value, port: &PortRef, expected: &Behind) {
        let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let slice = |family: &str, ports: Value, endpoints: &Value| {
            let slice = json!({"metadata": {}, "addressType": family, "ports": ports, "endpoints": endpoints});
            Box::new(serde_json::from_value::<EndpointSlice>(slice).unwrap())
        };
        let ports = json!([{"name": "web", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
        let six = json!([{"addresses": ["fd00::1"]}]);
        let slices = [slice("IPv4", ports.clone(), &endpoints), slice("IPv6", ports, &six)];
        assert_eq!(&behind(Some(&service), &slices, port), expected, "{port:?}");
    }

    fn addresses(list: &[&str], protocol: Option<Protocol>) -> Behind {
        Behind::Addresses(list.iter().map(|address| address.parse().unwrap()).collect(), protocol)
    }

    #[test]
    fn ports_and_conditions() {
        let spec = |app: Value| json!({"ports": [{"name": "web", "port": 80, "appProtocol": app}, {"name": "dns", "port": 53, "protocol": "UDP"}]});
        let ready = json!([
            {"addresses": ["10.0.0.1", "10.0.0.9"]},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        ]);
        let (name, number) = (PortRef::Name("web".into()), PortRef::Number(80));
        let two = addresses(&["10.0.0.1:8080", "10.0.0.2:8080"], None);
        check(spec(json!(null)), ready.clone(), &name, &two);
        check(spec(json!(null)), ready.clone(), &number, &two);
        check(spec(json!(null)), ready.clone(), &PortRef::Number(8080), &Behind::Nothing);
        check(spec(json!(null)), ready.clone(), &PortRef::Name("dns".into()), &Behind::Nothing);
        check(spec(json!(null)), ready.clone(), &PortRef::Udp(53), &addresses(&["10.0.0.1:53", "10.0.0.2:53"], None));
        check(spec(json!(null)), ready.clone(), &PortRef::Udp(80), &Behind::Nothing);
        let leaving = json!([ready[2], ready[3]]);
        for (app, protocol) in [("kubernetes.io/h2c", Protocol::Grpc), ("kubernetes.io/wss", Protocol::Https)] {
            check(spec(json!(app)), leaving.clone(), &name, &addresses(&["10.0.0.4:8080"], Some(protocol)));
        }
        check(spec(json!(null)), json!([]), &name, &addresses(&["[fd00::1]:8080"], None));
        assert_eq!(behind::<Box<EndpointSlice>>(None, &[], &name), Behind::Nothing);
    }

    #[test]
    fn names_outside() {
        let spec = json!({"type": "ExternalName", "externalName": "web.example"});
        check(spec.clone(), json!([]), &PortRef::Number(443), &Behind::Name("web.example".into(), 443));
        check(spec, json!([]), &PortRef::Name("web".into()), &Behind::Nothing);
        let named = json!({"type": "ExternalName", "externalName": "web.example", "ports": [{"name": "web", "port": 81}]});
        check(named, json!([]), &PortRef::Name("web".into()), &Behind::Name("web.example".into(), 81));
    }
}
