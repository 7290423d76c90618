//! Patterns in the syntax of Go's `regexp` (RE2), on the engine at hand, which reads some things otherwise.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

/// Memory of one compiled pattern.
const MAX_SIZE: usize = 2 << 20;

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
        let compiled = self.compiled.get_or_init(|| compile(&self.source).ok());
        compiled.as_ref().is_some_and(|pattern| pattern.is_match(text))
    }
}

fn compile(source: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&translate(source)).size_limit(MAX_SIZE).build()
}

/// Why a text is no pattern, if it is none.
pub fn check(source: &str) -> Result<(), String> {
    compile(source).map(drop).map_err(|error| error.to_string())
}

/// The same pattern for our engine: classes are those of ASCII, and what means something only to it is taken literally.
fn translate(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + 8);
    let mut rest = source;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            '\\' => escape(after, in_class, &mut out),
            '[' if in_class && !after.starts_with(':') => {
                out.push_str("\\[");
                after
            }
            '[' if in_class => {
                // A named class, such as [:alpha:].
                let end = after.find(":]").map_or(after.len(), |end| end + 2);
                out.push('[');
                out.push_str(&after[..end]);
                &after[end..]
            }
            '[' => {
                in_class = true;
                out.push('[');
                open_class(after, &mut out)
            }
            ']' => {
                in_class = false;
                out.push(']');
                after
            }
            '&' | '~' | '-' if in_class && after.starts_with(c) => {
                out.push('\\');
                out.push(c);
                after
            }
            '{' if !in_class && !is_repetition(after) => {
                out.push_str("\\{");
                after
            }
            _ => {
                out.push(c);
                after
            }
        };
    }
    out
}

/// A `]` right behind the beginning of a class is one of its characters.
fn open_class<'a>(after: &'a str, out: &mut String) -> &'a str {
    let (negated, after) = match after.strip_prefix('^') {
        Some(after) => ("^", after),
        None => ("", after),
    };
    out.push_str(negated);
    match after.strip_prefix(']') {
        Some(after) => {
            out.push_str("\\]");
            after
        }
        None => after,
    }
}

fn is_repetition(after: &str) -> bool {
    let Some((inner, _)) = after.split_once('}') else { return false };
    let (low, high) = inner.split_once(',').unwrap_or((inner, "0"));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !low.is_empty() && number(low) && number(high)
}

/// What stands behind a backslash. The rest of the pattern.
fn escape<'a>(after: &'a str, in_class: bool, out: &mut String) -> &'a str {
    let Some(c) = after.chars().next() else {
        out.push('\\');
        return after;
    };
    let rest = &after[c.len_utf8()..];
    let set = match c {
        'd' | 'D' => "0-9",
        'w' | 'W' => "0-9A-Za-z_",
        's' | 'S' => "\\t\\n\\f\\r ",
        'b' | 'B' if !in_class => {
            out.push_str(if c == 'b' { "(?-u:\\b)" } else { "\\B" });
            return rest;
        }
        'Q' if !in_class => {
            let (literal, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(literal));
            return rest;
        }
        _ => {
            // Angle brackets mean the ends of words to our engine.
            if !matches!(c, '<' | '>') {
                out.push('\\');
            }
            out.push(c);
            return rest;
        }
    };
    match (in_class, c.is_ascii_uppercase()) {
        (true, false) => out.push_str(set),
        (_, true) => {
            out.push_str("[^");
            out.push_str(set);
            out.push(']');
        }
        (false, false) => {
            out.push('[');
            out.push_str(set);
            out.push(']');
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let compiled = Pattern::new(pattern);
        assert_eq!(super::check(pattern), Ok(()), "{pattern}");
        for (texts, expected) in [(yes, true), (no, false)] {
            texts.iter().for_each(|text| assert_eq!(compiled.matches(text), expected, "{pattern} {text}"));
        }
    }

    #[test]
    fn patterns_of_go() {
        check("^a+$", &["aa"], &["ab", ""]);
        check("b", &["abc"], &["ac"]);
        check("^\\d+$", &["42"], &["\u{664}\u{662}"]);
        check("^[\\d.]+$", &["4.2"], &["x"]);
        check("^[^\\s]+$", &["x\u{a0}"], &["a b"]);
        check("^[\\W]$", &["-", "\u{e9}"], &["_", "a"]);
        check("^{.*}$", &["{a}"], &["a"]);
        check("^a{2,3}$", &["aa", "aaa"], &["a"]);
        check("^[[]$", &["["], &["]"]);
        check("^[]a]+$", &["]a"], &["["]);
        check("^[a&&b]$", &["&", "a", "b"], &["c"]);
        check("^[[:alpha:]]+$", &["ab"], &["1"]);
        check("\\<a\\>", &["<a>"], &["a"]);
        check("^\\Qa.b\\E$", &["a.b"], &["axb"]);
        check("^(?i)abc$", &["ABC"], &["abd"]);
        check("\\bfoo\\b", &["a foo b"], &["afoo"]);
        check("^\\/x$", &["/x"], &["x"]);
        check("^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", &["a.b-c"], &["A", "-a"]);
    }

    #[test]
    fn no_patterns() {
        for pattern in ["(", "a**b(", "[z-a]", "(?=a)", "\\8"] {
            assert!(super::check(pattern).is_err() && !Pattern::new(pattern).matches("a"), "{pattern}");
        }
    }

    /// A pattern that other engines need exponential time for.
    #[test]
    fn time_is_linear() {
        check("^(a+)+$", &[], &[&format!("{}b", "a".repeat(100_000))]);
    }
}
