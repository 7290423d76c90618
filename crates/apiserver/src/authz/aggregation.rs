//! ClusterRoles, and what aggregated ones allow: the rules of those that they select, whatever they store.

use std::collections::{BTreeMap, HashSet};

use apimachinery::labels::{Labels, Selector};
use apimachinery::meta;
use indexmap::IndexSet;
use serde_json::Value;

use super::Rule;
use super::rules::Rules;

/// A ClusterRole, compiled.
struct ClusterRole {
    labels: Vec<(Box<str>, Box<str>)>,
    /// Those that it selects, where it is an aggregated one.
    selectors: Option<Vec<Selector>>,
    /// As they are stored.
    stored: Rules,
    /// What it allows.
    rules: Rules,
}

impl Labels for ClusterRole {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| **label == *key).map(|(_, value)| &**value)
    }
}

impl ClusterRole {
    fn of(role: &Value) -> Self {
        let labels = meta::labels(role).into_iter().flatten();
        let stored: Rules = Rule::read_all(role).into();
        Self {
            labels: labels.map(|(key, value)| (key.as_str().into(), value.as_str().unwrap_or_default().into())).collect(),
            selectors: selectors(role),
            rules: stored.clone(),
            stored,
        }
    }
}

fn selectors(role: &Value) -> Option<Vec<Selector>> {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors")?.as_array()?;
    Some(selectors.iter().filter_map(|selector| Selector::from_value(selector).ok()).collect())
}

/// All of them. After changes, [`ClusterRoles::settle`] brings those that aggregate up to date.
#[derive(Default)]
pub(super) struct ClusterRoles {
    named: BTreeMap<Box<str>, ClusterRole>,
    /// Of those that aggregate.
    aggregated: HashSet<Box<str>>,
    /// A change concerns some of these.
    is_stale: bool,
}

impl ClusterRoles {
    /// What a role allows.
    pub(super) fn rules(&self, name: &str) -> Option<&Rules> {
        self.named.get(name).map(|role| &role.rules)
    }

    /// The role of that name is this one from now on, or none.
    pub(super) fn put(&mut self, name: &str, role: Option<&Value>) {
        let new = role.map(ClusterRole::of);
        if new.as_ref().is_some_and(|role| role.selectors.is_some()) {
            self.aggregated.insert(name.into());
            self.is_stale = true;
        } else {
            self.aggregated.remove(name);
        }
        self.is_stale |= new.as_ref().is_some_and(|role| self.is_selected(role));
        let old = match new {
            Some(role) => self.named.insert(name.into(), role),
            None => self.named.remove(name),
        };
        self.is_stale |= old.is_some_and(|role| self.is_selected(&role));
    }

    fn is_selected(&self, role: &ClusterRole) -> bool {
        let all = self.aggregated.iter().filter_map(|name| self.named.get(name)?.selectors.as_deref());
        all.flatten().any(|selector| selector.matches(role))
    }

    /// Brings the rules of those that aggregate up to date.
    pub(super) fn settle(&mut self) {
        if !std::mem::take(&mut self.is_stale) {
            return;
        }
        let rules: Vec<_> = self.aggregated.iter().filter_map(|name| Some((name.clone(), self.aggregate(name)?))).collect();
        for (name, rules) in rules {
            if let Some(role) = self.named.get_mut(&name)
                && *role.rules != *rules
            {
                role.rules = rules.into();
            }
        }
    }

    /// Those that store other rules than they aggregate, and these.
    pub(super) fn unwritten(&self) -> Vec<(String, Rules)> {
        let all = self.aggregated.iter().filter_map(|name| Some((name, self.named.get(name)?)));
        all.filter(|(_, role)| role.stored != role.rules).map(|(name, role)| (name.to_string(), role.rules.clone())).collect()
    }

    /// The rules of an aggregated role; none when it is not one. Those that it selects may aggregate themselves, as edit is part of
    /// admin, and may select each other: every role counts once.
    fn aggregate(&self, name: &str) -> Option<Vec<Rule>> {
        let selectors = self.named.get(name)?.selectors.as_ref()?;
        let mut rules: IndexSet<&Rule> = IndexSet::new();
        self.gather(selectors, &mut HashSet::from([name]), &mut rules);
        Some(rules.into_iter().cloned().collect())
    }

    /// Adds the rules of the selected roles in the order of their names. It goes only as deep as roles were not seen before.
    fn gather<'a>(&'a self, selectors: &[Selector], seen: &mut HashSet<&'a str>, rules: &mut IndexSet<&'a Rule>) {
        let is_selected = |role: &ClusterRole| selectors.iter().any(|selector| selector.matches(role));
        let selected = self.named.iter().filter(|(_, role)| is_selected(role));
        let selected: Vec<&ClusterRole> = selected.filter(|(name, _)| seen.insert(name)).map(|(_, role)| role).collect();
        for role in selected {
            match &role.selectors {
                Some(nested) => self.gather(nested, seen, rules),
                None => rules.extend(role.stored.iter()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(name: &str, label: &str, selected: Option<&str>, resource: &str) -> Value {
        let mut role = json!({"metadata": {"name": name, "labels": {label: "true"}}, "rules": []});
        if !resource.is_empty() {
            role["rules"] = json!([{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]);
        }
        if let Some(selected) = selected {
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {selected: "true"}}]});
        }
        role
    }

    fn put(roles: &mut ClusterRoles, role: &Value) {
        roles.put(meta::name(role), Some(role));
    }

    fn check(roles: &ClusterRoles, name: &str, expected: &[&str]) {
        let expected: Vec<Rule> = expected.iter().map(|resource| Rule::of("get", "core", resource)).collect();
        assert_eq!(roles.rules(name).map(|rules| rules.to_vec()), Some(expected), "{name}");
    }

    #[test]
    fn roles_that_select_each_other() {
        let mut roles = ClusterRoles::default();
        (0..30).for_each(|n| put(&mut roles, &role(&format!("r{n}"), "all", Some("all"), "")));
        put(&mut roles, &role("plain", "all", None, "pods"));
        roles.settle();
        (0..30).for_each(|n| check(&roles, &format!("r{n}"), &["pods"]));
        check(&roles, "plain", &["pods"]);
    }

    #[test]
    fn only_what_is_selected_concerns_those_that_aggregate() {
        let mut roles = ClusterRoles::default();
        put(&mut roles, &role("outer", "x", Some("inner"), ""));
        put(&mut roles, &role("inner", "inner", Some("part"), ""));
        put(&mut roles, &role("a", "part", None, "pods"));
        roles.settle();
        check(&roles, "outer", &["pods"]);
        assert_eq!(roles.unwritten().len(), 2);
        let is_stale = |roles: &mut ClusterRoles, change: &Value| {
            put(roles, change);
            let is_stale = roles.is_stale;
            roles.settle();
            is_stale
        };
        assert!(!is_stale(&mut roles, &role("other", "y", None, "secrets")));
        assert!(is_stale(&mut roles, &role("b", "part", None, "nodes")));
        check(&roles, "outer", &["pods", "nodes"]);
        // It is selected no more; then one goes.
        assert!(is_stale(&mut roles, &role("b", "y", None, "nodes")));
        check(&roles, "outer", &["pods"]);
        roles.put("a", None);
        roles.settle();
        check(&roles, "outer", &[]);
        // What stores the same rules needs no writing; what aggregates no more has its own.
        assert!(roles.unwritten().is_empty());
        put(&mut roles, &role("outer", "x", None, "services"));
        roles.settle();
        check(&roles, "outer", &["services"]);
    }
}
