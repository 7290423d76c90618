//! What can be wrong with an expression, before and while it runs.

/// Something wrong with the text of an expression.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Issue {
    /// Where, in bytes.
    pub(crate) at: usize,
    pub(crate) message: String,
}

impl Issue {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// Why an expression cannot be compiled: what is wrong with it and where, in the form of cel-go.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{text}")]
pub struct CompileError {
    text: String,
}

/// How many faults of an expression are told, each with its line if that is no longer than so many bytes.
const MOST_ISSUES: usize = 100;
const MOST_LINE: usize = 16_384;

impl CompileError {
    pub(crate) fn new(source: &str, mut issues: Vec<Issue>) -> Self {
        let rest = issues.len().saturating_sub(MOST_ISSUES);
        issues.truncate(MOST_ISSUES);
        issues.sort_by_key(|issue| issue.at);
        let mut texts: Vec<String> = issues.iter().map(|issue| shown(source, issue)).collect();
        if rest > 0 {
            texts.push(format!("{rest} more errors were truncated"));
        }
        Self { text: texts.join("\n") }
    }
}

/// The message, and below it the line with a mark at the place.
fn shown(source: &str, issue: &Issue) -> String {
    let before = source.get(..issue.at).unwrap_or(source);
    let (line, start) = (before.matches('\n').count() + 1, before.rfind('\n').map_or(0, |at| at + 1));
    let column = before[start..].chars().count();
    let text = source[start..].split('\n').next().unwrap_or_default().replace('\t', " ");
    if text.len() > MOST_LINE {
        return format!("ERROR: <input>:{line}:{}: {}", column + 1, issue.message);
    }
    let wide = |c: char| c.len_utf8() > 1;
    let mut mark = String::new();
    let mut chars = text.chars();
    for c in chars.by_ref().take(column) {
        mark.push(if wide(c) { '\u{ff0e}' } else { '.' });
        if wide(c) {
            break;
        }
    }
    mark.push(if chars.next().is_some_and(wide) { '\u{ff3e}' } else { '^' });
    format!("ERROR: <input>:{line}:{}: {}\n | {text}\n | {mark}", column + 1, issue.message)
}

/// Why an expression has no value.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A field or key that is not there.
    #[error("no such key: {0}")]
    NoSuchKey(String),
    /// A function or operator does not take values of these types.
    #[error("no such overload")]
    NoOverload,
    /// Beyond the end of a list.
    #[error("index out of bounds: {0}")]
    OutOfBounds(i64),
    /// Too large for its type.
    #[error("{0} overflow")]
    Overflow(&'static str),
    /// Division by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// The rest of a division by zero.
    #[error("modulus by zero")]
    ModulusByZero,
    /// The budget is used up.
    #[error("operation cancelled: actual cost limit exceeded")]
    Budget,
    /// What a function does not take for another reason.
    #[error("{0}")]
    Other(String),
}
