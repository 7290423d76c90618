//! Taints and tolerations.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match text(&toleration.operator).as_str() {
        "Exists" => true,
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        operator @ ("Gt" | "Lt") => match (text(&taint.value).parse::<i64>(), text(&toleration.value).parse::<i64>()) {
            (Ok(taint), Ok(own)) => (operator == "Gt" && taint > own) || (operator == "Lt" && taint < own),
            _ => false,
        },
        _ => false,
    }
}
