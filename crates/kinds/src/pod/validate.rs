//! Rules for pods and pod templates (pkg/apis/core/validation).

use std::collections::BTreeSet;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodTemplateSpec, Probe, Volume};
use serde_json::{Value, json};

/// A whole pod.
pub(super) fn validate_pod(pod: &Pod, errors: &mut Errors) {
    match &pod.spec {
        Some(spec) => validate_spec(spec, &Path::new("spec"), errors),
        None => errors.push(Error::required(&Path::new("spec").child("containers"), "")),
    }
}

/// A template inside a workload.
pub(crate) fn validate_template(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    match &template.spec {
        Some(spec) => validate_spec(spec, &path.child("spec"), errors),
        None => errors.push(Error::required(&path.child("spec").child("containers"), "")),
    }
}

/// A running pod keeps its spec, but for images, deadlines and tolerations.
pub(super) fn validate_pod_update(pod: &Pod, old: &Pod, errors: &mut Errors) {
    let (Some(new), Some(old)) = (&pod.spec, &old.spec) else { return };
    let mut allowed = old.clone();
    for (container, new) in allowed.containers.iter_mut().zip(&new.containers) {
        container.image.clone_from(&new.image);
    }
    for (container, new) in allowed.init_containers.iter_mut().flatten().zip(new.init_containers.iter().flatten()) {
        container.image.clone_from(&new.image);
    }
    allowed.active_deadline_seconds = new.active_deadline_seconds;
    allowed.tolerations.clone_from(&new.tolerations);
    allowed.termination_grace_period_seconds = new.termination_grace_period_seconds;
    allowed.scheduling_gates.clone_from(&new.scheduling_gates);
    if allowed != *new {
        let detail = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        errors.push(Error::forbidden(&Path::new("spec"), detail));
    }
}

fn validate_spec(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let volumes = validate_volumes(spec.volumes.as_deref().unwrap_or_default(), &path.child("volumes"), errors);
    if spec.containers.is_empty() {
        errors.push(Error::required(&path.child("containers"), ""));
    }
    let mut seen = BTreeSet::new();
    for (list, containers) in
        [("initContainers", spec.init_containers.as_deref().unwrap_or_default()), ("containers", &spec.containers)]
    {
        for (index, container) in containers.iter().enumerate() {
            let path = path.child(list).index(index);
            validate_container(container, &volumes, &path, errors);
            if !seen.insert(&container.name) {
                errors.push(Error::duplicate(&path.child("name"), container.name.as_str()));
            }
        }
    }
    one_of(&path.child("restartPolicy"), spec.restart_policy.as_deref(), &["Always", "Never", "OnFailure"], errors);
    one_of(
        &path.child("dnsPolicy"),
        spec.dns_policy.as_deref(),
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        errors,
    );
    subdomain(&path.child("serviceAccountName"), spec.service_account_name.as_deref(), errors);
    subdomain(&path.child("nodeName"), spec.node_name.as_deref(), errors);
    for (name, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            errors.invalid_each(&path.child(name), value, names::dns1123_label(value));
        }
    }
    if let Some(deadline) = spec.active_deadline_seconds.filter(|seconds| !(1..=i64::from(i32::MAX)).contains(seconds)) {
        errors.push(Error::invalid(
            &path.child("activeDeadlineSeconds"),
            deadline,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
}

fn one_of(path: &Path, value: Option<&str>, supported: &[&str], errors: &mut Errors) {
    match value {
        Some(value) if supported.contains(&value) => {}
        Some(value) if !value.is_empty() => errors.push(Error::not_supported(path, value, supported)),
        _ => errors.push(Error::required(path, "")),
    }
}

fn subdomain(path: &Path, value: Option<&str>, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        errors.invalid_each(path, value, names::dns1123_subdomain(value));
    }
}

/// Names of the volumes, for the mounts.
fn validate_volumes<'a>(volumes: &'a [Volume], path: &Path, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        if volume.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else {
            errors.invalid_each(&path.child("name"), &volume.name, names::dns1123_label(&volume.name));
        }
        if !seen.insert(volume.name.as_str()) {
            errors.push(Error::duplicate(&path.child("name"), volume.name.as_str()));
        }
        let sources = json!(volume).as_object().map_or(0, |fields| fields.len().saturating_sub(1));
        match sources {
            0 => errors.push(Error::required(&path, "must specify a volume type")),
            1 => {}
            _ => errors.push(Error::forbidden(&path, "may not specify more than 1 volume type")),
        }
        if let Some(host) = &volume.host_path
            && host.path.split('/').any(|part| part == "..")
        {
            errors.push(Error::invalid(&path.child("hostPath").child("path"), host.path.as_str(), "must not contain '..'"));
        }
    }
    seen
}

