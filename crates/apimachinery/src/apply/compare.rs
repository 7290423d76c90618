//! What differs between two states of an object, as sets of fields.

use super::set::{Set, node, subtract_recursive};
use super::shape::{Fields, Keys, Ref, Shape, field_element, set_element};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The fields that differ.
#[derive(Debug, Default)]
pub(crate) struct Diff {
    /// Added or with another value.
    pub(crate) changed: Set,
    /// No longer there.
    pub(crate) removed: Set,
}

impl Diff {
    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    /// Leaves out fields that do not count.
    pub(crate) fn without(mut self, reset: &Set) -> Self {
        subtract_recursive(&mut self.changed, reset);
        subtract_recursive(&mut self.removed, reset);
        self
    }
}

/// What differs, as each version of the kind sees it; first that of the request.
#[derive(Debug)]
pub(crate) struct Diffs(pub(crate) Vec<(String, Diff)>);

impl Diffs {
    /// What has changed in the version of the request.
    pub(crate) fn into_own(self) -> Set {
        self.0.into_iter().next().map(|(_, diff)| diff.changed).unwrap_or_default()
    }

    /// What differs in that version; `None` when the object cannot be seen in it.
    pub(crate) fn of(&self, api_version: &str) -> Option<&Diff> {
        self.0.iter().find(|(version, _)| version == api_version).map(|(_, diff)| diff)
    }
}

/// Fields of the object that nobody owns.
pub(crate) fn is_unowned_root(key: &str) -> bool {
    matches!(key, "apiVersion" | "kind")
}

/// Fields of `metadata` that nobody owns.
pub(crate) fn is_unowned_meta(key: &str) -> bool {
    let system = matches!(key, "creationTimestamp" | "uid" | "generation" | "managedFields" | "resourceVersion");
    system || matches!(key, "name" | "namespace" | "selfLink" | "clusterName")
}

/// Compares two objects, apart from the fields that nobody owns.
pub(crate) fn compare(root: Ref<'_>, old: &Value, new: &Value) -> Diff {
    let Shape::Map(fields) = root.shape(new) else { return Diff::default() };
    let mut out = Diff::default();
    for_each_key(old.as_object(), new.as_object(), |key, old, new| {
        // Most writes change one part of the object. The others are not walked through: here alone, so that nothing is compared again at
        // each depth.
        if is_unowned_root(key) || old == new {
            return;
        }
        let ty = fields.get(key);
        let below = match (key, new.or(old).map(|v| ty.shape(v))) {
            ("metadata", Some(Shape::Map(fields))) => {
                map(fields, old.and_then(Value::as_object), new.and_then(Value::as_object), is_unowned_meta)
            }
            _ => walk(ty, old, new),
        };
        out.add(|| field_element(key), below);
    });
    out
}

/// The difference at one place: `None` is none, an empty set is the place itself.
#[derive(Default)]
struct Part {
    changed: Option<Set>,
    removed: Option<Set>,
}

impl Diff {
    fn add(&mut self, element: impl Fn() -> String, part: Part) {
        if let Some(changed) = part.changed {
            self.changed.insert(element(), Value::Object(changed));
        }
        if let Some(removed) = part.removed {
            self.removed.insert(element(), Value::Object(removed));
        }
    }

