//! ValidatingAdmissionPolicy.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use cel::Type;
use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, Validation,
};
use serde_json::{Value, json};

use super::matching::OPERATIONS;
use super::policy::{self, Scope};
use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::{self, list, text};
use crate::sub::Sub;
use crate::typed::Kind;

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const MAX_ANNOTATIONS: usize = 20;
const MAX_VALUE_EXPRESSION: usize = 5 * 1024;

impl Kind for ValidatingAdmissionPolicy {
    const DEF: KindDef = super::def("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "validatingadmissionpolicy")
        .status_keeps_metadata()
        .subresources(&[Sub::STATUS]);

    fn apply_defaults(object: &mut Value) {
        policy::apply_defaults(object);
    }

    fn validate(&self, errors: &mut Errors) {
        let (path, none) = (Path::new("spec"), ValidatingAdmissionPolicySpec::default());
        let spec = self.spec.as_ref().unwrap_or(&none);
        let policy = policy::policy!(spec, OPERATIONS);
        policy.validate(&path, errors);
        let scope = policy.scope();
        let (validations, annotations) = (list(&spec.validations), list(&spec.audit_annotations));
        if validations.is_empty() && annotations.is_empty() {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.push(Error::required(&path.child("validations"), detail));
            errors.push(Error::required(&path.child("auditAnnotations"), detail));
            return;
        }
        for (index, validation) in validations.iter().enumerate() {
            validate_validation(validation, &scope, &path.child("validations").index(index), errors);
        }
        let name = self.metadata.name.as_deref().unwrap_or_default();
        validate_annotations(name, annotations, &scope, &path.child("auditAnnotations"), errors);
    }

    fn validate_sub(&self, _sub: &str, _old: &Self, errors: &mut Errors) {
        let Some(status) = &self.status else { return };
        let path = Path::new("status");
        let warnings = status.type_checking.as_ref().map(|checking| list(&checking.expression_warnings)).unwrap_or_default();
        for (index, warning) in warnings.iter().enumerate() {
            let path = path.child("typeChecking.expressionWarnings").index(index);
            rules::required(&path.child("warning"), &warning.warning, errors);
            rules::required(&path.child("fieldRef"), warning.field_ref.trim(), errors);
        }
        rules::conditions(&path.child("conditions"), list(&status.conditions), errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::integer(
                    "Validations",
                    "Validations indicates the number of validation rules defined in this configuration",
                    |policy, _| policy.spec.as_ref().map_or(0, |spec| list(&spec.validations).len()).into(),
                ),
                policy::param_kind_column(|policy: &Self, _| {
                    policy::param_kind_cell(policy.spec.as_ref().and_then(|spec| spec.param_kind.as_ref()))
                }),
            ]
        }
    }
}

fn validate_validation(validation: &Validation, scope: &Scope, path: &Path, errors: &mut Errors) {
    if validation.expression.trim().is_empty() {
        errors.push(Error::required(&path.child("expression"), "expression is not specified"));
    } else {
        scope.check(&validation.expression, &[Type::Bool], &path.child("expression"), errors);
    }
    let expression = text(&validation.message_expression);
    if !expression.is_empty() && expression.trim().is_empty() {
        let detail = "must be non-empty if specified";
        errors.push(Error::invalid(&path.child("messageExpression"), expression, detail));
    } else if !expression.is_empty() {
        scope.check(expression, &[Type::String], &path.child("messageExpression"), errors);
    }
    let (message, at) = (text(&validation.message), path.child("message"));
    if !message.is_empty() && message.trim().is_empty() {
        errors.push(Error::invalid(&at, message, "message must be non-empty if specified"));
    } else if message.trim().contains(['\n', '\r']) {
        errors.push(Error::invalid(&at, message, "message must not contain line breaks"));
    }
    rules::supported(&path.child("reason"), validation.reason.as_deref(), REASONS, errors);
}

/// Keys are the second part of a qualified name whose first part is the policy's own.
fn validate_annotations(policy: &str, annotations: &[AuditAnnotation], scope: &Scope, path: &Path, errors: &mut Errors) {
    if annotations.len() > MAX_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.push(Error::invalid(path, json!(annotations), detail));
    }
    let mut known = HashSet::new();
    for (index, annotation) in annotations.iter().enumerate() {
        let path = path.index(index);
        let (key, expression) = (path.child("key"), path.child("valueExpression"));
        if policy.is_empty() {
            errors.push(Error::invalid(&key, annotation.key.as_str(), "requires metadata.name be non-empty"));
        } else {
            rules::qualified_name(&key, &format!("{policy}/{}", annotation.key), errors);
        }
        let value = annotation.value_expression.trim();
        if value.is_empty() {
            errors.push(Error::required(&expression, "valueExpression is not specified"));
        } else if value.len() > MAX_VALUE_EXPRESSION {
            let detail = format!("must not exceed {MAX_VALUE_EXPRESSION} bytes in length");
            errors.push(Error::required(&expression, detail));
        } else {
            scope.check(value, &[Type::String, Type::Null], &expression, errors);
        }
        if !known.insert(annotation.key.as_str()) {
            errors.push(Error::duplicate(&key, annotation.key.as_str()));
        }
    }
}
