//! EndpointSlice.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::discovery::v1::{self as discovery, EndpointSlice};
use serde_json::Value;

use crate::columns::Column;
use crate::core::endpoints::first_three;
use crate::core::pod::PROTOCOLS;
use crate::def::KindDef;
use crate::rules::{self, list, text};
use crate::typed::Kind;
use crate::util::{each, remove, set_default};

/// Most endpoints and ports of a slice, and addresses of an endpoint.
const MAX_ENDPOINTS: usize = 1000;

const MAX_PORTS: usize = 20_000;

const MAX_ADDRESSES: usize = 100;

const MAX_TOPOLOGY: usize = 16;

const MAX_HINTS: usize = 8;

/// The cluster's own controllers: what they write is in its canonical form, and very many.
const MANAGERS: &[&str] = &["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];

impl Kind for EndpointSlice {
    const DEF: KindDef =
        KindDef::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice").generation_of(&["labels"]);

    fn apply_defaults(object: &mut Value) {
        for port in each(object, "ports") {
            set_default(port, "name", "");
            set_default(port, "protocol", "TCP");
        }
    }

    fn prepare_create(object: &mut Value) {
        drop_topology(object, &Value::Null);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        drop_topology(object, old);
    }

    fn validate(&self, errors: &mut Errors) {
        rules::one_of(&Path::new("addressType"), &self.address_type, &["FQDN", "IPv4", "IPv6"], errors);
        let (endpoints, path) = (list(&self.endpoints), Path::new("endpoints"));
        if endpoints.len() > MAX_ENDPOINTS {
            errors.push(Error::too_many(&path, endpoints.len(), MAX_ENDPOINTS));
        } else {
            for (index, endpoint) in endpoints.iter().enumerate() {
                validate_endpoint(endpoint, &self.address_type, &path.index(index), errors);
            }
        }
        validate_slice_ports(list(&self.ports), &Path::new("ports"), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.address_type != old.address_type {
            errors.push(Error::invalid(&Path::new("addressType"), self.address_type.as_str(), "field is immutable"));
        }
    }

    fn warnings(&self) -> Vec<String> {
        let old = (self.address_type == "FQDN").then(|| "spec.addressType: FQDN endpoints are deprecated".to_owned());
        old.into_iter().chain(self.warnings_on_update(self)).collect()
    }

    fn warnings_on_update(&self, _old: &Self) -> Vec<String> {
        let mut warnings = Vec::new();
        let manager = self.metadata.labels.as_ref().and_then(|labels| labels.get("endpointslice.kubernetes.io/managed-by"));
        if manager.is_some_and(|manager| MANAGERS.contains(&manager.as_str())) {
            return warnings;
        }
        for (index, endpoint) in list(&self.endpoints).iter().enumerate() {
            let path = Path::new("endpoints").index(index).child("addresses");
            for (index, address) in endpoint.addresses.iter().enumerate() {
                rules::warn_of_ip(&path.index(index), address, &mut warnings);
            }
        }
        warnings
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("AddressType", "Family of the addresses.", |slice, _| slice.address_type.clone().into()),
                Column::new("Ports", "Ports of the endpoints.", |slice, _| {
                    let ports =
                        slice.ports.iter().flatten().map(|port| port.port.map_or("*".to_owned(), |port| port.to_string()));
                    let ports = first_three(ports, list(&slice.ports).len());
                    if ports.is_empty() { "<unset>".into() } else { ports.into() }
                }),
                Column::new("Endpoints", "Addresses of the endpoints.", |slice, _| {
                    let all = || slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.iter().cloned());
                    let addresses = first_three(all(), all().count());
                    if addresses.is_empty() { "<unset>".into() } else { addresses.into() }
                }),
            ]
        }
    }
}

/// `deprecatedTopology` is of the old version v1beta1 and cannot be written. What is there stays until the endpoints change; then the
/// name of the node, which was a part of it, gets its own field.
fn drop_topology(object: &mut Value, old: &Value) {
    fn hostname(endpoint: &Value) -> Option<&str> {
        endpoint.pointer("/deprecatedTopology/kubernetes.io~1hostname")?.as_str()
    }
    if object.get("endpoints") == old.get("endpoints") {
        return;
    }
    // Nobody has counted the new endpoints yet: only the size of a request bounds them.
    let before: HashSet<&str> =
        old.get("endpoints").and_then(Value::as_array).into_iter().flatten().filter_map(hostname).collect();
    for endpoint in each(object, "endpoints") {
        let kept = hostname(endpoint).filter(|node| before.contains(node) && names::dns1123_subdomain(node).is_empty());
        if let Some(node) = kept.map(str::to_owned) {
            set_default(endpoint, "nodeName", node);
        }
        remove(endpoint, "deprecatedTopology");
    }
}

