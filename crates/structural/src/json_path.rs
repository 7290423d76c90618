//! The simple JSONPath of columns and selectable fields (upstream: `client-go/util/jsonpath`): fields, positions, wildcards and filters.

use serde_json::Value;

/// A step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// From the end where it is negative.
    Index(i64),
    Slice(Option<i64>, Option<i64>, i64),
    /// All fields, or all elements.
    All,
    /// All that is below, at any depth.
    Deep,
    Filter(Filter),
}

/// `?(@.a == "b")`; without a comparison, whether it is there.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: JsonPath,
    comparison: Option<(Comparison, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// Most values that a path finds on its way.
const MAX_FOUND: usize = 100_000;
/// How deep filters may stand in filters: what reads a path and what goes along it call themselves as often.
const MAX_FILTERS: usize = 10;

/// Why a text is no path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unrecognized path {0:?}")]
pub struct PathError(String);

/// A path to values in an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Parses a path such as `.status.conditions[?(@.type=="Ready")].status`.
    ///
    /// # Errors
    /// It is no path.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        Self::parse_within(text, MAX_FILTERS)
    }

    /// With filters in so many others at most.
    fn parse_within(text: &str, filters: usize) -> Result<Self, PathError> {
        let wrong = || PathError(text.to_owned());
        let mut steps = Vec::new();
        let mut rest = text.trim().trim_start_matches(['$', '@']);
        while let Some(first) = rest.chars().next() {
            let (step, after) = match first {
                '.' if rest.starts_with("..") => (Some(Step::Deep), &rest[1..]),
                '.' => field(&rest[1..]),
                '[' => bracket(&rest[1..], filters).ok_or_else(wrong)?,
                _ if steps.is_empty() => field(rest),
                _ => return Err(wrong()),
            };
            steps.extend(step);
            rest = after;
        }
        Ok(Self(steps))
    }

    /// What it finds, in order.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.find(value)).take(MAX_FOUND).collect();
        }
        found
    }

    /// The first that it finds.
    pub fn first<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.find(root).into_iter().next()
    }

    /// The JSON pointer (RFC 6901) of a path of fields alone.
    pub fn pointer(&self) -> Option<String> {
        self.0
            .iter()
            .map(|step| match step {
                Step::Field(name) => Some(format!("/{}", name.replace('~', "~0").replace('/', "~1"))),
                _ => None,
            })
            .collect()
    }
}

/// A name up to the next step. A backslash takes what follows it literally.
fn field(text: &str) -> (Option<Step>, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = at;
                break;
            }
            c => name.push(c),
        }
    }
    let step = match name.as_str() {
        "" => None,
        "*" => Some(Step::All),
        _ => Some(Step::Field(name)),
    };
    (step, &text[end..])
}

/// What stands in brackets, and what stands behind them.
fn bracket(text: &str, filters: usize) -> Option<(Option<Step>, &str)> {
    let end = closing(text)?;
    let (inner, after) = (text[..end].trim(), &text[end + 1..]);
    if let Some(condition) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return Some((Some(Step::Filter(filter(condition, filters.checked_sub(1)?)?)), after));
    }
    let step = match inner {
        "*" => Step::All,
        _ if inner.starts_with(['\'', '"']) => Step::Field(quoted(inner)?),
        _ if inner.contains(':') => {
            let mut parts = inner.split(':').map(|part| match part.trim() {
                "" => Some(None),
                number => number.parse().ok().map(Some),
            });
            let (start, end) = (parts.next()??, parts.next()??);
            let step = parts.next().unwrap_or(Some(None))?.unwrap_or(1);
            (step > 0 && parts.next().is_none()).then_some(Step::Slice(start, end, step))?
        }
        number => Step::Index(number.parse().ok()?),
    };
    Some((Some(step), after))
}

/// Where the bracket closes, quotes and brackets in it aside.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next()?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(out)
}

fn filter(text: &str, filters: usize) -> Option<Filter> {
    let (mut quote, mut found) = (None, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, _) if found.is_none() => {
                found = COMPARISONS.iter().find(|(sign, _)| text[at..].starts_with(sign)).map(|found| (at, found));
            }
            _ => {}
        }
    }
    let Some((at, (sign, comparison))) = found else {
        return Some(Filter { left: JsonPath::parse_within(text, filters).ok()?, comparison: None });
    };
    let (left, right) = (text[..at].trim(), text[at + sign.len()..].trim());
    let right = match right {
        _ if right.starts_with(['\'', '"']) => quoted(right)?.into(),
        _ => serde_json::from_str(right).ok()?,
    };
    Some(Filter { left: JsonPath::parse_within(left, filters).ok()?, comparison: Some((*comparison, right)) })
}

