//! What holds for a container of any list.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{Container, ContainerRestartRule};

use super::scope::Scope;
use super::{env, mounts, ports, resources, security};
use crate::rules::{self, list, text};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
/// Most restart rules of a container, and exit codes of a rule (KEP-5307).
const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

pub(super) fn validate(container: &Container, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    match container.name.as_str() {
        "" => errors.push(Error::required(&path.child("name"), "")),
        name => rules::dns_label(&path.child("name"), name, errors),
    }
    rules::required(&path.child("image"), text(&container.image), errors);
    let policies = ["File", "FallbackToLogsOnError"];
    rules::one_of(&path.child("terminationMessagePolicy"), text(&container.termination_message_policy), &policies, errors);
    ports::validate(list(&container.ports), &path.child("ports"), errors);
    env::validate(container, scope, path, errors);
    mounts::validate(container, scope, path, errors);
    pull_policy(&path.child("imagePullPolicy"), &container.image_pull_policy, errors);
    if let Some(requirements) = &container.resources {
        resources::validate_container(requirements, scope.spec, &path.child("resources"), errors);
    }
    validate_resize_policy(container, scope, &path.child("resizePolicy"), errors);
    if let Some(context) = &container.security_context {
        security::validate_container(context, scope, &path.child("securityContext"), errors);
    }
}

/// When an image is pulled.
pub(super) fn pull_policy(path: &Path, policy: &Option<String>, errors: &mut Errors) {
    rules::one_of(path, text(policy), PULL_POLICIES, errors);
}

/// Templates of old may have spaces around images; pods may not.
pub(in crate::core::pod) fn image_is_trimmed(container: &Container, path: &Path, errors: &mut Errors) {
    let image = text(&container.image);
    if image.trim() != image {
        errors.push(Error::invalid(&path.child("image"), image, "must not have leading or trailing whitespace"));
    }
}

fn validate_resize_policy(container: &Container, scope: &Scope<'_>, path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, policy) in list(&container.resize_policy).iter().enumerate() {
        if !seen.insert(policy.resource_name.as_str()) {
            errors.push(Error::duplicate(&path.index(index), policy.resource_name.as_str()));
        }
        rules::one_of(path, &policy.resource_name, &["cpu", "memory"], errors);
        rules::one_of(path, &policy.restart_policy, &["NotRequired", "RestartContainer"], errors);
        if scope.restart_policy() == "Never" && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(Error::invalid(path, policy.restart_policy.as_str(), detail));
        }
    }
}

/// Containers that run to their end cannot be resized, let alone be restarted for it.
pub(super) fn never_resized(container: &Container, path: &Path, errors: &mut Errors) {
    for policy in list(&container.resize_policy).iter().filter(|policy| policy.restart_policy == "RestartContainer") {
        let detail = "must be 'NotRequired' for init containers without restartPolicy=Always";
        errors.push(Error::invalid(&path.child("resizePolicy"), policy.restart_policy.as_str(), detail).ratcheted());
    }
}

/// A container's own restart policy, and its rules (KEP-753, KEP-5307).
pub(super) fn validate_restart(container: &Container, policies: &[&str], path: &Path, errors: &mut Errors) {
    let given = list(&container.restart_policy_rules);
    let at = path.child("restartPolicy");
    match container.restart_policy.as_deref() {
        None if !given.is_empty() => errors.push(Error::required(&at, "must specify restartPolicy when restart rules are used")),
        policy => rules::supported(&at, policy, policies, errors),
    }
    let path = path.child("restartPolicyRules");
    if given.len() > MAX_RULES {
        errors.push(Error::too_many(&path, given.len(), MAX_RULES));
    }
    for (index, rule) in given.iter().enumerate() {
        validate_restart_rule(rule, &path.index(index), errors);
    }
}

fn validate_restart_rule(rule: &ContainerRestartRule, path: &Path, errors: &mut Errors) {
    rules::supported(&path.child("action"), Some(&rule.action), &["Restart", "RestartAllContainers"], errors);
    let path = path.child("exitCodes");
    let Some(codes) = &rule.exit_codes else { return errors.push(Error::required(&path, "must be specified")) };
    rules::supported(&path.child("operator"), Some(&codes.operator), &["In", "NotIn"], errors);
    let count = list(&codes.values).len();
    if count > MAX_EXIT_CODES {
        errors.push(Error::too_many(&path.child("values"), count, MAX_EXIT_CODES));
    }
}
