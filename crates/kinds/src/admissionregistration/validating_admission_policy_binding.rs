//! ValidatingAdmissionPolicyBinding.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use serde_json::Value;

use super::matching::OPERATIONS;
use super::policy::{self, Binding};
use crate::columns::Column;
use crate::def::KindDef;
use crate::rules;
use crate::typed::Kind;

impl Kind for ValidatingAdmissionPolicyBinding {
    const DEF: KindDef =
        super::def("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "validatingadmissionpolicybinding");

    fn apply_defaults(object: &mut Value) {
        policy::apply_binding_defaults(object);
    }

    fn validate(&self, errors: &mut Errors) {
        let path = Path::new("spec");
        let binding = Binding {
            policy_name: &self.spec.policy_name,
            param_ref: &self.spec.param_ref,
            resources: &self.spec.match_resources,
            // Spelt as upstream does.
            resources_field: "matchResouces",
            operations: OPERATIONS,
        };
        binding.validate(&path, errors);
        validate_actions(&self.spec.validation_actions, &path.child("validationActions"), errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new(
                    "PolicyName",
                    "PolicyName indicates the policy definition which the policy binding binded to",
                    |binding, _| binding.spec.policy_name.as_str().into(),
                ),
                Column::new(
                    "ParamRef",
                    "ParamRef indicates the param resource which sets the configration param",
                    |binding, _| policy::param_ref_cell(binding.spec.param_ref.as_ref()),
                ),
            ]
        }
    }
}

fn validate_actions(actions: &[String], path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, action) in actions.iter().enumerate() {
        rules::supported(&path.index(index), Some(action), &["Audit", "Deny", "Warn"], errors);
        if !seen.insert(action) {
            errors.push(Error::duplicate(&path.index(index), action.as_str()));
        }
    }
    let has = |wanted: &str| actions.iter().any(|action| action == wanted);
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(Error::invalid(path, actions, detail));
    }
    if actions.is_empty() {
        errors.push(Error::required(path, "at least one validation action is required"));
    }
}
