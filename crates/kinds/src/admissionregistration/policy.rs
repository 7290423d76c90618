//! What validating and mutating policies, and their bindings, have in common.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::{Selector, validate_label_selector};
use apimachinery::names;
use cel::Type;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{MatchCondition, MatchResources, ParamKind, ParamRef, Variable};
use serde_json::Value;

use super::expressions;
use super::matching::{self, FAILURE_POLICIES};
use crate::columns::Column;
use crate::rules::{self, list, text};
use crate::util::set_default;

/// Words of CEL that name nothing.
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// What expressions of policies may speak of.
pub(super) struct Scope {
    names: Vec<&'static str>,
    /// Named expressions, and their types.
    variables: expressions::Composed,
}

impl Scope {
    /// An expression that can be compiled, and is of one of these types; of any where there are none. Its type.
    pub(super) fn check(&self, expression: &str, expected: &[Type], path: &Path, errors: &mut Errors) -> Type {
        let mut variables = expressions::variables(&self.names);
        variables.push(("variables", self.variables.ty()));
        expressions::check(expression, &variables, expected, path, errors).unwrap_or(Type::Dyn)
    }
}

/// Defaults of a policy.
pub(super) fn apply_defaults(policy: &mut Value) {
    if let Some(spec) = policy.get_mut("spec").filter(|spec| spec.is_object()) {
        set_default(spec, "failurePolicy", "Fail");
        if let Some(resources) = spec.get_mut("matchConstraints").filter(|resources| resources.is_object()) {
            matching::default_resources(resources);
        }
    }
}

/// Defaults of a binding.
pub(super) fn apply_binding_defaults(binding: &mut Value) {
    if let Some(reference) = binding.pointer_mut("/spec/paramRef").filter(|reference| reference.is_object()) {
        set_default(reference, "parameterNotFoundAction", "Deny");
    }
    if let Some(resources) = binding.pointer_mut("/spec/matchResources").filter(|resources| resources.is_object()) {
        matching::default_resources(resources);
    }
}

/// The part of a policy that both kinds have.
pub(super) struct Policy<'a> {
    pub(super) failure_policy: &'a Option<String>,
    pub(super) param_kind: &'a Option<ParamKind>,
    pub(super) constraints: &'a Option<MatchResources>,
    pub(super) conditions: &'a Option<Vec<MatchCondition>>,
    pub(super) variables: &'a Option<Vec<Variable>>,
    pub(super) operations: &'static [&'static str],
}

/// The common part of the specification of either kind.
macro_rules! policy {
    ($spec:expr, $operations:expr) => {
        $crate::admissionregistration::policy::Policy {
            failure_policy: &$spec.failure_policy,
            param_kind: &$spec.param_kind,
            constraints: &$spec.match_constraints,
            conditions: &$spec.match_conditions,
            variables: &$spec.variables,
            operations: $operations,
        }
    };
}
pub(super) use policy;

/// The column of tables that shows the kind of parameters.
pub(super) const fn param_kind_column<K>(cell: fn(&K, Timestamp) -> Value) -> Column<K> {
    Column::new("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy", cell)
}

impl Policy<'_> {
    pub(super) fn validate(&self, path: &Path, errors: &mut Errors) {
        rules::one_of(&path.child("failurePolicy"), text(self.failure_policy), FAILURE_POLICIES, errors);
        if let Some(kind) = self.param_kind {
            validate_param_kind(kind, &path.child("paramKind"), errors);
        }
        let at = path.child("matchConstraints");
        match self.constraints {
            None => errors.push(Error::required(&at, "")),
            Some(constraints) => {
                matching::validate_match_resources(constraints, self.operations, &at, errors);
                // The rules say of what types the expressions speak.
                if list(&constraints.resource_rules).is_empty() {
                    errors.push(Error::required(&at.child("resourceRules"), ""));
                }
            }
        }
        let names = self.names();
        matching::validate_match_conditions(list(self.conditions), &names, &path.child("matchConditions"), errors);
        self.compose(&path.child("variables"), errors);
    }

    /// Rules for the variables, and their types. Each may use those before it.
    fn compose(&self, path: &Path, errors: &mut Errors) -> Scope {
        let mut scope = Scope { names: self.names(), variables: expressions::Composed::default() };
        for (index, variable) in list(self.variables).iter().enumerate() {
            let ty = validate_variable(variable, &scope, &path.index(index), errors);
            scope.variables.add(&variable.name, ty);
        }
        scope
    }

    /// What match conditions may speak of: they come before the variables.
    fn names(&self) -> Vec<&'static str> {
        let mut names = vec!["object", "oldObject", "request", "namespaceObject", "authorizer"];
        names.extend(self.param_kind.as_ref().map(|_| "params"));
        names
    }

    /// What other expressions may speak of.
    pub(super) fn scope(&self) -> Scope {
        self.compose(&Path::new("variables"), &mut Errors::new())
    }
}

