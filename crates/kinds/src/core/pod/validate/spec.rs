//! The fields of a pod's spec, in upstream's order.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::PodSpec;

use super::scope::Scope;
use super::{affinity, containers, dns, ports, resources, scheduling, security, spread, volumes, windows};
use crate::rules::{self, list, text};

const NO_HOST_USERS: &str = "when `hostUsers` is false";

/// Everything below `spec`.
pub(super) fn validate(scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let spec = scope.spec;
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(Error::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let known = volumes::validate(scope, &path.child("volumes"), errors);
    let scope = &Scope { volumes: known, ..Scope::new(spec, scope.name) };
    resources::validate_claims(spec, &path.child("resourceClaims"), errors);
    containers::validate(scope, path, errors);
    resources::validate_pod(spec, &path.child("resources"), errors);
    ports::validate_host_network(scope, path, errors);
    rules::one_of(&path.child("restartPolicy"), text(&spec.restart_policy), &["Always", "OnFailure", "Never"], errors);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    rules::one_of(&path.child("dnsPolicy"), text(&spec.dns_policy), &policies, errors);
    rules::labels(&path.child("nodeSelector"), spec.node_selector.as_ref(), errors);
    security::validate_pod(scope, &path.child("securityContext"), errors);
    if let Some(affinity) = &spec.affinity {
        affinity::validate(affinity, &path.child("affinity"), errors);
    }
    dns::validate(spec, path, errors);
    scheduling::readiness_gates(list(&spec.readiness_gates), &path.child("readinessGates"), errors);
    scheduling::gates(list(&spec.scheduling_gates), &path.child("schedulingGates"), errors);
    spread::validate(list(&spec.topology_spread_constraints), &path.child("topologySpreadConstraints"), errors);
    windows::validate_host_process(scope, path, errors);
    validate_host_users(scope, path, errors);
    validate_names(spec, path, errors);
    scheduling::tolerations(list(&spec.tolerations), &path.child("tolerations"), errors);
    dns::validate_aliases(list(&spec.host_aliases), &path.child("hostAliases"), errors);
    validate_classes(spec, path, errors);
    windows::validate_os(scope, path, errors);
}

/// User namespaces cannot be combined with the host's other namespaces, and devices know nothing of the mapping of ids (KEP-127).
fn validate_host_users(scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    if scope.host_users() {
        return;
    }
    let spec = scope.spec;
    let shared = [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)];
    for (field, _) in shared.into_iter().filter(|(_, on)| *on == Some(true)) {
        errors.push(Error::forbidden(&path.child(field), NO_HOST_USERS));
    }
    for container in scope.all().filter(|container| !container.devices.is_empty()) {
        errors.push(Error::forbidden(&container.path(path).child("volumeDevices"), NO_HOST_USERS).ratcheted());
    }
}

fn validate_names(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (field, value) in [("serviceAccountName", &spec.service_account_name), ("nodeName", &spec.node_name)] {
        if !text(value).is_empty() {
            rules::dns_subdomain(&path.child(field), text(value), errors);
        }
    }
    rules::in_range(&path.child("activeDeadlineSeconds"), spec.active_deadline_seconds, 1, i32::MAX.into(), errors);
    for (field, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if !text(value).is_empty() {
            rules::dns_label(&path.child(field), text(value), errors);
        }
    }
    if let Some(name) = &spec.hostname_override {
        // KEP-4762: "mutually exclusive" with both.
        let others = [("setHostnameAsFQDN", spec.set_hostname_as_fqdn), ("hostNetwork", spec.host_network)];
        for (field, _) in others.into_iter().filter(|(_, on)| *on == Some(true)) {
            let detail = format!("may not be specified when {field} is true");
            errors.push(Error::forbidden(&path.child("hostnameOverride"), detail).ratcheted());
        }
        rules::dns_subdomain(&path.child("hostnameOverride"), name, errors);
        if name.len() > 64 {
            errors.push(Error::too_long(&path.child("hostnameOverride"), 64));
        }
    }
}

fn validate_classes(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if !text(&spec.priority_class_name).is_empty() {
        rules::dns_subdomain(&path.child("priorityClassName"), text(&spec.priority_class_name), errors);
    }
    if let Some(class) = &spec.runtime_class_name {
        errors.invalid_each(&path.child("runtimeClassName"), class, names::name_is_subdomain(class, false));
    }
    if let Some(policy) = &spec.preemption_policy {
        rules::one_of(&path.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"], errors);
    }
    if let Some(overhead) = &spec.overhead {
        resources::validate_overhead(overhead, &path.child("overhead"), errors);
    }
}
