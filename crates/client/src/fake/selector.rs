//! Label and field selectors over JSON objects, as far as tests of components use them.

use serde_json::Value;

/// `a=b,c!=d,e,!f` and `g in (h,i)` over labels.
pub(super) fn labels_match(selector: &str, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    split(selector).iter().all(|term| label_term(term, labels))
}

fn label_term(term: &str, labels: &Value) -> bool {
    let label = |key: &str| labels.get(key.trim()).and_then(Value::as_str);
    if let Some((key, values)) = term.split_once(" in ") {
        return label(key).is_some_and(|value| set(values).any(|one| one == value));
    }
    if let Some((key, values)) = term.split_once(" notin ") {
        return !label(key).is_some_and(|value| set(values).any(|one| one == value));
    }
    if let Some((key, value)) = term.split_once("!=") {
        return label(key) != Some(value.trim());
    }
    if let Some((key, value)) = term.split_once('=') {
        return label(key) == Some(value.trim_start_matches('=').trim());
    }
    match term.strip_prefix('!') {
        Some(key) => label(key).is_none(),
        None => label(term).is_some(),
    }
}

fn set(values: &str) -> impl Iterator<Item = &str> {
    values.trim().trim_start_matches('(').trim_end_matches(')').split(',').map(str::trim)
}

/// Splits at commas outside parentheses.
fn split(selector: &str) -> Vec<&str> {
    let (mut depth, mut start, mut terms) = (0, 0, Vec::new());
    for (index, byte) in selector.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b',' if depth == 0 => {
                terms.push(selector[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(selector[start..].trim());
    terms.retain(|term| !term.is_empty());
    terms
}

/// `a.b=c,d.e!=f` over any string field; a missing field is "".
pub(super) fn fields_match(selector: &str, object: &Value) -> bool {
    split(selector).iter().all(|term| {
        let (path, value, equal) = match term.split_once("!=") {
            Some((path, value)) => (path, value, false),
            None => match term.split_once('=') {
                Some((path, value)) => (path, value.trim_start_matches('='), true),
                None => return false,
            },
        };
        let found = path.split('.').fold(object, |value, part| &value[part]).as_str().unwrap_or_default();
        (found == value) == equal
    })
}
