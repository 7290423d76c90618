//! Probes and lifecycle hooks, and how they ask.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, SleepAction};
use pods::signals;

use super::scope::Scope;
use crate::rules::{self, OneOf, list, text};

const MORE: &str = "may not specify more than 1 handler type";

/// All hooks and probes of a container that may have them.
pub(super) fn validate(container: &Container, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    if let Some(lifecycle) = &container.lifecycle {
        validate_lifecycle(lifecycle, scope, &path.child("lifecycle"), errors);
    }
    if let Some(probe) = &container.liveness_probe {
        validate_probe(probe, &path.child("livenessProbe"), errors);
        succeeds_once(probe, &path.child("livenessProbe"), errors);
    }
    if let Some(probe) = &container.readiness_probe {
        validate_probe(probe, &path.child("readinessProbe"), errors);
        if let Some(seconds) = probe.termination_grace_period_seconds {
            let path = path.child("readinessProbe").child("terminationGracePeriodSeconds");
            errors.push(Error::invalid(&path, seconds, "must not be set for readinessProbes"));
        }
    }
    if let Some(probe) = &container.startup_probe {
        validate_probe(probe, &path.child("startupProbe"), errors);
        succeeds_once(probe, &path.child("startupProbe"), errors);
    }
}

/// A container that may not have any says why.
pub(super) fn forbid(container: &Container, detail: &str, path: &Path, errors: &mut Errors) {
    let set = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    errors.extend(set.into_iter().filter(|(_, set)| *set).map(|(field, _)| Error::forbidden(&path.child(field), detail)));
}

fn succeeds_once(probe: &Probe, path: &Path, errors: &mut Errors) {
    let threshold = probe.success_threshold.unwrap_or(0);
    if threshold != 1 {
        errors.push(Error::invalid(&path.child("successThreshold"), threshold, "must be 1"));
    }
}

fn validate_probe(probe: &Probe, path: &Path, errors: &mut Errors) {
    let mut one = OneOf::new(path, MORE);
    one.field("exec", &probe.exec, errors, |exec, path, errors| command(list(&exec.command), path, errors));
    one.field("httpGet", &probe.http_get, errors, http);
    one.field("tcpSocket", &probe.tcp_socket, errors, |tcp, path, errors| rules::port(&path.child("port"), &tcp.port, errors));
    one.field("grpc", &probe.grpc, errors, |grpc, path, errors| rules::port_number(&path.child("port"), grpc.port, errors));
    one.finish("must specify a handler type", errors);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        rules::non_negative(&path.child(field), number.unwrap_or(0).into(), errors);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|seconds| *seconds <= 0) {
        errors.push(Error::invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0"));
    }
}

fn validate_lifecycle(lifecycle: &Lifecycle, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    for (field, handler) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(handler) = handler {
            validate_hook(handler, scope, &path.child(field), errors);
        }
    }
    if let Some(signal) = &lifecycle.stop_signal {
        validate_signal(signal, scope, &path.child("stopSignal"), errors);
    }
}

/// KEP-4960: "We require `spec.os.name` to be set to a valid value (`linux` or `windows`)". An operating system that there is not has its own error.
fn validate_signal(signal: &str, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let mut found = Errors::new();
    match scope.spec.os.as_ref().map(|os| os.name.as_str()) {
        None => found.push(Error::forbidden(path, "may not be set for containers with empty `spec.os.name`")),
        Some("windows") => rules::supported(path, Some(signal), &signals::WINDOWS, &mut found),
        Some("linux") => rules::supported(path, Some(signal), &signals::LINUX, &mut found),
        Some(_) => {}
    }
    errors.extend(found.into_iter().map(Error::ratcheted));
}

fn validate_hook(handler: &LifecycleHandler, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let grace = scope.spec.termination_grace_period_seconds;
    let mut one = OneOf::new(path, MORE);
    one.field("exec", &handler.exec, errors, |exec, path, errors| command(list(&exec.command), path, errors));
    one.field("httpGet", &handler.http_get, errors, http);
    one.field("tcpSocket", &handler.tcp_socket, errors, |tcp, path, errors| rules::port(&path.child("port"), &tcp.port, errors));
    one.field("sleep", &handler.sleep, errors, |action, path, errors| sleep(action, grace, path, errors));
    one.finish("must specify a handler type", errors);
}

fn command(command: &[String], path: &Path, errors: &mut Errors) {
    if command.is_empty() {
        errors.push(Error::required(&path.child("command"), ""));
    }
}

fn http(action: &HTTPGetAction, path: &Path, errors: &mut Errors) {
    rules::required(&path.child("path"), text(&action.path), errors);
    rules::port(&path.child("port"), &action.port, errors);
    rules::supported(&path.child("scheme"), Some(text(&action.scheme)), &["HTTP", "HTTPS"], errors);
    for header in list(&action.http_headers) {
        errors.invalid_each(&path.child("httpHeaders"), &header.name, names::http_header_name(&header.name));
    }
}

/// No longer than the pod has to stop (KEP-3960, KEP-4818).
fn sleep(action: &SleepAction, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&action.seconds)) {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(Error::invalid(path, action.seconds, detail));
    }
}
