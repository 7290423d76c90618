//! Shares of devices that several claims may have at once (consumable capacity, KEP-5075): what a share takes of the device's capacity. Pure.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;
use k8s_openapi::api::resource::v1::{CapacityRequestPolicyRange, Device, DeviceCapacity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// Amounts by the name of a capacity.
pub(super) type Amounts = BTreeMap<String, Quantity>;

/// How a request has a device.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// As an administrator, who takes nothing from others.
    Watched,
    /// Alone.
    Whole,
    /// A share that takes this of its capacity.
    Share(Amounts),
}

/// Whether several claims may have a device.
pub(super) fn is_shared(device: &Device) -> bool {
    device.allow_multiple_allocations == Some(true)
}

pub(super) fn amount(text: &ApiQuantity) -> Quantity {
    Quantity::parse(&text.0).unwrap_or_default()
}

/// What a request that asks for `asked` takes of each capacity of a device, by the device's names. None if the device does not have that, or its
/// policy has no such amount.
pub(super) fn consumed(asked: &Amounts, driver: &str, device: &Device) -> Option<Amounts> {
    let mut by_name: BTreeMap<&str, Quantity> = BTreeMap::new();
    for (name, amount) in asked {
        if by_name.insert(published(name, driver, device)?, *amount).is_some() {
            return None;
        }
    }
    let capacities = device.capacity.iter().flatten();
    capacities.map(|(name, capacity)| Some((name.clone(), share_of(by_name.get(name.as_str()).copied(), capacity)?))).collect()
}

/// The name under which a device publishes a capacity: the domain of names without one is the driver.
fn published<'a>(asked: &str, driver: &str, device: &'a Device) -> Option<&'a str> {
    let has = |name: &str| device.capacity.as_ref()?.get_key_value(name).map(|(name, _)| name.as_str());
    has(asked).or_else(|| match asked.split_once('/') {
        Some((domain, id)) if domain == driver => has(id),
        Some(_) => None,
        None => has(&format!("{driver}/{asked}")),
    })
}

fn share_of(asked: Option<Quantity>, capacity: &DeviceCapacity) -> Option<Quantity> {
    let (all, policy) = (amount(&capacity.value), capacity.request_policy.as_ref());
    let taken = match (asked, policy) {
        (None, policy) => policy.and_then(|policy| policy.default.as_ref()).map_or(all, amount),
        (Some(asked), None) => asked,
        (Some(asked), Some(policy)) => match (&policy.valid_range, policy.valid_values.as_deref()) {
            (Some(range), _) => in_range(asked, range)?,
            (None, Some(values)) if !values.is_empty() => values.iter().map(amount).find(|value| *value >= asked)?,
            _ => asked,
        },
    };
    (taken <= all && taken.signum() >= 0).then_some(taken)
}

/// The least amount of a range that is enough: from `min`, in steps of whole units, up to `max`.
fn in_range(asked: Quantity, range: &CapacityRequestPolicyRange) -> Option<Quantity> {
    let min = amount(&range.min);
    let taken = match &range.step {
        _ if asked < min => min,
        None => asked,
        Some(step) => {
            let (step, format) = (amount(step).as_i64(), amount(step).format());
            let above = asked.as_i64().checked_sub(min.as_i64())?;
            let steps = above.checked_div(step)?.checked_add(i64::from(above.checked_rem(step)? != 0))?;
            Quantity::from_units(steps.checked_mul(step)?.checked_add(min.as_i64())?, format)
        }
    };
    range.max.as_ref().is_none_or(|max| taken <= amount(max)).then_some(taken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    /// KEP-5075: "the requested amount is rounded up to the next valid value"; what is not asked for is the default, or all that there is.
    #[test]
    fn amounts_follow_the_policy() {
        let check = |policy: Value, asked: Option<&str>, expected: Option<&str>| {
            let device = json!({"name": "x", "capacity": {"memory": {"value": "40Gi", "requestPolicy": policy}}});
            let device: Device = serde_json::from_value(device).unwrap();
            let asked: Amounts = asked.map(|text| ("memory".to_owned(), Quantity::parse(text).unwrap())).into_iter().collect();
            let found = consumed(&asked, "d", &device).map(|amounts| amounts["memory"]);
            assert_eq!(found, expected.map(|text| Quantity::parse(text).unwrap()), "{policy} {asked:?}");
        };
        check(json!(null), None, Some("40Gi"));
        check(json!(null), Some("3Gi"), Some("3Gi"));
        check(json!(null), Some("41Gi"), None);
        let values = json!({"default": "5Gi", "validValues": ["5Gi", "10Gi", "20Gi"]});
        check(values.clone(), None, Some("5Gi"));
        check(values.clone(), Some("6Gi"), Some("10Gi"));
        check(values, Some("21Gi"), None);
        let range = json!({"default": "2Gi", "validRange": {"min": "1Gi", "max": "8Gi", "step": "2Gi"}});
        check(range.clone(), None, Some("2Gi"));
        check(range.clone(), Some("1"), Some("1Gi"));
        check(range.clone(), Some("2Gi"), Some("3Gi"));
        check(range.clone(), Some("3Gi"), Some("3Gi"));
        check(range.clone(), Some("8Gi"), None);
        check(range, Some("9223372036854775807"), None);
    }

    /// The domain of a name without one is the driver, for requests as for devices.
    #[test]
    fn names_have_a_domain() {
        let check = |published: &str, asked: &str, expected: bool| {
            let device: Device = serde_json::from_value(json!({"name": "x", "capacity": {published: {"value": "4"}}})).unwrap();
            let asked = Amounts::from([(asked.to_owned(), Quantity::parse("1").unwrap())]);
            assert_eq!(consumed(&asked, "d", &device).is_some(), expected, "{published} {asked:?}");
        };
        check("memory", "memory", true);
        check("memory", "d/memory", true);
        check("d/memory", "memory", true);
        check("memory", "e/memory", false);
        check("e/memory", "memory", false);
    }
}
