//! The proxy subresource of pods, services and nodes: names such as `https:web:443`, and what they stand for.

use std::sync::Arc;

use apimachinery::Status;
use base::addresses::is_special;
use http::header::{HOST, LOCATION};
use http::{HeaderValue, Method, Response, StatusCode};
use registry::ListOptions;
use serde_json::Value;

use super::backend::{Backend, Failure};
use super::links::Links;
use crate::body::{Body, RequestBody};
use crate::call::{Inner, On};
use crate::respond;
use crate::route::Target;

/// `[scheme:]name[:port]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Name<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme @ ("" | "http" | "https"), name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { scheme, name, port })
    }
}

/// Whether a proxy request leads to what runs commands in pods, or reaches their ports, by the kubelet of a node.
pub(crate) fn runs_commands(target: &Target<'_>) -> bool {
    let first = target.rest.trim_start_matches('/').split('/').next().unwrap_or_default();
    target.plural == "nodes" && matches!(first, "exec" | "run" | "attach" | "portForward")
}

/// Sends the request on.
pub(super) async fn proxy(api: &Inner, on: &On<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
    let raw = raw_rest(on.call.parts.uri.path(), on.call.path.len() - on.target.rest.len());
    let reads = matches!(on.call.parts.method, Method::GET | Method::HEAD);
    if raw.is_empty() && reads && !streaming::is_upgrade(&on.call.parts.headers) {
        return Ok(redirect(on));
    }
    let name =
        Name::parse(on.target.name).ok_or_else(|| Status::bad_request(format!("invalid proxy request {:?}", on.target.name)))?;
    let backend = match on.target.plural {
        "nodes" => node(api, name).await?,
        "pods" => pod(api, on, name).await?,
        _ => service(api, on, name).await?,
    };
    let mut path = if raw.is_empty() { "/".to_owned() } else { raw.to_owned() };
    if !on.call.query.is_empty() {
        path = format!("{path}?{}", on.call.query);
    }
    let failed = |error: String| Status::service_unavailable(format!("error trying to reach service: {error}"));
    let unreachable = |failure: Failure| failure.or(failed);
    if streaming::is_upgrade(&on.call.parts.headers) {
        return backend.send(on.call.parts, &path, body, api.way_of(&on.call)).await.map_err(unreachable);
    }
    let own_path = on.call.parts.uri.path();
    let mut parts = on.call.parts.clone();
    if let Ok(forwarded) = HeaderValue::try_from(own_path) {
        parts.headers.insert("x-forwarded-uri", forwarded);
    }
    let prefix = own_path.strip_suffix(raw).unwrap_or(own_path).to_owned();
    let links = Links { prefix, hosts: [Some(backend.authority()), host(&parts)].into_iter().flatten().collect() };
    let response = backend.send(&parts, &path, body, api.way_of(&on.call)).await.map_err(unreachable)?;
    Ok(links.adapt(response))
}

/// The host that the client asked.
fn host(parts: &http::request::Parts) -> Option<String> {
    let header = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    header.or_else(|| parts.uri.authority().map(ToString::to_string))
}

