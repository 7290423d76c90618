//! The addresses of a target.

use apimachinery::labels::Selector;
use registry::{ListOptions, Registry};
use serde_json::Value;

use super::{Error, Place};

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The node where it is, if it is known to be at one.
    pub(super) node: Option<String>,
    /// By name or address.
    pub(super) host: String,
    pub(super) port: u16,
}

/// Where a place can be reached now. Not empty.
pub(super) async fn addresses(registry: &Registry, place: &Place) -> Result<Vec<Address>, Error> {
    let (namespace, name, port) = match place {
        Place::Host { host, port } => return Ok(vec![Address { node: None, host: host.clone(), port: *port }]),
        Place::Service { namespace, name, port } => (namespace, name, *port),
    };
    let missing = || Error::NoService(name.clone());
    let (services, slices) =
        match (registry.resource("", "v1", "services"), registry.resource("discovery.k8s.io", "v1", "endpointslices")) {
            (Some(services), Some(slices)) => (services, slices),
            _ => return Err(missing()),
        };
    let service = registry.get(&services, namespace, name, None).await.map_err(|_| missing())?.value();
    let port_name = match behind(&service, port) {
        Behind::Name(host) => return Ok(vec![Address { node: None, host, port }]),
        Behind::Nothing => return Err(Error::NoPort { service: name.clone(), port }),
        Behind::Slices(port_name) => port_name,
    };
    let labels = Selector::from_set([("kubernetes.io/service-name", name.as_str())]);
    let options = ListOptions { labels: Some(labels), ..ListOptions::default() };
    let list = registry.list(&slices, Some(namespace), &options).await.map_err(|_| missing())?;
    let slices: Vec<Value> = list.entries.iter().map(|entry| entry.value()).collect();
    let found = reachable(&slices, &port_name);
    if found.is_empty() { Err(Error::NoEndpoints(name.clone())) } else { Ok(found) }
}

/// What is behind a port of a service.
#[derive(Debug, PartialEq, Eq)]
enum Behind {
    /// A name of the DNS.
    Name(String),
    /// The addresses of its slices, at the port of this name.
    Slices(String),
    /// There is no such port.
    Nothing,
}

fn behind(service: &Value, port: u16) -> Behind {
    if service.pointer("/spec/type").is_some_and(|kind| kind == "ExternalName") {
        let host = service.pointer("/spec/externalName").and_then(Value::as_str).unwrap_or_default();
        return Behind::Name(host.to_owned());
    }
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let found = ports.into_iter().flatten().find(|one| one["port"] == port);
    found.map_or(Behind::Nothing, |one| Behind::Slices(one["name"].as_str().unwrap_or_default().to_owned()))
}

/// The addresses of ready endpoints, and without any those of endpoints that end and still serve.
fn reachable(slices: &[Value], port_name: &str) -> Vec<Address> {
    let some = |key: &'static str, default: bool| -> Vec<Address> {
        slices.iter().flat_map(|slice| of_slice(slice, port_name, key, default)).collect()
    };
    let ready = some("ready", true);
    if ready.is_empty() { some("serving", false) } else { ready }
}

fn of_slice(slice: &Value, port_name: &str, condition: &str, default: bool) -> Vec<Address> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let ports = list(&slice["ports"]);
    let port = ports.iter().find(|port| port["name"].as_str().unwrap_or_default() == port_name);
    let Some(port) = port.and_then(|port| port["port"].as_u64()).and_then(|port| u16::try_from(port).ok()) else {
        return Vec::new();
    };
    let holds = |endpoint: &Value| endpoint["conditions"][condition].as_bool().unwrap_or(default);
    let endpoints = list(&slice["endpoints"]);
    let of = |endpoint: &Value| {
        let node = endpoint["nodeName"].as_str().map(str::to_owned);
        let address = move |host: Value| Some(Address { node: node.clone(), host: host.as_str()?.to_owned(), port });
        list(&endpoint["addresses"]).into_iter().filter_map(address)
    };
    endpoints.iter().filter(|endpoint| holds(endpoint)).flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services() {
        let check =
            |service: Value, port: u16, expected: Behind| assert_eq!(behind(&service, port), expected, "{service} {port}");
        let web = json!({"spec": {"type": "ClusterIP", "ports": [{"name": "web", "port": 443}, {"name": "other", "port": 80}]}});
        check(web.clone(), 443, Behind::Slices("web".into()));
        check(web.clone(), 80, Behind::Slices("other".into()));
        check(web, 8443, Behind::Nothing);
        check(json!({"spec": {"ports": [{"port": 443}]}}), 443, Behind::Slices(String::new()));
        check(json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}), 443, Behind::Name("a.b".into()));
        check(json!({}), 443, Behind::Nothing);
    }

    #[test]
    fn endpoints() {
        let check = |endpoints: Value, expected: &[&str]| {
            let slice = json!({"ports": [{"name": "web", "port": 8443}], "endpoints": endpoints});
            let found: Vec<String> =
                reachable(&[slice], "web").into_iter().map(|one| format!("{}:{}", one.host, one.port)).collect();
            assert_eq!(found, expected);
        };
        let one = |address: &str, conditions: Value| json!({"addresses": [address], "conditions": conditions});
        let gone = one("10.0.0.3", json!({"ready": false, "serving": false, "terminating": true}));
        let ending = one("10.0.0.2", json!({"ready": false, "serving": true, "terminating": true}));
        check(json!([one("10.0.0.1", json!({})), ending, gone]), &["10.0.0.1:8443"]);
        check(json!([ending, gone]), &["10.0.0.2:8443"]);
        check(json!([gone]), &[]);
        check(Value::Null, &[]);
        assert_eq!(reachable(&[json!({"ports": [{"port": 1}], "endpoints": [one("10.0.0.1", json!({}))]})], "web"), []);
    }
}
