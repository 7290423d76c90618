//! What changed between two objects, in the shape in which upstream shows it: unchanged fields are left out, changed ones have `-` and `+`.
//! Upstream prints Go structs; the fields here have their names in the API.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The difference, a line each.
pub(crate) fn show(old: &Value, new: &Value) -> String {
    let mut out = String::new();
    walk(None, old, new, 1, &mut out);
    format!("  {{\n{out}  }}\n")
}

fn walk(name: Option<&str>, old: &Value, new: &Value, depth: usize, out: &mut String) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            block(name, '{', '}', depth, out, |depth, out| fields(old, new, depth, out));
        }
        (Value::Array(old), Value::Array(new)) => {
            block(name, '[', ']', depth, out, |depth, out| elements(old, new, depth, out));
        }
        (old, new) => {
            line('-', name, old, depth, out);
            line('+', name, new, depth, out);
        }
    }
}

fn block(name: Option<&str>, open: char, close: char, depth: usize, out: &mut String, body: impl FnOnce(usize, &mut String)) {
    // The outermost braces are the caller's.
    let Some(name) = name else { return body(depth, out) };
    let _ = writeln!(out, "  {}{name}{open}", "\t".repeat(depth));
    body(depth + 1, out);
    let _ = writeln!(out, "  {}{close},", "\t".repeat(depth));
}

fn fields(old: &Map<String, Value>, new: &Map<String, Value>, depth: usize, out: &mut String) {
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(added) {
        let get = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        walk(Some(&format!("{key}: ")), &get(old), &get(new), depth, out);
    }
    let same = old.iter().filter(|(key, value)| new.get(*key) == Some(value)).count();
    unchanged(same, "fields", depth, out);
}

fn elements(old: &[Value], new: &[Value], depth: usize, out: &mut String) {
    for index in 0..old.len().max(new.len()) {
        let get = |list: &[Value]| list.get(index).cloned().unwrap_or_default();
        walk(Some(""), &get(old), &get(new), depth, out);
    }
    let same = old.iter().zip(new).filter(|(old, new)| old == new).count();
    unchanged(same, "elements", depth, out);
}

fn unchanged(count: usize, what: &str, depth: usize, out: &mut String) {
    if count > 0 {
        let _ = writeln!(out, "  {}... // {count} identical {what}", "\t".repeat(depth));
    }
}

fn line(sign: char, name: Option<&str>, value: &Value, depth: usize, out: &mut String) {
    if !value.is_null() {
        let _ = writeln!(out, "{sign} {}{}{value},", "\t".repeat(depth), name.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_what_changed() {
        let check = |old: Value, new: Value, expected: &str| assert_eq!(show(&old, &new), expected);
        check(
            json!({"a": 1, "b": "x"}),
            json!({"a": 1, "b": "y"}),
            "  {\n- \tb: \"x\",\n+ \tb: \"y\",\n  \t... // 1 identical fields\n  }\n",
        );
        check(json!({}), json!({"a": true}), "  {\n+ \ta: true,\n  }\n");
        check(
            json!({"c": [{"n": 1, "m": 2}, {}]}),
            json!({"c": [{"n": 1}, {}]}),
            "  {\n  \tc: [\n  \t\t{\n- \t\t\tm: 2,\n  \t\t\t... // 1 identical fields\n  \t\t},\n  \t\t... // 1 identical elements\n  \t],\n  }\n",
        );
    }
}
