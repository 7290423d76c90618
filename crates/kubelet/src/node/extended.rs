//! Extended resources of the node. Device plugins bring some, of which the kubelet says how many there are. Who brings another advertises it in
//! the node's capacity, by a patch of its status; the kubelet leaves that alone and says that pods may take all of it.

use k8s_openapi::api::core::v1::NodeStatus;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use pods::resources::is_extended;
use serde_json::{Value, json};

pub(super) use crate::devices::Amounts as Owned;
use crate::units::{ResourceList, quantity};

fn of(list: Option<&ResourceList>) -> impl Iterator<Item = (&String, &Quantity)> {
    list.into_iter().flatten().filter(|(name, _)| is_extended(name))
}

/// Resources that others than device plugins advertise.
fn of_others<'a>(list: Option<&'a ResourceList>, owned: &Owned) -> impl Iterator<Item = (&'a String, &'a Quantity)> {
    of(list).filter(|(name, _)| !owned.contains_key(*name))
}

/// Takes over into a new status what the one before advertises, and what device plugins have.
pub(super) fn take_over(status: &mut NodeStatus, old: &NodeStatus, owned: &Owned) {
    let others = of_others(old.capacity.as_ref(), owned).map(|(name, amount)| (name, amount.clone(), amount.clone()));
    let own = owned.iter().filter_map(|(name, amount)| Some((name, (*amount)?)));
    let own = own.map(|(name, amount)| (name, quantity(amount.capacity), quantity(amount.allocatable)));
    for (name, capacity, allocatable) in others.chain(own) {
        status.capacity.get_or_insert_default().insert(name.clone(), capacity);
        status.allocatable.get_or_insert_default().insert(name.clone(), allocatable);
    }
}

/// Whether something else is advertised than what we know, or than what pods may take.
pub(super) fn is_overruled(known: &NodeStatus, found: &NodeStatus, owned: &Owned) -> bool {
    let advertised = || of_others(found.capacity.as_ref(), owned);
    !advertised().eq(of_others(found.allocatable.as_ref(), owned)) || !advertised().eq(of_others(known.capacity.as_ref(), owned))
}

/// Makes the patch that brings the status from `old` to `new` leave the capacity of extended resources to others, and take away what is
/// advertised no more.
pub(super) fn confine(patch: &mut Value, old: &NodeStatus, new: &NodeStatus, owned: &Owned) {
    if let Some(capacity) = patch.get_mut("capacity").and_then(Value::as_object_mut) {
        capacity.retain(|name, _| !is_extended(name) || owned.contains_key(name));
    }
    for (name, _) in of(old.capacity.as_ref()).filter(|(name, _)| owned.get(*name) == Some(&None)) {
        patch["capacity"][name] = json!(null);
    }
    let is_left = |name: &String| new.allocatable.as_ref().is_some_and(|list| list.contains_key(name));
    for (name, _) in of(old.allocatable.as_ref()).filter(|(name, _)| !is_left(name)) {
        patch["allocatable"][name] = json!(null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Amount;

    fn status(capacity: Value, allocatable: Value) -> NodeStatus {
        serde_json::from_value(json!({"capacity": capacity, "allocatable": allocatable})).unwrap()
    }

    /// What the API has; then the kubelet's own next status, and what of the two lists it sends.
    #[track_caller]
    fn check(found: &NodeStatus, stale: bool, expected: Value) {
        let none = Owned::new();
        assert_eq!(is_overruled(found, found, &none), stale);
        let mut new = status(json!({"cpu": "2"}), json!({"cpu": "1"}));
        take_over(&mut new, found, &none);
        let mut patch = serde_json::to_value(&new).unwrap();
        confine(&mut patch, found, &new, &none);
        assert_eq!(patch, expected);
        assert!(!is_overruled(&new, &new, &none));
    }

    #[test]
    fn what_is_advertised_may_be_taken() {
        let foo = |allocatable: Value| status(json!({"cpu": "2", "example.com/foo": "3"}), allocatable);
        let all = json!({"capacity": {"cpu": "2"}, "allocatable": {"cpu": "1", "example.com/foo": "3"}});
        check(&foo(json!({"cpu": "1"})), true, all.clone());
        check(&foo(json!({"cpu": "1", "example.com/foo": "5"})), true, all.clone());
        check(&foo(json!({"cpu": "1", "example.com/foo": "3"})), false, all);
        let known = status(json!({"cpu": "2"}), json!({"cpu": "1"}));
        assert!(
            is_overruled(&known, &foo(json!({"cpu": "1", "example.com/foo": "3"})), &Owned::new()),
            "others have written both"
        );
        let none = json!({"capacity": {"cpu": "2"}, "allocatable": {"cpu": "1"}});
        check(&status(json!({"cpu": "2"}), json!({"cpu": "1"})), false, none.clone());
        let mut gone = none;
        gone["allocatable"]["example.com/foo"] = json!(null);
        check(&status(json!({"cpu": "2"}), json!({"cpu": "1", "example.com/foo": "3"})), true, gone);
    }

    /// Device plugins, "Device plugin integration with the Node status": capacity and allocatable are what the plugin has, and healthy ones of it.
    #[test]
    fn what_plugins_have_is_said_by_the_kubelet() {
        let owned = Owned::from([("example.com/foo".to_owned(), Some(Amount { capacity: 3, allocatable: 2 }))]);
        let found = status(json!({"example.com/foo": "9", "example.com/bar": "1"}), json!({"example.com/bar": "1"}));
        let mut new = status(json!({"cpu": "2"}), json!({"cpu": "1"}));
        take_over(&mut new, &found, &owned);
        let mut patch = serde_json::to_value(&new).unwrap();
        confine(&mut patch, &found, &new, &owned);
        let allocatable = json!({"cpu": "1", "example.com/foo": "2", "example.com/bar": "1"});
        assert_eq!(patch, json!({"capacity": {"cpu": "2", "example.com/foo": "3"}, "allocatable": allocatable}));
        assert!(!is_overruled(&new, &new, &owned));
    }

    /// What a plugin had that nobody has named for long is shown no more; without that the object would grow with each name.
    #[test]
    fn what_is_forgotten_is_taken_away() {
        let owned = Owned::from([("example.com/foo".to_owned(), None)]);
        let zero = || json!({"example.com/foo": "0", "example.com/bar": "1"});
        let found = status(zero(), zero());
        let mut new = status(json!({"cpu": "2"}), json!({"cpu": "1"}));
        take_over(&mut new, &found, &owned);
        let mut patch = serde_json::to_value(&new).unwrap();
        confine(&mut patch, &found, &new, &owned);
        let allocatable = json!({"cpu": "1", "example.com/foo": null, "example.com/bar": "1"});
        assert_eq!(patch, json!({"capacity": {"cpu": "2", "example.com/foo": null}, "allocatable": allocatable}));
    }
}
