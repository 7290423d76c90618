//! Sets of field paths, kept in the form in which they are stored: `FieldsV1`.
//!
//! A set is a JSON object from path elements (`f:name`, `k:{...}`, `v:...`, `i:0`) to objects. An empty object is a path that is in
//! the set; an object with `.` is one that is in the set and has others below; any other object only leads to those below. Working on
//! the stored form saves a conversion in either direction on every write.

use serde_json::{Map, Value};

/// A set, or what lies below a path element.
pub(crate) type Set = Map<String, Value>;

/// Marks a node whose own path is in the set, beside paths below it.
pub(crate) const SELF: &str = ".";

/// Whether the path that leads to this node is in the set.
pub(crate) fn is_member(node: &Set) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// The path elements below a node.
pub(crate) fn children(node: &Set) -> impl Iterator<Item = (&str, &Set)> {
    node.iter().filter(|(k, _)| *k != SELF).filter_map(|(k, v)| Some((k.as_str(), v.as_object()?)))
}

/// Makes a node of what lies below it; `None` when nothing is left.
pub(crate) fn node(mut below: Set, member: bool) -> Option<Set> {
    if below.is_empty() {
        return member.then_some(below);
    }
    if member {
        below.insert(SELF.to_owned(), Value::Object(Map::new()));
    }
    Some(below)
}

/// As [`node`], of a map that may hold a self mark already.
fn renode(mut node_: Set, member: bool) -> Option<Set> {
    if !node_.is_empty() {
        node_.remove(SELF);
    }
    node(node_, member)
}

/// Adds all paths of `other`.
pub(crate) fn union(set: &mut Set, other: &Set) {
    for (key, theirs) in children(other) {
        match set.get_mut(key) {
            Some(Value::Object(ours)) => {
                let member = is_member(ours) || is_member(theirs);
                let mut below = std::mem::take(ours);
                below.remove(SELF);
                union(&mut below, theirs);
                *ours = node(below, member).unwrap_or_default();
            }
            _ => drop(set.insert(key.to_owned(), Value::Object(theirs.clone()))),
        }
    }
}

/// Removes the paths of `other`, but not what lies below them.
pub(crate) fn subtract(set: &mut Set, other: &Set) {
    remove_where(set, other, false);
}

/// Removes the paths of `other` and everything below them.
pub(crate) fn subtract_recursive(set: &mut Set, other: &Set) {
    remove_where(set, other, true);
}

/// Looks for the elements of the smaller one in the other: many small sets against a large one cost what the small ones cost together.
fn remove_where(set: &mut Set, other: &Set, recursive: bool) {
    if other.len() <= set.len() {
        children(other).for_each(|(key, theirs)| remove_below(set, key, theirs, recursive));
        return;
    }
    let common: Vec<String> = set.keys().filter(|key| other.contains_key(*key)).cloned().collect();
    for key in common.iter().filter(|key| *key != SELF) {
        if let Some(Value::Object(theirs)) = other.get(key) {
            remove_below(set, key, theirs, recursive);
        }
    }
}

fn remove_below(set: &mut Set, key: &str, theirs: &Set, recursive: bool) {
    let Some(Value::Object(ours)) = set.get_mut(key) else { return };
    let removed = is_member(theirs);
    let member = is_member(ours) && !removed;
    let mut below = std::mem::take(ours);
    if removed && recursive {
        below.clear();
    } else if !below.is_empty() {
        remove_where(&mut below, theirs, recursive);
    }
    match renode(below, member) {
        Some(kept) => *ours = kept,
        None => drop(set.remove(key)),
    }
}

/// The paths that are in both.
pub(crate) fn intersection(a: &Set, b: &Set) -> Set {
    let mut out = Set::new();
    let (a, b) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    for (key, ours) in children(a) {
        let Some(Value::Object(theirs)) = b.get(key) else { continue };
        if let Some(both) = node(intersection(ours, theirs), is_member(ours) && is_member(theirs)) {
            out.insert(key.to_owned(), Value::Object(both));
        }
    }
    out
}

/// A set of plain field paths, such as `[["metadata", "labels"], ["status"]]`.
pub(crate) fn of_fields(paths: &[&[&str]]) -> Set {
    let mut out = Set::new();
    for path in paths {
        let mut single = Set::new();
        for name in path.iter().rev() {
            single = Set::from_iter([(format!("f:{name}"), Value::Object(single))]);
        }
        union(&mut out, &single);
    }
    out
}

/// Whether every key of a stored set is a path element.
pub(crate) fn is_valid(set: &Set) -> bool {
    let valid_key = |k: &str| k == SELF || ["f:", "k:", "v:", "i:"].iter().any(|p| k.starts_with(p));
    set.iter().all(|(k, v)| valid_key(k) && v.as_object().is_some_and(is_valid))
}

/// The paths as text (`.spec.containers[name="x"].image`), at each level those that end there first. Only the first ones, `limit`
/// bytes but for the last: a long key with many paths below would stand in each of them.
pub(crate) fn paths(set: &Set, limit: usize) -> Vec<String> {
    let mut out = Paths { all: Vec::new(), left: limit };
    out.collect(set, &mut String::new());
    out.all
}

