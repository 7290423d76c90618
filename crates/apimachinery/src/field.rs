//! Validation errors that name a field, with upstream's wording (`k8s.io/apimachinery/pkg/util/validation/field`).

use crate::text::{self, quote};
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;

/// A path to a field, such as `spec.containers[0].env[PATH]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    /// A path of one field, or of several joined by dots.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The path of the object itself: children have no leading dot.
    pub fn root() -> Self {
        Self::default()
    }

    /// A field below; `name` may hold several joined by dots.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// An element of a list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// An entry of a map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field. The names match the causes of a Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooShort,
    TooMany,
    TooFew,
    TypeInvalid,
    Internal,
}

impl ErrorKind {
    /// The cause in a Status, such as `FieldValueInvalid`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooShort => "FieldValueTooShort",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooShort => "Too short",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::TooShort | Self::Internal)
    }
}

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What is wrong.
    pub kind: ErrorKind,
    /// Where.
    pub path: Path,
    /// The value, where the kind shows it.
    pub value: Option<Value>,
    /// More, may be empty.
    pub detail: String,
    /// The rule is younger than objects may be that break it, see [`Self::ratcheted`].
    pub is_ratcheted: bool,
}

impl Error {
    fn new(kind: ErrorKind, path: &Path, value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { kind, path: path.clone(), value, detail: detail.into(), is_ratcheted: false }
    }

    /// A value that is malformed or out of range.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, path, Some(value.into()), detail)
    }

    /// A value of the wrong type.
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::TypeInvalid, path, Some(value.into()), detail)
    }

    /// A missing or empty value.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Required, path, None, detail)
    }

    /// A reference to nothing.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorKind::NotFound, path, Some(value.into()), "")
    }

    /// A value that must be unique and is not.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorKind::Duplicate, path, Some(value.into()), "")
    }

    /// A well-formed value that is not permitted here.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, path, None, detail)
    }

    /// A value that is not one of `supported`, which are listed in the order given (upstream's callers sort them).
    pub fn not_supported<S: AsRef<str>>(path: &Path, value: impl Into<Value>, supported: &[S]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| quote(s.as_ref())).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        Self::new(ErrorKind::NotSupported, path, Some(value.into()), detail)
    }

    /// A value of more than `max` bytes.
    pub fn too_long(path: &Path, max: usize) -> Self {
        Self::new(ErrorKind::TooLong, path, None, format!("may not be more than {max} byte{}", plural(max)))
    }

    /// A value of more than `max` characters.
    pub fn too_long_characters(path: &Path, max: usize) -> Self {
        Self::new(ErrorKind::TooLong, path, None, format!("may not be more than {max} character{}", plural(max)))
    }

    /// A value of fewer than `min` characters.
    pub fn too_short(path: &Path, min: usize) -> Self {
        Self::new(ErrorKind::TooShort, path, None, format!("must be at least {min} character{}", plural(min)))
    }

    /// A list of more than `max` items.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        Self::new(ErrorKind::TooMany, path, Some(actual.into()), format!("must have at most {max} item{}", plural(max)))
    }

    /// A list of fewer than `min` items.
    pub fn too_few(path: &Path, actual: usize, min: usize) -> Self {
        Self::new(ErrorKind::TooFew, path, Some(actual.into()), format!("must have at least {min} item{}", plural(min)))
    }

    /// A failure that is not the user's.
    pub fn internal(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, path, None, detail)
    }

    /// The same, of a rule that came when there were objects already: one that breaks it in the same way as before may still be changed otherwise (upstream's
    /// ratcheting validation). Whoever could not take a finalizer from an old object would never be rid of it.
    #[must_use]
    pub fn ratcheted(self) -> Self {
        Self { is_ratcheted: true, ..self }
    }

    /// The message without the field, as in a Status cause.
    pub fn body(&self) -> String {
        let mut out = self.kind.text().to_owned();
        if let Some(value) = self.value.as_ref().filter(|_| self.kind.shows_value()) {
            out.push_str(": ");
            match value {
                Value::String(s) => out.push_str(&quote(s)),
                Value::Number(number) if number.is_f64() => out.push_str(&number.as_f64().map(text::general).unwrap_or_default()),
                other => out.push_str(&text::json(other)),
            }
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.0.is_empty() { "<nil>" } else { self.path.as_str() };
        write!(f, "{path}: {}", self.body())
    }
}

impl std::error::Error for Error {}

/// About how many bytes a value has as text.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 4,
        Value::String(text) => 2 + text.len(),
        Value::Array(items) => items.iter().map(|item| 1 + size(item)).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| 4 + key.len() + size(value)).sum(),
    }
}

