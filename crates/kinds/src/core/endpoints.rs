//! Endpoints.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};

use crate::columns::Column;
use crate::core::pod::PROTOCOLS;
use crate::def::KindDef;
use crate::rules::{self, list, text};
use crate::typed::Kind;
use crate::util::{each, or_none, set_zero};

/// Shows the first three of `items` and how many more there are.
pub(crate) fn first_three(items: impl Iterator<Item = String>, count: usize) -> String {
    let more = count.saturating_sub(3);
    let shown = items.take(3).collect::<Vec<_>>().join(",");
    if more > 0 { format!("{shown} + {more} more...") } else { shown }
}

/// The cluster's own controller: what it writes is in its canonical form.
const MANAGER: &str = "endpoint-controller";

impl Kind for Endpoints {
    const DEF: KindDef = KindDef::new("", "v1", "Endpoints", "endpoints", "endpoints")
        .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        .short(&["ep"])
        .create_on_update();

    fn apply_defaults(object: &mut serde_json::Value) {
        for subset in each(object, "subsets") {
            for port in each(subset, "ports") {
                set_zero(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, errors: &mut Errors) {
        for (index, subset) in list(&self.subsets).iter().enumerate() {
            let path = Path::new("subsets").index(index);
            let (ready, not_ready, ports) = (list(&subset.addresses), list(&subset.not_ready_addresses), list(&subset.ports));
            if ready.is_empty() && not_ready.is_empty() {
                errors.push(Error::required(&path, "must specify `addresses` or `notReadyAddresses`"));
            }
            for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
                for (index, address) in addresses.iter().enumerate() {
                    validate_address(address, &path.child(field).index(index), errors);
                }
            }
            for (index, port) in ports.iter().enumerate() {
                validate_port(port, ports.len() > 1, &path.child("ports").index(index), errors);
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let manager = self.metadata.labels.as_ref().and_then(|labels| labels.get("endpoints.kubernetes.io/managed-by"));
        if manager.is_some_and(|manager| manager == MANAGER) {
            return warnings;
        }
        for (index, subset) in list(&self.subsets).iter().enumerate() {
            let path = Path::new("subsets").index(index);
            for (field, addresses) in [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)] {
                for (index, address) in list(addresses).iter().enumerate() {
                    rules::warn_of_ip(&path.child(field).index(index).child("ip"), &address.ip, &mut warnings);
                }
            }
        }
        warnings
    }

    fn warnings_on_update(&self, _old: &Self) -> Vec<String> {
        self.warnings()
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[Column::new("Endpoints", "Addresses and ports behind the service.", |endpoints, _| {
                let subsets = || endpoints.subsets.iter().flatten();
                let count = subsets().map(|subset| list(&subset.addresses).len() * list(&subset.ports).len().max(1)).sum();
                or_none(first_three(subsets().flat_map(places), count))
            })]
        }
    }
}

/// Every address of every port. There may be very many: whoever wants a few takes no more.
fn places(subset: &EndpointSubset) -> impl Iterator<Item = String> {
    let addresses = list(&subset.addresses).iter();
    let bare = list(&subset.ports).is_empty().then(|| addresses.clone().map(|address| address.ip.clone()));
    let at = move |port: &EndpointPort| {
        let port = port.port;
        addresses.clone().map(move |address| match address.ip.contains(':') {
            true => format!("[{}]:{port}", address.ip),
            false => format!("{}:{port}", address.ip),
        })
    };
    list(&subset.ports).iter().flat_map(at).chain(bare.into_iter().flatten())
}

fn validate_address(address: &EndpointAddress, path: &Path, errors: &mut Errors) {
    let before = errors.len();
    rules::ip(&path.child("ip"), &address.ip, errors);
    let valid = errors.len() == before;
    if !text(&address.hostname).is_empty() {
        rules::dns_label(&path.child("hostname"), text(&address.hostname), errors);
    }
    if let Some(node) = &address.node_name {
        rules::dns_subdomain(&path.child("nodeName"), node, errors);
    }
    if valid {
        rules::non_special_ip(&path.child("ip"), &address.ip, errors);
    }
}

fn validate_port(port: &EndpointPort, named: bool, path: &Path, errors: &mut Errors) {
    match text(&port.name) {
        "" if named => errors.push(Error::required(&path.child("name"), "")),
        "" => {}
        name => rules::dns_label(&path.child("name"), name, errors),
    }
    rules::port_number(&path.child("port"), port.port, errors);
    rules::one_of(&path.child("protocol"), text(&port.protocol), PROTOCOLS, errors);
    if let Some(protocol) = &port.app_protocol {
        rules::qualified_name(&path.child("appProtocol"), protocol, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_row, check_warnings};
    use serde_json::{Value, json};

    /// KEP-4858, "API Warnings".
    #[test]
    fn warnings() {
        let of = |manager: &str| {
            json!({"metadata": {"labels": {"endpoints.kubernetes.io/managed-by": manager}},
                "subsets": [{"addresses": [{"ip": "fd00::1"}, {"ip": "fd00:0::1"}], "notReadyAddresses": [{"ip": "FD00::2"}]}]})
        };
        check_warnings::<Endpoints>(of(MANAGER), &[]);
        check_warnings::<Endpoints>(
            of("me"),
            &[
                "subsets[0].addresses[1].ip: IPv6 address \"fd00:0::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
                "subsets[0].notReadyAddresses[0].ip: IPv6 address \"FD00::2\" should be in RFC 5952 canonical format (\"fd00::2\")",
            ],
        );
    }

    /// Upstream's `formatEndpoints`: ports first, and addresses of IPv6 in brackets.
    #[test]
    fn cells() {
        let check = |subset: Value, expected: &str| {
            let object = json!({"metadata": {"name": "e"}, "subsets": [subset]});
            check_row::<Endpoints>(object, &format!("e|{expected}|<unknown>"));
        };
        let ip = |ip: &str| json!({"ip": ip});
        let addresses = [ip("10.0.0.1"), ip("10.0.0.2"), ip("fd00::1"), ip("10.0.0.4")];
        let ports = [json!({"port": 1}), json!({"port": 2})];
        check(json!({"addresses": addresses, "ports": ports}), "10.0.0.1:1,10.0.0.2:1,[fd00::1]:1 + 5 more...");
        check(json!({"addresses": addresses[..1], "ports": ports}), "10.0.0.1:1,10.0.0.1:2");
        check(json!({"addresses": addresses[..3]}), "10.0.0.1,10.0.0.2,fd00::1");
    }

    #[test]
    fn endpoints() {
        let subset = |subset: Value| json!({"subsets": [subset]});
        check::<Endpoints>(subset(json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]})), &[]);
        check::<Endpoints>(
            subset(json!({"ports": [{"port": 80}, {"port": 0, "name": "b", "protocol": "X"}]})),
            &[
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[0].ports[0].name: Required value",
                "subsets[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "subsets[0].ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ],
        );
        check::<Endpoints>(
            subset(json!({"addresses": [{"ip": "127.0.0.1"}, {"ip": "x"}]})),
            &[
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "subsets[0].addresses[1].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        );
    }
}
