//! Which names the definitions of each group have. A name is looked up, however many others there are.

use std::collections::{HashMap, HashSet};

use apimachinery::meta;
use serde_json::Value;

use crate::util::text;

/// The names that definitions were given.
#[derive(Default)]
pub struct AcceptedNames {
    /// What each definition has.
    held: HashMap<String, HashSet<Name>>,
    /// Who has a name of a group.
    holders: HashMap<Name, HashSet<String>>,
}

/// A name in a group: those of resources and those of kinds do not meet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    group: String,
    is_kind: bool,
    name: String,
}

impl AcceptedNames {
    /// Takes note of what a definition has. Says whether that has changed.
    pub fn set(&mut self, definition: &Value) -> bool {
        let group = text(definition, "/spec/group");
        let accepted = definition.pointer("/status/acceptedNames").unwrap_or(&Value::Null);
        let one = |key: &str| accepted[key].as_str();
        let short = accepted["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let resources = [one("plural"), one("singular")].into_iter().flatten().chain(short).map(|name| (false, name));
        let kinds = [one("kind"), one("listKind")].into_iter().flatten().map(|name| (true, name));
        let name = |(is_kind, name): (bool, &str)| Name { group: group.to_owned(), is_kind, name: name.to_owned() };
        let held: HashSet<Name> = resources.chain(kinds).map(name).collect();
        let definition = meta::name(definition);
        if self.held.get(definition) == Some(&held) {
            return false;
        }
        self.remove(definition);
        for name in &held {
            self.holders.entry(name.clone()).or_default().insert(definition.to_owned());
        }
        self.held.insert(definition.to_owned(), held);
        true
    }

    /// Forgets a definition.
    pub fn remove(&mut self, definition: &str) {
        for name in self.held.remove(definition).unwrap_or_default() {
            if let Some(holders) = self.holders.get_mut(&name) {
                holders.remove(definition);
                if holders.is_empty() {
                    self.holders.remove(&name);
                }
            }
        }
    }

    /// Whether another definition of the group has that name.
    pub(super) fn is_taken(&self, definition: &Value, is_kind: bool, name: &str) -> bool {
        let name = Name { group: text(definition, "/spec/group").to_owned(), is_kind, name: name.to_owned() };
        let own = meta::name(definition);
        self.holders.get(&name).is_some_and(|holders| holders.iter().any(|holder| holder != own))
    }
}