fn validate_container(container: &Container, volumes: &BTreeSet<&str>, path: &Path, errors: &mut Errors) {
    if container.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        errors.invalid_each(&path.child("name"), &container.name, names::dns1123_label(&container.name));
    }
    let image = container.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        errors.push(Error::required(&path.child("image"), ""));
    } else if image.trim() != image {
        errors.push(Error::invalid(&path.child("image"), image, "must not have leading or trailing whitespace"));
    }
    one_of(&path.child("imagePullPolicy"), container.image_pull_policy.as_deref(), &["Always", "IfNotPresent", "Never"], errors);
    one_of(
        &path.child("terminationMessagePolicy"),
        container.termination_message_policy.as_deref(),
        &["FallbackToLogsOnError", "File"],
        errors,
    );
    validate_ports(container, &path.child("ports"), errors);
    validate_env(container, &path.child("env"), errors);
    validate_mounts(container, volumes, &path.child("volumeMounts"), errors);
    validate_resources(container, &path.child("resources"), errors);
    for (name, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        if let Some(probe) = probe {
            validate_probe(probe, name != "readinessProbe", &path.child(name), errors);
        }
    }
}

fn validate_ports(container: &Container, path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let path = path.index(index);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            errors.invalid_each(&path.child("name"), name, names::port_name(name));
            if !seen.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
        }
        for (field, number) in
            [("containerPort", Some(port.container_port)), ("hostPort", port.host_port.filter(|port| *port != 0))]
        {
            for message in number.into_iter().flat_map(|number| names::port_number(number.into())) {
                errors.push(Error::invalid(&path.child(field), number, message));
            }
        }
        one_of(&path.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"], errors);
    }
}

fn validate_env(container: &Container, path: &Path, errors: &mut Errors) {
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let path = path.index(index);
        if variable.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else {
            errors.invalid_each(&path.child("name"), &variable.name, names::env_var_name(&variable.name));
        }
        let Some(source) = &variable.value_from else { continue };
        let path = path.child("valueFrom");
        match json!(source).as_object().map_or(0, serde_json::Map::len) {
            0 => errors.push(Error::invalid(
                &path,
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            )),
            1 if variable.value.as_deref().is_some_and(|value| !value.is_empty()) => {
                errors.push(Error::invalid(&path, "", "may not be specified when `value` is not empty"));
            }
            1 => {}
            _ => errors.push(Error::invalid(&path, "", "may not have more than one field specified at a time")),
        }
    }
}

fn validate_mounts(container: &Container, volumes: &BTreeSet<&str>, path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = path.index(index);
        if mount.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else if !volumes.contains(mount.name.as_str()) {
            errors.push(Error::not_found(&path.child("name"), mount.name.as_str()));
        }
        if mount.mount_path.is_empty() {
            errors.push(Error::required(&path.child("mountPath"), ""));
        } else if !seen.insert(mount.mount_path.as_str()) {
            errors.push(Error::invalid(&path.child("mountPath"), mount.mount_path.as_str(), "must be unique"));
        }
        let sub = mount.sub_path.as_deref().unwrap_or_default();
        if sub.starts_with('/') {
            errors.push(Error::invalid(&path.child("subPath"), sub, "must be a relative path"));
        }
        if sub.split('/').any(|part| part == "..") {
            errors.push(Error::invalid(&path.child("subPath"), sub, "must not contain '..'"));
        }
    }
}

fn validate_resources(container: &Container, path: &Path, errors: &mut Errors) {
    let Some(resources) = &container.resources else { return };
    let quantity = |text: &str| apimachinery::quantity::Quantity::parse(text).ok();
    for (name, request) in resources.requests.iter().flatten() {
        let limit = resources.limits.as_ref().and_then(|limits| limits.get(name));
        let (request_value, limit_value) = (quantity(&request.0), limit.and_then(|limit| quantity(&limit.0)));
        if let (Some(request_value), Some(limit_value), Some(limit)) = (request_value, limit_value, limit)
            && request_value > limit_value
        {
            let detail = format!("must be less than or equal to {name} limit of {}", limit.0);
            errors.push(Error::invalid(&path.child("requests"), request.0.as_str(), detail));
        }
    }
    let all = [("limits", &resources.limits), ("requests", &resources.requests)];
    for (which, name, value) in
        all.into_iter().flat_map(|(which, list)| list.iter().flatten().map(move |(name, value)| (which, name, value)))
    {
        if value.0.starts_with('-') {
            errors.push(Error::invalid(&path.child(which).key(name), value.0.as_str(), "must be greater than or equal to 0"));
        }
    }
}

fn validate_probe(probe: &Probe, success_is_one: bool, path: &Path, errors: &mut Errors) {
    let handlers = [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.grpc.is_some()];
    match handlers.iter().filter(|there| **there).count() {
        0 => errors.push(Error::required(path, "must specify a handler type")),
        1 => {}
        _ => errors.push(Error::forbidden(path, "may not specify more than 1 handler type")),
    }
    let numbers: [(&str, Option<i32>); 5] = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, number) in numbers {
        if let Some(number) = number.filter(|number| *number < 0) {
            errors.push(Error::invalid(&path.child(name), Value::from(number), "must be greater than or equal to 0"));
        }
    }
    if let Some(threshold) = probe.success_threshold.filter(|threshold| success_is_one && *threshold != 1) {
        errors.push(Error::invalid(&path.child("successThreshold"), threshold, "must be 1"));
    }
}
