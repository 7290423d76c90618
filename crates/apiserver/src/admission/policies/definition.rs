//! Policies and bindings, compiled.

use apimachinery::labels::Selector;
use cel::Program;
use serde_json::Value;

use crate::admission::conditions::{Conditions, Expression};
use crate::admission::criteria::Criteria;

/// What expressions of a policy speak of. Match conditions come before `variables`.
const NAMES: [&str; 7] = ["object", "oldObject", "request", "params", "namespaceObject", "authorizer", "variables"];
/// The name of the variables.
pub(super) const VARIABLES: &str = "variables";

/// A policy of either kind.
pub(super) struct Policy {
    pub(super) name: String,
    /// What cannot be evaluated does not matter.
    pub(super) fails_open: bool,
    pub(super) criteria: Result<Criteria, String>,
    /// `apiVersion` and `kind` of parameters.
    pub(super) param_kind: Option<(String, String)>,
    pub(super) conditions: Conditions,
    /// Each may use those before it. Or why one cannot be evaluated.
    pub(super) variables: Result<Vec<(String, Program)>, String>,
    pub(super) validations: Vec<Validation>,
    /// Keys and values for the audit.
    pub(super) annotations: Vec<(String, Expression)>,
    pub(super) mutations: Vec<Mutation>,
    /// It is evaluated again when the object changes after it.
    pub(super) is_reinvocable: bool,
    /// It speaks of the namespace.
    pub(super) uses_namespace: bool,
    /// It speaks of the request.
    pub(super) uses_request: bool,
}

/// A rule of a validating policy.
pub(super) struct Validation {
    pub(super) expression: Expression,
    pub(super) message: String,
    pub(super) message_expression: Option<Expression>,
    pub(super) reason: Option<String>,
}

/// A change of a mutating policy.
pub(super) enum Mutation {
    /// An object that is laid over the one of the request.
    Apply(Expression),
    /// A list of operations.
    JsonPatch(Expression),
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn list<'v>(spec: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    spec[key].as_array().into_iter().flatten()
}

impl Policy {
    pub(super) fn new(name: &str, object: &Value) -> Self {
        let spec = &object["spec"];
        let compiled = |text: &str| Expression::new(text, &NAMES);
        let validation = |one: &Value| Validation {
            expression: compiled(&text(one, "expression")),
            message: text(one, "message").trim().to_owned(),
            message_expression: one["messageExpression"].as_str().filter(|text| !text.is_empty()).map(compiled),
            reason: one["reason"].as_str().map(str::to_owned),
        };
        let mutation = |one: &Value| match one["patchType"].as_str() {
            Some("JSONPatch") => Mutation::JsonPatch(compiled(&text(&one["jsonPatch"], "expression"))),
            _ => Mutation::Apply(compiled(&text(&one["applyConfiguration"], "expression"))),
        };
        let variable = |one: &Value| {
            let program = Program::compile(&text(one, "expression"), &NAMES);
            program.map(|program| (text(one, "name"), program)).map_err(|error| format!("compilation failed: {error}"))
        };
        let param_kind = &spec["paramKind"];
        let mut policy = Self {
            name: name.to_owned(),
            fails_open: spec["failurePolicy"] == "Ignore",
            criteria: match &spec["matchConstraints"] {
                Value::Null => Err("policy contained no match constraints, a required field".to_owned()),
                constraints => Criteria::of_resources(constraints),
            },
            param_kind: param_kind.is_object().then(|| (text(param_kind, "apiVersion"), text(param_kind, "kind"))),
            conditions: Conditions::new(&spec["matchConditions"], &NAMES[..NAMES.len() - 1]),
            variables: list(spec, "variables").map(variable).collect(),
            validations: list(spec, "validations").map(validation).collect(),
            annotations: list(spec, "auditAnnotations")
                .map(|one| (text(one, "key"), compiled(&text(one, "valueExpression"))))
                .collect(),
            mutations: list(spec, "mutations").map(mutation).collect(),
            is_reinvocable: spec["reinvocationPolicy"] == "IfNeeded",
            uses_namespace: false,
            uses_request: false,
        };
        (policy.uses_namespace, policy.uses_request) = (policy.uses("namespaceObject"), policy.uses("request"));
        policy
    }

    /// Whether any of its expressions speaks of a variable.
    fn uses(&self, name: &str) -> bool {
        let validations = self.validations.iter().flat_map(|one| std::iter::once(&one.expression).chain(&one.message_expression));
        let annotations = self.annotations.iter().map(|(_, expression)| expression);
        let mutations = self.mutations.iter().map(|(Mutation::Apply(expression) | Mutation::JsonPatch(expression))| expression);
        validations.chain(annotations).chain(mutations).any(|expression| expression.uses(name))
            || self.conditions.uses(name)
            || self.variables.iter().flatten().any(|(_, program)| program.uses(name))
    }
}

/// A binding of either kind.
pub(super) struct Binding {
    pub(super) name: String,
    /// The policy that it puts in force.
    pub(super) policy: String,
    /// What it matches of what the policy matches, all when none.
    pub(super) criteria: Option<Result<Criteria, String>>,
    pub(super) param_ref: Option<ParamRef>,
    /// `Deny`, `Warn`, `Audit`.
    pub(super) actions: Vec<String>,
}

/// Which parameters.
pub(super) struct ParamRef {
    pub(super) name: String,
    pub(super) namespace: String,
    /// Instead of a name.
    pub(super) selector: Option<Result<Selector, String>>,
    /// The request is refused when there are none.
    pub(super) must_exist: bool,
}

impl Binding {
    pub(super) fn new(name: &str, object: &Value) -> Self {
        let spec = &object["spec"];
        let reference = &spec["paramRef"];
        let selector = &reference["selector"];
        Self {
            name: name.to_owned(),
            policy: text(spec, "policyName"),
            criteria: spec["matchResources"].is_object().then(|| Criteria::of_resources(&spec["matchResources"])),
            param_ref: reference.is_object().then(|| ParamRef {
                name: text(reference, "name"),
                namespace: text(reference, "namespace"),
                selector: selector.is_object().then(|| Selector::from_value(selector).map_err(|error| error.to_string())),
                must_exist: reference["parameterNotFoundAction"] != "Allow",
            }),
            actions: list(spec, "validationActions").filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }
}
