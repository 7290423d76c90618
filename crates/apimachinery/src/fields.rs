//! Field selectors (upstream: `pkg/fields`): terms `path=value`, `path==value` and `path!=value`, joined by commas.

use crate::text::quote;
use std::fmt;

/// Why a selector cannot be used. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term { selector: String, term: String },
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    #[error("invalid field selector: unescaped character in value: {0}")]
    Unescaped(u32),
    #[error("field label not supported: {0}")]
    Label(String),
    #[error("{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", quote(.0))]
    Known(String),
}

/// One term.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    /// Such as `metadata.name`.
    pub field: String,
    /// Unescaped.
    pub value: String,
    /// `!=` instead of `=`.
    pub negated: bool,
}

/// All terms must hold. No terms select everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

impl Selector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// `field=value`.
    pub fn equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self(vec![Requirement { field: field.into(), value: value.into(), negated: false }])
    }

    /// Parses; terms are sorted, and empty ones skipped, also those of nothing but an operator.
    pub fn parse(selector: &str) -> Result<Self, Error> {
        let mut terms: Vec<&str> = split_terms(selector).into_iter().filter(|t| !t.is_empty()).collect();
        terms.sort_unstable();
        let parse = |term| {
            let unknown = || Error::Term { selector: selector.to_owned(), term: String::from(term) };
            let (field, negated, value) = split_term(term).ok_or_else(unknown)?;
            Ok(Requirement { field: field.to_owned(), value: unescape(value)?, negated })
        };
        let mut requirements = terms.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        requirements.retain(|requirement| !requirement.field.is_empty() || !requirement.value.is_empty());
        Ok(Self(requirements))
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all terms hold; `get` returns the value of a field, empty when there is none.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|r| (get(&r.field) == r.value) != r.negated)
    }

    /// The value that a field must have, if the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|r| r.field == field && !r.negated).map(|r| r.value.as_str())
    }

    /// Fails on the first field that `supported` refuses: `field label not supported: x`.
    pub fn check_labels(&self, supported: impl Fn(&str) -> bool) -> Result<(), Error> {
        match self.0.iter().find(|r| !supported(&r.field)) {
            Some(r) => Err(Error::Label(r.field.clone())),
            None => Ok(()),
        }
    }

    /// [`Self::check_labels`] of kinds that know `metadata.name` and `metadata.namespace` only, with the text for those.
    pub fn check_default_labels(&self) -> Result<(), Error> {
        match self.check_labels(|f| matches!(f, "metadata.name" | "metadata.namespace")) {
            Err(Error::Label(label)) => Err(Error::Known(label)),
            other => other,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let op = if r.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{op}{}", r.field, escape(&r.value))?;
        }
        Ok(())
    }
}

/// Escapes a value: `\`, `,` and `=` get a backslash.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape(value: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(Error::Escape(format!("\\{c}"))),
                None => return Err(Error::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(Error::Unescaped(c as u32)),
            c => out.push(c),
        }
    }
    Ok(out)
}

fn split_terms(selector: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in selector.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == ',' {
            terms.push(&selector[start..i]);
            start = i + 1;
        }
    }
    terms.push(&selector[start..]);
    terms
}

/// Field, whether negated, and escaped value.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.match_indices(['=', '!']) {
        let rest = &term[i..];
        for (op, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some(value) = rest.strip_prefix(op) {
                return Some((&term[..i], negated, value));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses() {
        let check = |input: &str, expected: Result<&str, &str>| {
            let got = Selector::parse(input);
            assert_eq!(got.map(|s| s.to_string()).map_err(|e| e.to_string()), expected.map(Into::into).map_err(Into::into));
        };
        check("", Ok(""));
        check("a=b", Ok("a=b"));
        check("b==c,a!=d,", Ok("a!=d,b=c"));
        check(r"a=b\,c\=d\\", Ok(r"a=b\,c\=d\\"));
        check("a=", Ok("a="));
        // What the oracle found: an operator alone is no term.
        check("=,a=b,!=", Ok("a=b"));
        check("a", Err("invalid selector: 'a'; can't understand 'a'"));
        check(r"a=\x", Err(r"invalid field selector: invalid escape sequence: \x"));
        check("a=b=c", Err("invalid field selector: unescaped character in value: 61"));
    }

    #[test]
    fn matches() {
        let get = |f: &str| if f == "metadata.name" { "x" } else { "" };
        let check = |input: &str, expected| assert_eq!(Selector::parse(input).map(|s| s.matches(get)), Ok(expected), "{input}");
        check("", true);
        check("metadata.name=x", true);
        check("metadata.name!=x", false);
        check("spec.nodeName=", true);
        check("spec.nodeName!=", false);
    }

    #[test]
    fn labels() {
        let selector = Selector::equals("spec.x", "1");
        let text = |r: Result<(), Error>| r.map_err(|e| e.to_string());
        assert_eq!(text(selector.check_labels(|f| f == "a")), Err("field label not supported: spec.x".into()));
        let known = r#""spec.x" is not a known field selector: only "metadata.name", "metadata.namespace""#;
        assert_eq!(text(selector.check_default_labels()), Err(known.into()));
        assert_eq!(selector.exact("spec.x"), Some("1"));
    }

    proptest! {
        #[test]
        fn values_survive(value in ".*") {
            let selector = Selector::equals("f", value);
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = Selector::parse(&text);
        }
    }
}
