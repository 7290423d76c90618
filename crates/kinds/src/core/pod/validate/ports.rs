//! Ports of containers, and those of the host.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::{Container, ContainerPort};

use super::scope::Scope;
use crate::rules::{self, list, text};

pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

pub(super) fn validate(ports: &[ContainerPort], path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(&port.name);
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() && !seen.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
            errors.invalid_each(&path.child("name"), name, wrong);
        }
        match port.container_port {
            0 => errors.push(Error::required(&path.child("containerPort"), "")),
            number => rules::port_number(&path.child("containerPort"), number, errors),
        }
        if let Some(number) = host_port(port) {
            rules::port_number(&path.child("hostPort"), number, errors);
        }
        rules::one_of(&path.child("protocol"), text(&port.protocol), PROTOCOLS, errors);
    }
}

fn host_port(port: &ContainerPort) -> Option<i32> {
    port.host_port.filter(|number| *number != 0)
}

/// A port of the host is taken once.
pub(super) fn unique_host_ports(containers: &[Container], path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (container, ports) in containers.iter().map(|container| list(&container.ports)).enumerate() {
        for (index, port) in ports.iter().enumerate() {
            let Some(number) = host_port(port) else { continue };
            let (protocol, ip) = (text(&port.protocol), text(&port.host_ip));
            if !seen.insert((protocol, ip, number)) {
                let path = path.index(container).child("ports").index(index).child("hostPort");
                errors.push(Error::duplicate(&path, format!("{protocol}/{ip}/{number}")));
            }
        }
    }
}

/// In the host's network a container's port is the host's. A template may leave the host's out: it is filled in for the pod.
pub(super) fn validate_host_network(scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    if !scope.host_network() {
        return;
    }
    for (container, ports) in scope.spec.containers.iter().map(|container| list(&container.ports)).enumerate() {
        for (index, port) in ports.iter().enumerate() {
            let number = port.host_port.unwrap_or(0);
            if (scope.is_pod() || number != 0) && number != port.container_port {
                let path = path.child("containers").index(container).child("ports").index(index).child("hostPort");
                errors.push(Error::invalid(&path, number, "must match `containerPort` when `hostNetwork` is true"));
            }
        }
    }
}
