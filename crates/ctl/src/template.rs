//! `-o jsonpath=`: text with paths in braces, as client-go's `util/jsonpath` has it.
//!
//! In braces stand a path (`.items[*].metadata.name`), text in quotes (`"\n"`), or a loop: `range PATH` up to `end`, in which paths start at
//! the loop's element, and those that begin with `$` at the whole.

use serde_json::Value;
use structural::JsonPath;

/// Why a text is no template.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("error parsing jsonpath {text}, {why}")]
pub(crate) struct TemplateError {
    text: String,
    why: &'static str,
}

/// A template that can be filled in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(Path),
    Range(Path, Vec<Part>),
}

#[derive(Clone, Debug, PartialEq)]
struct Path {
    path: JsonPath,
    of_whole: bool,
}

/// What stands in braces, and what stands outside.
enum Token<'t> {
    Text(&'t str),
    Braces(&'t str),
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let wrong = |why| TemplateError { text: text.to_owned(), why };
        // Loops that are open, each with what stands before it.
        let (mut open, mut parts) = (Vec::new(), Vec::new());
        for token in tokens(text).ok_or_else(|| wrong("unclosed action"))? {
            let inner = match token {
                Token::Text(text) => {
                    parts.push(Part::Text(text.to_owned()));
                    continue;
                }
                Token::Braces(inner) => inner.trim(),
            };
            if inner == "end" {
                let (path, before) = open.pop().ok_or_else(|| wrong("not in range, nothing to end"))?;
                let body = std::mem::replace(&mut parts, before);
                parts.push(Part::Range(path, body));
            } else if let Some(path) = inner.strip_prefix("range").filter(|rest| rest.starts_with([' ', '.', '@', '[', '$'])) {
                let path = Path::parse(path).ok_or_else(|| wrong("unrecognized path"))?;
                open.push((path, std::mem::take(&mut parts)));
            } else if inner.starts_with(['"', '\'']) {
                parts.push(Part::Text(quoted(inner).ok_or_else(|| wrong("unterminated quoted string"))?));
            } else {
                parts.push(Part::Path(Path::parse(inner).ok_or_else(|| wrong("unrecognized path"))?));
            }
        }
        if open.is_empty() { Ok(Self(parts)) } else { Err(wrong("unclosed range, missing {end}")) }
    }

    /// The text for an object.
    pub(crate) fn fill(&self, whole: &Value) -> String {
        let mut text = String::new();
        fill(&self.0, whole, whole, &mut text);
        text
    }
}

impl Path {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let first = text.chars().next()?;
        // A word without a dot is no path.
        if !matches!(first, '.' | '[' | '$' | '@') {
            return None;
        }
        Some(Self { path: JsonPath::parse(text).ok()?, of_whole: first == '$' })
    }

    fn find<'v>(&self, whole: &'v Value, here: &'v Value) -> Vec<&'v Value> {
        self.path.find(if self.of_whole { whole } else { here })
    }
}

fn fill(parts: &[Part], whole: &Value, here: &Value, text: &mut String) {
    for part in parts {
        match part {
            Part::Text(part) => text.push_str(part),
            Part::Path(path) => {
                let found: Vec<_> = path.find(whole, here).into_iter().map(shown).collect();
                text.push_str(&found.join(" "));
            }
            Part::Range(path, body) => {
                for element in path.find(whole, here) {
                    fill(body, whole, element, text);
                }
            }
        }
    }
}

/// A value as a word: text as it is, all else as JSON.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Cuts the text; none where a brace is not closed.
fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        if start > 0 {
            tokens.push(Token::Text(&rest[..start]));
        }
        let inner = &rest[start + 1..];
        let end = closing(inner)?;
        tokens.push(Token::Braces(&inner[..end]));
        rest = &inner[end + 1..];
    }
    if !rest.is_empty() {
        tokens.push(Token::Text(rest));
    }
    Some(tokens)
}

/// Where the brace closes; those in quotes do not count.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            (None, _) => {}
        }
    }
    None
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next()?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let (mut out, mut chars) = (String::new(), inner.chars());
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            },
            c => c,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn templates() {
        let object = json!({
            "kind": "List",
            "items": [
                {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "n": 3, "list": [1, 2]},
                {"metadata": {"name": "b"}, "n": 1.5, "list": []},
            ],
        });
        let check = |text: &str, expected: &str| assert_eq!(Template::parse(text).unwrap().fill(&object), expected, "{text}");
        check("{.items[*].metadata.name}", "a b");
        check("{.items[0].metadata.name}{\"\\n\"}", "a\n");
        check("{range .items[*]}{.metadata.name}={.n};{end}", "a=3;b=1.5;");
        check("{range .items[*]}{range .list[*]}{@}/{$.kind} {end}{end}", "1/List 2/List ");
        check("name: {.items[1].metadata.name}", "name: b");
        check("{.items[?(@.metadata.name==\"b\")].n}", "1.5");
        check("{.items[?(@.metadata.name=='}')].n}", "");
        check("{.items[0].list}", "[1,2]");
        check("{.items[0].metadata.labels.x\\.y/z}{'\\t'}", "1\t");
        check("{.nothing}", "");
        check("plain", "plain");
        check("{$.kind}", "List");
    }

    #[test]
    fn no_templates() {
        for text in ["{.a", "{.a[}", "{range .items[*]}x", "{end}", "{\"open}", "{word}", "{}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
