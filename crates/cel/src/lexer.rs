//! From text to tokens.

use crate::error::Issue;

/// Words that name nothing; a field of such a name is escaped.
pub(crate) const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "in",
];

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Name(String),
    Int(u64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// The longest ones first.
const SIGNS: [&str; 29] = [
    "&&", "||", "==", "!=", "<=", ">=", "[?", ".?", "{?", "+", "-", "*", "/", "%", "<", ">", "!", "?", ":", ",", ".", "(", ")",
    "[", "]", "{", "}", "=", ";",
];

/// The tokens of an expression and where they begin.
pub(crate) fn tokens(source: &str) -> Result<Vec<(usize, Token)>, Issue> {
    let mut lexer = Lexer { source, at: 0 };
    let mut out = Vec::new();
    loop {
        lexer.skip();
        let at = lexer.at;
        let token = lexer.next()?;
        let over = token == Token::End;
        out.push((at, token));
        if over {
            return Ok(out);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn wrong(&self, message: &str) -> Issue {
        Issue::new(self.at, format!("Syntax error: {message}"))
    }

    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn next(&mut self) -> Result<Token, Issue> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        if let Some(text) = self.string()? {
            return Ok(text);
        }
        if first.is_ascii_digit() || first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            self.at += end;
            return Ok(Token::Name(rest[..end].to_owned()));
        }
        if first == '`' {
            // A quoted field.
            let end = rest[1..].find('`').ok_or_else(|| self.wrong("unterminated quoted identifier"))?;
            self.at += end + 2;
            return Ok(Token::Name(rest[1..=end].to_owned()));
        }
        let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign)).ok_or_else(|| self.wrong("token recognition error"))?;
        self.at += sign.len();
        Ok(Token::Sign(sign))
    }

    fn number(&mut self) -> Result<Token, Issue> {
        let rest = self.rest();
        if let Some(digits) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
            let value = u64::from_str_radix(&digits[..end], 16).map_err(|_| self.wrong("invalid int literal"))?;
            self.at += 2 + end;
            return Ok(self.whole(value));
        }
        let mut end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let mut is_double = false;
        let digit = |at: usize| rest[at..].starts_with(|c: char| c.is_ascii_digit());
        if rest[end..].starts_with('.') && digit(end + 1) {
            is_double = true;
            end += 1 + rest[end + 1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - end - 1);
        }
        if rest[end..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
            if digit(end + 1 + sign) {
                is_double = true;
                let start = end + 1 + sign;
                end = start + rest[start..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - start);
            }
        }
        let text = &rest[..end];
        let token = match is_double {
            true => Token::Double(text.parse().map_err(|_| self.wrong("invalid double literal"))?),
            false => Token::Int(text.parse().map_err(|_| self.wrong("invalid int literal"))?),
        };
        self.at += end;
        match token {
            Token::Int(value) => Ok(self.whole(value)),
            other => Ok(other),
        }
    }

    fn whole(&mut self, value: u64) -> Token {
        if self.rest().starts_with(['u', 'U']) {
            self.at += 1;
            return Token::Uint(value);
        }
        Token::Int(value)
    }

    /// A text or bytes, if one begins here.
    fn string(&mut self) -> Result<Option<Token>, Issue> {
        let rest = self.rest();
        // Not further than a prefix is long: this is asked at each token.
        let prefix = rest.bytes().take(3).position(|byte| matches!(byte, b'"' | b'\'')).map(|at| rest[..at].to_ascii_lowercase());
        let Some(prefix) = prefix.filter(|prefix| ["", "r", "b", "br", "rb"].contains(&prefix.as_str())) else { return Ok(None) };
        let (raw, bytes) = (prefix.contains('r'), prefix.contains('b'));
        let body = &rest[prefix.len()..];
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| body.starts_with(quote)).unwrap_or("'");
        let inner = &body[quote.len()..];
        let mut out = Vec::new();
        let mut at = 0;
        loop {
            let left = &inner[at..];
            if left.starts_with(quote) {
                break;
            }
            let Some(c) = left.chars().next() else { return Err(self.wrong("unterminated string literal")) };
            match c {
                '\\' if !raw => {
                    let (value, used) = escape(&left[1..], bytes).ok_or_else(|| self.wrong("invalid escape sequence"))?;
                    out.extend(value);
                    at += 1 + used;
                }
                '\n' if quote.len() == 1 => return Err(self.wrong("unterminated string literal")),
                c => {
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    at += c.len_utf8();
                }
            }
        }
        self.at += prefix.len() + 2 * quote.len() + at;
        if bytes {
            return Ok(Some(Token::Bytes(out)));
        }
        String::from_utf8(out).map(|text| Some(Token::Text(text))).map_err(|_| self.wrong("invalid string literal"))
    }
}

/// What stands behind a backslash, and how many bytes it took.
fn escape(rest: &str, bytes: bool) -> Option<(Vec<u8>, usize)> {
    let first = rest.chars().next()?;
    let char = |c: char| c.encode_utf8(&mut [0; 4]).as_bytes().to_vec();
    let hex = |from: usize, digits: usize| u32::from_str_radix(rest.get(from..from + digits)?, 16).ok();
    let plain = match first {
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\u{b}'),
        '\\' | '\'' | '"' | '`' | '?' => Some(first),
        _ => None,
    };
    if let Some(plain) = plain {
        return Some((char(plain), 1));
    }
    let one = |value: u32| if bytes { u8::try_from(value).ok().map(|byte| vec![byte]) } else { char::from_u32(value).map(char) };
    match first {
        'x' | 'X' => Some((one(hex(1, 2)?)?, 3)),
        'u' if !bytes => Some((char(char::from_u32(hex(1, 4)?)?), 5)),
        'U' if !bytes => Some((char(char::from_u32(hex(1, 8)?)?), 9)),
        '0'..='3' => Some((one(u32::from_str_radix(rest.get(..3)?, 8).ok()?)?, 3)),
        _ => None,
    }
}
