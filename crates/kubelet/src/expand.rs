//! `$(NAME)` references in environment values, commands and arguments.

/// Bytes of a word or of a variable with its name: Linux takes no longer string (MAX_ARG_STRLEN, execve(2)).
pub const LONGEST: usize = 128 << 10;
/// Bytes of all words and variables together: Linux takes no more for a program (a quarter of the usual limit of the stack, execve(2)).
pub const ALL: usize = 2 << 20;

/// More than any program can be given. Values that refer to others grow exponentially.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    /// One string.
    #[error("a variable or argument has more than {} KiB, which no program can be given", LONGEST >> 10)]
    One,
    /// All of them.
    #[error("variables and arguments have more than {} MiB together, which no program can be given", ALL >> 20)]
    All,
}

/// Replaces `$(NAME)` where `lookup` knows the name; an unknown reference stays as it is, `$$` is one dollar sign.
///
/// # Errors
/// It becomes longer than [`LONGEST`].
pub fn expand<V: AsRef<str>>(text: &str, lookup: impl Fn(&str) -> Option<V>) -> Result<String, TooLong> {
    let mut out = String::with_capacity(text.len().min(LONGEST));
    let mut rest = text;
    // Looked for once: a text of opened references only would be gone through again for each.
    let last = text.rfind(')');
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let closes = last.is_some_and(|last| last >= text.len() - after.len());
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').filter(|_| closes).and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(value.as_ref()),
                None => out.push_str(&rest[at..rest.len() - tail.len()]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
        if out.len() > LONGEST {
            return Err(TooLong::One);
        }
    }
    out.push_str(rest);
    if out.len() > LONGEST { Err(TooLong::One) } else { Ok(out) }
}

/// The names that `text` refers to.
pub fn references(text: &str) -> Vec<String> {
    let names = std::cell::RefCell::new(Vec::new());
    // What is too long to be a path fails where it is expanded.
    let _ = expand(text, |name| {
        names.borrow_mut().push(name.to_owned());
        None::<String>
    });
    names.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let lookup = |name: &str| match name {
            "A" => Some("x".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        assert_eq!(expand(text, lookup).as_deref(), Ok(expected));
    }

    #[test]
    fn expands() {
        check("$(A)", "x");
        check("<$(A)|$(EMPTY)|$(B)>", "<x||$(B)>");
        check("$$(A) $$$(A)", "$(A) $x");
        check("$(A", "$(A");
        check("$A $", "$A $");
        check("$$$$", "$$");
    }

    #[test]
    fn what_is_longer_than_a_program_takes_is_refused() {
        let long = "x".repeat(LONGEST);
        let expanded = |text: &str| expand(text, |_| Some(&long));
        assert_eq!(expanded("$(A)").map(|text| text.len()), Ok(LONGEST));
        assert_eq!(expanded("$(A)$(A)"), Err(TooLong::One));
        assert_eq!(expand(&format!("{long}y"), |_| None::<String>), Err(TooLong::One));
        // Half a million of them take no quadratic time.
        assert_eq!(expand(&"$(".repeat(500_000), |_| None::<String>), Err(TooLong::One));
        assert_eq!(expand(&"$(".repeat(60_000), |_| None::<String>).map(|text| text.len()), Ok(120_000));
    }
}
