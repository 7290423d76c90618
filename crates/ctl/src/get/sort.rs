//! `--sort-by`: the order of what is at a path of each object.

use std::cmp::Ordering;

use serde_json::Value;
use structural::JsonPath;

/// Has the rows of tables bring their objects.
pub(super) const WITH_OBJECTS: &str = "includeObject=Object";

/// Reads a path, in braces or not.
///
/// # Errors
/// It is none.
pub(super) fn path(text: &str) -> Result<JsonPath, String> {
    let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
    JsonPath::parse(inner).map_err(|error| error.to_string())
}

/// Sorts the rows of a table or the objects of a list. What has nothing at the path comes first.
pub(super) fn by(path: &JsonPath, value: &mut Value) {
    if let Some(rows) = value.get_mut("rows").and_then(Value::as_array_mut) {
        rows.sort_by(|a, b| compare(path.first(&a["object"]), path.first(&b["object"])));
    }
    if let Some(items) = value.get_mut("items").and_then(Value::as_array_mut) {
        items.sort_by(|a, b| compare(path.first(a), path.first(b)));
    }
}

fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        (Some(a), Some(b)) => crate::template::shown(a).cmp(&crate::template::shown(b)),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn orders() {
        let check = |text: &str, expected: &str| {
            let items = json!([{"n": "a", "i": 10, "t": "2"}, {"n": "b", "i": 9}, {"n": "c", "i": 100, "t": "1"}]);
            let rows: Vec<_> = items.as_array().unwrap().iter().map(|item| json!({"object": item})).collect();
            let mut value = json!({"items": items, "rows": rows});
            by(&path(text).unwrap(), &mut value);
            for (list, name) in [("items", "/n"), ("rows", "/object/n")] {
                let names: String =
                    value[list].as_array().unwrap().iter().map(|one| one.pointer(name).unwrap().as_str().unwrap()).collect();
                assert_eq!(names, expected, "{text}");
            }
        };
        check(".i", "bac");
        check("{.t}", "bca");
        check(".nothing", "abc");
        assert!(path(".a[").is_err());
    }
}
