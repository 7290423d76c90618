//! The status of a quota. Pure.

use ::pods::quota::Usage;
use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

type List = std::collections::BTreeMap<String, ApiQuantity>;

pub(super) fn add(sum: &mut Usage, more: Usage) {
    more.into_iter().for_each(|(name, amount)| *sum.entry(name).or_default() += amount);
}

/// The status where `usage` is taken.
pub(super) fn status(quota: &ResourceQuota, usage: &Usage) -> ResourceQuotaStatus {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let used = |name: &String| usage.get(name).copied().unwrap_or(Quantity::ZERO);
    let used: List = hard.keys().map(|name| (name.clone(), ApiQuantity(used(name).to_string()))).collect();
    ResourceQuotaStatus { hard: Some(hard), used: Some(used) }
}

/// How a status changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Less is used than the status says, and nothing more.
    Lower,
    Other,
}

pub(super) fn change(old: Option<&ResourceQuotaStatus>, new: &ResourceQuotaStatus) -> Change {
    let Some(old) = old.filter(|old| same(old.hard.as_ref(), new.hard.as_ref())) else { return Change::Other };
    let mut change = Change::None;
    for (name, amount) in new.used.iter().flatten() {
        let Some(before) = old.used.as_ref().and_then(|used| used.get(name)).and_then(parse) else { return Change::Other };
        let Some(amount) = parse(amount) else { return Change::Other };
        if amount > before {
            return Change::Other;
        }
        if amount < before {
            change = Change::Lower;
        }
    }
    let gone = |name: &String| new.used.as_ref().is_none_or(|used| !used.contains_key(name));
    if old.used.iter().flatten().any(|(name, _)| gone(name)) { Change::Other } else { change }
}

fn parse(amount: &ApiQuantity) -> Option<Quantity> {
    Quantity::parse(&amount.0).ok()
}

fn same(a: Option<&List>, b: Option<&List>) -> bool {
    let parsed = |list: Option<&List>| -> Vec<(String, Option<Quantity>)> {
        list.into_iter().flatten().map(|(name, amount)| (name.clone(), parse(amount))).collect()
    };
    parsed(a) == parsed(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;
    use serde_json::{Value, json};

    #[test]
    fn what_is_limited_is_shown() {
        let quota: ResourceQuota = object(json!({"spec": {"hard": {"pods": "5", "requests.cpu": "1", "secrets": "2"}}}));
        let usage = Usage::from([
            ("pods".to_owned(), Quantity::parse("3").unwrap_or_default()),
            ("requests.cpu".to_owned(), Quantity::parse("1500m").unwrap_or_default()),
            ("services".to_owned(), Quantity::parse("9").unwrap_or_default()),
        ]);
        let shown = serde_json::to_value(status(&quota, &usage)).unwrap_or_default();
        assert_eq!(shown["used"], json!({"pods": "3", "requests.cpu": "1500m", "secrets": "0"}));
        assert_eq!(shown["hard"], json!({"pods": "5", "requests.cpu": "1", "secrets": "2"}));
    }

    #[test]
    fn changes() {
        let check = |old: Value, new: Value, expected: Change| {
            let old: Option<ResourceQuotaStatus> = object(old);
            assert_eq!(change(old.as_ref(), &object(new)), expected);
        };
        let status = |hard: &str, used: &str| json!({"hard": {"pods": hard}, "used": {"pods": used}});
        check(Value::Null, status("1", "0"), Change::Other);
        check(status("1000m", "1"), status("1", "1000m"), Change::None);
        check(status("2", "1"), status("3", "1"), Change::Other);
        check(status("2", "1"), status("2", "2"), Change::Other);
        check(status("2", "2"), status("2", "1"), Change::Lower);
        check(json!({"hard": {"pods": "2"}}), status("2", "0"), Change::Other);
    }
}
