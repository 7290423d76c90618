//! What is wrong with a text that is no JSON, in the words of Go's `encoding/json` (`scanner.go`): clients and their tests know them.

/// How deep objects and lists may be in each other.
const MAX_DEPTH: usize = 10_000;

/// Where a text ends to be JSON.
#[derive(Clone, Copy)]
enum Wrong {
    /// It ends too early.
    End,
    /// This byte, and what it is not good for.
    Byte(u8, &'static str),
    /// This byte within a word, of which another one comes next.
    Word(u8, &'static str, u8),
}

/// What may come next.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    AfterValue,
}

/// What is told of an error of reading a text: what Go says of its syntax, or the error itself when the text is JSON.
pub fn told(text: &[u8], error: &serde_json::Error) -> String {
    syntax_error(text).unwrap_or_else(|| error.to_string())
}

/// What Go says of the first byte that is wrong; none when the text is JSON as far as its grammar goes.
fn syntax_error(text: &[u8]) -> Option<String> {
    let wrong = Scanner { text, at: 0, open: Vec::new() }.scan().err()?;
    Some(match wrong {
        Wrong::End => "unexpected end of JSON input".to_owned(),
        Wrong::Byte(byte, context) => format!("invalid character {} {context}", quoted(byte)),
        Wrong::Word(byte, word, next) => {
            format!("invalid character {} in literal {word} (expecting {})", quoted(byte), quoted(next))
        }
    })
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// The brackets that are open.
    open: Vec<u8>,
}

impl Scanner<'_> {
    fn scan(&mut self) -> Result<(), Wrong> {
        let mut next = Next::Value;
        loop {
            while self.peek().is_some_and(|byte| b" \t\r\n".contains(&byte)) {
                self.at += 1;
            }
            match self.take() {
                Ok(byte) => next = self.step(next, byte)?,
                Err(_) if next == Next::AfterValue && self.open.is_empty() => return Ok(()),
                Err(end) => return Err(end),
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Result<u8, Wrong> {
        let byte = self.peek().ok_or(Wrong::End)?;
        self.at += 1;
        Ok(byte)
    }

    fn step(&mut self, next: Next, byte: u8) -> Result<Next, Wrong> {
        match (next, byte) {
            (Next::ValueOrEnd, b']') | (Next::KeyOrEnd, b'}') => self.close(),
            (Next::Value | Next::ValueOrEnd, _) => self.value(byte),
            (Next::Key | Next::KeyOrEnd, b'"') => self.string().map(|()| Next::Colon),
            (Next::Key | Next::KeyOrEnd, _) => Err(Wrong::Byte(byte, "looking for beginning of object key string")),
            (Next::Colon, b':') => Ok(Next::Value),
            (Next::Colon, _) => Err(Wrong::Byte(byte, "after object key")),
            (Next::AfterValue, _) => match (self.open.last(), byte) {
                (Some(b'{'), b',') => Ok(Next::Key),
                (Some(b'['), b',') => Ok(Next::Value),
                (Some(b'{'), b'}') | (Some(b'['), b']') => self.close(),
                (Some(b'{'), _) => Err(Wrong::Byte(byte, "after object key:value pair")),
                (Some(_), _) => Err(Wrong::Byte(byte, "after array element")),
                (None, _) => Err(Wrong::Byte(byte, "after top-level value")),
            },
        }
    }

    fn close(&mut self) -> Result<Next, Wrong> {
        self.open.pop();
        Ok(Next::AfterValue)
    }

    fn value(&mut self, byte: u8) -> Result<Next, Wrong> {
        let after = match byte {
            b'{' | b'[' if self.open.len() == MAX_DEPTH => return Err(Wrong::Byte(byte, "exceeded max depth")),
            b'{' | b'[' => {
                self.open.push(byte);
                return Ok(if byte == b'{' { Next::KeyOrEnd } else { Next::ValueOrEnd });
            }
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(byte),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => Err(Wrong::Byte(byte, "looking for beginning of value")),
        };
        after.map(|()| Next::AfterValue)
    }

    /// The rest of a string.
    fn string(&mut self) -> Result<(), Wrong> {
        loop {
            match self.take()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                byte @ ..0x20 => return Err(Wrong::Byte(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), Wrong> {
        match self.take()? {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => Ok(()),
            b'u' => (0..4).try_for_each(|_| match self.take()? {
                byte if byte.is_ascii_hexdigit() => Ok(()),
                byte => Err(Wrong::Byte(byte, "in \\u hexadecimal character escape")),
            }),
            byte => Err(Wrong::Byte(byte, "in string escape code")),
        }
    }

    /// The rest of a word.
    fn word(&mut self, word: &'static str) -> Result<(), Wrong> {
        word.bytes().skip(1).try_for_each(|expected| match self.take()? {
            byte if byte == expected => Ok(()),
            byte => Err(Wrong::Word(byte, word, expected)),
        })
    }

    /// The rest of a number.
    fn number(&mut self, first: u8) -> Result<(), Wrong> {
        let first = if first == b'-' { self.digit("in numeric literal")? } else { first };
        if first != b'0' {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, context: &'static str) -> Result<u8, Wrong> {
        let byte = self.take()?;
        if byte.is_ascii_digit() { Ok(byte) } else { Err(Wrong::Byte(byte, context)) }
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }
}

/// The byte as Go quotes it, as the character of that number.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        7 => r"'\a'".to_owned(),
        8 => r"'\b'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        11 => r"'\v'".to_owned(),
        12 => r"'\f'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        ..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!(r"'\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(syntax_error(text.as_bytes()).as_deref(), expected, "{text}");
    }

    #[test]
    fn json_is_right() {
        for text in [
            "{}",
            " [ ] ",
            r#"{"a": [1, -2.5e+3, 0, true, false, null, "\u00e4\n"], "b": {"c": {}}}"#,
            "\"x\"\n",
            "1E9",
            "[[], [1]]",
        ] {
            check(text, None);
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
        }
    }

    /// Cases of Go's `scanner_test.go` and `decode_test.go`.
    #[test]
    fn what_is_wrong() {
        for text in ["", "{", "[", "{\"a\"", "{\"a\":", "[1,", "\"x", "\"\\", "\"\\u00", "tru", "-", "1.", "1e", "{\"a\":1,"] {
            check(text, Some("unexpected end of JSON input"));
        }
        let check = |text: &str, expected: &str| check(text, Some(&format!("invalid character {expected}")));
        check("x", "'x' looking for beginning of value");
        check("[1,]", "']' looking for beginning of value");
        check("kind: Pod", "'k' looking for beginning of value");
        check("{a: 1}", "'a' looking for beginning of object key string");
        check("{\"a\":1,}", "'}' looking for beginning of object key string");
        check("{\"X\": \"foo\", \"Y\"}", "'}' after object key");
        check("[1, 2, 3+]", "'+' after array element");
        check("{\"X\":12x}", "'x' after object key:value pair");
        check("{} }", "'}' after top-level value");
        check("01", "'1' after top-level value");
        check("nul]", "']' in literal null (expecting 'l')");
        check("trUe", "'U' in literal true (expecting 'u')");
        check("-x", "'x' in numeric literal");
        check("1.x", "'x' after decimal point in numeric literal");
        check("1e+x", "'x' in exponent of numeric literal");
        check("\"\\x\"", "'x' in string escape code");
        check("\"\\u00g0\"", "'g' in \\u hexadecimal character escape");
        check("\"a\nb\"", "'\\n' in string literal");
        check("'a'", "'\\'' looking for beginning of value");
        check("\u{0}", "'\\x00' looking for beginning of value");
        check("ä", "'Ã' looking for beginning of value");
        check(&"[".repeat(10_001), "'[' exceeded max depth");
    }
}
