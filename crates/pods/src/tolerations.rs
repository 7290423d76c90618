//! Taints and tolerations, as both the scheduler and the controller that evicts understand them.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    fn text(field: &Option<String>) -> &str {
        field.as_deref().unwrap_or_default()
    }
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match text(&toleration.operator) {
        "Exists" => true,
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        operator @ ("Gt" | "Lt") => match (text(&taint.value).parse::<i64>(), text(&toleration.value).parse::<i64>()) {
            (Ok(taint), Ok(own)) => (operator == "Gt" && taint > own) || (operator == "Lt" && taint < own),
            _ => false,
        },
        _ => false,
    }
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