    fn into_part(self, added: bool, removed: bool) -> Part {
        Part { changed: node(self.changed, added), removed: node(self.removed, removed) }
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Part {
    let here = Some(Set::new());
    match (old, new) {
        (Some(_), None) => Part { changed: None, removed: here },
        (old, new) if old == new => Part::default(),
        _ => Part { changed: here, removed: None },
    }
}

fn walk(ty: Ref<'_>, old: Option<&Value>, new: Option<&Value>) -> Part {
    let Some(sample) = new.filter(|v| !v.is_null()).or(old) else { return leaf(old, new) };
    let objects = (old.and_then(Value::as_object), new.and_then(Value::as_object));
    let lists = (old.and_then(Value::as_array), new.and_then(Value::as_array));
    // Empty and null are told apart as leaves.
    let empty_map = objects.0.is_none_or(Map::is_empty) && objects.1.is_none_or(Map::is_empty);
    let empty_list = lists.0.is_none_or(Vec::is_empty) && lists.1.is_none_or(Vec::is_empty);
    let below = match ty.shape(sample) {
        Shape::Map(fields) if !empty_map => map_below(fields, objects.0, objects.1, |_| false),
        Shape::Set if !empty_list => items(lists, |item| Some(set_element(item)), Ref::Scalar),
        Shape::List(keys, item) if !empty_list => keyed(keys, lists, item),
        _ => return leaf(old, new),
    };
    below.into_part(old.is_none(), new.is_none())
}

fn keyed(keys: Keys<'_>, lists: (Option<&Vec<Value>>, Option<&Vec<Value>>), item: Ref<'_>) -> Diff {
    items(lists, |value| keys.element(value), item)
}

fn map(fields: Fields<'_>, old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>, skip: fn(&str) -> bool) -> Part {
    map_below(fields, old, new, skip).into_part(false, false)
}

fn map_below(
    fields: Fields<'_>,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    skip: fn(&str) -> bool,
) -> Diff {
    let mut out = Diff::default();
    for_each_key(old, new, |key, old, new| {
        if !skip(key) {
            out.add(|| field_element(key), walk(fields.get(key), old, new));
        }
    });
    out
}

fn for_each_key<'v>(
    old: Option<&'v Map<String, Value>>,
    new: Option<&'v Map<String, Value>>,
    mut f: impl FnMut(&str, Option<&'v Value>, Option<&'v Value>),
) {
    for (key, value) in new.into_iter().flatten() {
        f(key, old.and_then(|m| m.get(key)), Some(value));
    }
    for (key, value) in old.into_iter().flatten() {
        if new.is_none_or(|m| !m.contains_key(key)) {
            f(key, Some(value), None);
        }
    }
}

/// Positions of the items of a list by their path elements.
fn index(list: &[Value], element: &impl Fn(&Value) -> Option<String>) -> HashMap<String, Vec<usize>> {
    let mut out: HashMap<String, Vec<usize>> = HashMap::with_capacity(list.len());
    for (position, item) in list.iter().enumerate() {
        if let Some(key) = element(item) {
            out.entry(key).or_default().push(position);
        }
    }
    out
}

fn items(
    (old, new): (Option<&Vec<Value>>, Option<&Vec<Value>>),
    element: impl Fn(&Value) -> Option<String>,
    ty: Ref<'_>,
) -> Diff {
    let (old, new) = (old.map_or(&[][..], |v| v), new.map_or(&[][..], |v| v));
    if old == new {
        return Diff::default();
    }
    let mut out = Diff::default();
    let mut before = index(old, &element);
    let pick = |list: &'_ [Value], at: &[usize]| at.iter().map(|i| list[*i].clone()).collect::<Vec<_>>();
    for (key, at) in index(new, &element) {
        let earlier = before.remove(&key).unwrap_or_default();
        let here = Some(Set::new());
        let part = match (earlier.as_slice(), at.as_slice()) {
            ([], [one]) => walk(ty, None, Some(&new[*one])),
            ([was], [is]) => walk(ty, Some(&old[*was]), Some(&new[*is])),
            // Duplicates cannot be compared one by one: they are one thing, which comes and goes as a whole.
            ([], _) => Part { changed: here, removed: None },
            ([was], _) => Part { changed: here, ..walk(ty, Some(&old[*was]), None) },
            (_, [one]) => Part { removed: here, ..walk(ty, None, Some(&new[*one])) },
            (was, is) if pick(old, was) == pick(new, is) => Part::default(),
            _ => Part { changed: here, removed: None },
        };
        out.add(|| key.clone(), part);
    }
    for (key, at) in before {
        let part = match at.as_slice() {
            [one] => walk(ty, Some(&old[*one]), None),
            _ => Part { changed: None, removed: Some(Set::new()) },
        };
        out.add(|| key.clone(), part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As many elements as the largest body holds: whatever looks for each in a list of all does not end within the test's time.
    #[test]
    fn large_lists() {
        let schema = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}});
        let list = |numbers: &mut dyn Iterator<Item = u32>| Value::from(numbers.collect::<Vec<_>>());
        let check = |old: Value, new: Value, changed: usize, removed: usize| {
            let part = walk(Ref::Json(&schema), Some(&old), Some(&new));
            assert_eq!((part.changed.map_or(0, |set| set.len()), part.removed.map_or(0, |set| set.len())), (changed, removed));
        };
        const MANY: u32 = 300_000;
        check(list(&mut (0..MANY)), list(&mut (0..MANY).rev()), 0, 0);
        check(list(&mut (0..MANY)), list(&mut (1..=MANY)), 1, 1);
    }
}