fn validate_endpoint(endpoint: &discovery::Endpoint, kind: &str, path: &Path, errors: &mut Errors) {
    let (addresses, at) = (&endpoint.addresses, path.child("addresses"));
    if addresses.is_empty() {
        errors.push(Error::required(&at, "must contain at least 1 address"));
    } else if addresses.len() > MAX_ADDRESSES {
        errors.push(Error::too_many(&at, addresses.len(), MAX_ADDRESSES));
    }
    for (index, address) in addresses.iter().enumerate() {
        validate_slice_address(address, kind, &at.index(index), errors);
    }
    if let Some(node) = &endpoint.node_name {
        rules::dns_subdomain(&path.child("nodeName"), node, errors);
    }
    validate_topology(endpoint, &path.child("deprecatedTopology"), errors);
    if let Some(hostname) = &endpoint.hostname {
        rules::dns_label(&path.child("hostname"), hostname, errors);
    }
    if let Some(hints) = &endpoint.hints {
        validate_hints(hints, &path.child("hints"), errors);
    }
}

fn validate_slice_address(address: &str, kind: &str, path: &Path, errors: &mut Errors) {
    match kind {
        "IPv4" | "IPv6" => {
            let before = errors.len();
            rules::ip(path, address, errors);
            if errors.len() > before {
                return;
            }
            if rules::family(address) != Some(kind) {
                errors.push(Error::invalid(path, address, format!("must be a valid {kind} address")));
            }
            rules::non_special_ip(path, address, errors);
        }
        "FQDN" => match address.strip_suffix('.').unwrap_or(address) {
            "" => errors.push(Error::required(path, "")),
            name => {
                rules::dns_subdomain(path, name, errors);
                if !name.contains('.') {
                    let detail = "should be a domain with at least two segments separated by dots";
                    errors.push(Error::invalid(path, address, detail));
                }
            }
        },
        _ => {}
    }
}

fn validate_topology(endpoint: &discovery::Endpoint, path: &Path, errors: &mut Errors) {
    let Some(topology) = &endpoint.deprecated_topology else { return };
    if topology.len() > MAX_TOPOLOGY {
        errors.push(Error::too_many(path, topology.len(), MAX_TOPOLOGY));
    }
    rules::labels(path, Some(topology), errors);
}

fn validate_hints(hints: &discovery::EndpointHints, path: &Path, errors: &mut Errors) {
    let zones = list(&hints.for_zones).iter().map(|zone| zone.name.as_str()).collect::<Vec<_>>();
    let nodes = list(&hints.for_nodes).iter().map(|node| node.name.as_str()).collect::<Vec<_>>();
    for (field, names) in [("forZones", zones), ("forNodes", nodes)] {
        let path = path.child(field);
        if names.len() > MAX_HINTS {
            errors.push(Error::too_many(&path, names.len(), MAX_HINTS));
            return;
        }
        for (index, name) in names.iter().enumerate() {
            let at = path.index(index).child("name");
            if names[..index].contains(name) {
                errors.push(Error::duplicate(&at, *name));
            }
            if field == "forZones" {
                errors.invalid_each(&at, name, names::label_value(name));
            } else {
                rules::dns_subdomain(&at, name, errors);
            }
        }
    }
}