struct Paths {
    all: Vec<String>,
    left: usize,
}

impl Paths {
    fn collect(&mut self, set: &Set, prefix: &mut String) {
        for (key, _) in children(set).filter(|(_, n)| is_member(n)) {
            if self.left == 0 {
                return;
            }
            let path = format!("{prefix}{}", element_text(key));
            self.left = self.left.saturating_sub(path.len());
            self.all.push(path);
        }
        for (key, below) in children(set).filter(|(_, n)| !n.is_empty()) {
            if self.left == 0 {
                return;
            }
            let length = prefix.len();
            prefix.push_str(&element_text(key));
            self.collect(below, prefix);
            prefix.truncate(length);
        }
    }
}

/// A path element as upstream prints it: `.name`, `[name="x",port=80]`, `[="x"]`, `[0]`.
pub(crate) fn element_text(key: &str) -> String {
    let scalar = |v: &Value| v.as_str().map_or_else(|| v.to_string(), crate::text::quote);
    match key.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", json)) => {
            let keys: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={}", scalar(v))).collect();
            format!("[{}]", pairs.join(","))
        }
        Some(("v", json)) => format!("[={}]", serde_json::from_str(json).map_or_else(|_| json.to_owned(), |v| scalar(&v))),
        Some((_, rest)) => format!("[{rest}]"),
        None => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn set(value: Value) -> Set {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn operations() {
        let check = |op: fn(&mut Set, &Set), a: Value, b: Value, expected: Value| {
            let mut got = set(a);
            op(&mut got, &set(b));
            assert_eq!(Value::Object(got), expected);
        };
        check(union, json!({"f:a": {}}), json!({"f:a": {"f:b": {}}}), json!({"f:a": {".": {}, "f:b": {}}}));
        check(union, json!({"f:a": {"f:c": {}}}), json!({"f:a": {"f:b": {}}}), json!({"f:a": {"f:b": {}, "f:c": {}}}));
        check(subtract, json!({"f:a": {".": {}, "f:b": {}}}), json!({"f:a": {}}), json!({"f:a": {"f:b": {}}}));
        check(subtract, json!({"f:a": {".": {}, "f:b": {}}}), json!({"f:a": {"f:b": {}}}), json!({"f:a": {}}));
        check(subtract, json!({"f:a": {"f:b": {}}}), json!({"f:a": {"f:b": {}}}), json!({}));
        check(subtract, json!({"f:a": {}}), json!({"f:a": {"f:b": {}}}), json!({"f:a": {}}));
        check(subtract_recursive, json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}), json!({"f:a": {}}), json!({"f:c": {}}));
        check(
            subtract_recursive,
            json!({"f:a": {"f:b": {}, "f:c": {}}}),
            json!({"f:a": {"f:b": {}}}),
            json!({"f:a": {"f:c": {}}}),
        );
    }

    #[test]
    fn texts() {
        let s = json!({"f:spec": {"f:replicas": {}, "f:containers": {"k:{\"name\":\"x\",\"port\":80}": {".": {}, "f:image": {}}}}, "f:f": {"v:\"a\"": {}, "i:0": {}}});
        let expected = [
            ".f[0]",
            r#".f[="a"]"#,
            r#".spec.replicas"#,
            r#".spec.containers[name="x",port=80]"#,
            r#".spec.containers[name="x",port=80].image"#,
        ];
        assert_eq!(paths(&set(s.clone()), usize::MAX), expected);
        assert_eq!(paths(&set(s), 10), expected[..2]);
        assert_eq!(
            of_fields(&[&["metadata", "labels"], &["status"]]),
            set(json!({"f:metadata": {"f:labels": {}}, "f:status": {}}))
        );
    }

    /// Random sets in canonical form.
    fn sets() -> impl Strategy<Value = Set> {
        let leaf = Just(Set::new());
        let tree = leaf.prop_recursive(3, 12, 3, |inner| {
            (proptest::collection::btree_map("f:[a-c]", inner, 1..3), any::<bool>())
                .prop_map(|(m, member)| node(m.into_iter().map(|(k, v)| (k, Value::Object(v))).collect(), member).unwrap())
        });
        tree.prop_map(|s| renode(s, false).unwrap_or_default())
    }

    fn minus(a: &Set, b: &Set) -> Set {
        let mut out = a.clone();
        subtract(&mut out, b);
        out
    }

    proptest! {
        #[test]
        fn algebra(a in sets(), b in sets()) {
            let mut both = a.clone();
            union(&mut both, &b);
            let mut other = b.clone();
            union(&mut other, &a);
            prop_assert_eq!(&both, &other);
            prop_assert_eq!(minus(&a, &a), Set::new());
            prop_assert_eq!(intersection(&a, &b), intersection(&b, &a));
            prop_assert_eq!(minus(&a, &minus(&a, &b)), intersection(&a, &b));
            prop_assert_eq!(minus(&both, &b), minus(&a, &b));
        }
    }
}
