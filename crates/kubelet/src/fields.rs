//! The downward API: fields of the pod and resources of its containers as text.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};

use crate::spec::Model;
use crate::units;

/// What the pod object does not know when its first container is made.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Addresses of the pod, primary first.
    pub pod_ips: Vec<IpAddr>,
    /// Addresses of the node.
    pub host_ips: Vec<IpAddr>,
    /// Allocatable CPU of the node, thousandths; the limit of containers without one.
    pub allocatable_milli_cpu: i64,
    /// Allocatable memory of the node, bytes.
    pub allocatable_memory: i64,
    /// Allocatable ephemeral storage of the node, bytes.
    pub allocatable_storage: i64,
}

/// The reference names nothing that can be shown.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// No such field.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// No such resource.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    /// No such container.
    #[error("container {0} not found")]
    Container(String),
}

/// The value of a `fieldRef` path.
pub fn field(model: &Model, path: &str, facts: &Facts) -> Result<String, Error> {
    if let Some((map, key)) = subscript(path) {
        let from = |map: &Option<BTreeMap<String, String>>| map.as_ref().and_then(|m| m.get(key).cloned()).unwrap_or_default();
        return match map {
            "metadata.labels" => Ok(from(&model.pod.metadata.labels)),
            "metadata.annotations" => Ok(from(&model.pod.metadata.annotations)),
            _ => Err(Error::Field(path.to_owned())),
        };
    }
    let spec = model.spec();
    let service_account = || spec.service_account_name.clone().or_else(|| spec.service_account.clone()).unwrap_or_default();
    Ok(match path {
        "metadata.name" => model.name().to_owned(),
        "metadata.namespace" => model.namespace().to_owned(),
        "metadata.uid" => model.uid().to_owned(),
        "metadata.labels" => map_text(&model.pod.metadata.labels),
        "metadata.annotations" => map_text(&model.pod.metadata.annotations),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => service_account(),
        "status.podIP" => facts.pod_ips.first().map(IpAddr::to_string).unwrap_or_default(),
        "status.podIPs" => join(&facts.pod_ips),
        "status.hostIP" => facts.host_ips.first().map(IpAddr::to_string).unwrap_or_default(),
        "status.hostIPs" => join(&facts.host_ips),
        _ => return Err(Error::Field(path.to_owned())),
    })
}

fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` lines, sorted, values quoted as in Go.
fn map_text(map: &Option<BTreeMap<String, String>>) -> String {
    let lines = map.iter().flatten().map(|(key, value)| format!("{key}={}", apimachinery::text::quote(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The value of a `resourceFieldRef`; `asking` is the container that asks, none in a volume.
pub fn resource(
    model: &Model,
    asking: Option<&Container>,
    selector: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, Error> {
    let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => &model.member(name).ok_or_else(|| Error::Container(name.to_owned()))?.spec,
        None => asking.ok_or_else(|| Error::Container(String::new()))?,
    };
    let unsupported = || Error::Resource(selector.resource.clone());
    let (list, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let own = container.resources.clone().unwrap_or_default();
    let limit = own.limits.as_ref().and_then(|l| l.get(name)).map(units::milli);
    // What a container cannot exceed without a limit of its own is its pod's, before it is the node's (KEP-2837).
    let of_pod = || crate::spec::inherited(model.spec(), container).get(name).map(units::milli);
    let request = own.requests.as_ref().and_then(|r| r.get(name)).map(units::milli);
    let node = match name {
        "cpu" => facts.allocatable_milli_cpu,
        "memory" => facts.allocatable_memory.saturating_mul(1000),
        "ephemeral-storage" => facts.allocatable_storage.saturating_mul(1000),
        _ if name.starts_with("hugepages-") => 0,
        _ => return Err(unsupported()),
    };
    let milli = match list {
        "limits" => limit.or_else(of_pod).unwrap_or(node),
        "requests" => request.or(limit).unwrap_or(0),
        _ => return Err(unsupported()),
    };
    let divisor = selector.divisor.as_ref().map(units::milli).filter(|d| *d > 0).unwrap_or(1000);
    Ok((i128::from(milli) + i128::from(divisor) - 1).div_euclid(i128::from(divisor)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn model() -> Model {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "x\"y"}},
            "spec": {"nodeName": "node", "serviceAccountName": "sa", "containers": [{"name": "c", "resources": {
                "limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}}]}});
        Model::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    fn facts() -> Facts {
        let ip = |text: &str| text.parse().unwrap();
        Facts {
            pod_ips: vec![ip("10.0.0.2"), ip("fd00::2")],
            host_ips: vec![ip("10.1.0.1")],
            allocatable_milli_cpu: 2000,
            ..Default::default()
        }
    }

    #[track_caller]
    fn check(path: &str, expected: &str) {
        assert_eq!(field(&model(), path, &facts()).as_deref(), Ok(expected));
    }

    #[test]
    fn pod_fields() {
        check("metadata.name", "p");
        check("metadata.labels", "a=\"x\\\"y\"\nb=\"2\"");
        check("metadata.labels['b']", "2");
        check("metadata.labels['none']", "");
        check("status.podIPs", "10.0.0.2,fd00::2");
        check("status.hostIP", "10.1.0.1");
        check("spec.serviceAccountName", "sa");
        assert_eq!(field(&model(), "spec.x", &facts()), Err(Error::Field("spec.x".to_owned())));
    }

    #[track_caller]
    fn check_resource(resource_name: &str, divisor: &str, expected: Result<&str, &str>) {
        let selector: ResourceFieldSelector =
            serde_json::from_value(json!({"resource": resource_name, "divisor": divisor, "containerName": "c"})).unwrap();
        let value = resource(&model(), None, &selector, &facts()).map_err(|e| e.to_string());
        assert_eq!(value.as_deref().map_err(|e| e.as_str()), expected);
    }

    #[test]
    fn container_resources() {
        check_resource("limits.memory", "1Mi", Ok("64"));
        check_resource("requests.memory", "0", Ok("67108864"));
        check_resource("requests.cpu", "1m", Ok("250"));
        check_resource("requests.cpu", "1", Ok("1"));
        check_resource("limits.cpu", "1", Ok("2"));
        check_resource("limits.nvidia.com/gpu", "1", Err("unsupported container resource : limits.nvidia.com/gpu"));
    }

    #[test]
    fn the_limit_of_the_pod_comes_before_that_of_the_node() {
        let limits = json!({"cpu": "500m", "memory": "8Mi"});
        let own = json!({"limits": {"memory": "4Mi"}});
        let model =
            crate::pod::testing::model(json!({"resources": {"limits": limits}, "containers": [{"name": "c", "resources": own}]}));
        let check = |resource_name: &str, divisor: &str, expected: &str| {
            let selector = json!({"resource": resource_name, "divisor": divisor, "containerName": "c"});
            let value = resource(&model, None, &serde_json::from_value(selector).unwrap(), &facts());
            assert_eq!(value.as_deref(), Ok(expected), "{resource_name}");
        };
        check("limits.cpu", "1m", "500");
        check("limits.memory", "1Mi", "4");
        check("requests.cpu", "1m", "0");
        check("limits.ephemeral-storage", "1", "0");
    }
}
