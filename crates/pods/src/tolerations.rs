//! Taints and tolerations, as both the scheduler and the controllers that evict understand them.

use k8s_openapi::api::core::v1::{Taint, Toleration};
use k8s_openapi::api::resource::v1::{DeviceTaint, DeviceToleration};

/// A key, a value and an effect, of a taint or of a toleration; what is not set is empty.
struct Form<'a> {
    key: &'a str,
    value: &'a str,
    effect: &'a str,
}

impl<'a> Form<'a> {
    fn new(key: Option<&'a String>, value: Option<&'a String>, effect: Option<&'a String>) -> Self {
        let text = |field: Option<&'a String>| field.map(String::as_str).unwrap_or_default();
        Self { key: text(key), value: text(value), effect: text(effect) }
    }

    /// Whether a toleration of this form covers `taint`.
    fn covers(&self, operator: &str, taint: &Form<'_>) -> bool {
        if (!self.effect.is_empty() && self.effect != taint.effect) || (!self.key.is_empty() && self.key != taint.key) {
            return false;
        }
        match operator {
            "Exists" => true,
            "" | "Equal" => self.value == taint.value,
            "Gt" | "Lt" => match (taint.value.parse::<i64>(), self.value.parse::<i64>()) {
                (Ok(taint), Ok(own)) => (operator == "Gt" && taint > own) || (operator == "Lt" && taint < own),
                _ => false,
            },
            _ => false,
        }
    }
}

/// Whether a toleration covers a taint of a node.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let form = Form::new(toleration.key.as_ref(), toleration.value.as_ref(), toleration.effect.as_ref());
    let taint = Form::new(Some(&taint.key), taint.value.as_ref(), Some(&taint.effect));
    form.covers(toleration.operator.as_deref().unwrap_or_default(), &taint)
}

/// Whether a toleration of a device request covers a taint of a device (KEP-5055).
pub fn tolerates_device(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let form = Form::new(toleration.key.as_ref(), toleration.value.as_ref(), toleration.effect.as_ref());
    let taint = Form::new(Some(&taint.key), taint.value.as_ref(), Some(&taint.effect));
    form.covers(toleration.operator.as_deref().unwrap_or_default(), &taint)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn check(toleration: Value, expected: bool) {
        let taint = Taint { key: "k".into(), value: Some("5".into()), effect: "NoSchedule".into(), time_added: None };
        assert_eq!(tolerates(&serde_json::from_value(toleration.clone()).unwrap(), &taint), expected, "{toleration}");
    }

    #[test]
    fn covers_by_key_effect_and_value() {
        check(json!({"operator": "Exists"}), true);
        check(json!({"key": "k", "operator": "Exists"}), true);
        check(json!({"key": "other", "operator": "Exists"}), false);
        check(json!({"key": "k", "value": "5"}), true);
        check(json!({"key": "k", "operator": "Equal", "value": "6"}), false);
        check(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false);
        check(json!({"key": "k", "operator": "Gt", "value": "4"}), true);
        check(json!({"key": "k", "operator": "Lt", "value": "4"}), false);
    }
}
