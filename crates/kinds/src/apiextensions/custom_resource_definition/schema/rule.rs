//! `x-kubernetes-validations`: all but the expressions, which nothing compiles yet.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;

use crate::rules::{self, text};

const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

fn breaks_lines(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

pub(super) fn validate(rule: &ValidationRule, path: &Path, errors: &mut Errors) {
    let (message, at) = (text(&rule.message), path.child("message"));
    if rule.rule.trim().is_empty() {
        errors.push(Error::required(&path.child("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.push(Error::invalid(&at, message, "must be non-empty if specified"));
    } else if breaks_lines(message.trim()) {
        errors.push(Error::invalid(&at, message, "must not contain line breaks"));
    } else if breaks_lines(rule.rule.trim()) && message.is_empty() {
        errors.push(Error::required(&at, "message must be specified if rule contains line breaks"));
    }
    let expression = text(&rule.message_expression);
    if !expression.is_empty() && expression.trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(Error::required(&path.child("messageExpression"), detail));
    }
    rules::supported(&path.child("reason"), rule.reason.as_deref(), REASONS, errors);
    let (field, at) = (text(&rule.field_path), path.child("fieldPath"));
    if !field.is_empty() && field.trim().is_empty() {
        errors.push(Error::invalid(&at, field, "must be non-empty if specified"));
    }
    if breaks_lines(field) {
        errors.push(Error::invalid(&at, field, "must not contain line breaks"));
    }
}
