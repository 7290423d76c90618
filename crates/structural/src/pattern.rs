//! Patterns of schemas.

use std::sync::OnceLock;

use cel::re2;
use regex::Regex;

/// A pattern, compiled when a value is first checked: of many definitions most patterns are never needed.
#[derive(Debug)]
pub(crate) struct Pattern {
    source: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub(crate) fn new(source: &str) -> Self {
        Self { source: source.to_owned(), compiled: OnceLock::new() }
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Whether it matches anywhere in a text. What is no pattern matches nothing.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| re2::compile(&self.source).ok());
        compiled.as_ref().is_some_and(|pattern| pattern.is_match(text))
    }
}

/// Why a text is no pattern, if it is none.
pub fn check(source: &str) -> Result<(), String> {
    re2::compile(source).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_anywhere() {
        let pattern = Pattern::new("^\\p{Lu}|\\d$");
        assert_eq!(["Ab", "b1", "ab", "a\u{664}"].map(|text| pattern.matches(text)), [true, true, false, false]);
    }

    #[test]
    fn what_is_none_matches_nothing() {
        assert_eq!(check("("), Err("error parsing regexp: missing closing ): `(`".to_owned()));
        assert!(!Pattern::new("(").matches("("));
    }
}