/// What follows the first `decoded` bytes of a path, and is not decoded itself. The request was authorized by the decoded path, so
/// what is passed on has to be what was seen there.
fn raw_rest(path: &str, decoded: usize) -> &str {
    let bytes = path.as_bytes();
    let mut at = 0;
    for _ in 0..decoded {
        let escaped =
            matches!(bytes.get(at..at + 3), Some([b'%', high, low]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
        at += if escaped { 3 } else { 1 };
    }
    path.get(at..).unwrap_or_default()
}

/// Relative links work below a slash only.
fn redirect(on: &On<'_>) -> Response<Body> {
    let mut location = format!("{}/", on.call.parts.uri.path());
    if !on.call.query.is_empty() {
        location = format!("{location}?{}", on.call.query);
    }
    let mut response = respond::text(StatusCode::MOVED_PERMANENTLY, Body::Empty);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn backend(scheme: &str, node: Option<String>, host: &str, port: u16) -> Result<Backend, Status> {
    // Pods have certificates of their own making: the connection is encrypted, and not authenticated, as upstream's.
    let tls = match scheme {
        "https" => Some(Arc::new(base::tls::client_of_anybody().map_err(Status::internal)?)),
        _ => None,
    };
    Ok(Backend { node, host: host.to_owned(), port, tls })
}

/// The node where a pod is.
fn node_of(pod: &Value) -> Option<String> {
    pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Whether users may reach an address by way of the API server: not its own machine, nor what only neighbours of it can
/// reach, such as a cloud's metadata service.
fn is_proxyable(address: &str) -> bool {
    address.parse().is_ok_and(|address| !is_special(address))
}

/// The kubelet, where no other port is asked for: rights to that other port are none to the kubelet (upstream: `ResourceLocation` of nodes).
async fn node(api: &Inner, name: Name<'_>) -> Result<Backend, Status> {
    let kubelet = api.kubelet_of(name.name).await?;
    if name.port.is_empty() || name.port == kubelet.port.to_string() {
        return Ok(kubelet);
    }
    let port = name.port.parse().map_err(|_| Status::bad_request(format!("invalid port {:?}", name.port)))?;
    if !is_proxyable(&kubelet.host) {
        return Err(Status::bad_request("address not allowed"));
    }
    backend(name.scheme, kubelet.node, &kubelet.host, port)
}

async fn pod(api: &Inner, on: &On<'_>, name: Name<'_>) -> Result<Backend, Status> {
    let pod = api.registry.get(on.resource, on.target.namespace, name.name, None).await?.value();
    let address = pod.pointer("/status/podIP").and_then(Value::as_str).filter(|address| !address.is_empty());
    let address = address.filter(|address| is_proxyable(address)).ok_or_else(|| Status::bad_request("address not allowed"))?;
    let ports = || {
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
        containers.flat_map(|container| container["ports"].as_array().into_iter().flatten())
    };
    let number = |port: &Value| port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let port = match name.port {
        "" => ports().find_map(number).or(Some(if name.scheme == "https" { 443 } else { 80 })),
        text => text.parse().ok().or_else(|| ports().find(|port| port["name"] == text).and_then(number)),
    };
    let port = port.ok_or_else(|| Status::bad_request(format!("invalid port {:?}", name.port)))?;
    backend(name.scheme, node_of(&pod), address, port)
}

async fn service(api: &Inner, on: &On<'_>, name: Name<'_>) -> Result<Backend, Status> {
    let service = api.registry.get(on.resource, on.target.namespace, name.name, None).await?.value();
    let ports: Vec<&Value> = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten().collect();
    let wanted = match name.port {
        "" if ports.len() == 1 => Some(ports[0]),
        "" => None,
        text => ports.iter().copied().find(|port| port["name"] == text || text.parse::<u64>().is_ok_and(|n| port["port"] == n)),
    };
    let unavailable = |why: String| Status::service_unavailable(why);
    let wanted =
        wanted.ok_or_else(|| unavailable(format!("no service port {:?} found for service {:?}", name.port, name.name)))?;
    let port_name = wanted["name"].as_str().unwrap_or_default();
    let mut endpoints = endpoints(api, on.target.namespace, name.name, port_name).await?;
    if endpoints.is_empty() {
        return Err(unavailable(format!("no endpoints available for service {:?}", name.name)));
    }
    let chosen = {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(name.name) as usize % endpoints.len()
    };
    let (node, address, port) = endpoints.swap_remove(chosen);
    backend(name.scheme, node, &address, port)
}

/// An address behind a service, and the pod that it should be of.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    address: String,
    port: u16,
    pod: String,
}

/// Ready addresses of pods behind a port of a service, each with the node where it is. What somebody wrote into a slice by hand can point anywhere, so
/// only an address that a pod of the namespace has counts.
async fn endpoints(
    api: &Inner,
    namespace: &str,
    service: &str,
    port_name: &str,
) -> Result<Vec<(Option<String>, String, u16)>, Status> {
    let resource = |group: &str, plural: &str| api.registry.resource(group, "v1", plural).ok_or_else(Status::page_not_found);
    let (slices, pods) = (resource("discovery.k8s.io", "endpointslices")?, resource("", "pods")?);
    let labels = apimachinery::labels::Selector::from_set([("kubernetes.io/service-name", service)]);
    let options = ListOptions { labels: Some(labels), ..ListOptions::default() };
    let list = api.registry.list(&slices, Some(namespace), &options).await?;
    let mut good = Vec::new();
    for Endpoint { address, port, pod } in list.entries.iter().flat_map(|e| addresses(&e.value(), namespace, port_name)) {
        let pod = api.registry.get(&pods, namespace, &pod, None).await.map(|entry| entry.value()).unwrap_or_default();
        let own = pod.pointer("/status/podIPs").and_then(Value::as_array).into_iter().flatten();
        if is_proxyable(&address) && own.into_iter().any(|ip| ip["ip"] == address.as_str()) {
            good.push((node_of(&pod), address, port));
        }
    }
    Ok(good)
}

fn addresses(slice: &Value, namespace: &str, port_name: &str) -> Vec<Endpoint> {
    let list = |key: &str| slice[key].as_array().cloned().unwrap_or_default();
    let port = list("ports")
        .iter()
        .find(|port| port["name"].as_str().unwrap_or_default() == port_name)
        .and_then(|port| port["port"].as_u64());
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    let ready = |endpoint: &Value| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
    let pod = |endpoint: &Value| {
        let of = &endpoint["targetRef"];
        let name = of["name"].as_str().filter(|_| of["kind"] == "Pod" && of["namespace"] == namespace);
        name.map(str::to_owned)
    };
    let of = |endpoint: &Value| {
        let (all, pod) = (endpoint["addresses"].as_array().cloned().unwrap_or_default(), pod(endpoint)?);
        let texts = all.into_iter().filter_map(|address| address.as_str().map(str::to_owned));
        Some(texts.map(|address| Endpoint { address, port, pod: pod.clone() }).collect::<Vec<_>>())
    };
    list("endpoints").iter().filter(|endpoint| ready(endpoint)).filter_map(of).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names() {
        let check = |text: &str, expected: Option<(&str, &str, &str)>| {
            assert_eq!(Name::parse(text).map(|n| (n.scheme, n.name, n.port)), expected, "{text}");
        };
        check("web", Some(("", "web", "")));
        check("web:80", Some(("", "web", "80")));
        check("https:web:443", Some(("https", "web", "443")));
        check("https:web:", Some(("https", "web", "")));
        check("ftp:web:1", None);
        check(":80", None);
    }

    #[test]
    fn rests() {
        let check = |path: &str, expected: &str, runs: bool| {
            let decoded = crate::route::decode(path, false);
            let crate::route::Route::Resource(target) = crate::route::parse(&decoded) else { panic!("{path}") };
            assert_eq!(raw_rest(path, decoded.len() - target.rest.len()), expected, "{path}");
            assert_eq!(runs_commands(&target), runs, "{path}");
        };
        check("/api/v1/namespaces/n/pods/p/proxy/a%2Fb/", "/a%2Fb/", false);
        check("/api/v1/namespaces/n/pods/p/proxy", "", false);
        check("/api/v1/namespaces/n/pods/p/proxy/exec/", "/exec/", false);
        check("/api/v1/namespaces/proxy-1/services/proxy/proxy/proxy/a", "/proxy/a", false);
        check("/api/v1/nodes/proxy/proxy/logs/", "/logs/", false);
        check("/api/v1/nodes/n%31/pro%78y/%65xec/a", "/%65xec/a", true);
        check("/api/v1/nodes/n/proxy//run/n/p/c", "//run/n/p/c", true);
        // A path that says one thing to the one who authorizes and another one to the kubelet.
        check("/api/v1/nodes%2Fn%2Fproxy%2Fx/a/proxy/exec/n/p/c", "%2Fx/a/proxy/exec/n/p/c", false);
    }

    #[test]
    fn ready_addresses() {
        let of = |namespace: &str, name: &str| json!({"kind": "Pod", "namespace": namespace, "name": name});
        let slice = json!({"ports": [{"name": "web", "port": 8080}], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": of("n", "a")},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "targetRef": of("n", "b")},
            {"addresses": ["10.0.0.3"], "targetRef": of("n", "c")},
            {"addresses": ["10.0.0.4"], "targetRef": of("other", "d")},
            {"addresses": ["169.254.169.254"]},
        ]});
        let endpoint = |address: &str, pod: &str| Endpoint { address: address.into(), port: 8080, pod: pod.into() };
        assert_eq!(addresses(&slice, "n", "web"), [endpoint("10.0.0.1", "a"), endpoint("10.0.0.3", "c")]);
        assert!(addresses(&slice, "n", "other").is_empty());
    }

    #[test]
    fn addresses_that_may_be_reached() {
        let check = |address: &str, expected: bool| assert_eq!(is_proxyable(address), expected, "{address}");
        for address in ["10.42.0.7", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1"] {
            check(address, true);
        }
        for address in [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "localhost",
            "",
        ] {
            check(address, false);
        }
    }
}
