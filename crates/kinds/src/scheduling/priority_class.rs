//! PriorityClass.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

use crate::columns::Column;
use crate::def::KindDef;
use crate::typed::Kind;
use crate::util::set_default;

impl Kind for PriorityClass {
    const DEF: KindDef =
        KindDef::new("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "priorityclass").short(&["pc"]).cluster();

    fn apply_defaults(object: &mut Value) {
        set_default(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate(&self, errors: &mut Errors) {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        if name.starts_with("system-") && !["system-node-critical", "system-cluster-critical"].contains(&name) {
            let detail = "priority class names with 'system-' prefix are reserved for system use only. error: only system priority classes can have the prefix";
            errors.push(Error::forbidden(&Path::new("metadata").child("name"), detail));
        } else if !name.starts_with("system-") && self.value.unwrap_or(0) > 1_000_000_000 {
            errors.push(Error::forbidden(&Path::new("value"), "maximum allowed value of a user defined priority is 1000000000"));
        }
        if let Some(policy) =
            self.preemption_policy.as_deref().filter(|policy| !["PreemptLowerPriority", "Never"].contains(policy))
        {
            errors.push(Error::not_supported(&Path::new("preemptionPolicy"), policy, &["Never", "PreemptLowerPriority"]));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.value != old.value {
            errors.push(Error::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        if self.preemption_policy != old.preemption_policy {
            errors.push(Error::invalid(&Path::new("preemptionPolicy"), self.preemption_policy.clone(), "field is immutable"));
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::NAME,
                Column::integer("Value", "value represents the integer value of this priority class.", |class, _| {
                    class.value.into()
                }),
                Column::new("Global-Default", "Whether pods without a class get this one.", |class, _| {
                    class.global_default.unwrap_or(false).into()
                }),
                Column::AGE,
                Column::new("PreemptionPolicy", "Whether pods of this class preempt others.", |class, _| {
                    class.preemption_policy.clone().into()
                }),
            ]
        }
    }
}