/// Most errors of one object, and most bytes of them. A body holds a million elements, each of which may be wrong and tell so with
/// all that is around it; nobody reads that.
const MAX_ERRORS: usize = 5_000;
const MAX_ERROR_BYTES: usize = 4 << 20;

/// A list of errors, in the order found; the first of very many.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Errors(pub Vec<Error>, usize);

impl Errors {
    /// Nothing wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, error: Error) {
        if !self.is_full() {
            self.1 += error.path.0.len() + error.detail.len() + error.value.as_ref().map_or(0, size);
            self.0.push(error);
        }
    }

    /// Whether no more errors are taken: then there is no need to word them.
    pub fn is_full(&self) -> bool {
        self.0.len() >= MAX_ERRORS || self.1 > MAX_ERROR_BYTES
    }

    /// Adds an [`Error::invalid`] per message, as checks of [`crate::names`] return them.
    pub fn invalid_each(&mut self, path: &Path, value: &str, messages: Vec<String>) {
        self.extend(messages.into_iter().map(|m| Error::invalid(path, value, m)));
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Over the errors.
    pub fn iter(&self) -> std::slice::Iter<'_, Error> {
        self.0.iter()
    }
}

impl Extend<Error> for Errors {
    fn extend<T: IntoIterator<Item = Error>>(&mut self, iter: T) {
        iter.into_iter().for_each(|error| self.push(error));
    }
}

impl IntoIterator for Errors {
    type Item = Error;
    type IntoIter = std::vec::IntoIter<Error>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<Vec<Error>> for Errors {
    fn from(errors: Vec<Error>) -> Self {
        let mut all = Self::new();
        all.extend(errors);
        all
    }
}

impl fmt::Display for Errors {
    /// One message as it is, several distinct ones as `[a, b]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seen = HashSet::new();
        let mut texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        texts.retain(|t| seen.insert(t.clone()));
        match texts.as_slice() {
            [one] => f.write_str(one),
            [] => Ok(()),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(error: Error, expected: &str) {
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn wording() {
        let p = Path::new("spec").child("replicas");
        check(
            Error::invalid(&p, -1, "must be greater than or equal to 0"),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        );
        check(Error::not_supported(&p, "x", &["A", "B"]), r#"spec.replicas: Unsupported value: "x": supported values: "A", "B""#);
        check(Error::required(&p, ""), "spec.replicas: Required value");
        check(Error::forbidden(&p.index(1), "no"), "spec.replicas[1]: Forbidden: no");
        check(Error::duplicate(&p.key("k"), "v"), r#"spec.replicas[k]: Duplicate value: "v""#);
        check(Error::too_long(&p, 1), "spec.replicas: Too long: may not be more than 1 byte");
        check(Error::too_many(&p, 3, 2), "spec.replicas: Too many: 3: must have at most 2 items");
        check(Error::invalid(&p, json!({"a": 1}), "bad"), r#"spec.replicas: Invalid value: {"a":1}: bad"#);
        check(Error::invalid(&Path::root(), true, "bad"), "<nil>: Invalid value: true: bad");
        check(Error::invalid(&Path::root(), 4.0, "bad"), "<nil>: Invalid value: 4: bad");
        check(Error::invalid(&Path::root(), 0.5, "bad"), "<nil>: Invalid value: 0.5: bad");
        check(Error::invalid(&Path::root(), 1_000_000.0, "bad"), "<nil>: Invalid value: 1e+06: bad");
        check(Error::invalid(&Path::root(), json!([4.0, {"a": 0.5}, 2]), "bad"), r#"<nil>: Invalid value: [4,{"a":0.5},2]: bad"#);
    }

    #[test]
    fn aggregates() {
        let error = |n: i64| Error::invalid(&Path::new("a"), n, "x");
        let check = |errors: Vec<Error>, expected: &str| assert_eq!(Errors::from(errors).to_string(), expected);
        check(vec![error(1)], "a: Invalid value: 1: x");
        check(vec![error(1), error(1)], "a: Invalid value: 1: x");
        check(vec![error(1), error(2)], "[a: Invalid value: 1: x, a: Invalid value: 2: x]");
    }

    #[test]
    fn very_many_errors_are_told_in_part() {
        let check = |detail: &str, expected: std::ops::Range<usize>| {
            let error = Error::invalid(&Path::new("a"), 1, detail);
            let count = Errors::from(vec![error; 20_000]).len();
            assert!(expected.contains(&count), "{count}");
        };
        check("x", MAX_ERRORS..MAX_ERRORS + 1);
        check(&"x".repeat(100 << 10), 40..43);
    }
}