fn validate_param_kind(kind: &ParamKind, path: &Path, errors: &mut Errors) {
    validate_api_version(text(&kind.api_version), &path.child("apiVersion"), errors);
    let (at, kind) = (path.child("kind"), text(&kind.kind));
    let wrong = names::dns1035_label(&kind.to_lowercase());
    if kind.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if !wrong.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.push(Error::invalid(&at, kind, detail));
    }
}

fn validate_api_version(given: &str, path: &Path, errors: &mut Errors) {
    if given.is_empty() {
        return errors.push(Error::required(path, ""));
    }
    let (group, version) = given.split_once('/').unwrap_or(("", given));
    if version.contains('/') {
        return errors.push(Error::invalid(path, given, format!("unexpected GroupVersion string: {given}")));
    }
    let wrong = names::dns1123_subdomain(group);
    if !group.is_empty() && !wrong.is_empty() {
        errors.push(Error::invalid(path, group, wrong.join(",")));
    }
    let wrong = names::dns1035_label(version);
    if version.is_empty() {
        errors.push(Error::invalid(path, given, "version must be specified"));
    } else if !wrong.is_empty() {
        errors.push(Error::invalid(path, version, wrong.join(",")));
    }
}

fn validate_variable(variable: &Variable, scope: &Scope, path: &Path, errors: &mut Errors) -> Type {
    let at = path.child("name");
    if variable.name.trim().is_empty() {
        errors.push(Error::required(&at, "name is not specified"));
    } else if !is_identifier(&variable.name) {
        errors.push(Error::invalid(&at, variable.name.as_str(), "name is not a valid CEL identifier"));
    }
    if variable.expression.trim().is_empty() {
        errors.push(Error::required(&path.child("expression"), "expression is not specified"));
        return Type::Dyn;
    }
    scope.check(&variable.expression, &[], &path.child("expression"), errors)
}

/// An identifier of CEL.
fn is_identifier(name: &str) -> bool {
    let letter = |byte: u8| byte == b'_' || byte.is_ascii_alphabetic();
    name.bytes().next().is_some_and(letter)
        && name.bytes().all(|byte| letter(byte) || byte.is_ascii_digit())
        && !RESERVED.contains(&name)
}

/// The part of a binding that both kinds have.
pub(super) struct Binding<'a> {
    pub(super) policy_name: &'a str,
    pub(super) param_ref: &'a Option<ParamRef>,
    pub(super) resources: &'a Option<MatchResources>,
    /// Where errors in what it matches are reported.
    pub(super) resources_field: &'static str,
    pub(super) operations: &'static [&'static str],
}

impl Binding<'_> {
    pub(super) fn validate(&self, path: &Path, errors: &mut Errors) {
        let at = path.child("policyName");
        if self.policy_name.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            rules::dns_subdomain(&at, self.policy_name, errors);
        }
        if let Some(reference) = self.param_ref {
            validate_param_ref(reference, &path.child("paramRef"), errors);
        }
        if let Some(resources) = self.resources {
            matching::validate_match_resources(resources, self.operations, &path.child(self.resources_field), errors);
        }
    }
}

fn validate_param_ref(reference: &ParamRef, path: &Path, errors: &mut Errors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let name = text(&reference.name);
    if !name.is_empty() {
        errors.invalid_each(&path.child("name"), name, names::path_segment_name(name));
        if reference.selector.is_some() {
            errors.push(Error::forbidden(&path.child("name"), EXCLUSIVE));
        }
    }
    match &reference.selector {
        Some(selector) => {
            validate_label_selector(selector, &path.child("selector"), errors);
            if !name.is_empty() {
                errors.push(Error::forbidden(&path.child("selector"), EXCLUSIVE));
            }
        }
        None if name.is_empty() => errors.push(Error::required(path, "one of name or selector must be specified")),
        None => {}
    }
    let action = text(&reference.parameter_not_found_action);
    rules::one_of(&path.child("parameterNotFoundAction"), action, &["Deny", "Allow"], errors);
}

/// The cell for the kind of parameters.
pub(super) fn param_kind_cell(kind: Option<&ParamKind>) -> Value {
    kind.map_or_else(|| "<unset>".into(), |kind| format!("{}/{}", text(&kind.api_version), text(&kind.kind)).into())
}

/// The cell for the parameters of a binding.
pub(super) fn param_ref_cell(reference: Option<&ParamRef>) -> Value {
    let Some(reference) = reference else { return "<unset>".into() };
    match (text(&reference.name), text(&reference.namespace), &reference.selector) {
        // Whether the parameter lives in a namespace cannot be told from here.
        (name, "", _) if !name.is_empty() => format!("*/{name}").into(),
        (name, namespace, _) if !name.is_empty() => format!("{namespace}/{name}").into(),
        (_, _, Some(selector)) => {
            Selector::from_label_selector(Some(selector)).map(|selector| selector.to_string()).unwrap_or_default().into()
        }
        _ => "<unset>".into(),
    }
}
