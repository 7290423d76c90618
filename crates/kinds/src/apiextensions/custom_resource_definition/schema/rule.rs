//! `x-kubernetes-validations`: all but the expressions, which nothing compiles yet.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrBool, ValidationRule,
};
use structural::Declares;

use crate::rules::{self, text};

const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

fn breaks_lines(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

/// A part of a schema, as the paths of fields are followed through it.
#[derive(Clone, Copy)]
struct Part<'a>(&'a JSONSchemaProps);

impl Declares for Part<'_> {
    fn has_fields(self) -> bool {
        self.0.properties.as_ref().is_some_and(|properties| !properties.is_empty())
    }

    fn field(self, name: &str) -> Option<Self> {
        self.0.properties.as_ref()?.get(name).map(Part)
    }

    fn has_entries(self) -> bool {
        self.0.additional_properties.is_some()
    }

    fn entry(self) -> Option<Self> {
        match self.0.additional_properties.as_ref()? {
            JSONSchemaPropsOrBool::Schema(schema) => Some(Part(schema)),
            JSONSchemaPropsOrBool::Bool(_) => None,
        }
    }
}

/// A rule of a part of a schema.
pub(super) fn validate(rule: &ValidationRule, schema: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
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
    if !field.is_empty() && structural::field_path(Part(schema), field).is_none() {
        errors.push(Error::invalid(&at, field, "must be a valid path"));
    }
}
