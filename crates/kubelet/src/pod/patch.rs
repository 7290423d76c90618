//! The strategic merge patch that brings the API's status of a pod to ours. Pure.

use codec::Encode;
use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use serde_json::{Map, Value, json};

use super::conditions::OWN;

/// Lists that a strategic merge patch would merge by key, where we mean the whole list.
const REPLACED: [&str; 2] = ["podIPs", "hostIPs"];

/// The patch from `old` to `new`; none when they are equal.
pub fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    if old == new {
        return None;
    }
    let (before, after) = (object(old), object(new));
    let mut status = Map::new();
    for key in before.keys().chain(after.keys()) {
        if key == "conditions" || status.contains_key(key) || before.get(key) == after.get(key) {
            continue;
        }
        status.insert(key.clone(), field(key, before.get(key), after.get(key)));
    }
    let conditions = changed_conditions(old, new);
    if !conditions.is_empty() {
        status.insert("conditions".to_owned(), json!(conditions));
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": status}))
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match status.to_tree() {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn field(key: &str, before: Option<&Value>, after: Option<&Value>) -> Value {
    match after {
        None => Value::Null,
        Some(Value::Array(items)) if REPLACED.contains(&key) && before.is_some() => {
            let directive = std::iter::once(json!({"$patch": "replace"}));
            directive.chain(items.iter().cloned()).collect()
        }
        Some(value) => value.clone(),
    }
}

/// Conditions merge by type: only those that change are sent, so that nobody else's is overwritten. What a condition no longer
/// says, such as why the pod was not ready, is taken away.
fn changed_conditions(old: &PodStatus, new: &PodStatus) -> Vec<Value> {
    let before = old.conditions.as_deref().unwrap_or_default();
    let changed = new.conditions.iter().flatten().filter(|condition| !before.contains(condition));
    let patch = |condition: &PodCondition| {
        let mut patch = json!(condition);
        let previous = before.iter().find(|previous| previous.type_ == condition.type_).map(|previous| json!(previous));
        for key in previous.iter().filter_map(Value::as_object).flat_map(Map::keys) {
            if patch.get(key).is_none() {
                patch[key] = Value::Null;
            }
        }
        patch
    };
    // Others take away their own.
    let kept = |condition: &&PodCondition| new.conditions.iter().flatten().any(|new| new.type_ == condition.type_);
    let gone = before.iter().filter(|condition| OWN.contains(&condition.type_.as_str()) && !kept(condition));
    let delete = |condition: &PodCondition| json!({"type": condition.type_, "$patch": "delete"});
    changed.map(patch).chain(gone.map(delete)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(old: Value, new: Value, expected: Option<Value>) {
        let status = |value| serde_json::from_value::<PodStatus>(value).unwrap();
        let patch = patch("u", &status(old), &status(new));
        assert_eq!(patch.map(|patch| patch["status"].clone()), expected);
    }

    #[test]
    fn sends_what_differs() {
        check(json!({"phase": "Pending"}), json!({"phase": "Pending"}), None);
        check(
            json!({"phase": "Pending", "podIP": "a"}),
            json!({"phase": "Running"}),
            Some(json!({"phase": "Running", "podIP": null})),
        );
        let ips = |ip: &str| json!({"podIPs": [{"ip": ip}]});
        check(json!({}), ips("a"), Some(ips("a")));
        check(ips("a"), ips("b"), Some(json!({"podIPs": [{"$patch": "replace"}, {"ip": "b"}]})));
        let conditions =
            |ready: &str| json!({"conditions": [{"type": "x", "status": "True"}, {"type": "Ready", "status": ready}]});
        let changed = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        check(conditions("False"), conditions("True"), Some(changed));
        let unready = json!({"conditions": [{"type": "Ready", "status": "False", "reason": "x", "message": "y"}]});
        let cleared = json!({"conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null}]});
        check(unready, json!({"conditions": [{"type": "Ready", "status": "True"}]}), Some(cleared));
        let resized = json!({"conditions": [{"type": "PodResizePending", "status": "True"}, {"type": "x", "status": "True"}]});
        let gone = json!({"conditions": [{"type": "PodResizePending", "$patch": "delete"}]});
        check(resized, json!({"conditions": []}), Some(gone));
    }
}