fn validate_slice_ports(ports: &[discovery::EndpointPort], path: &Path, errors: &mut Errors) {
    if ports.len() > MAX_PORTS {
        return errors.push(Error::too_many(path, ports.len(), MAX_PORTS));
    }
    let mut names = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let (path, name) = (path.index(index), text(&port.name));
        if !name.is_empty() {
            rules::dns_label(&path.child("name"), name, errors);
        }
        if !names.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        rules::one_of(&path.child("protocol"), text(&port.protocol), PROTOCOLS, errors);
        if let Some(protocol) = &port.app_protocol {
            rules::qualified_name(&path.child("appProtocol"), protocol, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_warnings};
    use serde_json::json;

    /// Upstream's `Test_dropTopologyOnV1`.
    #[test]
    fn topology_is_not_written() {
        let slice = |endpoints: Value| json!({"addressType": "IPv4", "endpoints": endpoints});
        let of =
            |node: &str| json!({"addresses": ["10.0.0.1"], "deprecatedTopology": {"kubernetes.io/hostname": node, "zone": "z"}});
        let created = |endpoint: Value| {
            let mut object = slice(json!([endpoint]));
            EndpointSlice::prepare_create(&mut object);
            object["endpoints"][0].clone()
        };
        assert_eq!(created(of("a")), json!({"addresses": ["10.0.0.1"]}));
        let check = |old: Value, new: Value, expected: Value| {
            let mut object = slice(new.clone());
            EndpointSlice::prepare_update(&mut object, &slice(old));
            assert_eq!(object["endpoints"], expected, "{new}");
        };
        let (plain, with) =
            (json!({"addresses": ["10.0.0.1"]}), |node: &str| json!({"addresses": ["10.0.0.1"], "nodeName": node}));
        check(json!([of("a")]), json!([of("a")]), json!([of("a")]));
        check(json!([plain]), json!([of("a")]), json!([plain]));
        check(json!([of("a")]), json!([of("a"), of("b")]), json!([with("a"), plain]));
        let mut named = of("a");
        named["nodeName"] = json!("b");
        check(json!([of("a")]), json!([named]), json!([with("b")]));
        check(json!([of("A b")]), json!([of("A b"), plain]), json!([plain, plain]));
    }

    /// What a request of 3 MiB has room for, beside a full slice: with a look at all old endpoints for each new one, it would take hundreds of times as
    /// long as beside a slice with one.
    #[test]
    fn many_more_endpoints_than_a_slice_may_have_are_prepared_soon() {
        let of = |count: usize, name: &str| {
            let endpoint = |index: usize| json!({"deprecatedTopology": {"kubernetes.io/hostname": format!("{name}{index}")}});
            json!({"addressType": "IPv4", "endpoints": (0..count).map(endpoint).collect::<Vec<_>>()})
        };
        let took = |endpoints: usize| {
            let (old, mut new) = (of(endpoints, "old"), of(45_000, "new"));
            let began = std::time::Instant::now();
            EndpointSlice::prepare_update(&mut new, &old);
            let took = began.elapsed();
            assert_eq!(new["endpoints"].as_array().map(Vec::len), Some(45_000));
            assert_eq!(new["endpoints"][44_999], json!({}));
            took
        };
        // The machine may do something else at any time, and both are much alike else.
        let least = |endpoints: usize| (0..3).map(|_| took(endpoints)).min().unwrap_or_default();
        let (one, full) = (least(1), least(MAX_ENDPOINTS));
        assert!(full < 20 * one, "{full:?} beside {MAX_ENDPOINTS} endpoints, {one:?} beside one");
    }

    /// KEP-4858, "API Warnings".
    #[test]
    fn warnings() {
        let slice = |kind: &str, address: &str, manager: &str| {
            json!({"metadata": {"labels": {"endpointslice.kubernetes.io/managed-by": manager}}, "addressType": kind,
                "endpoints": [{"addresses": [address]}]})
        };
        let told = "endpoints[0].addresses[0]: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")";
        check_warnings::<EndpointSlice>(slice("IPv6", "fd00::1", "me"), &[]);
        check_warnings::<EndpointSlice>(slice("IPv6", "FD00::1", "me"), &[told]);
        check_warnings::<EndpointSlice>(slice("IPv6", "FD00::1", MANAGERS[0]), &[]);
        check_warnings::<EndpointSlice>(slice("FQDN", "a.example", "me"), &["spec.addressType: FQDN endpoints are deprecated"]);
        let of = |slice: Value| serde_json::from_value::<EndpointSlice>(slice).unwrap_or_default();
        let (fqdn, odd) = (of(slice("FQDN", "a.example", "me")), of(slice("IPv6", "FD00::1", "me")));
        assert_eq!((fqdn.warnings_on_update(&fqdn), odd.warnings_on_update(&odd)), (vec![], vec![told.to_owned()]));
    }

    #[test]
    fn slices() {
        let slice = |kind: &str, addresses: &[&str]| json!({"addressType": kind, "endpoints": [{"addresses": addresses}]});
        check::<EndpointSlice>(slice("IPv4", &["10.0.0.1"]), &[]);
        check::<EndpointSlice>(slice("FQDN", &["a.example"]), &[]);
        check::<EndpointSlice>(
            slice("", &[]),
            &["addressType: Required value", "endpoints[0].addresses: Required value: must contain at least 1 address"],
        );
        check::<EndpointSlice>(
            slice("IPv4", &["fd00::1"]),
            &["endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address"],
        );
        check::<EndpointSlice>(
            slice("FQDN", &["a"]),
            &["endpoints[0].addresses[0]: Invalid value: \"a\": should be a domain with at least two segments separated by dots"],
        );
        check::<EndpointSlice>(
            json!({"addressType": "IPv4", "ports": [{"port": 1}, {"port": 2, "protocol": "X"}]}),
            &[
                "ports[1].name: Duplicate value: \"\"",
                "ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ],
        );
    }
}
