//! MutatingAdmissionPolicy (KEP-3962).

use apimachinery::field::{Error, Errors, Path};
use cel::Type;
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicySpec, Mutation};
use serde_json::Value;

use super::matching::{MUTATING_OPERATIONS, REINVOCATION_POLICIES};
use super::policy::{self, Scope};
use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::{self, list, text};
use crate::typed::Kind;

const PATCH_TYPES: &[&str] = &["ApplyConfiguration", "JSONPatch"];

impl Kind for MutatingAdmissionPolicy {
    const DEF: KindDef = super::def("MutatingAdmissionPolicy", "mutatingadmissionpolicies", "mutatingadmissionpolicy");

    fn apply_defaults(object: &mut Value) {
        policy::apply_defaults(object);
    }

    fn validate(&self, errors: &mut Errors) {
        let (path, none) = (Path::new("spec"), MutatingAdmissionPolicySpec::default());
        let spec = self.spec.as_ref().unwrap_or(&none);
        let policy = policy::policy!(spec, MUTATING_OPERATIONS);
        policy.validate(&path, errors);
        let scope = policy.scope();
        let mutations = list(&spec.mutations);
        if mutations.is_empty() {
            errors.push(Error::required(&path.child("mutations"), "mutations must contain at least one item"));
        }
        for (index, mutation) in mutations.iter().enumerate() {
            validate_mutation(mutation, &scope, &path.child("mutations").index(index), errors);
        }
        let policy = text(&spec.reinvocation_policy);
        rules::one_of(&path.child("reinvocationPolicy"), policy, REINVOCATION_POLICIES, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::integer(
                    "Mutations",
                    "Mutations indicates the number of mutations rules defined in this configuration",
                    |policy, _| policy.spec.as_ref().map_or(0, |spec| list(&spec.mutations).len()).into(),
                ),
                policy::param_kind_column(|policy: &Self, _| {
                    policy::param_kind_cell(policy.spec.as_ref().and_then(|spec| spec.param_kind.as_ref()))
                }),
            ]
        }
    }
}

/// The member that the patch type names is there, with an expression, and no other one.
fn validate_mutation(mutation: &Mutation, scope: &Scope, path: &Path, errors: &mut Errors) {
    let kind = mutation.patch_type.as_str();
    rules::one_of(&path.child("patchType"), kind, PATCH_TYPES, errors);
    let (object, patch) = (Type::Opaque("Object"), Type::list(Type::Opaque("JSONPatch")));
    let members = [
        (
            "ApplyConfiguration",
            "applyConfiguration",
            mutation.apply_configuration.as_ref().map(|member| &member.expression),
            object,
        ),
        ("JSONPatch", "jsonPatch", mutation.json_patch.as_ref().map(|member| &member.expression), patch),
    ];
    for (wanted, field, expression, ty) in members {
        let at = path.child(field);
        match (kind == wanted, expression) {
            (true, None) => errors.push(Error::required(&at, format!("must be specified when patchType is {kind}"))),
            (true, Some(expression)) if text(expression).trim().is_empty() => {
                errors.push(Error::required(&at.child("expression"), "expression is not specified"));
            }
            (true, Some(expression)) => drop(scope.check(text(expression), &[ty], &at.child("expression"), errors)),
            (false, Some(_)) if PATCH_TYPES.contains(&kind) => {
                let detail = format!("must not be specified when patchType is {kind}");
                errors.push(Error::invalid(&at, format!("{{{field}}}"), detail));
            }
            _ => {}
        }
    }
}
