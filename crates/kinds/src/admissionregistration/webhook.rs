//! What validating and mutating webhooks have in common.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::validate_label_selector;
use apimachinery::names;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, RuleWithOperations, ValidatingWebhook, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::expressions;
use super::matching::{self, FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES};
use crate::columns::Column;
use crate::rules::{self, list};
use crate::util::{each, set_default};

/// What a webhook may do besides answering; others could not be asked in a dry run.
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
/// Versions of AdmissionReview that the API server speaks or has spoken.
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const DEFAULT_TIMEOUT: i64 = 10;

/// A webhook of either kind.
pub(super) struct Webhook<'a> {
    name: &'a str,
    rules: &'a [RuleWithOperations],
    failure_policy: Option<&'a str>,
    match_policy: Option<&'a str>,
    side_effects: &'a str,
    timeout: Option<i32>,
    selectors: [(&'static str, Option<&'a LabelSelector>); 2],
    reinvocation_policy: Option<&'a str>,
    client: &'a WebhookClientConfig,
    conditions: &'a [MatchCondition],
    versions: &'a [String],
}

macro_rules! webhook {
    ($hook:expr, $reinvocation:expr) => {
        Self {
            name: &$hook.name,
            rules: list(&$hook.rules),
            failure_policy: $hook.failure_policy.as_deref(),
            match_policy: $hook.match_policy.as_deref(),
            side_effects: &$hook.side_effects,
            timeout: $hook.timeout_seconds,
            selectors: [
                ("namespaceSelector", $hook.namespace_selector.as_ref()),
                ("objectSelector", $hook.object_selector.as_ref()),
            ],
            reinvocation_policy: $reinvocation,
            client: &$hook.client_config,
            conditions: list(&$hook.match_conditions),
            versions: &$hook.admission_review_versions,
        }
    };
}

impl<'a> From<&'a ValidatingWebhook> for Webhook<'a> {
    fn from(hook: &'a ValidatingWebhook) -> Self {
        webhook!(hook, None)
    }
}

impl<'a> From<&'a MutatingWebhook> for Webhook<'a> {
    fn from(hook: &'a MutatingWebhook) -> Self {
        webhook!(hook, hook.reinvocation_policy.as_deref())
    }
}

/// The column of tables that counts webhooks.
pub(super) const fn column<K>(count: fn(&K, Timestamp) -> Value) -> Column<K> {
    Column::integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration", count)
}

/// Defaults of the webhooks of a configuration.
pub(super) fn apply_defaults(configuration: &mut Value) {
    for hook in each(configuration, "webhooks") {
        set_default(hook, "failurePolicy", "Fail");
        set_default(hook, "matchPolicy", "Equivalent");
        set_default(hook, "namespaceSelector", json!({}));
        set_default(hook, "objectSelector", json!({}));
        set_default(hook, "timeoutSeconds", DEFAULT_TIMEOUT);
        matching::default_rules(hook, "rules");
        if let Some(service) = hook.pointer_mut("/clientConfig/service").filter(|service| service.is_object()) {
            set_default(service, "port", 443);
        }
    }
}

/// The webhooks of a configuration.
pub(super) fn validate<'a, W: 'a>(hooks: &'a [W], errors: &mut Errors)
where
    Webhook<'a>: From<&'a W>,
{
    let mut names = Vec::new();
    for (index, hook) in hooks.iter().map(Webhook::from).enumerate() {
        let path = Path::new("webhooks").index(index);
        hook.validate(&path, errors);
        if names.contains(&hook.name) {
            errors.push(Error::duplicate(&path.child("name"), hook.name));
        } else if !hook.name.is_empty() {
            names.push(hook.name);
        }
    }
}

impl Webhook<'_> {
    fn validate(&self, path: &Path, errors: &mut Errors) {
        qualified_name(self.name, &path.child("name"), errors);
        for (index, rule) in self.rules.iter().enumerate() {
            matching::validate_rule(rule, &path.child("rules").index(index), errors);
        }
        rules::supported(&path.child("failurePolicy"), self.failure_policy, FAILURE_POLICIES, errors);
        rules::supported(&path.child("matchPolicy"), self.match_policy, MATCH_POLICIES, errors);
        if self.side_effects.is_empty() {
            let detail = format!("must specify one of {}", SIDE_EFFECTS.join(", "));
            errors.push(Error::required(&path.child("sideEffects"), detail));
        } else {
            rules::supported(&path.child("sideEffects"), Some(self.side_effects), SIDE_EFFECTS, errors);
        }
        if let Some(timeout) = self.timeout.filter(|timeout| !(1..=30).contains(timeout)) {
            let detail = "the timeout value must be between 1 and 30 seconds";
            errors.push(Error::invalid(&path.child("timeoutSeconds"), timeout, detail));
        }
        for (name, selector) in &self.selectors {
            if let Some(selector) = selector {
                validate_label_selector(selector, &path.child(name), errors);
            }
        }
        rules::supported(&path.child("reinvocationPolicy"), self.reinvocation_policy, REINVOCATION_POLICIES, errors);
        let service = self.client.service.as_ref().map(Into::into);
        rules::webhook_client(&path.child("clientConfig"), self.client.url.as_deref(), service, errors);
        matching::validate_match_conditions(self.conditions, expressions::WEBHOOK, &path.child("matchConditions"), errors);
        validate_versions(self.versions, &path.child("admissionReviewVersions"), errors);
    }
}

/// A name of at least three parts.
fn qualified_name(name: &str, path: &Path, errors: &mut Errors) {
    let wrong = names::dns1123_subdomain(name);
    if name.is_empty() {
        errors.push(Error::required(path, ""));
    } else if !wrong.is_empty() {
        errors.push(Error::invalid(path, name, wrong.join(",")));
    } else if name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(Error::invalid(path, name, detail));
    }
}

fn validate_versions(versions: &[String], path: &Path, errors: &mut Errors) {
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        return errors.push(Error::required(path, format!("must specify one of {known}")));
    }
    rules::review_versions(versions, path, errors);
    if !versions.iter().any(|version| REVIEW_VERSIONS.contains(&version.as_str())) {
        errors.push(Error::invalid(path, versions, format!("must include at least one of {known}")));
    }
}
