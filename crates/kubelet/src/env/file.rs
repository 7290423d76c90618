//! Files with variables, as upstream's kubelet reads them (KEP-3721): a strict part of what a POSIX shell takes. Pure.
//!
//! `NAME='value'`: the value stands in single quotes, in which everything is taken as it is, new lines too; a comment may follow. Blank lines and
//! lines that begin with `#` say nothing. Blanks after the equals sign make the value empty, as in a shell.

/// Why a file cannot be read, in upstream's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid environment variable format at line {line}: {why}")]
pub struct Error {
    line: usize,
    why: &'static str,
}

const BLANKS: [char; 2] = [' ', '\t'];

/// The value of a variable in the text of a file; none where the file does not have it. What stands after it is not looked at.
pub fn value(text: &str, wanted: &str) -> Result<Option<String>, Error> {
    let mut lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    while let Some((number, line)) = lines.next() {
        let failed = |why| Error { line: number, why };
        let line = line.trim_start_matches(BLANKS);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(failed("missing '='"))?;
        match name.trim_end_matches(BLANKS) {
            "" => return Err(failed("empty variable name")),
            trimmed if trimmed != name => return Err(failed("whitespace before '=' is not allowed")),
            _ => {}
        }
        if value.starts_with(BLANKS) {
            if name == wanted {
                return Ok(Some(String::new()));
            }
            continue;
        }
        let mut rest = value.strip_prefix('\'').ok_or(failed("value must be enclosed in single quotes"))?;
        let mut found = String::new();
        let after = loop {
            if let Some((last, after)) = rest.split_once('\'') {
                found.push_str(last);
                break after;
            }
            found.push_str(rest);
            found.push('\n');
            rest = lines.next().ok_or(failed("unclosed single quote"))?.1;
        };
        let after = after.trim_start_matches(BLANKS);
        if !after.is_empty() && !after.starts_with('#') {
            return Err(failed("unexpected content after closing quote"));
        }
        if name == wanted {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<Option<&str>, (usize, &'static str)>) {
        let expected = expected.map(|value| value.map(str::to_owned)).map_err(|(line, why)| Error { line, why });
        assert_eq!(value(text, "A"), expected, "{text:?}");
    }

    /// KEP-3721, "Env file syntax".
    #[test]
    fn values_stand_in_single_quotes() {
        check("A='b'", Ok(Some("b")));
        check("\n# comment\n  X='y'\n\tA='b c' # more\nA='later'", Ok(Some("b c")));
        check("A='one\ntwo\n\nthree'\n", Ok(Some("one\ntwo\n\nthree")));
        check("A='$HOME \\n \"'", Ok(Some("$HOME \\n \"")));
        check("A=''", Ok(Some("")));
        check("A= 'b'", Ok(Some("")));
        check("B='x'\nAB='y'", Ok(None));
        check("", Ok(None));
        check("A", Err((1, "missing '='")));
        check("\nA ='b'", Err((2, "whitespace before '=' is not allowed")));
        check("='b'", Err((1, "empty variable name")));
        check("A=b", Err((1, "value must be enclosed in single quotes")));
        check("A=\"b\"", Err((1, "value must be enclosed in single quotes")));
        check("X='y\nA='b'", Err((1, "unexpected content after closing quote")));
        check("A='b\nc", Err((1, "unclosed single quote")));
        check("A='b' c", Err((1, "unexpected content after closing quote")));
    }
}
