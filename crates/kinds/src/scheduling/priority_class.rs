//! PriorityClass.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::meta;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

use crate::columns::Column;
use crate::def::KindDef;
use crate::typed::Kind;
use crate::util::set_default;

/// What the names of the cluster's own classes begin with.
const PREFIX: &str = "system-";
/// The cluster's own classes, and their values.
const SYSTEM: [(&str, i32); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
/// The highest value of other classes.
const MAX_VALUE: i32 = 1_000_000_000;

impl Kind for PriorityClass {
    const DEF: KindDef =
        KindDef::new("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "priorityclass").short(&["pc"]).cluster();

    fn apply_defaults(object: &mut Value) {
        set_default(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    /// Classes count no changes: their generation is always the first.
    fn prepare_create(object: &mut Value) {
        meta::set_generation(object, 1);
    }

    fn validate_create(&self, errors: &mut Errors) {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        if !name.starts_with(PREFIX) {
            if self.value.unwrap_or(0) > MAX_VALUE {
                let detail = format!("maximum allowed value of a user defined priority is {MAX_VALUE}");
                errors.push(Error::forbidden(&Path::new("value"), detail));
            }
        } else if let Some(wrong) = wrong_system_class(name, self) {
            let detail = format!("priority class names with '{PREFIX}' prefix are reserved for system use only. error: {wrong}");
            errors.push(Error::forbidden(&Path::new("metadata").child("name"), detail));
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

/// How a class with the prefix differs from the cluster's own one (upstream: `IsKnownSystemPriorityClass`).
fn wrong_system_class(name: &str, class: &PriorityClass) -> Option<String> {
    let Some((_, value)) = SYSTEM.iter().find(|(known, _)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if class.value != Some(*value) {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    (class.global_default == Some(true)).then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// Cases of upstream's TestValidatePriorityClass.
    #[test]
    fn names_of_the_cluster() {
        let check = |name: &str, value: i32, default: bool, expected: &str| {
            let class =
                json!({"metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": "Never"});
            let (class, mut errors): (PriorityClass, _) = (serde_json::from_value(class).unwrap(), Errors::new());
            class.validate_create(&mut errors);
            assert_eq!(errors.to_string(), expected);
        };
        let reserved = |why: &str| {
            format!(
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: {why}"
            )
        };
        check("a", 1_000_000_000, true, "");
        check("a", 1_000_000_001, false, "value: Forbidden: maximum allowed value of a user defined priority is 1000000000");
        check("system-node-critical", 2_000_001_000, false, "");
        check("system-cluster-critical", 2_000_000_000, false, "");
        check("system-foo", 1, false, &reserved("system-foo is not a known system priority class"));
        let wrong = "value of system-node-critical PriorityClass must be 2000001000";
        check("system-node-critical", 1000, false, &reserved(wrong));
        let wrong = "globalDefault of system-cluster-critical PriorityClass must be false";
        check("system-cluster-critical", 2_000_000_000, true, &reserved(wrong));
    }

    /// Upstream's strategy sets the generation of a new class and never counts on.
    #[test]
    fn the_first_generation() {
        let mut class = json!({"metadata": {"name": "a"}});
        PriorityClass::prepare_create(&mut class);
        assert_eq!((meta::generation(&class), PriorityClass::DEF.generation), (1, false));
    }
}
