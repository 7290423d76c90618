//! The three lists of containers: what differs between them, and what holds across them.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, PodSpec};

use super::container::{self, image_is_trimmed};
use super::scope::Scope;
use super::{ports, probes};
use crate::rules::{list, text};

/// All containers below `spec`.
pub(super) fn validate(scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    validate_main(scope, &path.child("containers"), errors);
    validate_init(scope, &path.child("initContainers"), errors);
    validate_ephemeral(scope, &path.child("ephemeralContainers"), errors);
}

fn validate_main(scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let containers = &scope.spec.containers;
    if containers.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    let mut names = HashSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        container::validate(container, scope, &path, errors);
        if !names.insert(container.name.as_str()) {
            errors.push(Error::duplicate(&path.child("name"), container.name.as_str()));
        }
        probes::validate(container, scope, &path, errors);
        let policies = ["Always", "Never", "OnFailure"];
        container::validate_restart(container, &policies, &path, errors);
    }
    ports::unique_host_ports(containers, path, errors);
}

fn validate_init(scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let mut names: HashSet<_> = scope.spec.containers.iter().map(|c| c.name.as_str()).collect();
    for (index, container) in list(&scope.spec.init_containers).iter().enumerate() {
        let at = path.index(index);
        container::validate(container, scope, &at, errors);
        container::validate_restart(container, &["Always", "Never", "OnFailure"], &at, errors);
        if names.contains(container.name.as_str()) {
            errors.push(Error::duplicate(&at.child("name"), container.name.as_str()));
        } else if !container.name.is_empty() {
            names.insert(&container.name);
        }
        // Upstream names the list's first element whatever the index: it checks each init container as a list of one.
        ports::unique_host_ports(std::slice::from_ref(container), path, errors);
        if text(&container.restart_policy) == "Always" {
            probes::validate(container, scope, &at, errors);
        } else {
            container::never_resized(container, &at, errors);
            probes::forbid(container, "may not be set for init containers without restartPolicy=Always", &at, errors);
        }
    }
}

fn validate_ephemeral(scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let ephemeral = list(&scope.spec.ephemeral_containers);
    if ephemeral.is_empty() {
        return;
    }
    let others: HashSet<_> = names_of(scope.spec).collect();
    let mut names = others.clone();
    for (index, container) in ephemeral.iter().enumerate() {
        let path = path.index(index);
        let common = common(container);
        container::validate(&common, scope, &path, errors);
        image_is_trimmed(&common, &path, errors);
        if !names.insert(container.name.as_str()) {
            errors.push(Error::duplicate(&path.child("name"), container.name.as_str()));
        }
        let target = text(&container.target_container_name);
        if !target.is_empty() && !others.contains(target) {
            errors.push(Error::not_found(&path.child("targetContainerName"), target));
        }
        forbid_fields(&common, &path, errors);
    }
}

fn names_of(spec: &PodSpec) -> impl Iterator<Item = &str> {
    spec.containers.iter().chain(list(&spec.init_containers)).map(|container| container.name.as_str())
}

/// Ephemeral containers are for looking at a pod, not a part of what it does.
fn forbid_fields(container: &Container, path: &Path, errors: &mut Errors) {
    let detail = "cannot be set for an Ephemeral Container";
    let set = [
        ("ports", !list(&container.ports).is_empty()),
        (
            "resources",
            container.resources.as_ref().is_some_and(|r| r.limits.is_some() || r.requests.is_some() || r.claims.is_some()),
        ),
        ("resizePolicy", !list(&container.resize_policy).is_empty()),
        ("restartPolicy", container.restart_policy.is_some()),
        ("restartPolicyRules", !list(&container.restart_policy_rules).is_empty()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ];
    errors.extend(set.into_iter().filter(|(_, set)| *set).map(|(field, _)| Error::forbidden(&path.child(field), detail)));
    for (index, mount) in list(&container.volume_mounts).iter().enumerate() {
        let path = path.child("volumeMounts").index(index);
        for (field, _) in
            [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)].iter().filter(|(_, v)| !text(v).is_empty())
        {
            errors.push(Error::forbidden(&path.child(field), detail));
        }
    }
}

/// What an ephemeral container has in common with all others.
fn common(container: &EphemeralContainer) -> Container {
    let c = container.clone();
    Container {
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        lifecycle: c.lifecycle,
        liveness_probe: c.liveness_probe,
        name: c.name,
        ports: c.ports,
        readiness_probe: c.readiness_probe,
        resize_policy: c.resize_policy,
        resources: c.resources,
        restart_policy: c.restart_policy,
        restart_policy_rules: c.restart_policy_rules,
        security_context: c.security_context,
        startup_probe: c.startup_probe,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_devices: c.volume_devices,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
    }
}
