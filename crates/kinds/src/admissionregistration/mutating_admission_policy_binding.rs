//! MutatingAdmissionPolicyBinding (KEP-3962).

use apimachinery::field::{Errors, Path};
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicyBinding, MutatingAdmissionPolicyBindingSpec};
use serde_json::Value;

use super::matching::MUTATING_OPERATIONS;
use super::policy::{self, Binding};
use crate::columns::Column;
use crate::def::KindDef;
use crate::rules::text;
use crate::typed::Kind;

impl Kind for MutatingAdmissionPolicyBinding {
    const DEF: KindDef =
        super::def("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding");

    fn apply_defaults(object: &mut Value) {
        policy::apply_binding_defaults(object);
    }

    fn validate(&self, errors: &mut Errors) {
        let none = MutatingAdmissionPolicyBindingSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&none);
        let binding = Binding {
            policy_name: text(&spec.policy_name),
            param_ref: &spec.param_ref,
            resources: &spec.match_resources,
            resources_field: "matchResources",
            operations: MUTATING_OPERATIONS,
        };
        binding.validate(&Path::new("spec"), errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new(
                    "PolicyName",
                    "PolicyName indicates the policy definition which the policy binding binded to",
                    |binding, _| binding.spec.as_ref().map(|spec| text(&spec.policy_name)).unwrap_or_default().into(),
                ),
                Column::new(
                    "ParamRef",
                    "ParamRef indicates the param resource which sets the configration param",
                    |binding, _| policy::param_ref_cell(binding.spec.as_ref().and_then(|spec| spec.param_ref.as_ref())),
                ),
            ]
        }
    }
}