impl Step {
    fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let place = |at: i64, length: usize| if at < 0 { at + length as i64 } else { at };
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::Index(at), Value::Array(items)) => {
                usize::try_from(place(*at, items.len())).ok().and_then(|at| items.get(at)).into_iter().collect()
            }
            (Self::Slice(start, end, step), Value::Array(items)) => {
                let bound = |at: i64| usize::try_from(place(at, items.len())).unwrap_or(0).min(items.len());
                let (start, end) = (start.map_or(0, bound), end.map_or(items.len(), bound));
                let step = usize::try_from(*step).unwrap_or(1);
                items.get(start..end).unwrap_or_default().iter().step_by(step).collect()
            }
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Deep, value) => below(value),
            (Self::Filter(filter), Value::Array(items)) => items.iter().filter(|item| filter.takes(item)).collect(),
            _ => Vec::new(),
        }
    }
}

/// A value and all that is in it.
fn below(value: &Value) -> Vec<&Value> {
    let mut found = vec![value];
    let mut at = 0;
    while let Some(value) = found.get(at).copied().filter(|_| found.len() < MAX_FOUND) {
        match value {
            Value::Array(items) => found.extend(items),
            Value::Object(map) => found.extend(map.values()),
            _ => {}
        }
        at += 1;
    }
    found
}

impl Filter {
    fn takes(&self, item: &Value) -> bool {
        let found = self.left.first(item);
        let (Some((comparison, right)), Some(left)) = (&self.comparison, found) else {
            return self.comparison.is_none() && found.is_some();
        };
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (left, right) if left == right => Some(std::cmp::Ordering::Equal),
            _ => None,
        };
        match comparison {
            Comparison::Equal => order.is_some_and(|order| order.is_eq()),
            Comparison::Unequal => order.is_none_or(|order| order.is_ne()),
            Comparison::Less => order.is_some_and(|order| order.is_lt()),
            Comparison::LessOrEqual => order.is_some_and(|order| order.is_le()),
            Comparison::Greater => order.is_some_and(|order| order.is_gt()),
            Comparison::GreaterOrEqual => order.is_some_and(|order| order.is_ge()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn check(path: &str, expected: Value) {
        let object = json!({
            "metadata": {"name": "n", "annotations": {"a.b/c": "x"}},
            "spec": {"replicas": 3, "list": [1, 2, 3], "on": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False", "n": 5}]},
        });
        let found: Vec<&Value> = JsonPath::parse(path).unwrap().find(&object);
        assert_eq!(json!(found), expected, "{path}");
    }

    #[test]
    fn paths() {
        check(".metadata.name", json!(["n"]));
        check(".metadata.annotations.a\\.b/c", json!(["x"]));
        check(".metadata.annotations['a.b/c']", json!(["x"]));
        check(".spec.list[0]", json!([1]));
        check(".spec.list[-1]", json!([3]));
        check(".spec.list[1:]", json!([2, 3]));
        check(".spec.list[*]", json!([1, 2, 3]));
        check(".spec.list[9]", json!([]));
        check(".status.conditions[?(@.type==\"Ready\")].status", json!(["True"]));
        check(".status.conditions[?(@.type == 'Other')].status", json!(["False"]));
        check(".status.conditions[?(@.type!='Ready')].status", json!(["False"]));
        check(".status.conditions[?(@.n>4)].type", json!(["Other"]));
        check(".status.conditions[?(@.n)].type", json!(["Other"]));
        check(".status.conditions[*].type", json!(["Ready", "Other"]));
        check("..type", json!(["Ready", "Other"]));
        check(".status.none.at.all", json!([]));
        check(".spec.on", json!([true]));
    }

    /// A column of a definition is read at each start of the server, which must not end by it.
    #[test]
    fn filters_in_filters() {
        let nested = |count: usize| format!(".a{}{}", "[?(@.a".repeat(count), ")]".repeat(count));
        assert!(JsonPath::parse(&nested(MAX_FILTERS)).is_ok());
        assert!(JsonPath::parse(&nested(MAX_FILTERS + 1)).is_err());
        assert!(JsonPath::parse(&nested(100_000)).is_err());
    }

    #[test]
    fn no_paths() {
        for text in [".a[", ".a[x]", ".a['b]", ".a[?(@.b==)]", ".a[1:2:3:4]", ".a[1:2:0]", ".a[0]b"] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
        assert_eq!(JsonPath::parse(".spec.a~b").unwrap().pointer().as_deref(), Some("/spec/a~0b"));
        assert_eq!(JsonPath::parse(".spec[0]").unwrap().pointer(), None);
    }
}
