//! The status of a quota. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ::pods::quota::Usage;
use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

type List = BTreeMap<String, ApiQuantity>;

pub(super) fn add(sum: &mut Usage, more: Usage) {
    more.into_iter().for_each(|(name, amount)| *sum.entry(name).or_default() += amount);
}

/// The status where `usage` is taken. What is `unknown` stays as it was, as upstream: also not there, when it was not there.
pub(super) fn status(quota: &ResourceQuota, usage: &Usage, unknown: &BTreeSet<String>) -> ResourceQuotaStatus {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let before = quota.status.as_ref().and_then(|status| status.used.as_ref());
    let used = |name: &String| match unknown.contains(name) {
        true => before.and_then(|used| used.get(name)).cloned(),
        false => Some(ApiQuantity(usage.get(name).copied().unwrap_or(Quantity::ZERO).to_string())),
    };
    let used: List = hard.keys().filter_map(|name| Some((name.clone(), used(name)?))).collect();
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
        let hard = json!({"pods": "5", "requests.cpu": "1", "secrets": "2"});
        let status_before = json!({"used": {"pods": "1", "secrets": "1"}});
        let quota: ResourceQuota = object(json!({"spec": {"hard": hard}, "status": status_before}));
        let usage = Usage::from([
            ("pods".to_owned(), Quantity::parse("3").unwrap_or_default()),
            ("requests.cpu".to_owned(), Quantity::parse("1500m").unwrap_or_default()),
            ("services".to_owned(), Quantity::parse("9").unwrap_or_default()),
        ]);
        let check = |unknown: &[&str], expected: Value| {
            let unknown = unknown.iter().map(|name| (*name).to_owned()).collect();
            let shown = serde_json::to_value(status(&quota, &usage, &unknown)).unwrap_or_default();
            assert_eq!((&shown["used"], &shown["hard"]), (&expected, &hard), "{unknown:?}");
        };
        check(&[], json!({"pods": "3", "requests.cpu": "1500m", "secrets": "0"}));
        check(&["secrets", "services"], json!({"pods": "3", "requests.cpu": "1500m", "secrets": "1"}));
        check(&["requests.cpu"], json!({"pods": "3", "secrets": "0"}));
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
