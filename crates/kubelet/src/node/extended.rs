//! Extended resources of the node. Who brings one advertises it in the node's capacity, by a patch of its status; the kubelet leaves that
//! alone and says that pods may take all of it.

use k8s_openapi::api::core::v1::NodeStatus;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use crate::units::ResourceList;

/// Whether others than Kubernetes name the resource.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

fn of(list: Option<&ResourceList>) -> impl Iterator<Item = (&String, &Quantity)> {
    list.into_iter().flatten().filter(|(name, _)| is_extended(name))
}

/// Takes over into a new status what the one before advertises.
pub(super) fn take_over(status: &mut NodeStatus, old: &NodeStatus) {
    for (name, quantity) in of(old.capacity.as_ref()) {
        for list in [&mut status.capacity, &mut status.allocatable] {
            list.get_or_insert_default().insert(name.clone(), quantity.clone());
        }
    }
}

/// Whether something else is advertised than what we know, or than what pods may take.
pub(super) fn is_overruled(known: &NodeStatus, found: &NodeStatus) -> bool {
    let advertised = || of(found.capacity.as_ref());
    !advertised().eq(of(found.allocatable.as_ref())) || !advertised().eq(of(known.capacity.as_ref()))
}

/// Makes the patch that brings the status from `old` to `new` leave the capacity of extended resources to others, and take away what is
/// advertised no more.
pub(super) fn confine(patch: &mut Value, old: &NodeStatus, new: &NodeStatus) {
    if let Some(capacity) = patch.get_mut("capacity").and_then(Value::as_object_mut) {
        capacity.retain(|name, _| !is_extended(name));
    }
    let is_left = |name: &String| new.allocatable.as_ref().is_some_and(|list| list.contains_key(name));
    for (name, _) in of(old.allocatable.as_ref()).filter(|(name, _)| !is_left(name)) {
        patch["allocatable"][name] = json!(null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(capacity: Value, allocatable: Value) -> NodeStatus {
        serde_json::from_value(json!({"capacity": capacity, "allocatable": allocatable})).unwrap()
    }

    /// What the API has; then the kubelet's own next status, and what of the two lists it sends.
    #[track_caller]
    fn check(found: &NodeStatus, stale: bool, expected: Value) {
        assert_eq!(is_overruled(found, found), stale);
        let mut new = status(json!({"cpu": "2"}), json!({"cpu": "1"}));
        take_over(&mut new, found);
        let mut patch = serde_json::to_value(&new).unwrap();
        confine(&mut patch, found, &new);
        assert_eq!(patch, expected);
        assert!(!is_overruled(&new, &new));
    }

    #[test]
    fn what_is_advertised_may_be_taken() {
        let foo = |allocatable: Value| status(json!({"cpu": "2", "example.com/foo": "3"}), allocatable);
        let all = json!({"capacity": {"cpu": "2"}, "allocatable": {"cpu": "1", "example.com/foo": "3"}});
        check(&foo(json!({"cpu": "1"})), true, all.clone());
        check(&foo(json!({"cpu": "1", "example.com/foo": "5"})), true, all.clone());
        check(&foo(json!({"cpu": "1", "example.com/foo": "3"})), false, all);
        let known = status(json!({"cpu": "2"}), json!({"cpu": "1"}));
        assert!(is_overruled(&known, &foo(json!({"cpu": "1", "example.com/foo": "3"}))), "others have written both");
        let none = json!({"capacity": {"cpu": "2"}, "allocatable": {"cpu": "1"}});
        check(&status(json!({"cpu": "2"}), json!({"cpu": "1"})), false, none.clone());
        let mut gone = none;
        gone["allocatable"]["example.com/foo"] = json!(null);
        check(&status(json!({"cpu": "2"}), json!({"cpu": "1", "example.com/foo": "3"})), true, gone);
    }

    #[test]
    fn names() {
        for (name, extended) in [
            ("cpu", false),
            ("hugepages-2Mi", false),
            ("example.com/foo", true),
            ("scheduling.k8s.io/foo", true),
            ("kubernetes.io/batch-cpu", false),
            ("requests.example.com/foo", false),
        ] {
            assert_eq!(is_extended(name), extended, "{name}");
        }
    }
}
