//! Ports of a node's own addresses that pods take, as both the scheduler and the kubelet understand them.

use k8s_openapi::api::core::v1::{ContainerPort, PodSpec};

use crate::is_sidecar;

/// A port on the node's own addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

/// The ports that a pod takes (upstream: `GetHostPorts`). On the network of the node these are all of its ports, each of which the API gives
/// its `hostPort`.
pub fn of(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|one| is_sidecar(one));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(HostPort::new).collect()
}

impl HostPort {
    fn new(port: &ContainerPort) -> Option<Self> {
        let number = port.host_port.filter(|number| *number > 0)?;
        let ip = port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        Some(Self { ip: ip.to_owned(), protocol: protocol.to_owned(), port: number })
    }

    /// Whether both cannot be on one node. `0.0.0.0` means all addresses.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |port: &Self| port.ip == "0.0.0.0" || port.ip == "::";
        self.port == other.port && self.protocol == other.protocol && (any(self) || any(other) || self.ip == other.ip)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn check(one: Value, other: Value, expected: bool) {
        let taken = |pod: &Value| of(&serde_json::from_value(pod.clone()).unwrap());
        let clash = taken(&one).iter().any(|port| taken(&other).iter().any(|other| port.conflicts(other)));
        assert_eq!(clash, expected, "{one} {other}");
    }

    #[test]
    fn ports_of_a_node_are_taken_once() {
        let port = |more: Value| {
            let mut port = json!({"containerPort": 1, "hostPort": 80});
            port.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            port
        };
        let pod = |port: Value| json!({"containers": [{"name": "c", "ports": [port]}]});
        let (plain, at) = (pod(port(json!({}))), |ip: &str| pod(port(json!({"hostIP": ip}))));
        check(plain.clone(), plain.clone(), true);
        check(plain.clone(), at("127.0.0.1"), true);
        check(at("::"), at("127.0.0.1"), true);
        check(at("127.0.0.2"), at("127.0.0.1"), false);
        check(plain.clone(), pod(port(json!({"protocol": "UDP"}))), false);
        check(plain.clone(), pod(port(json!({"hostPort": 81}))), false);
        check(plain.clone(), pod(json!({"containerPort": 80})), false);
        // Of a pod on the network of the node the port is as much taken as a forwarded one.
        let mut on_host = plain.clone();
        on_host["hostNetwork"] = json!(true);
        check(plain.clone(), on_host, true);
        // Init containers have ended when others begin; sidecars have not.
        let init = |more: Value| json!({"containers": [], "initContainers": [more]});
        let ports = json!([port(json!({}))]);
        check(plain.clone(), init(json!({"name": "i", "ports": ports})), false);
        check(plain, init(json!({"name": "i", "restartPolicy": "Always", "ports": ports})), true);
    }
}
